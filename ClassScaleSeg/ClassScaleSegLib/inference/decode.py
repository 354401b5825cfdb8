"""Decode rows of the averaged basis on the model grid into rows of the label map on the output grid, exactly.

The weights of linear interpolation are convex. So where the same class wins at all eight corners of an output voxel, it
wins at the voxel too, and its label is copied. At every other voxel, called a boundary voxel, a model with many classes
evaluates only those that win at a corner. At each corner no other class exceeds the second largest logit. So if the
best corner class reaches the *interpolated second largest logit*, it wins at the voxel. All classes are evaluated only
at the few voxels where it does not, which lie where three classes meet. Where float32 cannot tell the best two classes
apart, on the model grid or between its voxels, float64 decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..models.projection import Decision, Projection
from .float64 import ExactDecision
from .interpolation import AxisSampling
from .memory_plan import Tiles

# Evaluating all logits of a boundary voxel is faster than searching for its candidates with 118 classes, as fast with
# 300, and slower with 1000 (measured with Testing/Benchmarks/export_time.py at several values of this number).
_FEW_CLASSES = 256
# Logits held at a time. On a CPU, 2^20 (4 MiB) was fastest with 118 and with 1000 classes.
_TILE_ELEMENTS, _TILE_ELEMENTS_ACCELERATOR = 1 << 20, 1 << 25
# Two logits that differ by less than this are compared in float64. The unit is the largest sum of absolute terms that a
# logit of the row can have. A float32 operation rounds by 2^-24 of it, and the errors of some thirty operations mostly
# cancel.
_DOUBT = 2.0**-20


@dataclass(frozen=True)
class LabelRow:
    """One finished row of the output grid.

    :ivar index: position along the first axis.
    :ivar labels: ``(Y', Z')`` int32 label values.
    :ivar confidence: ``(Y', Z')`` probability of each decision, 0 to 1, or ``None`` if not wanted.
    """

    index: int
    labels: torch.Tensor
    confidence: torch.Tensor | None


class _Row(NamedTuple):
    """A row of the model grid; the channels of a voxel are adjacent in memory, which makes gathers 3 times faster."""

    basis: torch.Tensor  # (Y * Z, R)
    winner: torch.Tensor  # (Y, Z) decision
    second: torch.Tensor  # (Y * Z,) second largest logit
    doubt: torch.Tensor  # () a lead below this may be a rounding error


class RowDecoder:
    """Turn rows of the model grid into rows of the output grid, each as soon as the rows that it needs have arrived.

    If a call raises (memory ran out, for example), the decoder is as it was before, so the call can be repeated.

    :param projection: of C classes and R channels, on the device and in the dtype of the rows.
    :param axes: sampling of the three axes, in the model's axis order.
    :param wanted: label values to keep; all others become 0 in the result, but still compete. ``None`` keeps all.
    :param confidence: also compute the probability of each decision. This needs all logits of every output voxel, which
        undoes what the shortcut at the corners saves.

    >>> double = AxisSampling.linear(2, 4)  # from 2 voxels of the model grid to 4 of the output grid
    >>> decoder = RowDecoder(Projection(torch.eye(2), torch.zeros(2)), (double, double, double))
    >>> basis = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])  # at z = 0 class 0 wins, then 1
    >>> decoder.push(basis), decoder.pop()  # the first output row needs a second row of the model grid
    (None, None)
    >>> decoder.push(basis)
    >>> row = decoder.pop()
    >>> row.index, row.labels[0].tolist()
    (0, [0, 0, 1, 1])
    """

    def __init__(
        self,
        projection: Projection,
        axes: tuple[AxisSampling, AxisSampling, AxisSampling],
        wanted: frozenset[int] | None = None,
        confidence: bool = False,
    ):
        self.projection, self.rows, self.confidence = projection, axes[0], confidence
        self.device = device = projection.weight.device
        self._y, self._z = ([torch.as_tensor(i, device=device) for i in (a.lower, a.upper)] for a in axes[1:])
        self._weights = [torch.as_tensor(a.weight, dtype=projection.weight.dtype).to(device) for a in axes]
        self._exact = ExactDecision(projection, axes)
        self._largest_weight, self._largest_bias = (float(t.abs().amax()) for t in (projection.weight, projection.bias))
        self._values = projection.decision_values()
        if wanted is not None:
            kept = torch.tensor([int(v) in wanted for v in self._values], device=device)
            self._values = torch.where(kept, self._values, 0)
        elements = _TILE_ELEMENTS if device.type == "cpu" else _TILE_ELEMENTS_ACCELERATOR
        self._all_classes = Tiles(elements // projection.classes)
        self._candidates = Tiles(elements // 4 // projection.rank)  # several arrays (n, R) live at once
        self._kept: dict[int, _Row] = {}
        self._next_input = self._next_output = 0

    def to(self, device: torch.device | str) -> RowDecoder:
        """Move to another device, in place, if its type differs; returns this decoder."""
        if torch.device(device).type != self.device.type:
            self.projection = self.projection.to(device)
            self._y, self._z, self._weights = ([t.to(device) for t in ts] for ts in (self._y, self._z, self._weights))
            self._values = self._values.to(device)
            self._kept = {i: _Row(*(t.to(device) for t in row)) for i, row in self._kept.items()}
            self.device = torch.device(device)
        return self

    def push(self, basis: torch.Tensor) -> None:
        """Add the next row of the model grid.

        :param basis: ``(R, Y, Z)`` on any device.
        """
        voxels_first = basis.to(self.device).permute(1, 2, 0).reshape(-1, len(basis)).contiguous()
        size = self._largest_weight * torch.linalg.vector_norm(voxels_first, 1, dim=1).amax() + self._largest_bias
        winner, second, lead = self._decide(voxels_first)
        if len(close := (lead < _DOUBT * size).nonzero()[:, 0]):
            winner[close] = self._exact.at_voxels(voxels_first.index_select(0, close)).to(self.device)
        self._kept[self._next_input] = _Row(voxels_first, winner.view(basis.shape[1:]), second, _DOUBT * size)
        self._next_input += 1

    def pop(self) -> LabelRow | None:
        """Return the next row of the output grid; ``None`` if it needs a row not pushed yet, or after the last one."""
        if self._next_output == len(self.rows) or self.rows.upper[self._next_output] >= self._next_input:
            return None
        row = self._decode(self._next_output)
        self._next_output += 1
        needed = self.rows.lower[self._next_output] if self._next_output < len(self.rows) else self._next_input
        for index in [i for i in self._kept if i < needed]:
            del self._kept[index]
        return row

    def _decide(self, basis: torch.Tensor) -> Decision:
        """Decide among all classes, for a basis ``(n, R)``."""
        row = torch.empty(len(basis), dtype=torch.long, device=basis.device)
        found = Decision(row, basis.new_empty(len(basis)), basis.new_empty(len(basis)))

        def work(tile: slice) -> None:
            for whole, part in zip(found, self.projection.decide(basis[tile]), strict=True):
                whole[tile] = part

        self._all_classes.run(len(basis), work)
        return found

    def _decode(self, row: int) -> LabelRow:
        lower, upper = (self._kept[int(index[row])] for index in (self.rows.lower, self.rows.upper))
        first = (self._y[0][:, None], self._z[0])  # the first corner of each output voxel
        same = lower.winner == upper.winner
        for a, b in ((0, 1), (1, 0), (1, 1)):  # whether the corners of each cell of the model grid agree
            same &= (_ahead(lower.winner, a, b) == lower.winner) & (_ahead(upper.winner, a, b) == lower.winner)
        decision = lower.winner[first]
        boundary = (~same)[first].nonzero()
        confidence = None
        if len(boundary) or self.confidence:
            cell = _Cells(row, lower, upper, self._weights[0][row], self._y, self._z, self._weights[1:])

            def work(tile: slice) -> None:
                y, z = boundary[tile].T
                decision[y, z] = self._decide_between_corners(cell, y, z)

            self._candidates.run(len(boundary), work)
            if self.confidence:
                confidence = self._confidence(cell, decision)
        return LabelRow(row, self._values[decision], confidence)

    def _decide_between_corners(self, cell: _Cells, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Decide the boundary voxels ``(y, z)``, ``(n,)`` each."""
        sample = cell.at(y, z)
        basis = sample(cell.basis)
        if self.projection.regions or self.projection.classes <= _FEW_CLASSES:
            return self._decide_among_all(cell, y, z, basis)
        candidates = sample.corners()
        decision = candidates[0].clone()
        best = self._logit(basis, decision)
        rival = sample(cell.second)  # bounds every other class, once the losing corner classes are included below
        for k in range(1, len(candidates)):
            # voxels whose k-th corner brings a new class; there are few, as mostly two classes meet at a voxel
            fresh = (candidates[:k] != candidates[k]).all(0).nonzero()[:, 0]
            if len(fresh):
                candidate = candidates[k, fresh]
                logit, so_far = self._logit(basis.index_select(0, fresh), candidate), best[fresh]
                best[fresh] = torch.maximum(logit, so_far)
                rival[fresh] = torch.maximum(rival[fresh], torch.minimum(logit, so_far))
                decision[fresh] = torch.where(logit > so_far, candidate, decision[fresh])
        undecided = (best < rival + cell.doubt).nonzero()[:, 0]
        if len(undecided):
            chosen = (y[undecided], z[undecided], basis.index_select(0, undecided))
            decision[undecided] = self._decide_among_all(cell, *chosen)
        return decision

    def _decide_among_all(self, cell: _Cells, y: torch.Tensor, z: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
        decision, _, lead = self._decide(basis)
        if len(close := (lead < cell.doubt).nonzero()[:, 0]):
            corners = [plane.index_select(0, i) for plane in cell.planes for i in cell.at(y[close], z[close]).corner]
            decision[close] = self._exact.between(corners, cell.row, y[close], z[close]).to(decision.device)
        return decision

    def _logit(self, basis: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        weight, bias = self.projection.weight.index_select(0, row), self.projection.bias.index_select(0, row)
        return (weight * basis).sum(1) + bias

    def _confidence(self, cell: _Cells, decision: torch.Tensor) -> torch.Tensor:
        flat, result = decision.flatten(), self.projection.weight.new_empty(decision.numel())
        width = decision.shape[1]

        def work(tile: slice) -> None:
            voxel = torch.arange(tile.start, tile.stop, device=flat.device)
            basis = cell.at(voxel // width, voxel % width)(cell.basis)
            result[tile] = self.projection.confidence(basis, flat[tile])

        self._all_classes.run(len(flat), work)
        return result.view(decision.shape)


class _Cells:
    """The two rows of the model grid around an output row, and their interpolation along the first axis."""

    def __init__(self, row: int, lower: _Row, upper: _Row, weight: torch.Tensor, y: list, z: list, weights: list):
        self.row, self.planes = row, (lower.basis, upper.basis)
        self.doubt = torch.maximum(lower.doubt, upper.doubt)
        self.basis = torch.lerp(lower.basis, upper.basis, weight)
        self.second = torch.lerp(lower.second, upper.second, weight)
        self.winners = [lower.winner.flatten()] if upper is lower else [r.winner.flatten() for r in (lower, upper)]
        self._width, self._y, self._z, self._weights = lower.winner.shape[1], y, z, weights

    def at(self, y: torch.Tensor, z: torch.Tensor) -> _Sample:
        index = [yy[y] * self._width + zz[z] for yy in self._y for zz in self._z]
        return _Sample(self, index, self._weights[0][y], self._weights[1][z])


class _Sample(NamedTuple):
    """Output voxels, each with its four corners in the interpolated row and its weights along the other two axes."""

    cell: _Cells
    corner: list[torch.Tensor]
    weight_y: torch.Tensor
    weight_z: torch.Tensor

    def __call__(self, plane: torch.Tensor) -> torch.Tensor:
        """Interpolate a plane ``(Y * Z,)`` or ``(Y * Z, R)`` at the voxels."""
        a, b, c, d = (plane.index_select(0, i) for i in self.corner)
        wy, wz = (w if plane.ndim == 1 else w[:, None] for w in (self.weight_y, self.weight_z))
        return torch.lerp(a, b, wz).lerp_(torch.lerp(c, d, wz), wy)

    def corners(self) -> torch.Tensor:
        """Return the decisions at the corners, ``(8 or 4, n)``."""
        return torch.stack([winner.index_select(0, i) for winner in self.cell.winners for i in self.corner])


def _ahead(layer: torch.Tensor, y: int, z: int) -> torch.Tensor:
    """Return ``layer`` shifted so that index i holds what was at i + 1; the last index keeps its value."""
    if y:
        layer = torch.cat([layer[1:], layer[-1:]])
    if z:
        layer = torch.cat([layer[:, 1:], layer[:, -1:]], 1)
    return layer
