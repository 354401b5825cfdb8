"""Plan, preprocess, train, validate and export with nnU-Net and the low-rank head. Needs nnU-Net 2.8."""
