"""The bare training loop: torch and numpy alone."""
