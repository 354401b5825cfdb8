"""The place, about 10 mm across, where a map has most: where two segmentations differ, or where a model was unsure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from .counts import VOXELS_AT_ONCE

_PLACE = 10.0  # mm, size of the place
Box = tuple[slice, ...]


def dense_place(
    weights: Callable[[Box], np.ndarray], shape: tuple[int, ...], spacing: tuple[float, ...]
) -> tuple[int, int, int] | None:
    """Return a voxel with a weight, in the middle of the place where the sum of the weights is largest.

    Not the largest connected part: that is often the thin shell around an organ, whose middle says nothing.

    Beside the weights of a few slices, this takes one number for each 5 mm cube.

    :param weights: returns bools or finite numbers, 0 or more, for a box of slices along z, y, x; of fewer slices, the
        whole of the other axes is meant.
    :param shape: voxels along z, y, x.
    :param spacing: mm along z, y, x.
    :returns: index z, y, x; ``None`` if no voxel has a weight.

    >>> found = np.zeros((1, 1, 60))
    >>> found[0, 0, [3, 30, 31, 32]] = 1
    >>> dense_place(lambda box: found[box], found.shape, (1.0, 1.0, 1.0))
    (0, 0, 31)
    """
    # blocks of half the size: a place is two of them along each axis
    steps = [max(1, round(_PLACE / 2 / each)) for each in spacing]
    blocks = tuple(math.ceil(size / step) for size, step in zip(shape, steps, strict=True))
    sums = np.zeros(math.prod(blocks))
    for part in slabs(shape):
        there = weights((part,))
        if not there.any():  # most slabs have none of a small structure
            continue
        z, y, x = np.nonzero(there)
        places = np.ravel_multi_index(((z + part.start) // steps[0], y // steps[1], x // steps[2]), blocks)
        sums += np.bincount(places, there[z, y, x], minlength=len(sums))
    if not sums.any():
        return None
    padded = np.pad(sums.reshape(blocks), ((0, 1),) * 3)
    around = np.zeros(blocks)
    for begins in itertools.product((0, 1), repeat=3):
        around += padded[tuple(slice(begin, begin + size) for begin, size in zip(begins, blocks, strict=True))]
    densest = np.unravel_index(np.argmax(around), blocks)
    starts = [int(block) * step for block, step in zip(densest, steps, strict=True)]
    there = weights(tuple(slice(start, start + 2 * step) for start, step in zip(starts, steps, strict=True)))
    voxels = np.argwhere(there)
    middle = np.average(voxels, axis=0, weights=there[tuple(voxels.T)])
    nearest = voxels[np.square((voxels - middle) * spacing).sum(1).argmin()]
    first, second, third = (nearest + starts).tolist()
    return first, second, third


def slabs(shape: tuple[int, ...]) -> list[slice]:
    """Return slices along z, of which each has about as many voxels as may be looked at together."""
    thickness = max(1, VOXELS_AT_ONCE // max(1, math.prod(shape[1:])))
    return [slice(start, min(start + thickness, shape[0])) for start in range(0, shape[0], thickness)]
