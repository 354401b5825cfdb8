"""Resize an array axis by axis, as skimage's ``resize`` does with splines, and slab by slab along the first axis.

nnU-Net resamples images with ``skimage.transform.resize(order=3, mode="edge", anti_aliasing=False)``, which holds
several float64 copies of the whole image. A spline and its prefilter are linear and separable: along each axis they are
a matrix, whose entries fall off quickly beside its diagonal. Scipy itself gives the matrix, and the products with it
need only the slabs of the image that overlap the rows to be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .interpolation import AxisSampling

if TYPE_CHECKING:
    import torch

# What is smaller than this is left out of a matrix, whose rows sum up to 1. The entries of a cubic spline fall by a
# factor of 0.27 per voxel, so this leaves about 21 voxels on each side.
_NEGLIGIBLE = 1e-12
_BLOCK = 64  # rows of a matrix that are multiplied at a time with the columns that any of them needs


@dataclass(frozen=True)
class AxisResize:
    """The matrix that resizes one axis, as blocks of rows with the columns that they need.

    :ivar size: length of the axis before.
    :ivar blocks: the first row, the first column, and a matrix ``(rows, columns)`` float64, of each block.
    """

    size: int
    blocks: tuple[tuple[int, int, torch.Tensor], ...]

    @classmethod
    def spline(cls, size: int, new_size: int, order: int, rows: int | None = None) -> AxisResize | None:
        """Resize ``size`` voxels to ``new_size`` as skimage does with this order; ``None`` if the size stays.

        Scipy's ``map_coordinates``, which nnU-Net uses across the slices of an anisotropic image, gives the same.

        :param order: of the spline, 0 to 5.
        :param rows: the largest number of rows in a block.
        """
        import torch
        from scipy.ndimage import zoom

        if size == new_size:
            return None
        matrix = zoom(np.eye(size), (new_size / size, 1), order=order, mode="nearest", grid_mode=True)
        matrix[np.abs(matrix) < _NEGLIGIBLE] = 0  # the smallest are subnormal numbers, with which products are slow
        blocks, step = [], rows or _BLOCK
        for first in range(0, new_size, step):
            part = matrix[first : first + step]
            columns = np.flatnonzero(part.any(0))
            low, high = int(columns[0]), int(columns[-1]) + 1
            blocks.append((first, low, torch.from_numpy(np.ascontiguousarray(part[:, low:high]))))
        return cls(size, tuple(blocks))

    @classmethod
    def sampled(cls, size: int, sampling: AxisSampling, rows: int | None = None) -> AxisResize:
        """Resize ``size`` voxels as a sampling says: each row of the matrix has two entries at most.

        :param sampling: of an axis of this length; its places never decrease.
        :param rows: the largest number of rows in a block.

        >>> resize = AxisResize.sampled(3, AxisSampling.linear(3, 6))
        >>> resize.last(resize.blocks[0][2].new_tensor([0.0, 4.0, 8.0])).tolist()
        [0.0, 1.0, 3.0, 5.0, 7.0, 8.0]
        """
        import torch

        blocks, step = [], rows or _BLOCK
        for first in range(0, len(sampling), step):
            lower, upper, weight = (
                values[first : first + step] for values in (sampling.lower, sampling.upper, sampling.weight)
            )
            low, lines = int(lower[0]), np.arange(len(lower))
            matrix = np.zeros((len(lower), int(upper.max()) + 1 - low))
            np.add.at(matrix, (lines, lower - low), 1 - weight)  # added: both are one voxel at the end of the axis
            np.add.at(matrix, (lines, upper - low), weight)
            blocks.append((first, low, torch.from_numpy(matrix)))
        return cls(size, tuple(blocks))

    def __len__(self) -> int:
        first, _low, matrix = self.blocks[-1]
        return first + len(matrix)

    def last(self, array: torch.Tensor) -> torch.Tensor:
        """Resize the last axis of an array ``(..., size)``."""
        flat = array.reshape(-1, self.size)
        result = flat.new_empty(len(flat), len(self))
        for first, low, matrix in self.blocks:
            part = flat[:, low : low + matrix.shape[1]]
            result[:, first : first + len(matrix)] = part @ matrix.to(flat.device).T
        return result.view(*array.shape[:-1], len(self))

    def second(self, array: torch.Tensor) -> torch.Tensor:
        """Resize the second axis of an array ``(n, size, m)``."""
        result = array.new_empty(len(array), len(self), array.shape[2])
        for first, low, matrix in self.blocks:
            part = array[:, low : low + matrix.shape[1]]
            result[:, first : first + len(matrix)] = matrix.to(array.device) @ part
        return result


def resize_slabs(
    read: Callable[[int, int], torch.Tensor],
    axes: tuple[AxisResize | None, AxisResize | None, AxisResize | None],
    length: int,
    slab: int,
    clip_slices: bool = False,
    start: int = 0,
) -> Iterator[torch.Tensor]:
    """Yield the rows of a resized array ``(length, Y, Z)``, several at a time.

    :param read: returns the slices from the first to before the second index, ``(n, Y, Z)`` float64, each read once.
    :param axes: how to resize the three axes.
    :param length: number of slices.
    :param slab: number of slices to read at a time.
    :param clip_slices: clip each slice to its own values after it was resized along the other two axes.
    :param start: the first row that is needed.
    """
    import torch

    def within(first: int, last: int) -> torch.Tensor:
        slices = read(first, last)
        bounds = (slices.amin((1, 2), keepdim=True), slices.amax((1, 2), keepdim=True)) if clip_slices else None
        resized = slices
        if axes[2] is not None:
            resized = axes[2].last(resized)
        if axes[1] is not None:
            resized = axes[1].second(resized)
        return resized if bounds is None else torch.clamp(resized, *bounds)

    if axes[0] is None:
        for first in range(start, length, slab):
            yield within(first, min(first + slab, length))
        return
    kept: list[tuple[int, torch.Tensor]] = []  # resized slices, with the index of the first
    end = 0
    for first, low, matrix in axes[0].blocks:
        if first + len(matrix) <= start:
            continue
        high = low + matrix.shape[1]
        end = max(end, low)  # slices before are needed by no row
        while end < high:
            upto = min(end + slab, length)
            kept.append((end, within(end, upto)))
            end = upto
        kept = [(begin, slices) for begin, slices in kept if begin + len(slices) > low]
        yield _product(matrix, low, kept)[max(start - first, 0) :]


def _product(matrix: torch.Tensor, low: int, kept: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """Multiply a matrix, whose first column is for slice ``low``, with the slices that it needs."""
    rows = kept[0][1].new_zeros(len(matrix), kept[0][1][0].numel())
    for begin, slices in kept:
        first, last = max(begin, low), min(begin + len(slices), low + matrix.shape[1])
        columns = matrix[:, first - low : last - low].to(slices.device)
        rows.addmm_(columns, slices[first - begin : last - begin].flatten(1))
    return rows.view(len(matrix), *slices.shape[1:])
