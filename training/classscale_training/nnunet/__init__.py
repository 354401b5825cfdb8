"""nnU-Net's whole cycle with the low-rank head: plan, preprocess, train, validate, export."""
