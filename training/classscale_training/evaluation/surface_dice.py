"""Surface Dice at a tolerance: which part of two surfaces lies within so many millimetres of the other one.

Definition: the surface of a class is the set of its voxels with a face neighbour of another class or outside the
image; distances are Euclidean, between voxel centres, in mm; the result is the number of surface voxels of both sides
that have a surface voxel of the other side within the tolerance, divided by the number of all of them (Nikolov et al.
2018). DeepMind's ``surface-distance`` weighs surface elements between voxels by their area instead; both agree on what
counts as a surface, and differ by the discretisation.

All surfaces of a label map are found in one pass, and distances through a search tree over surface voxels, so that a
stray voxel far away costs no more than any other (a distance transform pays for the volume between).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def surface_counts(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], tolerance: float, classes: int
) -> np.ndarray:
    """Counts ``(2, classes)`` int64: surface voxels within ``tolerance`` (mm) of the other surface, and all of them.

    :param spacing: mm, in the order of the axes of the label maps. Row 0 of a class divided by row 1 is its surface
        Dice.
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
    """Positions in mm ``(points, dimensions)`` of the chosen voxels of each class."""
    values = labels[chosen]
    positions = np.argwhere(chosen) * np.asarray(spacing, float)
    ends = np.bincount(values, minlength=classes).cumsum()
    return np.split(positions[np.argsort(values, kind="stable")], ends[:-1])


def _count_near(points: np.ndarray, other: np.ndarray, tolerance: float) -> int:
    from scipy.spatial import cKDTree

    if not len(points) or not len(other):
        return 0
    bound = tolerance * (1 + 1e-9) + 1e-9  # the search finds what is strictly nearer than its bound
    distance, _ = cKDTree(other).query(points, distance_upper_bound=bound)
    return int(np.isfinite(distance).sum())
