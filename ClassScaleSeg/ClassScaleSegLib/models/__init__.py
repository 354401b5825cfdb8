"""Models: finding, checking and opening their files; splitting the network; bundles."""
