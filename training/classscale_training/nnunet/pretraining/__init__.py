"""Pretraining without labels: a masked autoencoder learns the encoder that a training can start from.

The recipe is that of nnssl for convolutional networks (Wald et al., "Revisiting MAE pre-training for 3D medical image
segmentation", CVPR 2025): three quarters of the blocks of a patch are hidden, the network of the plans reconstructs the
image, and the loss is the mean squared error of the hidden voxels.
"""
