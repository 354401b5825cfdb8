"""Linear or nearest-neighbour sampling of one axis, as nnU-Net resamples logits (pixel centres, edges clamped)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AxisSampling:
    """Output index ``i`` reads ``(1 - weight[i]) * input[lower[i]] + weight[i] * input[upper[i]]``.

    :ivar lower: ``(n,)`` int64, never decreasing, where n is the length of the output.
    :ivar upper: ``(n,)`` int64.
    :ivar weight: ``(n,)`` float64, 0 to 1.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.lower)

    def part(self, output: slice, first: int) -> AxisSampling:
        """Return the sampling of a part of the output, from an input that begins at the index ``first``.

        >>> AxisSampling.linear(4, 8).part(slice(5, 8), first=2).lower.tolist()
        [0, 0, 0]
        """
        return AxisSampling(self.lower[output] - first, self.upper[output] - first, self.weight[output])

    def rounded(self) -> AxisSampling:
        """Return the sampling that takes the nearest voxel at each place; of halves the even index.

        >>> AxisSampling.linear(2, 4).rounded().lower.tolist()
        [0, 0, 1, 1]
        """
        index = np.rint(self.lower + self.weight * (self.upper - self.lower)).astype(np.int64)
        return AxisSampling(index, index, np.zeros(len(self)))

    @classmethod
    def at(cls, position: np.ndarray, size: int) -> AxisSampling:
        """Sample ``size`` voxels linearly at these places, in voxels; outside, the voxel at the edge is taken.

        >>> AxisSampling.at(np.array([-1.0, 0.5, 9.0]), 2).weight.tolist()
        [0.0, 0.5, 1.0]
        """
        position = np.clip(position, 0, size - 1)
        lower = np.minimum(np.floor(position).astype(np.int64), max(size - 2, 0))
        return cls(lower, np.minimum(lower + 1, size - 1), position - lower)

    @classmethod
    def linear(cls, size: int, new_size: int) -> AxisSampling:
        """Sample ``size`` voxels at ``new_size`` places as skimage's ``resize(order=1, mode="edge")`` does.

        Torch's ``align_corners=False`` is the same.

        >>> AxisSampling.linear(2, 4).weight.tolist()
        [0.0, 0.25, 0.75, 1.0]
        """
        return cls.at((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, size)

    @classmethod
    def nearest(cls, size: int, new_size: int) -> AxisSampling:
        """Sample ``size`` voxels at ``new_size`` places as scipy's ``map_coordinates(order=0, mode="nearest")`` does.

        Places are pixel centres, and halves are rounded up.

        >>> AxisSampling.nearest(2, 4).lower.tolist()
        [0, 0, 1, 1]
        """
        position = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
        index = np.clip(np.floor(position + 0.5).astype(np.int64), 0, size - 1)
        return cls(index, index, np.zeros(new_size))
