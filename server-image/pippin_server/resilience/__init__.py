"""What keeps trouble small, and what is said of it."""
