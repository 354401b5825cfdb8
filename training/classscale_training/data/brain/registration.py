"""Register label maps: where in one head each point of another head has its counterpart.

The map is smooth and can be inverted: it is the exponential of a velocity field (Arsigny et al., MICCAI 2006). Gradient
descent aligns the blurred shares of groups of structures, from coarse to fine. Label maps show no grey values, so all
groups count, whatever an image of them would look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import grid_sample, interpolate

from .synthesis import blur

_HALVINGS = 6  # of a velocity field, before it is composed with itself as often
_SMOOTHNESS = [1.0] * 3  # standard deviation of the blur of the velocities, in their voxels


class Level(NamedTuple):
    """One stage of a registration.

    :ivar blur: standard deviation of the blur of the shares, in voxels.
    :ivar steps: of the optimizer.
    :ivar rate: how far a step moves at most, about, in voxels.
    """

    blur: float
    steps: int
    rate: float


LEVELS = Level(3.0, 40, 0.4), Level(1.5, 50, 0.4), Level(0.7, 60, 0.2)


def register(
    fixed: torch.Tensor, moving: torch.Tensor, levels: Sequence[Level] = LEVELS, stiffness: float = 2.0
) -> torch.Tensor:
    """Return how far the counterpart in ``moving`` of each voxel of ``fixed`` is from it.

    :param fixed: shares of K groups in each voxel, ``(K, Z, Y, X)`` float32.
    :param moving: the same of the other head, on the same grid, roughly aligned.
    :param stiffness: weight of the squared differences between neighbouring velocities.
    :returns: displacement in voxels, ``(3, Z, Y, X)`` float32, along z, y and x: voxel p of ``fixed`` shows what is at
        p + displacement in ``moving``.

    >>> ball = torch.zeros(1, 12, 12, 12)
    >>> ball[:, 4:8, 4:8, 4:8] = 1
    >>> shift = register(ball, ball.roll(1, 3), [Level(1.0, 20, 0.4)])[:, 5, 5, 5]
    >>> [round(float(axis)) for axis in shift]
    [0, 0, 1]
    """
    shape = fixed.shape[1:]
    half = [(size + 1) // 2 for size in shape]
    velocity = torch.zeros(1, 3, *half, requires_grad=True)  # along x, y and z, in voxels of ``fixed``
    voxel = torch.tensor([2 / (size - 1) for size in reversed(shape)]).view(1, 3, 1, 1, 1)
    places = _places(shape)

    def displacement() -> torch.Tensor:
        coarse = _exponential(blur(velocity, _SMOOTHNESS) * voxel)
        return interpolate(coarse, size=shape, mode="trilinear", align_corners=True)

    for level in levels:
        there, here = (blur(shares[None], [level.blur] * 3) for shares in (fixed, moving))
        optimizer = torch.optim.Adam([velocity], lr=level.rate)
        for _ in range(level.steps):
            moved = _sampled(here, places, displacement())
            smooth = blur(velocity, _SMOOTHNESS)
            unlike = 100 * (moved - there).square().sum(1).mean()
            bent = torch.stack([smooth.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).sum()
            optimizer.zero_grad()
            (unlike + stiffness * bent).backward()
            optimizer.step()
    with torch.no_grad():
        return (displacement() / voxel)[0].flip(0)


def _places(shape: Sequence[int]) -> torch.Tensor:
    """Return the coordinates of the voxels, ``(1, Z, Y, X, 3)``, from -1 to 1 along x, y and z."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size) for size in shape], indexing="ij")
    return torch.stack(axes[::-1], -1)[None]


def _sampled(volumes: torch.Tensor, places: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    return grid_sample(volumes, places + displacement.permute(0, 2, 3, 4, 1), align_corners=True, padding_mode="border")


def _exponential(velocity: torch.Tensor) -> torch.Tensor:
    """Return the displacement after following a velocity for one unit of time, by scaling and squaring."""
    places, moved = _places(velocity.shape[2:]), velocity / 2**_HALVINGS
    for _ in range(_HALVINGS):
        moved = moved + _sampled(moved, places, moved)
    return moved
