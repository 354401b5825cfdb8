"""The toy mode *objects*: scattered objects. A class has one shape, grey level of the core, of the rim, and texture.

There are 8 x 8 x 8 x 8 = 4096 such recipes. The recipe of class ``k`` depends on ``k`` alone, so the first 100 of 1000
classes are the same as those of 100 classes. In contrast to *atlas*, no single feature determines a class, and place
says nothing about it.

The design is in voxels, because a texture needs a minimum number of voxels to be visible. The volume is divided into
cells of about 24 voxels (125 of them at ``size`` 128). 80 % of the cells hold one object of about 20 voxels, jittered,
turned by up to 0.2 radians about each axis and bent elastically; objects in different cells cannot overlap. The rim is
0.16 radii (1.5 to 2 voxels) thick. The 8 grey levels of core and rim are 0.107 apart. Noise has a standard deviation of
0.02 to 0.04; from case to case a level changes by about 0.01 and the bias field by 1 %. Textures have a mean near zero
and an amplitude of about 0.09, are aligned with the axes of the volume and look the same when mirrored. A volume shows
about a hundred objects of a random subset of the classes.

The classes can be distinguished. Measured on objects of a volume with 1000 classes at 128^3: the mean grey value of the
outermost voxels gives the level of the rim in 100 %, that of the innermost voxels the level of the core in 96 %. A
random forest on two dozen simple features (extents, moments, autocorrelation), trained on 1,050 objects, finds the
shape of 98.6 % and the texture of 95.7 % of 350 unseen ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..random_fields import case_generator, normal, rotation, smooth, uniform, voxel_grid

# How deep a point is inside each shape, in radii: a function of its coordinates u, their absolute values a and its
# distance r from the axis z. Of the cross, one coordinate may be long, the other two not.
_DEPTHS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ball": lambda u, a, r: 0.92 - u.norm(dim=1),
    "cube": lambda u, a, r: 0.72 - a.amax(1),
    "octahedron": lambda u, a, r: (1.05 - a.sum(1)) / math.sqrt(3),
    "torus": lambda u, a, r: 0.38 - torch.hypot(r - 0.6, u[:, 2]),
    "rod": lambda u, a, r: torch.minimum(0.45 - r, 0.95 - a[:, 2]),
    "plate": lambda u, a, r: torch.minimum(0.92 - r, 0.38 - a[:, 2]),
    "cone": lambda u, a, r: torch.minimum((0.53 * (0.95 - u[:, 2]) - r) * 0.88, u[:, 2] + 0.75),
    "cross": lambda u, a, r: torch.minimum(0.36 - a.sort(1).values[:, 1], 0.95 - a.amax(1)),
}
SHAPES = tuple(_DEPTHS)
TEXTURES = ("flat", "stripes x", "stripes y", "stripes z", "coarse checker", "fine checker", "rings", "speckle")
LEVELS = 8  # grey levels of cores, and of rims
MAX_CLASSES = len(SHAPES) * LEVELS * LEVELS * len(TEXTURES)
CELL = 24  # smallest number of voxels along each side of a cell
RIM = 0.16  # thickness, in radii of the object
_OCCUPIED = 0.8  # of the cells
_AMPLITUDE = 0.09  # of a texture
_STRIDE = 2531  # odd, so k -> k * 2531 mod 4096 reaches every recipe; even the first classes differ in all features


class ObjectRecipe(NamedTuple):
    """The look of the objects of one class.

    :ivar shape: index into :data:`SHAPES`.
    :ivar core: index into :func:`grey_levels`.
    :ivar rim: index into :func:`grey_levels`.
    :ivar texture: index into :data:`TEXTURES`.
    """

    shape: int
    core: int
    rim: int
    texture: int


def object_recipe(value: int) -> ObjectRecipe:
    """Return the recipe of the class with this label value, ``1..4096``.

    >>> recipe = object_recipe(2)
    >>> recipe, SHAPES[recipe.shape], TEXTURES[recipe.texture]
    (ObjectRecipe(shape=3, core=4, rim=7, texture=4), 'torus', 'coarse checker')
    """
    return ObjectRecipe(*_recipes(torch.tensor([value]))[0].tolist())


def grey_levels() -> torch.Tensor:
    """Return the mean grey values of the levels, ``(8,)``; the background has 0.1."""
    return torch.linspace(0.25, 1.0, LEVELS)


def objects_case(
    index: int, classes: int, size: int, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return case ``index``: image ``(size,)*3`` float32 (positive) and labels ``(size,)*3`` int64 in ``0..classes``.

    >>> image, labels = objects_case(0, classes=1000, size=48)
    >>> len(labels.unique()) - 1  # 2 x 2 x 2 cells, 80 % of them occupied
    6

    The parameters are those of :func:`.atlas_case`. A case shows a random subset of the ``classes``.
    """
    generator = case_generator(index, seed)
    cells = max(1, size // CELL)
    levels = grey_levels() + 0.01 * normal(generator, LEVELS)
    background = float(uniform(generator, 0.08, 0.12, 1))
    bias = 0.01 * normal(generator, 1, 1, 4, 4, 4)
    elastic = 0.05 * normal(generator, 1, 3, cells + 2, cells + 2, cells + 2)
    phases = uniform(generator, 0, 2 * math.pi, 3)
    noise_level = float(uniform(generator, 0.02, 0.04, 1))
    value = _scatter(generator, cells**3, classes)
    turn = torch.stack([rotation(angles) for angles in uniform(generator, -0.2, 0.2, cells**3, 3)])
    radius = uniform(generator, 0.38, 0.46, cells**3)
    jitter = uniform(generator, -1, 1, cells**3, 3) * (0.48 - radius)[:, None]
    noise = normal(generator, size, size, size)
    recipe = _recipes(value).to(device)
    value, turn, radius, jitter, noise = (t.to(device) for t in (value, turn, radius, jitter, noise))

    place = (voxel_grid(size).to(device) + 1) * (cells / 2) + smooth(elastic, size, device).permute(1, 2, 3, 0)
    cell = place.floor().clamp_(0, cells - 1)
    number = ((cell[..., 0] * cells + cell[..., 1]) * cells + cell[..., 2]).long()
    occupied = value[number] > 0
    number, local = number[occupied], (place - cell)[occupied] - 0.5
    local = (turn[number] @ ((local - jitter[number]) / radius[number, None])[..., None])[..., 0]
    shape, core, rim, texture = recipe[number].T
    depth = _depth(local, shape)
    inside = depth > 0

    labels = torch.zeros(noise.shape, dtype=torch.long, device=device)
    labels[occupied] = torch.where(inside, value[number], 0)
    levels = levels.to(device)
    rings = torch.sin(depth * radius[number] * (size / cells) * (2 * math.pi / 3.5)) * math.sqrt(2)
    pattern = _pattern(texture, occupied.nonzero(), phases.tolist(), rings, noise[occupied])
    filled = torch.where(depth < RIM, levels[rim], levels[core] + _AMPLITUDE * pattern)
    grey = torch.full(noise.shape, background, device=device)
    grey[occupied] = torch.where(inside, filled, background)
    image = (grey * torch.exp(smooth(bias, size, device)[0]) + noise_level * noise).clamp_min(1e-3)
    return image, labels


def _recipes(values: torch.Tensor) -> torch.Tensor:
    """Return the recipes ``(N, 4)`` of label values ``(N,)``; label 0 gets one too, which is never used."""
    code = (values - 1) * _STRIDE % MAX_CLASSES
    return torch.stack([code % 8, code // 8 % 8, code // 64 % 8, code // 512], 1)


def _scatter(generator: torch.Generator, cells: int, classes: int) -> torch.Tensor:
    """Return the label value of each cell ``(cells,)``, 0 where it is empty.

    Three quarters of the classes occur, or fewer if there are not enough cells.
    """
    occupied = max(1, int(_OCCUPIED * cells))
    order = torch.randperm(cells, generator=generator)[:occupied]
    present = torch.randperm(classes, generator=generator)[: min(occupied, math.ceil(0.75 * classes))] + 1
    value = torch.zeros(cells, dtype=torch.long)
    value[order] = present[torch.arange(occupied) % len(present)]
    return value


def _depth(u: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Return how deep the points ``u`` ``(N, 3)`` are inside their shape ``(N,)``, in radii; negative outside."""
    depth = torch.empty(len(u), device=u.device)
    for number, depth_in in enumerate(_DEPTHS.values()):
        mine = shape == number
        points = u[mine]
        depth[mine] = depth_in(points, points.abs(), torch.hypot(points[:, 0], points[:, 1]))
    return depth


def _pattern(
    texture: torch.Tensor, voxel: torch.Tensor, phases: list[float], rings: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Return the texture at voxel indices ``(N, 3)``: ``(N,)``, about -1.4 to 1.4 with mean 0."""
    turns = [2 * math.pi * voxel[:, d] / 5 + phases[d] for d in range(3)]
    half_turns = torch.stack([torch.sin(turn / 2) for turn in turns])
    patterns = [torch.zeros_like(rings), *(torch.sin(turn) * math.sqrt(2) for turn in turns)]
    patterns += [torch.sign(half_turns.prod(0)), 1 - 2.0 * (voxel.sum(1) % 2), rings, noise]
    return torch.stack(patterns).gather(0, texture[None])[0]
