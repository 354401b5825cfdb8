"""Start processes that train together, and let every process end with the one that started it."""
