"""Divide voxels into blocks and tiles for the operators that sum over voxels, and check their arguments.

Voxels are visited in blocks, and the logits of a block in tiles. Work per voxel (labels, logarithms, sums by label) is
done for a whole block; work per voxel and class is done for a tile. A tile has to stay in cache, which at C = 1000
leaves room for about 500 voxels: if work per voxel were also done by tile, its many small calls would cost too much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

_BLOCK_VOXELS = {"cpu": 1 << 14}
# Elements of a tile of logits and features. 2^19 floats are 2 MiB, of which the backward pass holds two: measured best
# on a CPU from C = 118 to 1000 (smaller tiles pay for more calls, larger ones leave the cache).
_TILE_ELEMENTS = {"cpu": 1 << 19}
# On an accelerator block and tile have this many voxels, so that launches stay few and the device full.
_ACCELERATOR_VOXELS = 1 << 17


def check_shapes(basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> None:
    """Check the shapes of the arguments that all operators share.

    :param basis: ``(B, R, ...)``.
    :param projection: ``(C, R)``.
    :param bias: ``(C,)``.
    :param labels: ``(B, ...)`` integers.
    :raises ValueError: if the shapes do not fit each other, or labels are not integers.
    """
    rank, classes = basis.shape[1], len(projection)
    if projection.shape != (classes, rank) or bias.shape != (classes,):
        raise ValueError(
            f"projection {tuple(projection.shape)} and bias {tuple(bias.shape)} do not fit a basis of {rank} channels; "
            f"expected ({classes}, {rank}) and ({classes},)."
        )
    if labels.shape != (len(basis), *basis.shape[2:]):
        raise ValueError(f"labels {tuple(labels.shape)} do not fit a basis of shape {tuple(basis.shape)}.")
    if labels.is_floating_point():
        raise ValueError(f"labels are {labels.dtype}; expected integers.")


def compute_dtype(basis: torch.Tensor) -> torch.dtype:
    """Return the dtype to compute in: float64 for a float64 basis, float32 for any other."""
    return torch.float64 if basis.dtype == torch.float64 else torch.float32


def accumulator_dtype(basis: torch.Tensor) -> torch.dtype:
    """Return the dtype of sums over millions of voxels: float64, or float32 on a device without it (MPS)."""
    return torch.float32 if basis.device.type == "mps" else torch.float64


class Block(NamedTuple):
    """The n voxels of one sample that are processed together.

    :ivar sample: index of the sample.
    :ivar voxels: slice of the flat voxel axis.
    :ivar features: ``(R + 2, n)`` in the dtype of computation: the basis, a row of ones, and a row the caller may fill.
        The next block overwrites this buffer.
    :ivar label: ``(n,)`` int64, 0 where ignored.
    :ivar weight: ``(n,)``, 1 where valid, 0 where ignored.
    """

    sample: int
    voxels: slice
    features: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor


def blocks(basis: torch.Tensor, labels: torch.Tensor, ignore_index: int | None) -> Iterator[Block]:
    """Yield all blocks, sample by sample.

    :param basis: ``(B, R, N)``.
    :param labels: ``(B, N)``.
    :param ignore_index: label of the voxels to ignore; None if there are none.
    """
    batch, rank, voxels = basis.shape
    step = min(_BLOCK_VOXELS.get(basis.device.type, _ACCELERATOR_VOXELS), max(1, voxels))
    buffer = basis.new_empty((rank + 2) * step, dtype=compute_dtype(basis))
    for b in range(batch):
        for start in range(0, voxels, step):
            where = slice(start, min(start + step, voxels))
            size = where.stop - start
            features = buffer[: (rank + 2) * size].view(rank + 2, size)
            features[:rank] = basis[b, :, where]
            features[rank] = 1
            label = labels[b, where].long()
            if ignore_index is None:
                weight = torch.ones_like(label, dtype=buffer.dtype)
            else:
                ignored = label == ignore_index
                weight = (~ignored).to(buffer.dtype)
                label = label.masked_fill(ignored, 0)
            yield Block(b, where, features, label, weight)


class Tiles:
    """Divide the voxels of a block into tiles, and provide arrays for a tile in memory that all tiles share.

    :param basis: ``(B, R, N)``.
    :param classes: rows of each array.
    :param arrays: number of arrays that the caller needs for a tile.
    """

    def __init__(self, basis: torch.Tensor, classes: int, arrays: int = 1) -> None:
        self.classes, self.arrays = classes, arrays
        self.step = _ACCELERATOR_VOXELS
        if basis.device.type in _TILE_ELEMENTS:
            self.step = max(1, _TILE_ELEMENTS[basis.device.type] // (classes + basis.shape[1]))
        self.step = min(self.step, max(1, basis.shape[2]))
        self.buffer = basis.new_empty(arrays, classes * self.step, dtype=compute_dtype(basis))

    def __call__(self, size: int) -> Iterator[tuple[slice, list[torch.Tensor]]]:
        """Yield each tile of ``size`` voxels: its slice, and its arrays ``(C, n)``, which are not initialised."""
        for start in range(0, size, self.step):
            part = slice(start, min(start + self.step, size))
            shape = self.classes, part.stop - start
            yield part, [row[: shape[0] * shape[1]].view(shape) for row in self.buffer]


class LabelOutsideError(ValueError):
    """A label is not among those of the model, the dataset or the regions."""


class LabelCheck:
    """Check that labels are in range, with a single synchronisation of the GPU for all blocks.

    :meth:`note` and :meth:`clamped` only record the smallest and largest label of a block. :meth:`raise_if_outside`
    reads the records.

    :param limits: number of labels of each sample.
    :param what: words that say in the message what the labels are, such as "classes of this model".
    """

    def __init__(self, limits: list[int], what: str) -> None:
        self.limits, self.what = limits, what
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def note(self, sample: int, label: torch.Tensor) -> None:
        """Record the smallest and largest of these labels of a sample."""
        self.seen.append((sample, *label.aminmax()))

    def clamped(self, block: Block) -> torch.Tensor:
        """Record the labels of a block, and return them clamped to the range, so that they are safe as indices."""
        self.note(block.sample, block.label)
        return block.label.clamp(0, self.limits[block.sample] - 1)

    def raise_if_outside(self) -> None:
        """Check the recorded labels.

        :raises LabelOutsideError: naming the first label that is out of range.
        """
        if not self.seen:
            return
        samples, lows, highs = zip(*self.seen, strict=True)
        for b, low, high in zip(samples, torch.stack(lows).tolist(), torch.stack(highs).tolist(), strict=True):
            if low < 0 or high >= self.limits[b]:
                wrong = low if low < 0 else high
                raise LabelOutsideError(f"label {wrong} is outside 0..{self.limits[b] - 1}, the {self.what}.")
