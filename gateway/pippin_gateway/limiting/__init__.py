"""Limits of keys and models: what a request claims, where it is counted, and what is told."""
