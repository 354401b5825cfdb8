"""Dice from counts of voxels, by the two rules under which many-class results are published.

Counts have the shape ``(cases, 3, C)``: of each class the voxels common to reference and prediction, the predicted and
the reference ones. Results are ``NaN`` where a rule says nothing about a class; means leave these out.
"""

from __future__ import annotations

import numpy as np

_CHUNK = 1 << 20  # voxels; bincount makes a copy of eight bytes a voxel


def overlap_counts(reference: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``(3, classes)`` int64 of two label maps of one shape, in one pass whatever the number of classes."""
    reference, prediction = reference.ravel(), prediction.ravel()
    counts = np.zeros((3, classes), np.int64)
    for start in range(0, reference.size, _CHUNK):
        g, p = reference[start : start + _CHUNK], prediction[start : start + _CHUNK]
        for row, labels in zip(counts, (g[g == p], p, g), strict=True):
            row += np.bincount(labels, minlength=classes)
    return counts


def case_dice(counts: np.ndarray) -> np.ndarray:
    """Dice ``(cases, C)`` where the class is in the reference; 0 where it was missed altogether."""
    common, predicted, reference = np.moveaxis(counts, 1, 0)
    return _ratio(2 * common, predicted + reference, reference > 0)


def reference_dice(counts: np.ndarray) -> np.ndarray:
    """TotalSegmentator's rule, ``(C,)``: mean over the cases in whose reference the class is.

    False positives in the other cases cost nothing (evaluate_results.txt of the TotalSegmentator repository).
    """
    return mean_over_cases(case_dice(counts))


def pooled_dice(counts: np.ndarray) -> np.ndarray:
    """Dice ``(C,)`` of all cases taken as one volume: ``2 sum(I) / (sum(P) + sum(G))``. Every false positive counts."""
    common, predicted, reference = counts.sum(0)
    return _ratio(2 * common, predicted + reference, predicted + reference > 0)


def mean_over_cases(values: np.ndarray) -> np.ndarray:
    """Mean ``(C,)`` of ``(cases, C)`` over those that are not NaN."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(0), known.sum(0), known.any(0))


def foreground_mean(values: np.ndarray) -> float:
    """Mean of ``(C,)`` over the classes but the background, NaN ones left out."""
    return float(mean_over_cases(values[1:, None])[0])


def _ratio(numerator: np.ndarray, denominator: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=where)
