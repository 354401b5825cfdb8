"""Compute the surface Dice at a tolerance: the share of two surfaces that is within the tolerance of the other one.

The surface of a class is the set of its voxels that have a face neighbour of another class or outside the image.
Distances are Euclidean distances between voxel centres in mm. The surface Dice is the number of surface voxels of both
label maps that have a surface voxel of the other one within the tolerance, divided by the number of all surface voxels
(Nikolov et al. 2018). DeepMind's ``surface-distance`` instead weights surface elements between voxels by their area.
Both agree on what a surface is and differ in the discretisation.

All surfaces of a label map are found in one pass. Distances come from a search tree over surface voxels, so a stray
voxel far away costs no more than any other; the cost of a distance transform grows with the volume between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def surface_counts(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], tolerance: float, classes: int
) -> np.ndarray:
    """Count the surface voxels of both label maps: those within ``tolerance`` of the other surface, and all.

    A bar of four voxels of 1 mm whose prediction begins two voxels late. In two dimensions each voxel of so thin a bar
    is on its surface; at a tolerance of 1 mm, one of the six surface voxels is too far away:

    >>> reference, prediction = np.zeros((3, 6), np.uint8), np.zeros((3, 6), np.uint8)
    >>> reference[1, 1:5] = prediction[1, 3:5] = 1
    >>> near, total = surface_counts(reference, prediction, (1, 1), tolerance=1, classes=2)
    >>> int(near[1]), int(total[1])
    (5, 6)

    :param reference: unsigned integers.
    :param prediction: unsigned integers of the same shape.
    :param spacing: mm, in the order of the axes of the label maps.
    :param tolerance: mm.
    :param classes: number of classes, including the background; labels are below it.
    :returns: ``(2, classes)`` int64. Row 0 of a class divided by row 1 is its surface Dice.
    """
    maps = (reference, prediction)
    borders = [_border(labels) for labels in maps]
    shared = borders[0] & borders[1] & (reference == prediction)  # at distance 0: no search needed
    total = sum(np.bincount(labels[border], minlength=classes) for labels, border in zip(maps, borders, strict=True))
    near = 2 * np.bincount(reference[shared], minlength=classes)
    surfaces = [_by_class(labels, border, spacing, classes) for labels, border in zip(maps, borders, strict=True)]
    rest = [_by_class(labels, border & ~shared, spacing, classes) for labels, border in zip(maps, borders, strict=True)]
    for value in range(1, classes):
        for points, other in ((rest[0], surfaces[1]), (rest[1], surfaces[0])):
            near[value] += _count_near(points[value], other[value], tolerance)
    return np.stack([near, total])


def _border(labels: np.ndarray) -> np.ndarray:
    border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        if labels.shape[axis] == 1:  # a 2D image stored as one slice has no surface across it
            continue
        along, at = np.moveaxis(labels, axis, 0), np.moveaxis(border, axis, 0)
        change = along[1:] != along[:-1]
        at[1:] |= change
        at[:-1] |= change
        at[[0, -1]] = True
    return border & (labels > 0)


def _by_class(labels: np.ndarray, chosen: np.ndarray, spacing: Sequence[float], classes: int) -> list[np.ndarray]:
    """Return the positions ``(points, dimensions)`` in mm of the chosen voxels of each class."""
    values = labels[chosen]
    positions = np.argwhere(chosen) * np.asarray(spacing, float)
    ends = np.bincount(values, minlength=classes).cumsum()
    return np.split(positions[np.argsort(values, kind="stable")], ends[:-1])


def _count_near(points: np.ndarray, other: np.ndarray, tolerance: float) -> int:
    from scipy.spatial import cKDTree

    if not len(points) or not len(other):
        return 0
    bound = tolerance * (1 + 1e-9) + 1e-9  # the search finds only points strictly nearer than its bound
    distance, _ = cKDTree(other).query(points, distance_upper_bound=bound)
    return int(np.isfinite(distance).sum())
