"""Doors: they note what was seen, name the object that may care, and leave."""
