"""Smooth the borders of all classes of a label map together, so that no gap and no overlap appears between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..labels.label import MAX_VALUE

_BLOCK = 32  # voxels of a block's side, to which twice the reach of the kernel is added
_LARGEST_BLOCK = 128
_TIE = np.float32(1e-5)  # of the weight; well above the rounding of float32


def smooth(
    labels: np.ndarray,
    sigmas: tuple[float, float, float],
    chosen: np.ndarray | None = None,
    step: Callable[[int, int], object] = lambda done, total: None,
) -> np.ndarray:
    """Give each voxel the class that has most of the weight around it, where the weight is a Gaussian.

    This compares the blurred indicators of all classes, and so keeps neighbours adjacent. The background is a class
    like others. Outside of the image nothing has weight. If two classes have the same weight, within 0.001 %, a voxel
    keeps its class.

    The label map is done in blocks, and in each of them only the classes that occur in its reach, each in its box. So
    time depends on how many classes are near each other, not on how many there are; and besides the result only the
    arrays of one block are held.

    :param labels: uint16 ``(z, y, x)``; it is not changed.
    :param sigmas: standard deviation along z, y, x in voxels. The kernel ends 3 of them from its centre, rounded to
        whole voxels.
    :param chosen: bool ``(65536,)``, which label values may change: other classes keep exactly their voxels, and do not
        vote. The background is always chosen. ``None``: all values.
    :param step: called with the blocks done and the number of blocks; an exception that it raises ends the work.
    :returns: uint16 ``(z, y, x)``.

    >>> line = np.array([1, 1, 2, 1, 1, 1, 0, 0, 0], np.uint16).reshape(1, 1, 9)
    >>> smooth(line, (1.0, 1.0, 1.0)).ravel().tolist()
    [1, 1, 1, 1, 1, 1, 0, 0, 0]
    """
    result = labels.copy()
    axes = [(size, _Kernel.of(size, sigma)) for size, sigma in zip(labels.shape, sigmas, strict=True)]
    kernels = [kernel for _, kernel in axes]
    votes = np.ones(MAX_VALUE + 1, bool) if chosen is None else chosen.copy()
    votes[0] = True
    numbers = np.zeros(MAX_VALUE + 1, np.int32)  # from 1 for the classes of a block that vote, else 0
    blocks = list(itertools.product(*(kernel.blocks(size) for size, kernel in axes)))
    for done, block in enumerate(blocks):
        step(done, len(blocks))
        window = tuple(kernel.reach(part, size) for part, (size, kernel) in zip(block, axes, strict=True))
        counts = np.bincount(labels[window].reshape(-1), minlength=len(votes))
        candidates = np.flatnonzero(votes & (counts > 0)).astype(np.uint16)
        if len(candidates) < 2:
            continue
        numbers[candidates] = np.arange(1, len(candidates) + 1)
        inside = tuple(
            slice(part.start - outer.start, part.stop - outer.start) for part, outer in zip(block, window, strict=True)
        )
        winners = _winners(numbers[labels[window]], inside, kernels)
        numbers[candidates] = 0
        np.copyto(result[block], candidates[winners - 1], where=winners > 0)
    step(len(blocks), len(blocks))
    return result


class _Kernel(NamedTuple):
    """A Gaussian along one axis.

    :ivar matrix: float32 ``(n, n)`` for a window of n voxels: the weight at each place (row) of each voxel (column).
    :ivar radius: how far it reaches, in voxels.
    :ivar side: of the blocks, in voxels.
    """

    matrix: np.ndarray
    radius: int
    side: int

    @classmethod
    def of(cls, size: int, sigma: float) -> _Kernel:
        """Return the kernel for an axis of ``size`` voxels."""
        radius = int(3 * sigma + 0.5)  # as scipy.ndimage.gaussian_filter
        side = min(_BLOCK + 2 * radius, _LARGEST_BLOCK)
        places = np.arange(min(size, side + 2 * radius))
        with np.errstate(over="ignore"):
            weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        distance = places[:, None] - places
        near = weights[np.clip(distance, -radius, radius) + radius] * (np.abs(distance) <= radius)
        return cls((near / weights.sum()).astype(np.float32), radius, side)

    def blocks(self, size: int) -> Iterator[slice]:
        """Yield the blocks of an axis of ``size`` voxels."""
        return (slice(start, min(start + self.side, size)) for start in range(0, size, self.side))

    def reach(self, part: slice, size: int) -> slice:
        """Return the voxels that have weight in a block."""
        return slice(max(part.start - self.radius, 0), min(part.stop + self.radius, size))


def _winners(numbers: np.ndarray, block: tuple[slice, ...], kernels: list[_Kernel]) -> np.ndarray:
    """Return the number of the class that wins each voxel of a block; 0 for voxels of classes that do not vote.

    :param numbers: int32, the number of each voxel's class in the window around the block, or 0.
    :param block: its place in the window.
    """
    from scipy.ndimage import find_objects

    before = numbers[block]
    most, winners = np.zeros(before.shape, np.float32), before.copy()
    for number, box in enumerate(find_objects(numbers), start=1):
        weight, places = (numbers[box] == number).astype(np.float32), []
        for axis, (kernel, inside, extent) in enumerate(zip(kernels, block, box, strict=True)):
            first = max(inside.start, extent.start - kernel.radius)
            end = min(inside.stop, extent.stop + kernel.radius)
            weight = _along(axis, kernel.matrix[first:end, extent], weight)
            places.append(slice(first - inside.start, end - inside.start))
        reached = tuple(places)
        weight += _TIE * (before[reached] == number)
        wins = weight > most[reached]
        np.copyto(most[reached], weight, where=wins)
        np.copyto(winners[reached], number, where=wins)
    winners[before == 0] = 0
    return winners


def _along(axis: int, matrix: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Multiply an array ``(z, y, x)`` by a matrix along one of its axes."""
    if axis == 0:
        return (matrix @ array.reshape(len(array), -1)).reshape(-1, *array.shape[1:])
    return matrix @ array if axis == 1 else array @ matrix.T
