"""Rows of the averaged basis on the model grid -> rows of the label map on the output grid. Exact.

Interpolation has convex weights. So where the eight corners of an output voxel share their class, the voxel has it
too, and its label is copied. In a boundary voxel only the classes that win at a corner are evaluated. No other class
exceeds, at any corner, the second largest logit there; so if the best corner class reaches the *interpolated second
largest logit*, it has won. Only the few voxels where it does not (three classes meeting) see all classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..projection import Projection
from .interpolation import AxisSampling


class RowDecoder:
    """Takes model-grid rows in order, gives label rows of the output grid as soon as both their neighbours are there.

    :param projection: on the device and in the dtype that the rows have.
    :param axes: sampling of the three axes, first axis first.
    """

    def __init__(self, projection: Projection, axes: tuple[AxisSampling, AxisSampling, AxisSampling]):
        self.projection = projection
        device, dtype = projection.weight.device, projection.weight.dtype
        self.rows = axes[0]
        self._y = [torch.as_tensor(a, device=device) for a in (axes[1].lower, axes[1].upper)]
        self._z = [torch.as_tensor(a, device=device) for a in (axes[2].lower, axes[2].upper)]
        self._weights = [torch.as_tensor(a.weight, device=device, dtype=dtype) for a in axes]
        table = range(projection.classes) if projection.values is None else projection.values
        self._values = torch.tensor([0, *table] if projection.regions else list(table), device=device)
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._next_input = self._next_output = 0

    def push(self, basis: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Add the next row ``(R, Y, Z)``; yields ``(output row, labels (Y', Z') int64 label values)``."""
        winner, second = self.projection.best(basis.flatten(1))
        shape = basis.shape[1:]
        self._kept[self._next_input] = (basis, winner.view(shape), second.view(shape) if len(second) else second)
        self._next_input += 1
        while self._next_output < len(self.rows) and self.rows.upper[self._next_output] < self._next_input:
            row = self._next_output
            yield row, self._values[self._decode(row)]
            self._next_output += 1
        needed = self.rows.lower[self._next_output] if self._next_output < len(self.rows) else self._next_input
        for index in [i for i in self._kept if i < needed]:
            del self._kept[index]

    def _decode(self, row: int) -> torch.Tensor:
        lower, upper = self._kept[int(self.rows.lower[row])], self._kept[int(self.rows.upper[row])]
        y0, z0 = self._y[0], self._z[0]
        below, above = lower[1], upper[1]
        same = below == above
        for a, b in ((0, 1), (1, 0), (1, 1)):  # corner agreement of each cell, on the coarse grid
            same = same & (_ahead(below, a, b) == below) & (_ahead(above, a, b) == below)
        labels = below[y0[:, None], z0]
        boundary = (~same)[y0[:, None], z0].nonzero()
        if not len(boundary):
            return labels
        for part in boundary.split(max(1, self.projection.tile_elements // 32)):
            labels[part[:, 0], part[:, 1]] = self._boundary(row, lower, upper, part)
        return labels

    def _boundary(self, row: int, lower: tuple, upper: tuple, voxels: torch.Tensor) -> torch.Tensor:
        y, z = voxels.T
        corners = [(yy[y], zz[z]) for yy in self._y for zz in self._z]
        wy, wz = self._weights[1][y], self._weights[2][z]
        weights = [a * b for a in (1 - wy, wy) for b in (1 - wz, wz)]
        w = self._weights[0][row]

        def sample(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
            mixed = torch.lerp(low, high, w)
            return sum(mixed[..., yy, zz] * k for (yy, zz), k in zip(corners, weights, strict=True))

        basis = sample(lower[0], upper[0])
        if self.projection.regions:
            return self.projection.best(basis)[0]
        candidates = torch.stack([layer[yy, zz] for layer in (lower[1], upper[1]) for yy, zz in corners])
        best = torch.full_like(basis[0], -torch.inf)
        label = torch.full_like(candidates[0], self.projection.classes)
        for candidate in candidates:
            logit = (self.projection.weight[candidate].T * basis).sum(0) + self.projection.bias[candidate]
            better = (logit > best) | ((logit == best) & (candidate < label))
            best, label = torch.where(better, logit, best), torch.where(better, candidate, label)
        # rounding of either side is far below this share of the logits' size
        margin = 1e-5 * (best.abs() + 1)
        open_ = (best < sample(lower[2], upper[2]) + margin).nonzero()[:, 0]
        if len(open_):
            label[open_] = self.projection.best(basis[:, open_])[0]
        return label


def _ahead(layer: torch.Tensor, y: int, z: int) -> torch.Tensor:
    """``layer`` shifted so that index i reads i + 1, the last index repeating itself."""
    if y:
        layer = torch.cat([layer[1:], layer[-1:]])
    if z:
        layer = torch.cat([layer[:, 1:], layer[:, -1:]], 1)
    return layer
