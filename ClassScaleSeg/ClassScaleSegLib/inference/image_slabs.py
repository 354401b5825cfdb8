"""Normalise and resize an image slab by slab, when its rows on the model grid are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .axis_resize import AxisResize, resize_slabs

if TYPE_CHECKING:
    import torch

    from .image_rows import ImageRows
    from .progress import Steps

SLAB_BYTES = 16 << 20  # of a slab of the image in float64
ROWS = 16  # rows of the model grid that are resized at a time


class Channel(Protocol):
    """One channel of an image, whose intensities are normalised slice by slice."""

    @property
    def voxels(self) -> np.ndarray:
        """``(X, Y, Z)`` as stored."""

    def slices(self, first: int, last: int) -> torch.Tensor:
        """Return the normalised slices from ``first`` to before ``last``, ``(n, Y, Z)`` float32."""

    def bounds(self) -> tuple[float, float] | None:
        """Return the least and the greatest normalised value, if resizing may overshoot them."""


@dataclass(frozen=True)
class SlabAxes:
    """How to resize the three axes of an image slab by slab.

    :ivar order: the axes (X, Y, Z) of the model in the order of the work: that of the slices first.
    :ivar resize: of each of them; ``None`` if its size stays.
    :ivar separate: each slice is resized on its own, as nnU-Net does with an anisotropic axis.
    """

    order: tuple[int, int, int]
    resize: tuple[AxisResize | None, AxisResize | None, AxisResize | None]
    separate: bool


def slices_in_slab(plane: Sequence[int]) -> int:
    """Return the number of slices of this shape that are worked on together."""
    return max(1, SLAB_BYTES // (8 * int(np.prod(plane))))


def rows_in_slabs(
    channels: Sequence[Channel],
    axes: SlabAxes,
    grid: Sequence[int],
    device: Callable[[], str],
    steps: Steps,
    check: Callable[[torch.Tensor], object],
) -> ImageRows:
    """Return the rows of a resized image, which are made when they are read.

    :param channels: with their axes in the order ``axes.order``.
    :param axes: how to resize.
    :param grid: voxels on the model grid, in the model's axis order.
    :param device: returns the torch device for the arithmetic, which is float64.
    :param steps: is told of the rows that the first windows need.
    :param check: called with each finished slab; it may raise.
    :returns: rows of the shape ``(channels, *grid)``; all are made here if the first axis of the work is another one.
    """
    import torch

    from .image_rows import ImageRows

    order = [0, *(axis + 1 for axis in axes.order)]
    slices = channels[0].voxels.shape[0]
    slab = slices_in_slab(channels[0].voxels.shape[1:])
    in_plane = any(axis is not None for axis in axes.resize[1:])

    def resized(channel: Channel, start: int, place: str) -> Iterator[torch.Tensor]:
        bounds = None if axes.separate or axes.resize == (None, None, None) else channel.bounds()

        def read(first: int, last: int) -> torch.Tensor:
            steps.monitor.check()
            return channel.slices(first, last).to(place, torch.float64)  # as skimage computes

        for rows in resize_slabs(read, axes.resize, slices, slab, axes.separate and in_plane, start):
            single = rows.to("cpu", torch.float32)
            yield single if bounds is None else single.clamp_(*bounds)

    def slabs(start: int) -> Iterator[torch.Tensor]:
        place = device()
        for rows in zip(*(resized(channel, start, place) for channel in channels), strict=True):
            stacked = torch.stack(rows)
            check(stacked)  # which also keeps the owner of the voxels alive
            yield stacked

    rows = ImageRows((len(channels), *(grid[axis] for axis in axes.order)), slabs, steps.follow)
    if axes.order[0] == 0:  # then the others are in their order too
        return rows
    return ImageRows.of(rows.whole().permute(list(np.argsort(order))))
