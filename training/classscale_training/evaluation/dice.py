"""Compute Dice from counts of voxels, by the two rules under which many-class results are published.

Counts have the shape ``(cases, 3, C)``; :func:`~ClassScaleSegLib.images.counts.overlap_counts` gives those of one case.
Results are ``NaN`` where a rule does not define a value for a class; means omit these classes.

Two cases and two foreground classes, reference first:

>>> from ClassScaleSegLib.images.counts import overlap_counts
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

from collections.abc import Sequence

import numpy as np
from ClassScaleSegLib.images.counts import dice


def case_dice(counts: np.ndarray) -> np.ndarray:
    """Return the Dice ``(cases, C)`` where the class is in the reference, elsewhere NaN.

    A class in the reference that the prediction lacks has Dice 0.

    :param counts: ``(cases, 3, C)``.
    """
    return np.where(counts[:, 2] > 0, dice(counts), np.nan)


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
    return dice(counts.sum(0))


def mean_over_cases(values: np.ndarray) -> np.ndarray:
    """Return the mean ``(C,)`` over the cases of those values ``(cases, C)`` that are not NaN."""
    return np.array([mean_of_known(column) for column in values.T])


def foreground_mean(values: np.ndarray) -> float:
    """Return the mean of the values ``(C,)`` over all classes except the background and those with NaN.

    >>> foreground_mean(np.array([0.99, 0.5, np.nan, 0.7])).__round__(3)
    0.6
    """
    return mean_of_known(values[1:])


def mean_of_known(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean of those values that are not NaN, or NaN if there is none.

    >>> mean_of_known([1, float("nan"), 0]), mean_of_known([])
    (0.5, nan)
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")
