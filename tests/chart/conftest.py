"""Fixtures of the chart's tests."""

from support.chart import chart

__all__ = ["chart"]
