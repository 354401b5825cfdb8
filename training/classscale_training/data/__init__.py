"""Cases to train on: raw datasets, conversions, generators."""
