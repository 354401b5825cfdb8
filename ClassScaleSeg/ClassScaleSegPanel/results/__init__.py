"""What was found: the table of structures, and the comparison of two segmentations."""
