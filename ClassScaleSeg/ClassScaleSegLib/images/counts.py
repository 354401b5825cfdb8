"""How much of each class there is: voxels and millilitres, counted in one pass whatever the number of classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..labels.label import MAX_VALUE

VOXELS_AT_ONCE = 1 << 20  # bincount converts to int64: 8 MiB at a time instead of four times the label map


class LabelVolume(NamedTuple):
    """One row: a label, its number of voxels, and its volume in millilitres."""

    value: int
    name: str
    voxels: int
    volume_ml: float


def voxel_counts(labels: np.ndarray) -> np.ndarray:
    """Number of voxels of each value 0..65535, ``(65536,)`` int64, of a uint16 array of any shape."""
    counts = np.zeros(MAX_VALUE + 1, np.int64)
    flat = labels.reshape(-1)
    for start in range(0, flat.size, VOXELS_AT_ONCE):
        part = np.bincount(flat[start : start + VOXELS_AT_ONCE])
        counts[: part.size] += part
    return counts
