"""The voxels of a correction: of its structure and of all others, in the segmentation, and as they are painted."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError
from ..images.comparison import onto_grid
from ..images.geometry import same_lattice
from ..images.image_file import check_memory
from ..images.occupied import occupied_box
from ..images.segmentation import Segmentation
from .segment_editor import Change, change_segment
from .segmentation_node import shared_image
from .segmentation_reader import LABELMAP
from .volume import grid, image_to_world

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from slicer import vtkMRMLSegmentationNode

    from ..images.geometry import Geometry
    from .segmentation_reader import Opened

_NOWHERE = 0.1234  # voxels, by which hardly any grid lies off
_TOUCHING = 1e-3  # voxels, by which rounding may bring a centre beyond the edge of another voxel


def value_of(opened: Opened, segment_id: str) -> int:
    """Return the label value of a segment.

    :raises ImageError: if there is none of that id.
    """
    for value, identifier in opened.ids.items():
        if identifier == segment_id:
            return value
    raise ImageError(f"There is no segment {segment_id} any more.")


def divided(opened: Opened, value: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which voxels a structure has, and which all others have; bool ``(z, y, x)``.

    Those that contain it, by :func:`containing`, are no others: it has no border with them.
    """
    own = np.any([layer == value for layer in opened.segmentation.layers], axis=0)
    apart = (0, value, *containing(opened, own, value))
    others = np.any([~np.isin(layer, apart) for layer in opened.segmentation.layers], axis=0)
    return own, others


def containing(opened: Opened, own: np.ndarray, value: int) -> list[int]:
    """Return the label values of the structures that contain most of another one, as the body contains the liver.

    :param own: voxels of that structure, bool ``(z, y, x)``.
    :param value: its label value.
    """
    least = np.count_nonzero(own) / 2
    found: list[int] = []
    for layer in opened.segmentation.layers:
        values, counts = np.unique(layer[own], return_counts=True)
        found += [each for each, count in zip(values.tolist(), counts.tolist(), strict=True) if count > least]
    return [each for each in found if each not in (0, value)]


def fingerprint(mask: np.ndarray, geometry: Geometry, counts: Iterable[int] = ()) -> str:
    """Return what tells masks apart, whatever part of the same lattice their arrays cover.

    :param mask: bool ``(z, y, x)`` on the grid ``geometry``.
    :param counts: voxels of each structure in it, whose borders may move within the mask.
    """
    box = occupied_box(mask)
    first = [part.start for part in reversed(box)] or [0, 0, 0]
    place = np.linalg.inv(geometry.axes) @ geometry.origin + first
    # Files round origins, and many a place lies on half a voxel. Elsewhere rounding changes nothing.
    steps = np.floor(place + _NOWHERE).astype(int).tolist() if box else []
    inside = mask[tuple(box)] if box else np.zeros((0, 0, 0), bool)
    facts = repr((inside.shape, steps, sorted(counts)))
    return hashlib.sha256(np.packbits(inside).tobytes() + facts.encode()).hexdigest()


def print_of_others(opened: Opened, others: np.ndarray, value: int) -> str:
    """Return what tells the voxels of other structures apart from those of later, also if only their borders move.

    :param others: which voxels they have, as :func:`divided` says.
    :param value: of the structure itself.
    """
    counts = [row.voxels for row in opened.statistics if row.voxels and row.value != value]
    return fingerprint(others, opened.segmentation.geometry, counts)


def with_room(opened: Opened, drawn: Opened | None, segment_id: str) -> Opened:
    """Return what a segmentation holds on a grid that also has the voxels of a segment of its correction.

    They may lie outside if the user has made the grid of the correction larger, or that of the segmentation has become
    smaller, such as by segments that were removed.

    :param drawn: what the correction holds; ``None`` if it has no voxel.
    :raises ImageError: if the memory is not enough.
    """
    if drawn is None or segment_id not in drawn.ids.values():
        return opened
    box = occupied_box(divided(drawn, value_of(drawn, segment_id))[0])
    if not box:
        return opened
    segmentation = opened.segmentation
    source, target = drawn.segmentation.geometry, segmentation.geometry
    low, high = (np.array([getattr(part, end) for part in reversed(box)], float) for end in ("start", "stop"))
    corners = np.where(list(np.ndindex(2, 2, 2)), high - 1, low) @ source.axes.T + source.origin
    reached = (corners - target.origin) @ np.linalg.inv(target.axes).T
    before = np.maximum(np.ceil(-0.5 - _TOUCHING - reached.min(0)), 0).astype(int)
    after = np.maximum(np.ceil(reached.max(0) + 0.5 - _TOUCHING - target.size), 0).astype(int)
    if not (before.any() or after.any()):
        return opened
    size = tuple((before + target.size + after).tolist())
    check_memory("The correction", "x".join(map(str, size)), 2 * math.prod(size) * len(segmentation.layers))
    geometry = replace(target, size=size, origin=tuple((target.origin - target.axes @ before).tolist()))
    around = list(zip(before[::-1].tolist(), after[::-1].tolist(), strict=True))
    labels, *more = (np.pad(layer, around) for layer in segmentation.layers)
    return opened._replace(segmentation=Segmentation(labels, segmentation.table, geometry, more_layers=tuple(more)))


def painted(
    correction: vtkMRMLSegmentationNode, drawn: Opened | None, segment_ids: Iterable[str], geometry: Geometry
) -> list[np.ndarray | None]:
    """Return the voxels of some segments on a grid, bool ``(z, y, x)``; ``None`` for one that was removed.

    :param drawn: what the correction holds; ``None`` if it has no voxel.
    """
    there = set(correction.GetSegmentation().GetSegmentIDs())
    masks: list[np.ndarray | None] = []
    for identifier in segment_ids:
        if identifier not in there:
            masks.append(None)
        elif drawn is None:  # not one voxel is left
            masks.append(np.zeros(geometry.size[::-1], bool))
        else:
            mask = divided(drawn, value_of(drawn, identifier))[0]
            place = onto_grid(drawn.segmentation.geometry, geometry)
            masks.append(mask if place is None else place(mask.astype(np.uint16)).astype(bool))
    return masks


def take_from_other_grids(
    node: vtkMRMLSegmentationNode, segment_ids: Collection[str], mask: np.ndarray, geometry: Geometry
) -> dict[str, bool]:
    """Take voxels away from segments of which any is on another grid, as :func:`take_voxels` does.

    Slicer's own logic would bring a whole segment onto the grid of the mask, which may be coarser.

    :returns: as that does; nothing if all are on the grid of the mask, where they still have them.
    """
    if all(same_lattice(geometry, _grid_of(node, identifier)) for identifier in segment_ids):
        return {}
    return take_voxels(node, segment_ids, mask, geometry)


def take_voxels(
    node: vtkMRMLSegmentationNode, segment_ids: Collection[str], mask: np.ndarray, geometry: Geometry
) -> dict[str, bool]:
    """Take voxels away from segments, from each on its own grid.

    :param segment_ids: of segments with voxels.
    :param mask: bool ``(z, y, x)`` on the grid ``geometry``, in the coordinates of the node.
    :returns: for each segment whether it has lost any voxel.
    """
    import slicer

    lost: dict[str, bool] = {}
    for identifier in segment_ids:
        own = _grid_of(node, identifier)  # only now, because an image that several share may have shrunk
        place = onto_grid(geometry, own)
        there = mask.copy() if place is None else place(mask.astype(np.uint16)).astype(bool)
        value = node.GetSegmentation().GetSegment(identifier).GetLabelValue()
        there &= slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, identifier) == value
        lost[identifier] = bool(there.any())
        if lost[identifier]:
            change_segment(node, identifier, shared_image(there.astype(np.uint8), own), Change.REMOVE)
    return lost


def _grid_of(node: vtkMRMLSegmentationNode, segment_id: str) -> Geometry:
    """Return the grid of the image of a segment, in the coordinates of the node."""
    image = node.GetSegmentation().GetSegment(segment_id).GetRepresentation(LABELMAP)
    matrix = image_to_world(image)
    matrix[:3, 3] += matrix[:3, :3] @ image.GetExtent()[::2]
    return grid(matrix, image.GetDimensions())
