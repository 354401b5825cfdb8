"""The operators that sum over voxels, and the losses computed from these sums."""
