"""The walk over voxels that the statistics operators share, and the checks of what they are given.

Voxels are visited in blocks, and the logits of a block in tiles. What is done once a voxel (labels, logarithms, sums
by label) is done a block at a time, what is done once a voxel and class, a tile at a time: a tile has to stay in cache,
and at C = 1000 that leaves it some 500 voxels, too few for many calls.
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
    """:raises ValueError: unless basis (B, R, ...), projection (C, R), bias (C,) and integer labels (B, ...) fit."""
    rank, classes = basis.shape[1], len(projection)
    if projection.shape != (classes, rank) or bias.shape != (classes,):
        raise ValueError(
            f"projection {tuple(projection.shape)} and bias {tuple(bias.shape)} do not fit a basis of {rank} channels."
        )
    if labels.shape != (len(basis), *basis.shape[2:]):
        raise ValueError(f"labels {tuple(labels.shape)} do not fit a basis of shape {tuple(basis.shape)}.")
    if labels.is_floating_point():
        raise ValueError(f"labels are {labels.dtype}, expected integers.")


def compute_dtype(basis: torch.Tensor) -> torch.dtype:
    """float64 stays; everything else is computed in float32."""
    return torch.float64 if basis.dtype == torch.float64 else torch.float32


def accumulator_dtype(basis: torch.Tensor) -> torch.dtype:
    """Sums over millions of voxels are kept in float64, except on a device without it."""
    return torch.float32 if basis.device.type == "mps" else torch.float64


class Block(NamedTuple):
    """Up to some thousand voxels of one sample. Features lie in a buffer that the next block overwrites."""

    sample: int
    voxels: slice
    features: torch.Tensor  # (R + 2, n): basis in the dtype of computation, ones, and a row the caller may fill
    label: torch.Tensor  # (n,) int64; 0 where ignored
    weight: torch.Tensor  # (n,) 1 where valid, 0 where ignored


def blocks(basis: torch.Tensor, labels: torch.Tensor, ignore_index: int | None) -> Iterator[Block]:
    """All blocks of a basis (B, R, N) with labels (B, N)."""
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
    """Tiles of a block: which of its voxels, and arrays (C, n) for them in memory that every tile uses again."""

    def __init__(self, basis: torch.Tensor, classes: int, arrays: int = 1) -> None:
        self.classes, self.arrays = classes, arrays
        self.step = _ACCELERATOR_VOXELS
        if basis.device.type in _TILE_ELEMENTS:
            self.step = max(1, _TILE_ELEMENTS[basis.device.type] // (classes + basis.shape[1]))
        self.step = min(self.step, max(1, basis.shape[2]))
        self.buffer = basis.new_empty(arrays, classes * self.step, dtype=compute_dtype(basis))

    def __call__(self, size: int) -> Iterator[tuple[slice, list[torch.Tensor]]]:
        """Slices of ``size`` voxels, each with its arrays (C, n), not initialised."""
        for start in range(0, size, self.step):
            part = slice(start, min(start + self.step, size))
            shape = self.classes, part.stop - start
            yield part, [row[: shape[0] * shape[1]].view(shape) for row in self.buffer]


class LabelCheck:
    """Notes the extremes of each block's labels and clamps them; looks only once, so a GPU synchronises only once."""

    def __init__(self, limits: list[int], what: str) -> None:
        self.limits, self.what, self.seen = limits, what, []

    def note(self, sample: int, label: torch.Tensor) -> None:
        self.seen.append((sample, *label.aminmax()))

    def clamped(self, block: Block) -> torch.Tensor:
        self.note(block.sample, block.label)
        return block.label.clamp(0, self.limits[block.sample] - 1)

    def raise_if_outside(self) -> None:
        if not self.seen:
            return
        samples, lows, highs = zip(*self.seen, strict=True)
        for b, low, high in zip(samples, torch.stack(lows).tolist(), torch.stack(highs).tolist(), strict=True):
            if low < 0 or high >= self.limits[b]:
                wrong = low if low < 0 else high
                raise ValueError(f"label {wrong} is outside 0..{self.limits[b] - 1}, the {self.what}.")
