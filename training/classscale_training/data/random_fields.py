"""Random but reproducible ingredients of synthetic cases: generators, rotations, smooth fields.

Random numbers are always drawn on the CPU, so that a case is the same on every device except for rounding.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import interpolate


def case_generator(index: int, seed: int) -> torch.Generator:
    """Return the generator of all random numbers of case ``index``."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) & 0x7FFFFFFF)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Return normal values of mean 0 and standard deviation 1 as a float32 tensor of ``shape``."""
    return torch.randn(*shape, generator=generator)


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    """Return uniform values in [``low``, ``high``) as a float32 tensor of ``shape``."""
    return torch.rand(*shape, generator=generator) * (high - low) + low


def rotation(angles: torch.Tensor) -> torch.Tensor:
    """Return the product ``(3, 3)`` of the rotations about the three axes.

    :param angles: ``(3,)``, in radians.
    """
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        i, j = [k for k in range(3) if k != axis]
        turn = torch.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def voxel_grid(size: int) -> torch.Tensor:
    """Return the centres of the voxels of the cube [-1, 1]^3, ``(size, size, size, 3)``."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def smooth(coarse: torch.Tensor, size: int, device: torch.device | str) -> torch.Tensor:
    """Interpolate a coarse random field ``(1, K, n, n, n)`` to ``(K, size, size, size)``."""
    return interpolate(coarse.to(device), (size,) * 3, mode="trilinear", align_corners=True)[0]
