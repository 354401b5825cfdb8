"""Decisions in float64, for the few voxels where float32 cannot tell two classes apart.

In float32 the best two logits of some voxels in a million lie closer than rounding: which one wins then depends on the
order of additions. Always on the CPU: a handful of voxels, and not every device has float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..models.projection import Projection
from .interpolation import AxisSampling


class ExactDecision:
    """:param projection: of C classes and R channels.
    :param axes: sampling of the three axes, first axis first."""

    def __init__(self, projection: Projection, axes: tuple[AxisSampling, AxisSampling, AxisSampling]):
        self._projection = projection.to("cpu", torch.float64)
        self._weights = [torch.as_tensor(axis.weight, dtype=torch.float64) for axis in axes]

    def at_voxels(self, basis: torch.Tensor) -> torch.Tensor:
        """Row of the winning class ``(n,)`` at voxels of the model grid, ``(n, R)``."""
        return self._projection.decide(basis.cpu().double()).row

    def between(self, corners: Sequence[torch.Tensor], row: int, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Row of the winning class ``(n,)`` at output voxels of a row.

        :param corners: the eight corners of each voxel, ``(n, R)`` each, the last axis running fastest.
        :param y: indices on the output grid, ``(n,)``, as is ``z``.
        """
        weights = [(1 - w, w) for w in (self._weights[0][row], self._weights[1][y.cpu()], self._weights[2][z.cpu()])]
        eight = [wx * wy * wz for wx in weights[0] for wy in weights[1] for wz in weights[2]]
        mixed = sum(w[:, None] * corner.cpu().double() for w, corner in zip(eight, corners, strict=True))
        return self._projection.decide(mixed).row
