"""What may be served to whom, and where it runs, as immutable data."""
