"""A bare training loop that needs only torch and NumPy."""
