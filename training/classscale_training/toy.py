"""A synthetic anatomy with as many classes as wanted, a pure function of (seed, index), on CPU or GPU.

*atlas*: ``classes`` cells of one fixed, curved Voronoi tessellation of an ellipsoid. Few grey values are shared by many
cells, so a class follows from grey value **and** place, and every class is in every volume, as in anatomy. Each case
bends that anatomy (affine and elastic), and adds a bias field, noise and its own grey levels. The seeds of the cells
come from one quasi-random sequence: the first 100 of 1000 are the 100.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import interpolate

GREY_VALUES = 7
_SEMI_AXES = (0.86, 0.92, 0.80)  # of the ellipsoid, in the cube [-1, 1]^3
_TILE = 1 << 15


def cell_centres(classes: int) -> torch.Tensor:
    """Centres of the first ``classes`` cells, ``(classes, 3)`` float32 in [-1, 1]^3 (R3 low-discrepancy sequence)."""
    plastic = 1.22074408460575947536  # root of x^4 = x + 1
    steps = torch.tensor([plastic**-1, plastic**-2, plastic**-3], dtype=torch.float64)
    axes = torch.tensor(_SEMI_AXES, dtype=torch.float64)
    points = (0.5 + torch.arange(1, 8 * classes + 64, dtype=torch.float64)[:, None] * steps) % 1 * 2 - 1
    inside = points[(points / axes).square().sum(1) < 0.97]
    return inside[:classes].float()


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        i, j = [k for k in range(3) if k != axis]
        turn = torch.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def atlas_case(
    index: int, classes: int, size: int, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Case ``index``: image ``(size,)*3`` float32 (positive) and labels ``(size,)*3`` int64 in ``0..classes``.

    The anatomy does not depend on ``size``: one index at 64 and at 128 is one subject at two resolutions.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) & 0x7FFFFFFF)
    matrix = _rotation(_uniform(generator, -0.17, 0.17, 3)) * _uniform(generator, 0.92, 1.08, 3)
    shift = _uniform(generator, -0.06, 0.06, 3)
    elastic = 0.035 * _normal(generator, 1, 3, 6, 6, 6)
    bias = 0.12 * _normal(generator, 1, 1, 4, 4, 4)
    levels = torch.linspace(0.25, 1.0, GREY_VALUES) + 0.03 * _normal(generator, GREY_VALUES)
    background = float(_uniform(generator, 0.06, 0.12, 1))
    noise_level = float(_uniform(generator, 0.01, 0.05, 1))
    noise = noise_level * _normal(generator, size, size, size)

    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    x = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).to(device)
    x = x @ matrix.T.to(device) + shift.to(device)
    full = interpolate(elastic.to(device), (size,) * 3, mode="trilinear", align_corners=True)
    x = x + full[0].permute(1, 2, 3, 0)

    labels = _anatomy(x.reshape(-1, 3), classes).reshape(size, size, size)
    grey = torch.cat([torch.tensor([background]), levels[(torch.arange(classes) * 5) % GREY_VALUES]]).to(device)
    field = interpolate(bias.to(device), (size,) * 3, mode="trilinear", align_corners=True)[0, 0]
    image = (grey[labels] * torch.exp(field) + noise.to(device)).clamp_min(1e-3)
    return image, labels


def _anatomy(x: torch.Tensor, classes: int) -> torch.Tensor:
    """Label of each point ``(N, 3)``: 0 outside the ellipsoid, else 1 + the nearest centre in curved coordinates."""
    axes = torch.tensor(_SEMI_AXES, device=x.device)
    outside = (x / axes).square().sum(1) > 1
    curved = x + 0.06 * torch.sin(3.0 * x.roll(1, 1) + torch.tensor([0.3, 1.1, 2.0], device=x.device))
    centres = cell_centres(classes).to(x.device)
    offset = -0.5 * centres.square().sum(1)
    nearest = torch.empty(len(x), dtype=torch.long, device=x.device)
    for start in range(0, len(x), _TILE):
        tile = slice(start, start + _TILE)
        nearest[tile] = torch.addmm(offset, curved[tile], centres.T).argmax(1)
    return torch.where(outside, 0, nearest + 1)
