"""Images and label maps: reading, geometry, and writing in every supported format."""
