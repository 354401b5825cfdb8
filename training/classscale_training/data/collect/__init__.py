"""A raw dataset of images and their segmentations, corrected in Slicer or drawn anywhere else."""
