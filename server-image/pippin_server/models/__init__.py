"""Models: how they get here, and whether they are whole."""
