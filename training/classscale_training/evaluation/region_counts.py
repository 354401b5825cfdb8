"""Count the voxels of regions, which may overlap, in label maps of disjoint labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def region_counts(reference: np.ndarray, prediction: np.ndarray, regions: Sequence[int | Sequence[int]]) -> np.ndarray:
    """Count the voxels common to both label maps, those of the prediction, and those of the reference, in each region.

    >>> region_counts(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 3]), [(1, 2), 2, 3]).tolist()
    [[2, 0, 0], [2, 1, 1], [3, 1, 0]]

    :param reference: integers of at least 0; any shape.
    :param prediction: the same.
    :param regions: the label values of each region, or one value.
    :returns: ``(3, regions)`` int64, as :func:`~ClassScaleSegLib.images.counts.overlap_counts` of labels.
    """
    groups = [np.unique(region).astype(np.int64) for region in regions]
    other = 1 + max(int(group[-1]) for group in groups)  # stands for the values that are in no region
    first, second = (np.minimum(labels.ravel().astype(np.int64), other) for labels in (reference, prediction))
    pairs = np.bincount(first * (other + 1) + second, minlength=(other + 1) ** 2).reshape(other + 1, other + 1)
    counts = [(pairs[np.ix_(group, group)].sum(), pairs[:, group].sum(), pairs[group].sum()) for group in groups]
    return np.array(counts, np.int64).T


def members(labels: np.ndarray, region: int | Sequence[int]) -> np.ndarray:
    """Return where labels belong to a region, bool."""
    return np.isin(labels, np.atleast_1d(region))
