"""Where an array has voxels: the box around them, and the one in their middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_AXES = range(3)


def occupied_box(array: np.ndarray) -> list[slice]:
    """Return the slices along z, y, x that enclose all voxels other than 0; an empty list if there are none.

    >>> array = np.zeros((4, 4, 4), bool)
    >>> array[1, 2, 0] = array[1, 2, 3] = True
    >>> occupied_box(array)
    [slice(1, 2, None), slice(2, 3, None), slice(0, 4, None)]
    """
    box = [slice(None)] * 3
    for axis in _AXES:
        occupied = np.flatnonzero(array[tuple(box)].any(axis=_others(axis)))
        if not len(occupied):
            return []
        box[axis] = slice(int(occupied[0]), int(occupied[-1]) + 1)
    return box


def middle_voxel(mask: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int] | None:
    """Return the index z, y, x of the voxel that is nearest to the centre of mass of all.

    The centre of mass itself may lie outside, as with a curved rib or vessel. Beside the mask, this takes little memory
    and time: voxels are looked for around the centre alone, farther and farther away.

    :param mask: bool, z, y, x.
    :param spacing: mm along z, y, x.
    :returns: ``None`` if there is no voxel.

    >>> mask = np.zeros((1, 5, 5), bool)
    >>> mask[0, 0] = mask[0, 4] = mask[0, :, 0] = True  # a "C"
    >>> middle_voxel(mask, (1.0, 1.0, 1.0))
    (0, 2, 0)
    """
    box = occupied_box(mask)
    if not box:
        return None
    inner, size = mask[tuple(box)], np.asarray(spacing)
    counts = [np.count_nonzero(inner, axis=_others(axis)) for axis in _AXES]
    centre = np.array([np.average(np.arange(len(each)), weights=each) for each in counts])
    radius = 2 * size.max()
    while True:
        first = np.maximum(np.ceil(centre - radius / size), 0).astype(int)
        last = np.floor(centre + radius / size).astype(int)
        voxels = np.argwhere(inner[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))]) + first
        distances = np.square((voxels - centre) * size).sum(1)
        if len(voxels) and distances.min() <= radius**2:  # in a corner of the cube, it is perhaps not the nearest
            z, y, x = (voxels[distances.argmin()] + [part.start for part in box]).tolist()
            return z, y, x
        radius *= 2


def _others(axis: int) -> tuple[int, ...]:
    return tuple(other for other in _AXES if other != axis)
