"""Draw the gyri of the atlas on the cortex of an individual, whose label map says no more than "left cerebral cortex".

The atlas and its mirror image are registered with the individual. Each voxel of the cortex takes the nearest gyrus of
the same side, from both, and both vote. The atlas is one person, who is not symmetric, so the mirror image is another
opinion; and each individual folds otherwise, so what is learned from all of them is less this one person's.

This needs SciPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn.functional import avg_pool3d, interpolate

from .label_maps import LabelMaps, affine_map, set_centres
from .registration import LEVELS, Level, register
from .tables import BrainTables

_SPACING = 2.0  # mm, of the grid of the registration
_MARGIN = 6.0  # mm around the labelled part
_VOTE = 1.5  # mm, standard deviation of the blur of both opinions
# Sets that are aligned as one. What is in none of them does not count.
_GROUPS = (
    ("left cerebral cortex",),
    ("right cerebral cortex",),
    ("cerebral white matter",),
    ("left lateral ventricle", "left inferior lateral ventricle"),
    ("right lateral ventricle", "right inferior lateral ventricle"),
    ("left caudate", "left putamen", "left pallidum", "left accumbens"),
    ("right caudate", "right putamen", "right pallidum", "right accumbens"),
    ("left thalamus", "right thalamus", "left ventral diencephalon", "right ventral diencephalon", "third ventricle"),
    ("left hippocampus", "left amygdala"),
    ("right hippocampus", "right amygdala"),
    (
        "brain stem",
        "left cerebellar cortex",
        "right cerebellar cortex",
        "left cerebellar white matter",
        "right cerebellar white matter",
        "fourth ventricle",
    ),
)


def gyri_of(maps: LabelMaps, tables: BrainTables, individual: int) -> np.ndarray:
    """Return the gyri of an individual, ``(Z, Y, X)`` int16: classes of the atlas, 0 outside the cortex.

    :param individual: number of the subject, from 1.
    """
    sets = tables.label_of_coarse.numpy()[maps.subjects[individual]]
    return gyri_on(sets, maps.subjects[0], maps.spacing, tables)


def gyri_on(
    sets: np.ndarray, atlas: np.ndarray, spacing: float, tables: BrainTables, levels: Sequence[Level] = LEVELS
) -> np.ndarray:
    """Return the gyri on a head of which sets of structures are known, as :func:`gyri_of`.

    :param sets: ``(Z, Y, X)``, labels of ``tables.set_names``; others count as ``rest``.
    :param atlas: classes ``(Z, Y, X)``, whose axes point to the same sides.
    :param spacing: of both, mm.
    :param levels: of the registration.
    """
    classes = tables.set_of_class.numpy(), tables.is_gyrus.numpy()
    mirrored = tables.other_side_of_class.numpy()[atlas[:, :, ::-1]]
    box = _around(sets > 0, round(_MARGIN / spacing), 2 * round(_SPACING / spacing))
    part = np.maximum(_cut(sets, box), 0)
    moved = (_moved(part, each, spacing, tables, levels) for each in (atlas, mirrored))
    opinions = [_nearest_gyri(each, part, *classes) for each in moved]
    found = np.zeros(part.shape, np.int16)
    best = np.zeros(part.shape, np.float32)
    for value, where, share in _shares(opinions, _VOTE / spacing):
        better = share > best[where]
        found[where][better], best[where][better] = value, share[better]
    gyri = np.zeros(sets.shape, np.int16)
    inside = tuple(slice(max(b.start, 0), min(b.stop, n)) for b, n in zip(box, sets.shape, strict=True))
    gyri[inside] = found[tuple(slice(i.start - b.start, i.stop - b.start) for i, b in zip(inside, box, strict=True))]
    cortex = np.isin(sets, np.unique(classes[0][classes[1]]))
    return np.where(cortex, gyri, 0).astype(np.int16)


def _moved(
    sets: np.ndarray, atlas: np.ndarray, spacing: float, tables: BrainTables, levels: Sequence[Level]
) -> np.ndarray:
    """Return the class of the atlas at the counterpart of each voxel of a head, ``(Z, Y, X)``."""
    names, set_of_class = tables.set_names, tables.set_of_class.numpy()
    centres = [set_centres(volume, len(names)) for volume in (sets, set_of_class[atlas])]
    affine = affine_map(*centres)
    places = np.indices(sets.shape, np.float32)
    aligned = set_of_class[_looked_up(atlas, _applied(affine, places))]
    step = round(_SPACING / spacing)
    fixed, moving = (_group_shares(volume, step, names) for volume in (sets, aligned))
    coarse = register(fixed, moving, levels) * step
    shift = interpolate(coarse[None], size=sets.shape, mode="trilinear")[0].numpy()
    return _looked_up(atlas, _applied(affine, places + shift))


def _group_shares(sets: np.ndarray, step: int, names: tuple[str, ...]) -> torch.Tensor:
    """Return the share of each group in blocks of ``step`` voxels a side, ``(K, Z, Y, X)`` float32."""
    masks = (np.isin(sets, [names.index(name) for name in group]) for group in _GROUPS)
    return torch.stack([avg_pool3d(torch.from_numpy(mask).float()[None, None], step)[0, 0] for mask in masks])


def _nearest_gyri(classes: np.ndarray, sets: np.ndarray, set_of_class: np.ndarray, is_gyrus: np.ndarray) -> np.ndarray:
    """Return the nearest gyrus of the same side at each voxel of the cortex, ``(Z, Y, X)`` int16; 0 elsewhere."""
    from scipy.ndimage import distance_transform_edt

    found = np.zeros(sets.shape, np.int16)
    for side in np.unique(set_of_class[is_gyrus]):
        here, there = sets == side, is_gyrus[classes] & (set_of_class[classes] == side)
        if here.any() and there.any():
            nearest = distance_transform_edt(~there, return_distances=False, return_indices=True)
            found[here] = classes[tuple(nearest)][here]
    return found


def _shares(opinions: list[np.ndarray], deviation: float) -> Iterator[tuple[int, tuple[slice, ...], np.ndarray]]:
    """Yield each value, a box around it, and there the blurred share of the opinions that have it."""
    from scipy.ndimage import find_objects, gaussian_filter

    margin = round(4 * deviation)
    boxes = [find_objects(opinion) for opinion in opinions]
    for value in range(1, 1 + max(map(len, boxes))):
        found = [box[value - 1] for box in boxes if len(box) >= value and box[value - 1] is not None]
        if found:
            axes = [
                slice(max(min(p.start for p in parts) - margin, 0), max(p.stop for p in parts) + margin)
                for parts in zip(*found, strict=True)
            ]
            where = tuple(axes)
            masks = ((opinion[where] == value).astype(np.float32) for opinion in opinions)
            yield value, where, sum(gaussian_filter(mask, deviation) for mask in masks)


def _applied(affine: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Apply an affine map ``(3, 4)`` to places ``(3, Z, Y, X)``."""
    return np.tensordot(affine[:, :3].astype(np.float32), places, 1) + affine[:, 3, None, None, None]


def _looked_up(volume: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the values of ``volume`` at the nearest voxels of ``places`` ``(3, Z, Y, X)``; 0 outside."""
    rounded = np.rint(places).astype(np.int64)
    limits = np.array(volume.shape)[:, None, None, None]
    outside = ((rounded < 0) | (rounded >= limits)).any(0)
    values = volume[tuple(np.clip(rounded, 0, limits - 1))]
    return np.where(outside, 0, values)


def _around(mask: np.ndarray, margin: int, multiple: int) -> tuple[slice, ...]:
    """Return the box around a mask with a margin, which may reach out of the volume; its sides are multiples."""
    box = []
    for axis in range(3):
        where = np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis})))
        start, stop = int(where[0]) - margin, int(where[-1]) + 1 + margin
        box.append(slice(start, start + -(-(stop - start) // multiple) * multiple))
    return tuple(box)


def _cut(volume: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """Return the part of a volume in a box, with 0 where the box reaches out of it."""
    pads = [(max(-b.start, 0), max(b.stop - n, 0)) for b, n in zip(box, volume.shape, strict=True)]
    padded = np.pad(volume, pads)
    starts = [b.start + before for b, (before, _) in zip(box, pads, strict=True)]
    return padded[tuple(slice(s, s + b.stop - b.start) for s, b in zip(starts, box, strict=True))]
