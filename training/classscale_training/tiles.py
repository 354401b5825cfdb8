"""The walk over tiles of voxels that the statistics operators share, and the checks of what they are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

# Elements of a tile, logits and features. 2^19 floats are 2 MiB, of which the backward pass holds two: measured best on
# a CPU from C = 118 to 1000 (smaller tiles pay for more calls, larger ones leave the cache).
_TILE_ELEMENTS = {"cpu": 1 << 19}
# On an accelerator a tile has this many voxels, so that launches stay few and the device full.
_TILE_VOXELS_ACCELERATOR = 1 << 17


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


class Tile(NamedTuple):
    sample: int
    voxels: slice
    features: torch.Tensor  # (R + 2, T): basis, ones, and a row the caller may fill
    label: torch.Tensor  # (T,) int64; 0 where ignored
    weight: torch.Tensor  # (T,) 1 where valid, 0 where ignored


def tiles(basis: torch.Tensor, labels: torch.Tensor, classes: int, ignore_index: int | None) -> Iterator[Tile]:
    """Walk over (B, R, N) in tiles of voxels; each tile's features are copied (and upcast) into one reused buffer."""
    batch, rank, voxels = basis.shape
    step = _TILE_VOXELS_ACCELERATOR
    if basis.device.type in _TILE_ELEMENTS:
        step = max(1, _TILE_ELEMENTS[basis.device.type] // (classes + rank))
    step = min(step, max(1, voxels))
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
            yield Tile(b, where, features, label, weight)


def compute_dtype(basis: torch.Tensor) -> torch.dtype:
    """float64 stays; everything else is computed in float32."""
    return torch.float64 if basis.dtype == torch.float64 else torch.float32


def accumulator_dtype(basis: torch.Tensor) -> torch.dtype:
    """Sums over millions of voxels are kept in float64, except on a device without it."""
    return torch.float32 if basis.device.type == "mps" else torch.float64


class LabelCheck:
    """Notes the extremes of each tile's labels and clamps them; looks only once, so a GPU synchronises only once."""

    def __init__(self, limits: list[int], what: str) -> None:
        self.limits, self.what, self.seen = limits, what, []

    def note(self, sample: int, label: torch.Tensor) -> None:
        self.seen.append((sample, *label.aminmax()))

    def clamped(self, tile: Tile) -> torch.Tensor:
        self.note(tile.sample, tile.label)
        return tile.label.clamp(0, self.limits[tile.sample] - 1)

    def raise_if_outside(self) -> None:
        if not self.seen:
            return
        samples, lows, highs = zip(*self.seen, strict=True)
        for b, low, high in zip(samples, torch.stack(lows).tolist(), torch.stack(highs).tolist(), strict=True):
            if low < 0 or high >= self.limits[b]:
                wrong = low if low < 0 else high
                raise ValueError(f"label {wrong} is outside 0..{self.limits[b] - 1}, the {self.what}.")
