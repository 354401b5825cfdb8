"""Show where two segmentations differ: what both have, and what only one of them has, as a segmentation node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ImageError
from ..images.comparison import ClassComparison, onto_grid
from ..images.counts import LabelVolume
from ..images.dense_place import dense_place, slabs
from ..images.image_file import check_memory
from ..images.layers import renumbered
from ..images.seg_nrrd import index_to_ras
from ..images.segmentation import Segmentation
from ..labels.label import MAX_VALUE, Label
from ..labels.table import LabelTable
from .dicom import is_result
from .hiding import hide_while_shown
from .results import note, noted, put_beside, removed_on_failure
from .segmentation_node import fill_segmentation_node
from .segmentation_reader import Opened
from .view import look_at

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

BOTH, ONLY_FIRST, ONLY_SECOND = 1, 2, 3  # label values
# of Okabe and Ito's colours, which people who are colour-blind tell apart: bluish green, orange, sky blue
_COLORS = ((0, 158, 115), (230, 159, 0), (86, 180, 233))
_NODE = "ClassScaleSeg.Differences"  # role of the node, in the reference


class Differences(NamedTuple):
    """Where two segmentations differ, in the scene.

    :ivar node: the segmentation node.
    :ivar volumes: of its three segments, in their order: in both, only in the reference, only in the other.
    """

    node: vtkMRMLSegmentationNode
    volumes: list[LabelVolume]


def show_differences(
    first: vtkMRMLSegmentationNode,
    second: vtkMRMLSegmentationNode,
    opened: tuple[Opened, Opened],
    rows: Sequence[ClassComparison],
) -> Differences:
    """Put the differences of two segmentation nodes into a node of three segments, and centre the views on them.

    The node of an earlier call with the same reference is filled again. The two are hidden in all views until it is
    hidden or removed, as :func:`~.hiding.hide_while_shown` does. The views are centred on the place where most voxels
    differ; they stay where they are if none does.

    :param first: the reference.
    :param opened: what both nodes hold.
    :param rows: the structures that count, of a comparison of the two.
    :raises ImageError: if the memory is not enough, or there are more than 65535 structures. The scene is not changed.
    """
    scene, (one, two) = first.GetScene(), opened
    names = [node.GetName() or "Segmentation" for node in (first, second)]
    parts = names if names[0] != names[1] else [f"{names[0]} (reference)", f"{names[1]} (other)"]
    found = differences(one.segmentation, two.segmentation, rows, parts)
    volumes, point = found.statistics(), densest_place(found)
    with removed_on_failure(scene):
        node = noted(first, _NODE, "vtkMRMLSegmentationNode")
        if node is None or node is second or is_result(node):  # a run has filled it meanwhile
            name = scene.GenerateUniqueName(f"{names[0]} differences")
            node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            put_beside(node, first)
        node.SetAndObserveTransformNodeID(None)
        fill_segmentation_node(node, found, keep_empty=True, replace=True, statistics=volumes)
    note(first, _NODE, node)
    for number in range(node.GetNumberOfDisplayNodes()):  # the user may have hidden those of an earlier call
        display = node.GetNthDisplayNode(number)
        display.SetVisibility2D(True)
        display.SetVisibility(True)
    hide_while_shown(node, (first, second))
    if point is not None:
        look_at(scene, point)
    return Differences(node, volumes)


def differences(
    first: Segmentation, second: Segmentation, rows: Sequence[ClassComparison], names: Sequence[str]
) -> Segmentation:
    """Return where two segmentations agree and where they differ, on the grid of the first.

    A voxel is in both if each calls it the same structures, one or more. It is only in the first, or only in the
    second, if that calls it a structure that the other does not. To a voxel that each calls another structure, both of
    these apply. If the grids differ, the second is brought onto the first one's by the nearest voxel.

    Beside the result, this takes a few slices; on another grid also each layer of the second segmentation.

    :param rows: the structures that count, with their label values in both.
    :param names: of both segmentations, for the names of the segments.
    :returns: the label values are ``BOTH``, ``ONLY_FIRST`` and ``ONLY_SECOND``; the last is in a layer of its own if
        there are voxels that each calls another structure.
    :raises ImageError: if the memory is not enough, or there are more than 65535 structures.

    >>> from ..images.comparison import compare
    >>> from ..images.geometry import Geometry
    >>> grid = Geometry((5, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> drawn, found = (
    ...     Segmentation(np.array(labels, np.uint16).reshape(1, 1, 5), LabelTable.from_names(names), grid)
    ...     for labels, names in (
    ...         ([1, 1, 1, 2, 0], {1: "liver", 2: "cyst"}), ([7, 7, 0, 0, 7], {7: "Liver"})
    ...     )
    ... )
    >>> differences(drawn, found, compare(drawn, found).rows, ("drawn", "found")).labels.ravel().tolist()
    [1, 1, 2, 2, 3]
    """
    if len(rows) > MAX_VALUE:
        raise ImageError(f"There are {len(rows)} structures. At most {MAX_VALUE} can be shown together: choose some.")
    shape, place = first.labels.shape, onto_grid(second.geometry, first.geometry)
    volumes = 2 + (len(second.layers) if place is not None else 0)
    check_memory("The segmentation", "x".join(map(str, first.geometry.size)), 2 * volumes * math.prod(shape))
    # the number of its row instead of the label value, so that both have the same value for a structure
    numbers = [
        {value: number for number, value in enumerate(values, start=1) if value is not None}
        for values in ([row.value for row in rows], [row.other_value for row in rows])
    ]
    layers = second.layers
    if place is not None:
        layers, numbers[1] = tuple(place(renumbered(layer, numbers[1])) for layer in layers), {}
    result, overlapping = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    for slices in slabs(shape):
        reference = [renumbered(layer[slices], numbers[0]) for layer in first.layers]
        other = [renumbered(layer[slices], numbers[1]) if place is None else layer[slices] for layer in layers]
        same, alone, alone_there = _divided(reference, other)
        result[slices][same] = BOTH
        result[slices][alone] = ONLY_FIRST
        overlapping[slices][alone_there] = ONLY_SECOND
    labels = [
        Label(value, identifier, name, color)
        for value, identifier, name, color in zip(
            (BOTH, ONLY_FIRST, ONLY_SECOND),
            ("both", "reference", "other"),
            ("In both", *(f"Only in {name}" for name in names)),
            _COLORS,
            strict=True,
        )
    ]
    more: tuple[np.ndarray, ...] = (overlapping,)
    if not any((result[slices].astype(bool) & (overlapping[slices] > 0)).any() for slices in slabs(shape)):
        np.copyto(result, overlapping, where=overlapping > 0)
        more = ()
    return Segmentation(result, LabelTable(tuple(labels)), first.geometry, more_layers=more)


def _divided(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the layers of both call a voxel the same, and where either calls it what the other does not."""
    there = [np.zeros(layer.shape, bool) for layer in second]
    alone, any_same = np.zeros(first[0].shape, bool), np.zeros(first[0].shape, bool)
    for layer in first:
        here = np.zeros(layer.shape, bool)
        for known, other in zip(there, second, strict=True):
            same = (layer == other) & (layer > 0)
            known |= same
            here |= same
        any_same |= here
        alone |= (layer > 0) & ~here
    alone_there = np.zeros_like(alone)
    for known, layer in zip(there, second, strict=True):
        alone_there |= (layer > 0) & ~known
    return any_same & ~alone & ~alone_there, alone, alone_there


def densest_place(found: Segmentation) -> tuple[float, float, float] | None:
    """Return a voxel that differs, where most voxels differ within about 10 mm; RAS in mm, ``None`` if none differs.

    :param found: as from :func:`differences`.
    """
    grid = found.geometry
    place = dense_place(lambda box: _differs(found, box), found.labels.shape, grid.spacing[::-1])
    return None if place is None else tuple((index_to_ras(grid) @ (*place[::-1], 1))[:3].tolist())


def _differs(found: Segmentation, box: tuple[slice, ...]) -> np.ndarray:
    """Return which voxels of a box are only in one of the segmentations."""
    return np.logical_or.reduce([layer[box] > BOTH for layer in found.layers])
