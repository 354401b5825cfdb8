"""Train a model further on the cases that were saved for training."""
