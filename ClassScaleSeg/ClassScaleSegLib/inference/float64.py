"""Decisions in float64, for the few voxels where float32 cannot tell two classes apart.

In about one voxel in a million the two largest float32 logits differ by less than the rounding error, so the winner
would depend on the order of additions. These decisions are always made on the CPU: there are only a few, and not every
device has float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..models.projection import Projection
from .interpolation import AxisSampling


class ExactDecision:
    """Decide in float64 on the CPU; the parameters are the first two of a `RowDecoder`."""

    def __init__(self, projection: Projection, axes: tuple[AxisSampling, AxisSampling, AxisSampling]):
        self._projection = projection.to("cpu", torch.float64)
        self._weights = [torch.as_tensor(axis.weight, dtype=torch.float64) for axis in axes]

    def at_voxels(self, basis: torch.Tensor) -> torch.Tensor:
        """Decide voxels of the model grid with a basis ``(n, R)``; return `Decision.row` ``(n,)`` on the CPU."""
        return self._projection.decide(basis.cpu().double()).row

    def between(self, corners: Sequence[torch.Tensor], row: int, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Decide voxels of one row of the output grid.

        :param corners: the basis at the eight corners of each voxel, ``(n, R)`` each; the last axis varies fastest.
        :param row: index of the row.
        :param y: indices ``(n,)`` along the second axis of the output grid; ``z`` along the third.
        :returns: `Decision.row` ``(n,)`` on the CPU.
        """
        weights = [(1 - w, w) for w in (self._weights[0][row], self._weights[1][y.cpu()], self._weights[2][z.cpu()])]
        eight = [wx * wy * wz for wx in weights[0] for wy in weights[1] for wz in weights[2]]
        terms = (w[:, None] * corner.cpu().double() for w, corner in zip(eight, corners, strict=True))
        return self._projection.decide(sum(terms, torch.zeros((), dtype=torch.float64))).row
