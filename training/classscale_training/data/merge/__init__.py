"""Make one raw dataset of several whose labels differ: what their labels mean, and the files."""
