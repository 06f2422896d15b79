"""Fixtures of the tests that keep two places saying the same."""

from support.chart import chart

__all__ = ["chart"]
