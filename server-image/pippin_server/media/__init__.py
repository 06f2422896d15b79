"""What files of sound and pictures say of themselves in their first bytes. Pure."""
