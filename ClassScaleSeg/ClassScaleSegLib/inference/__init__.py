"""Segmentation of an image: preprocessing, sliding windows, the rolling basis, and decoding row by row."""
