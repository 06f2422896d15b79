"""Where weights come from: one module a scheme, one fetcher, one cache for all of them."""
