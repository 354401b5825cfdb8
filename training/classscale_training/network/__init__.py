"""The low-rank head that replaces the last layer of a network, and a U-Net that needs torch alone."""
