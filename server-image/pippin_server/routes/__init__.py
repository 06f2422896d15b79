"""One module a path; each parses, asks, and answers. No engine names here."""
