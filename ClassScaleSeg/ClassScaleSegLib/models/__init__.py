"""Models: find, check and open their files, build and split the network, make and read bundles."""
