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


class Inputs(NamedTuple):
    """The arguments that all operators share.

    Their shapes are ``(B, R, N)``, ``(C, R)``, ``(C,)`` and ``(B, N)``, the labels are integers. If they are trusted,
    it is known that they are in range, and they are not checked.
    """

    basis: torch.Tensor
    projection: torch.Tensor
    bias: torch.Tensor
    labels: torch.Tensor
    ignore_index: int | None
    trusted: bool = False

    def checked(self) -> Inputs:
        """Return the inputs with one axis of voxels instead of the axes of an image.

        :raises ValueError: if the shapes do not fit each other, or labels are not integers.
        """
        basis, projection, bias, labels, *_ = self
        rank, classes = basis.shape[1], len(projection)
        if projection.shape != (classes, rank) or bias.shape != (classes,):
            raise ValueError(
                f"projection {tuple(projection.shape)} and bias {tuple(bias.shape)} do not fit a basis of {rank} "
                f"channels; expected ({classes}, {rank}) and ({classes},)."
            )
        if labels.shape != (len(basis), *basis.shape[2:]):
            raise ValueError(f"labels {tuple(labels.shape)} do not fit a basis of shape {tuple(basis.shape)}.")
        if labels.is_floating_point():
            raise ValueError(f"labels are {labels.dtype}; expected integers.")
        return self._replace(basis=basis.flatten(2), labels=labels.flatten(1))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to compute in: float64 for a float64 basis, float32 for any other."""
        return torch.float64 if self.basis.dtype == torch.float64 else torch.float32

    @property
    def weights(self) -> torch.Tensor:
        """Projection and bias ``(C, R + 1)``: times the basis and a row of ones, they give the logits."""
        return torch.cat([self.projection, self.bias[:, None]], 1).to(self.dtype)

    def zeros(self, *shape: int) -> torch.Tensor:
        """Return zeros for sums over millions of voxels: float64, or float32 on a device without it (MPS)."""
        dtype = torch.float32 if self.basis.device.type == "mps" else torch.float64
        return torch.zeros(shape, dtype=dtype, device=self.basis.device)


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


def blocks(x: Inputs, check: LabelCheck | None = None) -> Iterator[Block]:
    """Yield all blocks, sample by sample.

    :param check: checks the labels and raises after the last block; until then labels are clamped, so that they are
        safe as indices. None if they have been checked.
    """
    batch, rank, voxels = x.basis.shape
    step = min(_BLOCK_VOXELS.get(x.basis.device.type, _ACCELERATOR_VOXELS), max(1, voxels))
    buffer = x.basis.new_empty((rank + 2) * step, dtype=x.dtype)
    for b in range(batch):
        for start in range(0, voxels, step):
            where = slice(start, min(start + step, voxels))
            size = where.stop - start
            features = buffer[: (rank + 2) * size].view(rank + 2, size)
            features[:rank] = x.basis[b, :, where]
            features[rank] = 1
            label = x.labels[b, where].long()
            if x.ignore_index is None:
                weight = torch.ones_like(label, dtype=buffer.dtype)
            else:
                ignored = label == x.ignore_index
                weight = (~ignored).to(buffer.dtype)
                label = label.masked_fill(ignored, 0)
            if check:
                check.note(b, label)
                label = label.clamp(0, check.limits[b] - 1)
            yield Block(b, where, features, label, weight)
    if check:
        check.raise_if_outside()


class Tiles:
    """Divide the voxels of a block into tiles, and provide arrays for a tile in memory that all tiles share.

    :param weights: ``(C, R + 1)``, or ``(C, R + 2)`` if the last row of the features is used.
    :param arrays: number of arrays ``(C, n)`` that the caller needs for a tile of n voxels.
    """

    def __init__(self, x: Inputs, weights: torch.Tensor, arrays: int = 1) -> None:
        self.weights, classes, device = weights, len(weights), x.basis.device.type
        self.step = _ACCELERATOR_VOXELS
        if device in _TILE_ELEMENTS:
            self.step = max(1, _TILE_ELEMENTS[device] // (classes + x.basis.shape[1]))
        self.step = min(self.step, max(1, x.basis.shape[2]))
        self.buffer = weights.new_empty(arrays, classes * self.step)

    def __call__(self, features: torch.Tensor) -> Iterator[tuple[slice, list[torch.Tensor]]]:
        """Yield each tile of a block: its slice, and its arrays: the logits, and others that are not initialised."""
        classes, rows = self.weights.shape
        size = features.shape[1]
        for start in range(0, size, self.step):
            part = slice(start, min(start + self.step, size))
            shape = classes, part.stop - start
            arrays = [row[: shape[0] * shape[1]].view(shape) for row in self.buffer]
            torch.mm(self.weights, features[:rows, part], out=arrays[0])
            yield part, arrays


class LabelOutsideError(ValueError):
    """A label is not among those of the model, the dataset or the regions."""


class LabelCheck:
    """Check that labels are in range, with a single synchronisation of the GPU for all blocks.

    :param limits: number of labels of each sample.
    :param what: words that say in the message what the labels are, such as "classes of this model".
    """

    def __init__(self, limits: list[int], what: str) -> None:
        self.limits, self.what = limits, what
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def note(self, sample: int, label: torch.Tensor) -> None:
        """Record the smallest and largest of these labels of a sample."""
        self.seen.append((sample, *label.aminmax()))

    def raise_if_outside(self) -> None:
        """Raise LabelOutsideError if a recorded label is out of range, naming the first."""
        if not self.seen:
            return
        samples, lows, highs = zip(*self.seen, strict=True)
        found = torch.stack([*lows, *highs]).tolist()  # one copy from a GPU, for which the CPU waits
        for b, low, high in zip(samples, found[: len(lows)], found[len(lows) :], strict=True):
            self.raise_if_wrong(b, low, high)

    def raise_if_wrong(self, sample: int, low: int, high: int) -> None:
        """Raise LabelOutsideError if the smallest or largest label of a sample is out of range."""
        if low < 0 or high >= self.limits[sample]:
            wrong = low if low < 0 else high
            raise LabelOutsideError(f"label {wrong} is outside 0..{self.limits[sample] - 1}, the {self.what}.")
