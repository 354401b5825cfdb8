"""Read a segmentation node of 3D Slicer as a `Segmentation`: the images of its segments become one or more layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..images.counts import LabelVolume, voxel_counts
from ..images.layers import LayerBuilder, fresh_values, layer_counts, renumbered
from ..images.seg_nrrd import parse_codes
from ..images.segmentation import Segmentation, class_volumes
from ..labels.label import MAX_VALUE, Label
from ..labels.table import LabelTable
from .volume import grid, image_to_world

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slicer import vtkMRMLSegmentationNode, vtkOrientedImageData, vtkSegment, vtkSegmentation

# A segmentation, and its statistics. They are handed on together, because counting the voxels again takes time, and
# statistics kept in the segmentation would be wrong once somebody has changed its labels.
Counted = tuple[Segmentation, list[LabelVolume]]
_APART = 1e-3  # voxels, by which images may lie off a common grid
LABELMAP = "Binary labelmap"


class _Piece(NamedTuple):
    """The voxels of some segments, which do not overlap.

    :ivar voxels: integers ``(z, y, x)``.
    :ivar first: index x, y, z of the first voxel, on the grid of all pieces.
    :ivar values: the label value that each segment gets, by that in ``voxels``.
    """

    voxels: np.ndarray
    first: np.ndarray
    values: dict[int, int]

    @property
    def last(self) -> np.ndarray:
        return self.first + self.voxels.shape[::-1] - 1


def segmentation_of(node: vtkMRMLSegmentationNode) -> Counted | None:
    """Return the label maps of a segmentation node, with the current names, colours, codes and ids of its segments.

    Segments that share an image, as those of `fill_segmentation_node` do, come in one layer, and so do others that do
    not overlap. Where several segments have the same label value, all but the first get free ones.

    :returns: ``None`` if segments have no label map, or label maps on different grids, or the node is under a
        transform, or has no voxels.
    :raises ClassScaleError: if segments have ids that a label table cannot hold, or overlap in too many layers.
    """
    segmentation = node.GetSegmentation()
    segments = {i: segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()}
    if not segments or node.GetParentTransformNode() is not None:
        return None
    values = fresh_values([segment.GetLabelValue() for segment in segments.values()])
    given = dict(zip(segments, values, strict=True))
    pieces = _pieces(node, segments, given)
    if not pieces:
        return None
    image = next(iter(segments.values())).GetRepresentation(LABELMAP)
    first = np.min([piece.first for piece in pieces], axis=0)
    last = np.max([piece.last for piece in pieces], axis=0)
    reference = _reference_extent(segmentation, image)
    if reference is not None:
        first, last = np.minimum(reference[::2], first), np.maximum(reference[1::2], last)
    size = tuple((last - first + 1).tolist())
    layers, counts = _layers(pieces, first, size[::-1])
    table = LabelTable(tuple(_label(i, segment, given[i]) for i, segment in segments.items()))
    matrix = image_to_world(image)
    matrix[:3, 3] += matrix[:3, :3] @ first
    geometry = grid(matrix, size)
    labels, *more = layers
    result = Segmentation(labels, table, geometry, counts=counts, more_layers=tuple(more))
    return result, class_volumes(counts, table, geometry)


def _pieces(
    node: vtkMRMLSegmentationNode, segments: Mapping[str, vtkSegment], given: Mapping[str, int]
) -> list[_Piece] | None:
    """Return the images of the segments; ``None`` if one has no label map of valid labels, or they form no grid.

    :param given: the label value that each segment gets, by id.
    """
    import slicer

    images: dict[vtkOrientedImageData, list[str]] = {}
    for identifier, segment in segments.items():
        image = segment.GetRepresentation(LABELMAP)
        if image is None:
            return None
        images.setdefault(image, []).append(identifier)
    to_first = np.linalg.inv(image_to_world(next(iter(images))))
    pieces = []
    for image, identifiers in images.items():
        steps = to_first @ image_to_world(image)
        if not np.allclose(steps[:3, :3], np.eye(3), atol=1e-6):
            return None
        if image.GetPointData().GetScalars() is None or not image.GetNumberOfPoints():
            continue  # segments added without any voxels yet
        away = np.rint(steps[:3, 3]).astype(int)
        voxels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, identifiers[0])
        small = voxels.dtype in (np.uint8, np.uint16)
        if voxels.dtype.kind not in "iu" or not (small or (voxels.min() >= 0 and voxels.max() <= MAX_VALUE)):
            return None
        if np.abs(steps[:3, 3] - away).max() > _APART:
            return None
        first = np.add(image.GetExtent()[::2], away)
        # segments that share an image and their label value are the same voxels twice
        values: list[dict[int, int]] = [{}]
        for identifier in identifiers:
            old = segments[identifier].GetLabelValue()
            free = next((known for known in values if old not in known), None)
            if free is None:
                values.append(free := {})
            free[old] = given[identifier]
        pieces += [_Piece(voxels, first, {old: new for old, new in known.items() if old > 0}) for known in values]
    return pieces


def _layers(pieces: Sequence[_Piece], first: np.ndarray, shape: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the layers ``(z, y, x)`` of all pieces, and the number of voxels of each value in them, ``(65536,)``.

    :param first: index x, y, z of the first voxel of the layers.
    """
    boxes = []
    for piece in pieces:
        start = (piece.first - first)[::-1].tolist()
        boxes.append(tuple(slice(n, n + length) for n, length in zip(start, piece.voxels.shape, strict=True)))
    if len(pieces) == 1 and all(old == new for old, new in pieces[0].values.items()):
        labels = np.zeros(shape, np.uint16)
        labels[boxes[0]] = pieces[0].voxels
        counts = voxel_counts(labels)
        if set(np.flatnonzero(counts).tolist()) <= {0, *pieces[0].values}:
            return [labels], counts
    builder = LayerBuilder(shape)
    for piece, box in zip(pieces, boxes, strict=True):
        builder.add_box(box, renumbered(piece.voxels, piece.values))
    return builder.layers, layer_counts(builder.layers).sum(0)


def _label(identifier: str, segment: vtkSegment, value: int) -> Label:
    colour = tuple(round(255 * part) for part in segment.GetColor())
    entry = segment.GetTerminology() if hasattr(segment, "GetTerminology") else ""  # Slicer older than 5.10 has none
    codes: dict[str, Any] = parse_codes(f"TerminologyEntry:{entry}|")
    return Label(value, identifier, segment.GetName() or "", colour, **codes)


def _reference_extent(segmentation: vtkSegmentation, image: vtkOrientedImageData) -> tuple[int, ...] | None:
    """Return the extent of the reference geometry, or ``None`` if it is not on the grid of ``image``."""
    import slicer

    converter = slicer.vtkSegmentationConverter
    text = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    reference = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, reference, False):
        return None
    same = np.allclose(image_to_world(reference), image_to_world(image), atol=1e-4)
    return reference.GetExtent() if same else None
