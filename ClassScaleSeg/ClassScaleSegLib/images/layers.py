"""Label maps in layers: classes that overlap lie in several of them, and each class in one alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import ImageError
from ..labels.label import MAX_VALUE
from .counts import voxel_counts

MOST_LAYERS = 256  # every one takes the memory of a label map, and every measurement passes over all of them


def layer_counts(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Count the voxels of each label value in each layer.

    :param layers: L uint16 arrays of any shape.
    :returns: ``(L, 65536)`` int64.
    """
    return np.stack([voxel_counts(layer) for layer in layers])


def layer_of_values(counts: np.ndarray) -> np.ndarray:
    """Return the index of the layer in which each label value occurs, ``(65536,)``; 0 if it occurs in none.

    :param counts: as of :func:`layer_counts`.
    :raises ImageError: if a value other than 0 occurs in several layers.

    >>> layers = [np.array([1, 1, 0, 4], np.uint16), np.array([0, 2, 2, 0], np.uint16)]
    >>> layer_of_values(layer_counts(layers))[:5].tolist()
    [0, 0, 1, 0, 0]
    """
    occurs = counts > 0
    occurs[:, 0] = False
    several = np.flatnonzero(occurs.sum(0) > 1)
    if len(several):
        listed = ", ".join(map(str, several[:10].tolist())) + (" and others" if len(several) > 10 else "")
        raise ImageError(f"The label values {listed} occur in several layers; each class must have a layer of its own.")
    return occurs.argmax(0)


def fresh_values(values: Sequence[int]) -> list[int]:
    """Return label values that differ: the given ones where they can be kept, and free ones for the others.

    :param values: the first of those that are equal keeps its value, if it lies between 1 and 65535.
    :raises ImageError: if there are more than 65535.

    >>> fresh_values([1, 5, 1, 0, 2])
    [1, 5, 3, 4, 2]
    """
    if len(values) > MAX_VALUE:
        raise ImageError(f"There are {len(values)} segments, and at most {MAX_VALUE} label values.")
    used = {value for value in values if 0 < value <= MAX_VALUE}
    free, kept, found = (value for value in range(1, MAX_VALUE + 1) if value not in used), set[int](), []
    for value in values:
        keeps = value in used and value not in kept
        kept.add(value)
        found.append(value if keeps else next(free))
    return found


def renumbered(layer: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    """Return a layer, uint16, with other label values; those that ``values`` does not have become 0.

    :param layer: integers from 0 to 65535.

    >>> renumbered(np.array([0, 1, 2, 9], np.uint16), {1: 3, 2: 2})
    array([0, 3, 2, 0], dtype=uint16)
    """
    lookup = np.zeros(MAX_VALUE + 1, np.uint16)
    lookup[list(values)] = list(values.values())
    return lookup[layer]


class LayerBuilder:
    """Puts classes, one after the other, into as few layers as it easily finds, so that none loses a voxel.

    :param shape: of the layers, ``(z, y, x)``.
    :param check: called before each layer is made, to refuse one that does not fit into memory.
    :ivar layers: the layers, uint16; there is always one.
    :raises ImageError: if classes overlap so much that there would be more than ``MOST_LAYERS``.

    >>> builder = LayerBuilder((1, 1, 4))
    >>> builder.add([(0, np.array([0, 1, 2]))], 5)
    >>> builder.add([(0, np.array([2, 3]))], 6)
    >>> [layer.ravel().tolist() for layer in builder.layers]
    [[5, 5, 5, 0], [0, 0, 6, 6]]
    """

    def __init__(self, shape: tuple[int, ...], check: Callable[[], object] = lambda: None) -> None:
        check()
        self._shape, self._check = shape, check
        self.layers = [np.zeros(shape, np.uint16)]

    def add(self, parts: Sequence[tuple[int, np.ndarray]], value: int) -> None:
        """Put a class into the first layer where all of its voxels are free.

        :param parts: for each slice with the class its index along z, and the flat indices of the voxels in it.
        :param value: its label value, above 0, which was not added before.
        """
        layer = self._free(lambda layer: not any(layer[row].reshape(-1)[inside].any() for row, inside in parts))
        for row, inside in parts:
            layer[row].reshape(-1)[inside] = value

    def add_box(self, box: tuple[slice, ...], labels: np.ndarray) -> None:
        """Put the classes of a label map into the first layer where all of their voxels are free.

        :param box: the part of the layers that the label map fills.
        :param labels: uint16 ``(z, y, x)``, whose values above 0 were not added before.
        """
        layer = self._free(lambda layer: not np.logical_and(layer[box], labels).any())
        np.copyto(layer[box], labels, where=labels > 0)

    def _free(self, has_room: Callable[[np.ndarray], bool]) -> np.ndarray:
        found = next(filter(has_room, self.layers), None)
        if found is None:
            if len(self.layers) == MOST_LAYERS:
                raise ImageError(f"More than {MOST_LAYERS} segments overlap at one place. Take fewer of them.")
            self._check()
            found = np.zeros(self._shape, np.uint16)
            self.layers.append(found)
        return found


def as_uint16(labels: np.ndarray) -> np.ndarray:
    """Return ``labels`` as a contiguous uint16 array, without a copy if possible.

    :raises ImageError: if the values are not integers from 0 to 65535.
    """
    if labels.dtype.kind not in "biu":
        raise ImageError(f"Labels must be integers; these are {labels.dtype}.")
    if labels.size and labels.dtype.kind != "b" and labels.dtype not in (np.uint8, np.uint16):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > MAX_VALUE:
            raise ImageError(f"Labels must lie between 0 and {MAX_VALUE}; these range from {low} to {high}.")
    return np.ascontiguousarray(labels, np.uint16)
