"""Count the voxels of all classes of a label map in one pass, whatever the number of classes."""

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
        part = np.bincount(flat[start : start + VOXELS_AT_ONCE])
        counts[: part.size] += part
    return counts
