"""Count the voxels of all classes in one pass, whatever their number, and compute Dice from counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..labels.label import MAX_VALUE

VOXELS_AT_ONCE = 1 << 20  # bincount converts to int64: this takes 8 MiB at a time instead of four times the label map


class LabelVolume(NamedTuple):
    """Size of one class in a segmentation.

    :ivar value: label value.
    :ivar name: name of the label.
    :ivar voxels: number of voxels.
    :ivar volume_ml: volume in millilitres.
    """

    value: int
    name: str
    voxels: int
    volume_ml: float


def voxel_counts(labels: np.ndarray) -> np.ndarray:
    """Count the voxels of each label value.

    :param labels: uint16 array of any shape.
    :returns: ``(65536,)`` int64, the number of voxels of each value.

    >>> voxel_counts(np.array([[0, 3], [3, 3]], np.uint16))[:5].tolist()
    [1, 0, 0, 3, 0]
    """
    counts = np.zeros(MAX_VALUE + 1, np.int64)
    flat = labels.reshape(-1)
    for start in range(0, flat.size, VOXELS_AT_ONCE):
        counts += np.bincount(flat[start : start + VOXELS_AT_ONCE], minlength=len(counts))
    return counts


def overlap_counts(reference: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Count the voxels common to two label maps, those of the prediction, and those of the reference.

    :param reference: unsigned integers of any shape.
    :param prediction: unsigned integers of the same shape.
    :param classes: number of classes C, including the background; labels are below it.
    :returns: ``(3, C)`` int64.

    >>> overlap_counts(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), classes=3)
    array([[1, 1, 1],
           [1, 1, 2],
           [1, 2, 1]])
    """
    reference, prediction = reference.reshape(-1), prediction.reshape(-1)
    counts = np.zeros((3, classes), np.int64)
    for start in range(0, reference.size, VOXELS_AT_ONCE):
        g, p = (labels[start : start + VOXELS_AT_ONCE] for labels in (reference, prediction))
        for row, labels in zip(counts, (g[g == p], p, g), strict=True):
            row += np.bincount(labels, minlength=classes)
    return counts


def dice(counts: np.ndarray) -> np.ndarray:
    """Return the Dice ``(..., C)`` of counts ``(..., 3, C)`` as of :func:`overlap_counts`; NaN for a class in neither.

    >>> dice(np.array([[1, 1, 0], [1, 2, 0], [1, 1, 0]])).round(3)
    array([1.   , 0.667,   nan])
    """
    common, predicted, reference = np.moveaxis(counts, -2, 0)
    return ratio(2 * common, predicted + reference)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient of two arrays of one shape; NaN where the denominator is 0.

    >>> ratio(np.array([3, 0]), np.array([4, 0]))
    array([0.75,  nan])
    """
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
