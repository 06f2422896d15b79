"""Request limits: a pure sliding window, and the stores that keep windows."""
