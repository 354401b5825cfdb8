"""Make one head image from label maps: deform them, give every tissue a grey value, blur, add bias and noise.

This follows Billot et al., SynthSeg (Medical Image Analysis 2023): a network that was trained on every contrast needs
no real images. Random numbers are drawn on the CPU, so that a case is the same on every device except for rounding.
Shapes are voxels, z y x; lengths are mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from ..random_fields import normal, rotation, uniform
from .tables import AIR, BrainTables

_IN_CACHE = 1 << 15  # voxels that a CPU looks up at once
# Shares of the contrasts; the remaining cases have random contrasts.
_T1, _T2 = 0.4, 0.25


@dataclass(frozen=True)
class Pose:
    """A deformed grid in the coordinates of a subject."""

    points: torch.Tensor  # (3, Z, Y, X), from the middle of its brain

    def labels(self, volume: torch.Tensor, centre: torch.Tensor, spacing: float) -> torch.Tensor:
        """Return the nearest label at each point, 0 outside the volume; shape of the grid, dtype of the volume.

        :param volume: label map ``(Z, Y, X)``.
        :param centre: ``(3,)`` voxel at the middle of the brain.
        :param spacing: of the volume, mm.
        """
        return nearest(volume, self.points, spacing, centre.to(self.points))


def nearest(
    volume: torch.Tensor, points: torch.Tensor, spacing: float = 1.0, offset: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the values of ``volume`` at the rounded voxel coordinates ``points / spacing + offset``; 0 outside.

    :param points: ``(3, ...)``.
    :param offset: ``(3,)``; 0 by default.
    :returns: the dtype of the volume, the shape of a coordinate.

    >>> nearest(torch.tensor([[[5, 6, 7]]]), torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.2, 3.0]]))
    tensor([6, 0])
    """
    around = pad(volume[None], (1,) * 6)[0]  # what is outside is clamped to this margin
    values, flat = around.flatten(), points.flatten(1)
    start = torch.ones(3).to(points) if offset is None else 1 + offset.to(points)
    count = flat.shape[1]
    found = torch.empty(count, dtype=volume.dtype, device=volume.device)
    step = _IN_CACHE if volume.device.type == "cpu" else max(count, 1)
    for first in range(0, count, step):
        part = slice(first, min(first + step, count))
        index = torch.zeros(part.stop - first, dtype=torch.int64, device=volume.device)
        for size, places, begin in zip(around.shape, flat[:, part], start, strict=True):
            index.mul_(size).add_((places / spacing).add_(begin).round_().clamp_(0, size - 1).long())
        torch.index_select(values, 0, index, out=found[part])
    return found.view(points.shape[1:])


def random_pose(
    generator: torch.Generator,
    shape: tuple[int, ...],
    spacing: float,
    offset: torch.Tensor,
    device: torch.device | str,
    deformation: float = 3.0,
) -> Pose:
    """Return the grid of a patch of a head that is turned, scaled and bent at random.

    :param offset: ``(3,)`` offset of the patch from the middle of the brain, z y x.
    :param deformation: largest standard deviation, in mm, of the displacements that are drawn every 28 mm.
    """
    matrix = rotation(uniform(generator, -0.2, 0.2, 3)) * uniform(generator, 0.88, 1.16, 3)
    coarse = field(generator, shape, spacing, 28.0, float(uniform(generator, 0.5, deformation, 1)), 3, device)
    fine = field(generator, shape, spacing, 12.0, float(uniform(generator, 0.0, 0.8, 1)), 3, device)
    points = coarse.add_(fine)
    for axis, size in enumerate(shape):
        along = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2) * spacing + offset[axis]
        steps = torch.outer(matrix[:, axis], along).view(3, *(size if a == axis else 1 for a in range(3)))
        points += steps.to(device)
    return Pose(points)


def field(
    generator: torch.Generator,
    shape: tuple[int, ...],
    spacing: float,
    knots: float,
    deviation: float,
    channels: int,
    device: torch.device | str,
) -> torch.Tensor:
    """Return a smooth random field ``(channels, Z, Y, X)``: normal values every ``knots`` mm, linear between them.

    :param deviation: standard deviation of the normal values.
    """
    z, y, x = (_linear(max(2, math.ceil(n * spacing / knots) + 1), n).to(device) for n in shape)
    values = (deviation * normal(generator, channels, z.shape[1], y.shape[1], x.shape[1])).to(device)
    planes = y @ (values @ x.T)  # axis by axis: on a CPU faster than torch's interpolate along all axes at once
    return (z @ planes.flatten(2)).view(channels, *shape)


def _linear(knots: int, size: int) -> torch.Tensor:
    """Return the weights ``(size, knots)`` of linear interpolation. The outermost knots are at the outermost voxels."""
    place = torch.linspace(0, knots - 1, size)[:, None]
    return (1 - (place - torch.arange(knots)).abs()).clamp_min(0)


@dataclass(frozen=True)
class Palette:
    """Grey values of each tissue, each field ``(tissues,)``."""

    mean: torch.Tensor
    noise: torch.Tensor  # standard deviation from voxel to voxel
    texture: torch.Tensor  # standard deviation over millimetres

    @classmethod
    def draw(cls, generator: torch.Generator, tables: BrainTables, like_t1: bool = False) -> Palette:
        """Draw the grey values of a contrast: T1-weighted if ``like_t1``, else T1-weighted, T2-weighted or random."""
        rows, count = tables.tissues, len(tables.tissues)
        families = list(dict.fromkeys(row.family for row in rows))
        kind = float(uniform(generator, 0, 1, 1)) * (_T1 if like_t1 else 1)
        of_family = uniform(generator, 0.05, 0.95, len(families))
        alone = uniform(generator, 0.05, 0.95, count)
        apart = normal(generator, count)
        independent = float(uniform(generator, 0, 1, 1)) < 0.25
        if kind < _T1 + _T2:
            mean = torch.tensor([row.t1 if kind < _T1 else row.t2 for row in rows]) + 0.05 * apart
        elif independent:
            mean = alone
        else:
            mean = of_family[[families.index(row.family) for row in rows]] + 0.1 * apart
        mean = mean.clamp(0.02, 1.0)
        air = [row.tissue for row in rows].index(AIR)
        mean[air] = uniform(generator, 0.0, 0.05, 1)[0]
        texture = torch.tensor([row.texture for row in rows]) * uniform(generator, 0.0, 1.0, count)
        return cls(mean, uniform(generator, 0.005, 0.04, count), texture)


def paint(
    generator: torch.Generator,
    parts: torch.Tensor,
    tissue_of_part: torch.Tensor,
    palette: Palette,
    spacing: float,
) -> torch.Tensor:
    """Return the grey values ``(Z, Y, X)`` of a map of parts. Parts of the same tissue differ a little.

    :param parts: ``(Z, Y, X)`` integers, the number of the part at each voxel.
    :param tissue_of_part: ``(parts,)`` row of the tissue of each part.
    """
    device, shape = parts.device, tuple(parts.shape)
    apart = float(uniform(generator, 0.0, 0.04, 1)) * normal(generator, len(tissue_of_part))
    mean = (palette.mean[tissue_of_part] + apart * (palette.mean[tissue_of_part] > 0.06)).to(device)
    noise, texture = palette.noise[tissue_of_part].to(device), palette.texture[tissue_of_part].to(device)
    parts = parts.long()
    image = mean[parts] + noise[parts] * normal(generator, *shape).to(device)
    return image + texture[parts] * field(generator, shape, spacing, 9.0, 1.0, 1, device)[0]


def degrade(generator: torch.Generator, image: torch.Tensor, spacing: float) -> torch.Tensor:
    """Apply what a scanner does to ideal grey values: partial volume, thick slices, uneven coils, noise, windowing.

    :returns: grey values of at least 0, like ``image`` ``(Z, Y, X)``.
    """
    device, shape = image.device, tuple(image.shape)
    # A voxel averages over its width; an image made from nearest labels does not, so it is blurred a little.
    deviation = uniform(generator, 0.3, 0.8, 3)
    thick, axis = float(uniform(generator, 0, 1, 1)), int(torch.randint(3, (1,), generator=generator))
    if thick < 0.2:
        deviation[axis] = float(uniform(generator, 3.0, 6.0, 1)) / spacing / 2.355
    image = blur(image, deviation.tolist())
    strength = float(uniform(generator, 0.0, 0.25, 1))
    image = image * field(generator, shape, spacing, 60.0, strength, 1, device)[0].exp()
    level = 0.08 * float(uniform(generator, 0.0, 1.0, 1)) ** 2
    image = (image + level * normal(generator, *shape).to(device)).clamp_min(0)
    return image ** math.exp(0.25 * float(normal(generator, 1)))


def blur(image: torch.Tensor, deviation: list[float]) -> torch.Tensor:
    """Blur ``(..., Z, Y, X)`` with a Gaussian, axis by axis; the values at the edges are repeated.

    :param deviation: standard deviation along each axis, in voxels.
    """
    z, y, x = (_gaussian(size, sigma).to(image) for size, sigma in zip(image.shape[-3:], deviation, strict=True))
    return (z @ (y @ (image @ x.T)).flatten(-2)).view(image.shape)  # by products, ten times faster than conv3d on a CPU


def _gaussian(size: int, sigma: float) -> torch.Tensor:
    """Return the matrix ``(size, size)`` that blurs an axis; its rows sum to 1."""
    radius = max(1, math.ceil(2.5 * sigma))
    steps = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (steps / sigma).square())
    places = (torch.arange(size)[:, None] + steps).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, places, (weights / weights.sum()).expand(size, -1))
