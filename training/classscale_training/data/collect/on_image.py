"""Bring a segmentation onto the grid of its image, and find which structures overlap there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import ImageError, LabelTableError
from ClassScaleSegLib.images.comparison import onto_grid
from ClassScaleSegLib.images.counts import voxel_counts
from ClassScaleSegLib.images.dicom.headers import is_dicom_seg
from ClassScaleSegLib.images.dicom.series import read_places
from ClassScaleSegLib.images.geometry import ROUNDED_SHEAR, Geometry, same_lattice
from ClassScaleSegLib.images.image_file import read_grid
from ClassScaleSegLib.images.paired_cases import table_beside
from ClassScaleSegLib.images.paired_reading import is_drawn, read_segmentation
from ClassScaleSegLib.images.reading import refuse_missing
from ClassScaleSegLib.images.segmentation import Segmentation
from ClassScaleSegLib.labels.label import Label
from ClassScaleSegLib.labels.table import LabelTable

from ..volumes import SAME_PLACE, geometry_difference
from .cases import listed

_MOST_OUTSIDE = 0.5  # of the labelled voxels; beyond, the segmentation is taken for that of another image


@dataclass(frozen=True)
class ImageGrid:
    """The grid of an image.

    :ivar modality: of a DICOM series, such as ``CT``; "" for other images.
    """

    geometry: Geometry
    modality: str = ""


@dataclass(frozen=True)
class OnImage:
    """A segmentation on the grid of its image.

    :ivar layers: label maps, uint16 ``(z, y, x)``, several if structures overlap; each structure is in one of them.
    :ivar labels: of the structures, without the background.
    :ivar drawn: values of the structures that are known: those with a voxel, and those that the file lists as empty.
    :ivar notices: sentences that the user should see.
    :ivar filled: values of the structures that come from another segmentation.
    """

    layers: tuple[np.ndarray, ...]
    labels: tuple[Label, ...]
    drawn: frozenset[int]
    notices: tuple[str, ...]
    filled: frozenset[int] = frozenset()


def read_image_grid(images: Sequence[Path]) -> ImageGrid:
    """Return the grid of an image, from headers alone.

    :param images: a file for each channel, or the folder of a DICOM series.
    :raises ImageError: if one is no volume, the channels differ, or NIfTI cannot hold the grid.
    """
    grids = [_grid(path) for path in images]
    first = grids[0]
    for path, grid in zip(images[1:], grids[1:], strict=True):
        if difference := geometry_difference(first.geometry, grid.geometry):
            raise ImageError(
                f"{path} is not on the grid of {images[0]}, another channel ({difference}). Resample it onto this grid."
            )
    if first.geometry.shear > ROUNDED_SHEAR:
        raise ImageError(
            f"{images[0]} has axes that are not perpendicular, as after a gantry tilt; nnU-Net's files cannot hold "
            "them. Resample image and segmentation to perpendicular axes, or leave the case out."
        )
    return first


def _grid(path: Path) -> ImageGrid:
    refuse_missing(path)
    if path.is_dir():
        slices, geometry = read_places(path)
        return ImageGrid(geometry, slices[0].modality)
    found = read_grid(path)
    if found is None:
        raise ImageError(
            f"{path} is not a volume with one value in each voxel. Save each channel as a file of its own, "
            "NAME_0000, NAME_0001 and so on."
        )
    return ImageGrid(found)


def bring_onto_image(file: Path, of: Path, image: Geometry, names: LabelTable | None = None) -> OnImage:
    """Read a segmentation, and bring it onto the grid of an image.

    On the same lattice, whatever part of the image it covers and in whatever order its axes are, each voxel goes where
    it is. On another one, each voxel of the image gets the label of the nearest one. Contours are filled.

    :param of: a file of the image, or its folder.
    :param names: of the values of a label image that has no names of its own.
    :raises ImageError: if it cannot be read, or lies outside of the image for the most part.
    :raises LabelTableError: if labels have no names.
    """
    read, notices = read_segmentation(file, of)
    read = _with_names(file, read, names)
    before = counts_of(read.layers)
    inside, told = _place(file, of, read, image, int(before[1:].sum()))
    labels = read.table.foreground
    after = counts_of(inside)
    vanished = [label.name for label in labels if before[label.value] and not after[label.value]]
    if vanished:
        told.append(f"{file} has no voxel on the grid of {of} of: {listed(vanished)}.")
    listed_too = _lists_segments(file)
    drawn = {label.value for label in labels if listed_too or before[label.value]}
    return OnImage(inside, labels, frozenset(drawn), (*notices, *told))


def counts_of(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return how many voxels each value has in all layers, ``(65536,)``."""
    return np.sum([voxel_counts(layer) for layer in layers], axis=0)


def _lists_segments(file: Path) -> bool:
    """Tell whether a file lists the segments that somebody made, so that an empty one says: not in this image.

    A table beside a label image lists all that a program could find, and many planning systems list all structures of a
    template.
    """
    return file.name.lower().endswith(".seg.nrrd") or is_dicom_seg(file)


def _with_names(file: Path, read: Segmentation, names: LabelTable | None) -> Segmentation:
    nameless = [label for label in read.table.foreground if label.name == f"label {label.value}"]
    named = len(nameless) < len(read.table.foreground) or table_beside(file) is not None
    if not nameless or named or is_drawn(file) or _lists_segments(file):
        return read
    if names is None:
        raise LabelTableError(
            f"{file} does not say what its labels mean, such as {nameless[0].value}. Name a label table with --labels, "
            "or put NAME.labels.csv or the dataset.json of nnU-Net beside it."
        )
    unknown = [label.value for label in nameless if label.value not in names]
    if unknown:
        raise LabelTableError(f"{file} has the label {unknown[0]}, which the table of --labels does not name.")
    kept = [names[label.value] for label in nameless]
    return replace(read, table=LabelTable(tuple(kept)))


def _place(
    file: Path, of: Path, read: Segmentation, image: Geometry, labelled: int
) -> tuple[tuple[np.ndarray, ...], list[str]]:
    """Return the layers on the grid of the image, and sentences on what that changed."""
    place = onto_grid(read.geometry, image)
    if place is None:
        return read.layers, []
    told = []
    outside = sum(_outside(layer, read.geometry, image) for layer in read.layers)
    if outside > _MOST_OUTSIDE * labelled:
        raise ImageError(
            f"{file} lies outside of {of} with {outside:,} of its {labelled:,} labelled "
            "voxels. If it is of another image, pair it with that; else correct the origin of one of both."
        )
    if outside:
        told.append(f"{file} has {outside:,} voxels outside of {of}; they are left out.")
    if not same_lattice(read.geometry, image):
        told.append(f"{file} is not on the grid of {of}: each voxel there gets the nearest label.")
    return tuple(place(layer) for layer in read.layers), told


def _outside(layer: np.ndarray, source: Geometry, target: Geometry) -> int:
    """Return how many labelled voxels have their centres outside of another grid."""
    to_target = np.linalg.inv(target.axes)
    steps, start = to_target @ source.axes, to_target @ np.subtract(source.origin, target.origin)
    ends = [np.flatnonzero(layer.any(axis)) for axis in ((0, 1), (0, 2), (1, 2))]  # along x, y, z
    if not len(ends[0]):
        return 0
    corners = np.stack(np.meshgrid(*[(end[0], end[-1]) for end in ends], indexing="ij"), -1).reshape(-1, 3)
    if not _beyond(corners, steps, start, target).any():
        return 0
    count = 0
    for z in range(int(ends[2][0]), int(ends[2][-1]) + 1):
        y, x = np.nonzero(layer[z])
        count += int(_beyond(np.stack([x, y, np.full_like(x, z)], -1), steps, start, target).sum())
    return count


def _beyond(points: np.ndarray, steps: np.ndarray, start: np.ndarray, target: Geometry) -> np.ndarray:
    """Tell which voxels, x, y, z, lie outside of a grid, by more than rounding."""
    places = points @ steps.T + start
    edge = 0.5 + SAME_PLACE
    return ((places < -edge) | (places > np.array(target.size) - 1 + edge)).any(1)


def overlaps(layers: Sequence[np.ndarray]) -> dict[tuple[int, int], int]:
    """Return how many voxels each pair of structures has in common.

    >>> a, b = np.array([1, 1, 0, 2], np.uint16), np.array([0, 5, 5, 5], np.uint16)
    >>> overlaps([a, b])
    {(1, 5): 1, (2, 5): 1}
    """
    if len(layers) < 2:
        return {}
    times = np.zeros(layers[0].size, np.uint16)
    for layer in layers:
        times += layer.reshape(-1) > 0
    places = np.flatnonzero(times > 1)
    found: dict[tuple[int, int], int] = {}
    kept = [layer.reshape(-1)[places].astype(np.int64) for layer in layers]
    kept = [layer for layer in kept if layer.any()]
    for index, one in enumerate(kept):
        for other in kept[index + 1 :]:
            both = (one > 0) & (other > 0)
            pairs, counts = np.unique(one[both] << 16 | other[both], return_counts=True)
            for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
                key = (pair >> 16, pair & 0xFFFF)
                found[key] = found.get(key, 0) + count
    return found


def flattened(layers: Sequence[np.ndarray], values: Mapping[int, int], last: bool = False) -> np.ndarray:
    """Return one label map of all layers, uint8 if the new values fit, else uint16, ``(z, y, x)``.

    :param values: the new value of each structure; the others become 0.
    :param last: where structures overlap, the highest of the new values wins, and not the lowest.

    >>> layers = [np.array([1, 1, 0], np.uint16), np.array([0, 7, 7], np.uint16)]
    >>> flattened(layers, {1: 2, 7: 1}), flattened(layers, {1: 2, 7: 1}, last=True), flattened(layers, {7: 300})
    (array([2, 1, 1], dtype=uint8), array([2, 2, 1], dtype=uint8), array([  0, 300, 300], dtype=uint16))
    """
    kind = np.uint8 if max(values.values(), default=0) <= 255 else np.uint16
    lookup = np.zeros(1 << 16, kind)
    lookup[list(values)] = list(values.values())
    result = lookup[layers[0]]
    for layer in layers[1:]:
        new = lookup[layer]
        if last:
            np.maximum(result, new, out=result)
        else:
            np.copyto(result, new, where=(new > 0) & ((result == 0) | (new < result)))
    return result
