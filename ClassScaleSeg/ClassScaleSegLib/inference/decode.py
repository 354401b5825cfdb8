"""Rows of the averaged basis on the model grid -> rows of the label map on the output grid. Exact.

Interpolation has convex weights. So where the eight corners of an output voxel share their class, the voxel has it
too, and its label is copied. In a boundary voxel, if there are many classes, only those that win at a corner are
evaluated. No other class exceeds, at any corner, the second largest logit there; so if the best corner class reaches
the *interpolated second largest logit*, it has won. Only the few voxels where it does not (three classes meeting) see
all classes. And where float32 cannot tell the best two apart, on the model grid or between, float64 decides.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..models.projection import Decision, Projection
from .exact import ExactDecision
from .interpolation import AxisSampling
from .memory import Tiles

# With 118 classes all logits of a boundary voxel came faster than the search for its candidates, with 300 as fast, with
# 1000 slower (the field of Testing/Benchmarks/export_time.py, this number changed).
_FEW_CLASSES = 256
# Logits nearer than this, in units of the largest sum of terms that a logit of the row can be, are told apart in
# float64. Rounding of float32 is 2^-24 of it an operation, and errors of some thirty operations mostly cancel.
_DOUBT = 2.0**-20


class LabelRow(NamedTuple):
    """One finished row of the output grid."""

    index: int
    labels: torch.Tensor  # (Y', Z') int32 label values
    confidence: torch.Tensor | None  # (Y', Z'), probability of the decision


class _Row(NamedTuple):
    """A row of the model grid, voxels first, so that the channels of a voxel lie together (gathers are 3x faster)."""

    basis: torch.Tensor  # (Y * Z, R)
    winner: torch.Tensor  # (Y, Z) decision
    second: torch.Tensor  # (Y * Z,) second largest logit
    doubt: torch.Tensor  # () a lead below this is rounding


class RowDecoder:
    """Takes rows of the model grid in order, gives rows of the output grid as soon as both their neighbours are there.

    An exception (memory ran out) leaves it as it was before the call, so the call can be made again.

    :param projection: on the device and in the dtype that the rows have.
    :param axes: sampling of the three axes, first axis first.
    :param wanted: label values to keep; all others become 0. ``None`` keeps all. Which class wins is not changed by it.
    :param confidence: also give the probability of each decision. It needs all logits of every output voxel, so it
        costs what the corners save.
    :param tile_elements: logits held at a time; 2^20 (4 MiB) measured best on a CPU for 118 and 1000 classes.
    """

    def __init__(
        self,
        projection: Projection,
        axes: tuple[AxisSampling, AxisSampling, AxisSampling],
        wanted: frozenset[int] | None = None,
        confidence: bool = False,
        tile_elements: int = 1 << 20,
    ):
        self.projection, self.rows, self.confidence = projection, axes[0], confidence
        device, dtype = projection.weight.device, projection.weight.dtype
        self.device = device
        self._y = [torch.as_tensor(a, device=device) for a in (axes[1].lower, axes[1].upper)]
        self._z = [torch.as_tensor(a, device=device) for a in (axes[2].lower, axes[2].upper)]
        self._weights = [torch.as_tensor(a.weight, dtype=dtype).to(device) for a in axes]
        self._exact = ExactDecision(projection, axes)
        self._largest_weight, self._largest_bias = projection.weight.abs().amax(), projection.bias.abs().amax()
        self._values = projection.decision_values()
        if wanted is not None:
            kept = torch.tensor([int(v) in wanted for v in self._values], device=device)
            self._values = torch.where(kept, self._values, 0)
        self._all_classes = Tiles(tile_elements // projection.classes)
        self._candidates = Tiles(tile_elements // 4 // projection.rank)  # several arrays (n, R) live at once
        self._kept: dict[int, _Row] = {}
        self._next_input = self._next_output = 0

    def to(self, device: torch.device | str) -> RowDecoder:
        """Go on elsewhere."""
        if torch.device(device).type != self.device.type:
            self.projection = self.projection.to(device)
            self._y, self._z, self._weights = ([t.to(device) for t in ts] for ts in (self._y, self._z, self._weights))
            self._values = self._values.to(device)
            self._largest_weight, self._largest_bias = self._largest_weight.to(device), self._largest_bias.to(device)
            self._kept = {i: _Row(*(t.to(device) for t in row)) for i, row in self._kept.items()}
            self.device = torch.device(device)
        return self

    def push(self, basis: torch.Tensor) -> None:
        """Add the next row of the model grid, ``(R, Y, Z)``."""
        voxels_first = basis.to(self.device).flatten(1).T.contiguous()
        size = self._largest_weight * torch.linalg.vector_norm(voxels_first, 1, dim=1).amax() + self._largest_bias
        winner, second, lead = self._decide(voxels_first)
        if len(close := (lead < _DOUBT * size).nonzero()[:, 0]):
            winner[close] = self._exact.at_voxels(voxels_first.index_select(0, close)).to(self.device)
        self._kept[self._next_input] = _Row(voxels_first, winner.view(basis.shape[1:]), second, _DOUBT * size)
        self._next_input += 1

    def pop(self) -> LabelRow | None:
        """The next row of the output grid, or ``None`` if it needs rows that were not pushed yet (or all are out)."""
        if self._next_output == len(self.rows) or self.rows.upper[self._next_output] >= self._next_input:
            return None
        row = self._decode(self._next_output)
        self._next_output += 1
        needed = self.rows.lower[self._next_output] if self._next_output < len(self.rows) else self._next_input
        for index in [i for i in self._kept if i < needed]:
            del self._kept[index]
        return row

    def _decide(self, basis: torch.Tensor) -> Decision:
        """Among all classes, ``(n, R)``."""
        row = torch.empty(len(basis), dtype=torch.long, device=basis.device)
        found = Decision(row, basis.new_empty(len(basis)), basis.new_empty(len(basis)))

        def work(tile: slice) -> None:
            for whole, part in zip(found, self.projection.decide(basis[tile]), strict=True):
                whole[tile] = part

        self._all_classes.run(len(basis), work)
        return found

    def _decode(self, row: int) -> LabelRow:
        lower, upper = self._kept[int(self.rows.lower[row])], self._kept[int(self.rows.upper[row])]
        y0, z0 = self._y[0], self._z[0]
        same = lower.winner == upper.winner
        for a, b in ((0, 1), (1, 0), (1, 1)):  # corner agreement of each cell, on the coarse grid
            same &= (_ahead(lower.winner, a, b) == lower.winner) & (_ahead(upper.winner, a, b) == lower.winner)
        decision = lower.winner[y0[:, None], z0]
        boundary = (~same)[y0[:, None], z0].nonzero()
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
        """Decision at the output voxels ``(y, z)``, ``(n,)`` each."""
        sample = cell.at(y, z)
        basis = sample(cell.basis)
        if self.projection.regions or self.projection.classes <= _FEW_CLASSES:
            return self._decide_among_all(cell, y, z, basis)
        candidates = sample.corners()
        decision = candidates[0].clone()
        best = self._logit(basis, decision)
        rival = sample(cell.second)  # no class reaches more than this or than the corner classes that did not win
        for k in range(1, len(candidates)):
            fresh = (candidates[:k] != candidates[k]).all(0).nonzero()[:, 0]  # mostly two classes meet at a voxel
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
            corners = [plane.index_select(0, i) for plane in cell.planes for i in cell.at(y[close], z[close]).index]
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
    """The two model-grid rows that an output row lies between, mixed along the first axis."""

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
    """Output voxels, each with its four corners in the mixed row and its weights along both axes."""

    cell: _Cells
    index: list[torch.Tensor]
    weight_y: torch.Tensor
    weight_z: torch.Tensor

    def __call__(self, plane: torch.Tensor) -> torch.Tensor:
        """Linear interpolation of ``(Y * Z,)`` or ``(Y * Z, R)`` at the voxels."""
        a, b, c, d = (plane.index_select(0, i) for i in self.index)
        wy, wz = (w if plane.ndim == 1 else w[:, None] for w in (self.weight_y, self.weight_z))
        return torch.lerp(a, b, wz).lerp_(torch.lerp(c, d, wz), wy)

    def corners(self) -> torch.Tensor:
        """Decisions at the corners, ``(8 or 4, n)``."""
        return torch.stack([winner.index_select(0, i) for winner in self.cell.winners for i in self.index])


def _ahead(layer: torch.Tensor, y: int, z: int) -> torch.Tensor:
    """``layer`` shifted so that index i reads i + 1, the last index repeating itself."""
    if y:
        layer = torch.cat([layer[1:], layer[-1:]])
    if z:
        layer = torch.cat([layer[:, 1:], layer[:, -1:]], 1)
    return layer
