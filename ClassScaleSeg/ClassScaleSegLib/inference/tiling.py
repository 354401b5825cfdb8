"""Where windows lie and how they are weighted: as nnU-Net does it, or as MONAI's sliding-window inferer does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SIGMA = 1 / 8  # of the Gaussian, as a fraction of the patch
_LEAST = 1e-3  # of MONAI's weights


@dataclass(frozen=True)
class Tiling:
    """How an image is covered by windows.

    :ivar patch: voxels of a window along two or three axes.
    :ivar step: distance between windows, as a fraction of the patch.
    :ivar even: windows are evenly spaced, at most this distance apart, as nnU-Net places them. Otherwise they have
        exactly this distance, but for the last one, as MONAI places them.

    >>> Tiling((64, 64), 0.5).starts((100, 64)), Tiling((64, 64), 0.5, even=False).starts((100, 64))
    ([[0, 18, 36], [0]], [[0, 32, 36], [0]])
    """

    patch: tuple[int, ...]
    step: float
    even: bool = True

    def counts(self, shape: Sequence[int]) -> list[int]:
        """Return the number of windows along each axis of an image at least as large as the patch."""
        intervals = [patch * self.step if self.even else max(int(patch * self.step), 1) for patch in self.patch]
        sides = zip(shape, self.patch, intervals, strict=True)
        return [math.ceil((length - patch) / interval) + 1 for length, patch, interval in sides]

    def starts(self, shape: Sequence[int]) -> list[list[int]]:
        """Return where the windows begin along each axis of an image at least as large as the patch."""
        if self.even:
            from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

            return compute_steps_for_sliding_window(tuple(shape), self.patch, self.step)
        sides = zip(self.counts(shape), shape, self.patch, strict=True)
        return [
            [min(index * max(int(patch * self.step), 1), length - patch) for index in range(count)]
            for count, length, patch in sides
        ]

    def weights(self) -> torch.Tensor:
        """Return the weights of a window's voxels, ``patch`` float32."""
        import torch

        if self.even:
            from nnunetv2.inference.sliding_window_prediction import compute_gaussian

            return compute_gaussian(
                self.patch, sigma_scale=_SIGMA, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
            )
        weights = torch.ones(1)
        for length in self.patch:
            place = torch.arange(length, dtype=torch.float32) - (length - 1) / 2
            weights = weights[..., None] * torch.exp(place**2 / (-2 * (_SIGMA * length) ** 2))
        return weights[0].clamp(min=max(float(weights.min()), _LEAST))
