"""What this machine has for computing, and what of it this process may use. Knows no engine."""
