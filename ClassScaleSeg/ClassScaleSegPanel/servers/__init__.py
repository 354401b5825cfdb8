"""Servers that segment: the list of them, what they answer, and the consent before an image is sent."""
