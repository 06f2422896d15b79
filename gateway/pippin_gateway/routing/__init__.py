"""Decisions about one request: pure, given the catalog, the load and `now`."""
