"""Fixtures that more than one layer of tests uses."""

pytest_plugins = ["support.apiserver"]
