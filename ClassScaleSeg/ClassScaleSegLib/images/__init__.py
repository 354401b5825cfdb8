"""Images and label maps: reading, geometry, and every file that a result can become."""
