"""Limits: what a request claims, pure meters that say whether it fits, and a store of meters."""
