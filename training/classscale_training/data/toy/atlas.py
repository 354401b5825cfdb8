"""The toy mode *atlas*: a synthetic anatomy, made of the cells of a fixed, curved Voronoi tessellation of an ellipsoid.

Many cells share few grey values, so grey value **and** place together determine the class. Every class is in every
volume, as in anatomy. Each case bends that anatomy (affine and elastic) and adds a bias field, noise and its own grey
levels. The centres of the cells come from one quasi-random sequence: with 1000 classes the first 100 centres are those
of 100 classes. At 128^3 each of 1000 cells has 40 voxels or more; of 4000 cells, about ten at the rim of the ellipsoid
have none.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from ..random_fields import case_generator, normal, rotation, smooth, uniform, voxel_grid

GREY_VALUES = 7
_SEMI_AXES = (0.86, 0.92, 0.80)  # of the ellipsoid, in the cube [-1, 1]^3
_POINT_TILE = 1 << 15
_BLOCK = 4  # voxels along each side of a block; its voxels share their candidates
_BLOCK_TILE_ELEMENTS = 1 << 22  # of a table of distances from blocks to centres
# Up to so many centres, comparing with all of them costs little, and the data of the embedded model were made this way.
_ALL_CENTRES = 512


def cell_centres(classes: int) -> torch.Tensor:
    """Return the centres of the first ``classes`` cells, ``(classes, 3)`` float32 in [-1, 1]^3.

    They are points of the R3 low-discrepancy sequence.

    >>> bool((cell_centres(1000)[:100] == cell_centres(100)).all())
    True
    """
    plastic = 1.22074408460575947536  # root of x^4 = x + 1
    steps = torch.tensor([plastic**-1, plastic**-2, plastic**-3], dtype=torch.float64)
    axes = torch.tensor(_SEMI_AXES, dtype=torch.float64)
    points = (0.5 + torch.arange(1, 8 * classes + 64, dtype=torch.float64)[:, None] * steps) % 1 * 2 - 1
    inside = points[(points / axes).square().sum(1) < 0.97]
    return inside[:classes].float()


def atlas_case(
    index: int, classes: int, size: int, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return case ``index``: image ``(size,)*3`` float32 (positive) and labels ``(size,)*3`` int64 in ``0..classes``.

    The anatomy does not depend on ``size``: the same index at 64 and at 128 is one subject at two resolutions.

    >>> image, labels = atlas_case(0, classes=5, size=16)
    >>> tuple(image.shape), labels.unique().tolist()
    ((16, 16, 16), [0, 1, 2, 3, 4, 5])

    :param index: number of the case.
    :param classes: number of cells.
    :param size: voxels along each side.
    :param seed: another seed gives other cases of the same anatomy.
    :param device: where the case is computed and returned.
    """
    generator = case_generator(index, seed)
    matrix = rotation(uniform(generator, -0.17, 0.17, 3)) * uniform(generator, 0.92, 1.08, 3)
    shift = uniform(generator, -0.06, 0.06, 3)
    elastic = 0.035 * normal(generator, 1, 3, 6, 6, 6)
    bias = 0.12 * normal(generator, 1, 1, 4, 4, 4)
    levels = torch.linspace(0.25, 1.0, GREY_VALUES) + 0.03 * normal(generator, GREY_VALUES)
    background = float(uniform(generator, 0.06, 0.12, 1))
    noise_level = float(uniform(generator, 0.01, 0.05, 1))
    noise = noise_level * normal(generator, size, size, size)

    x = voxel_grid(size).to(device)
    x = x @ matrix.T.to(device) + shift.to(device)
    x = x + smooth(elastic, size, device).permute(1, 2, 3, 0)

    labels = _anatomy(x, classes)
    grey = torch.cat([torch.tensor([background]), levels[(torch.arange(classes) * 5) % GREY_VALUES]]).to(device)
    image = (grey[labels] * torch.exp(smooth(bias, size, device)[0]) + noise.to(device)).clamp_min(1e-3)
    return image, labels


def _anatomy(x: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the label of each point ``(X, Y, Z, 3)``.

    It is 0 outside the ellipsoid, elsewhere 1 + the index of the nearest centre in curved coordinates.
    """
    outside = (x / torch.tensor(_SEMI_AXES, device=x.device)).square().sum(3) > 1
    curved = x + 0.06 * torch.sin(3.0 * x.roll(1, 3) + torch.tensor([0.3, 1.1, 2.0], device=x.device))
    centres = cell_centres(classes).to(x.device)
    nearest = (
        nearest_of_all(curved, centres) if classes <= _ALL_CENTRES else nearest_by_blocks(curved, centres, ~outside)
    )
    return torch.where(outside, 0, nearest + 1)


def nearest_of_all(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return the index of the centre nearest to each point, ``(X, Y, Z)`` int64, by comparing every pair.

    :param points: ``(X, Y, Z, 3)``.
    :param centres: ``(C, 3)``.
    """
    flat = points.reshape(-1, 3)
    offset = -0.5 * centres.square().sum(1)
    nearest = [torch.addmm(offset, tile, centres.T).argmax(1) for tile in flat.split(_POINT_TILE)]
    return torch.cat(nearest).reshape(points.shape[:3])


def nearest_by_blocks(points: torch.Tensor, centres: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the same as :func:`nearest_of_all`, but compare each point with a few dozen centres only.

    This needs points whose neighbours in the array are close together. If all points of a block are within ``r`` of its
    middle, and the centre nearest to the middle is at the distance ``d``, then the centres nearest to these points are
    within ``d + 2 r`` of the middle (triangle inequality).

    :param points: ``(X, Y, Z, 3)``.
    :param centres: ``(C, 3)``.
    :param wanted: ``(X, Y, Z)`` bool. The result is 0 in blocks that have no wanted point.
    """
    size = points.shape[:3]
    blocks = _blocks(points)  # (blocks, voxels, 3)
    nearest = torch.zeros(blocks.shape[:2], dtype=torch.long, device=points.device)
    chosen = _blocks(wanted[..., None]).any(1)[:, 0].nonzero()[:, 0]
    offset = -0.5 * centres.square().sum(1)
    for tile in chosen.split(max(1, _BLOCK_TILE_ELEMENTS // len(centres))):
        inside = blocks[tile]
        middle = (inside.amin(1) + inside.amax(1)) / 2
        radius = (inside - middle[:, None]).norm(dim=2).amax(1)
        distance = torch.cdist(middle, centres, compute_mode="donot_use_mm_for_euclid_dist")
        reach = distance.amin(1) + 2 * radius + 1e-5  # a margin for rounding
        count = int((distance <= reach[:, None]).sum(1).max())
        # in ascending order, so that the first of equally near centres is chosen, as in nearest_of_all
        candidates = distance.topk(count, dim=1, largest=False).indices.sort(1).values
        score = torch.baddbmm(offset[candidates][:, None], inside, centres[candidates].transpose(1, 2))
        nearest[tile] = candidates.gather(1, score.argmax(2))
    counts = [-(-n // _BLOCK) for n in size]
    whole = nearest.view(*counts, _BLOCK, _BLOCK, _BLOCK).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape([n * _BLOCK for n in counts])[: size[0], : size[1], : size[2]]


def _blocks(volume: torch.Tensor) -> torch.Tensor:
    """Cut ``(X, Y, Z, K)`` into ``(blocks, _BLOCK^3, K)``; incomplete blocks are filled by repeating the edge."""
    missing = [-n % _BLOCK for n in volume.shape[:3]]
    channels = volume.permute(3, 0, 1, 2)[None].float()
    full = pad(channels, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")[0]
    k = full.shape[0]
    x, y, z = (n // _BLOCK for n in full.shape[1:])
    cut = full.reshape(k, x, _BLOCK, y, _BLOCK, z, _BLOCK).permute(1, 3, 5, 2, 4, 6, 0)
    return cut.reshape(x * y * z, _BLOCK**3, k)
