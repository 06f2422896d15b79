"""From what is wanted and what is seen to the status that users read. Pure; knows no rendering."""
