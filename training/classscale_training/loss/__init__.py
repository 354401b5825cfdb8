"""The statistics operator, and the losses made of it."""
