"""Compute Dice from counts of voxels, by the two rules under which many-class results are published.

Counts have the shape ``(cases, 3, C)``. Their three rows hold, for each class, the voxels common to reference and
prediction, the predicted voxels and the reference voxels. Results are ``NaN`` where a rule does not define a value for
a class; means omit these classes.

Two cases and two foreground classes, reference first:

>>> counts = np.stack([
...     overlap_counts(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), classes=3),
...     overlap_counts(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), classes=3),
... ])
>>> reference_dice(counts).round(3)[1:]  # class 1: mean of 2/3 and 1; class 2: 2/3, it is in one reference only
array([0.833, 0.667])
>>> pooled_dice(counts).round(3)[1:]  # class 1: 2 * 3 / (3 + 4); class 2: 2 * 1 / (3 + 1)
array([0.857, 0.5  ])
"""

from __future__ import annotations

import numpy as np

_CHUNK = 1 << 20  # voxels; bincount makes a copy with eight bytes per voxel


def overlap_counts(reference: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Return the counts ``(3, classes)`` int64 of two label maps, in one pass for any number of classes.

    >>> overlap_counts(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), classes=3)
    array([[1, 1, 1],
           [1, 1, 2],
           [1, 2, 1]])

    :param reference: unsigned integers of any shape.
    :param prediction: unsigned integers of the same shape.
    :param classes: number of classes C, including the background; labels are below it.
    """
    reference, prediction = reference.ravel(), prediction.ravel()
    counts = np.zeros((3, classes), np.int64)
    for start in range(0, reference.size, _CHUNK):
        g, p = reference[start : start + _CHUNK], prediction[start : start + _CHUNK]
        for row, labels in zip(counts, (g[g == p], p, g), strict=True):
            row += np.bincount(labels, minlength=classes)
    return counts


def case_dice(counts: np.ndarray) -> np.ndarray:
    """Return the Dice ``(cases, C)`` where the class is in the reference, elsewhere NaN.

    A class in the reference that the prediction lacks has Dice 0.

    :param counts: ``(cases, 3, C)``.
    """
    common, predicted, reference = np.moveaxis(counts, 1, 0)
    return _ratio(2 * common, predicted + reference, reference > 0)


def reference_dice(counts: np.ndarray) -> np.ndarray:
    """Return the Dice ``(C,)`` by TotalSegmentator's rule: the mean over the cases with the class in the reference.

    False positives in other cases do not lower it (evaluate_results.txt of the TotalSegmentator repository). The
    description of this module has an example.

    :param counts: ``(cases, 3, C)``.
    """
    return mean_over_cases(case_dice(counts))


def pooled_dice(counts: np.ndarray) -> np.ndarray:
    """Return the Dice ``(C,)`` of all cases as if they were one volume; every false positive counts.

    It is ``2 sum(I) / (sum(P) + sum(G))`` with the common (I), predicted (P) and reference (G) voxels. The description
    of this module has an example.

    :param counts: ``(cases, 3, C)``.
    """
    common, predicted, reference = counts.sum(0)
    return _ratio(2 * common, predicted + reference, predicted + reference > 0)


def mean_over_cases(values: np.ndarray) -> np.ndarray:
    """Return the mean ``(C,)`` over the cases of those values ``(cases, C)`` that are not NaN."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(0), known.sum(0), known.any(0))


def foreground_mean(values: np.ndarray) -> float:
    """Return the mean of the values ``(C,)`` over all classes except the background and those with NaN.

    >>> foreground_mean(np.array([0.99, 0.5, np.nan, 0.7])).__round__(3)
    0.6
    """
    return float(mean_over_cases(values[1:, None])[0])


def _ratio(numerator: np.ndarray, denominator: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=where)
