"""Synthetic volumes with 1 to 4000 classes, on CPU or GPU. A volume depends on seed and index alone."""
