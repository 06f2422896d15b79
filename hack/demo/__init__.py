"""`make demo`: from an empty machine to a real model's answer, told as it goes."""
