"""Read a segmentation node of 3D Slicer as a `Segmentation`: the images of its segments become one or more layers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ImageError
from ..images.comparison import nearest
from ..images.counts import LabelVolume, voxel_counts
from ..images.image_file import check_memory
from ..images.layers import LayerBuilder, fresh_values, layer_counts, renumbered
from ..images.seg_nrrd import parse_codes
from ..images.segmentation import Segmentation, class_volumes
from ..labels.label import MAX_VALUE, Label, one_line
from ..labels.table import LabelTable
from .volume import grid, image_to_world

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slicer import vtkMRMLSegmentationNode, vtkOrientedImageData, vtkSegment, vtkSegmentation

# A segmentation, and its statistics. They are handed on together, because counting the voxels again takes time, and
# statistics kept in the segmentation would be wrong once somebody has changed its labels.
Counted = tuple[Segmentation, list[LabelVolume]]
_VOXELS_ACROSS = 250  # of the grid for surfaces, as Slicer's own
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


class Opened(NamedTuple):
    """What a segmentation node holds, for lists and comparisons.

    :ivar segmentation: in world coordinates.
    :ivar statistics: of the segmentation.
    :ivar ids: the id of the segment of each label value, as the node has it.
    """

    segmentation: Segmentation
    statistics: list[LabelVolume]
    ids: dict[int, str]


def segmentation_of(node: vtkMRMLSegmentationNode) -> Counted | None:
    """Return the label maps of a segmentation node, with the current names, colours, codes and ids of its segments.

    Segments that share an image, as those of `fill_segmentation_node` do, come in one layer, and so do others that do
    not overlap. Where several segments have the same label value, all but the first get free ones.

    :returns: ``None`` if segments have no label map, or label maps on different grids, or the node is under a
        transform, or has no voxels.
    :raises ImageError: if segments overlap in too many layers.
    """
    if node.GetParentTransformNode() is not None:
        return None
    opened = _read(node.GetSegmentation(), np.eye(4), resample=False)
    return None if opened is None else opened[:2]


def open_segmentation(node: vtkMRMLSegmentationNode, local: bool = False, grid_of: str = "") -> Opened | None:
    """Return what any segmentation node holds, whoever made it, as label maps on one grid in world coordinates.

    Fractional label maps and surfaces are converted by Slicer, in a copy; the node is not changed. Segments on several
    grids are brought onto that of one of them, by the nearest voxel.

    :param local: in the coordinates of the node instead, as if it were under no transform.
    :param grid_of: the id of the segment whose grid is taken, if it has one; else it is that of the first one.
    :returns: ``None`` if there is no segment with a voxel.
    :raises ImageError: if Slicer cannot convert the segments, they overlap in too many layers, or the node is under a
        non-linear transform.
    """
    import slicer

    transform, segmentation = None if local else node.GetParentTransformNode(), node.GetSegmentation()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise ImageError(
            f"{node.GetName()} is under the non-linear transform {transform.GetName()}. Harden the transform (in "
            "Slicer's Data module, right-click the transform icon and choose Harden transform)."
        )
    world = np.eye(4) if transform is None else slicer.util.arrayFromTransformMatrix(transform, toWorld=True)
    if not segmentation.GetNumberOfSegments():
        return None
    if not segmentation.ContainsRepresentation(LABELMAP):
        segmentation = _converted(node)
    return _read(segmentation, world, resample=True, grid_of=grid_of)


def open_structures(node: vtkMRMLSegmentationNode, local: bool = False, grid_of: str = "") -> Opened:
    """Return what :func:`open_segmentation` does.

    :raises ImageError: also if there is no segment with a voxel.
    """
    opened = open_segmentation(node, local, grid_of)
    if opened is None:
        raise ImageError(f"There is no structure in {node.GetName()}.")
    return opened


def labels_of(node: vtkMRMLSegmentationNode) -> LabelTable:
    """Return the labels of all segments of a node, whatever voxels they have.

    :raises ImageError: if there are more than 65535.
    """
    segmentation = node.GetSegmentation()
    segments = {identifier: segmentation.GetSegment(identifier) for identifier in segmentation.GetSegmentIDs()}
    values = fresh_values([segment.GetLabelValue() for segment in segments.values()])
    return _table(segments, dict(zip(segments, values, strict=True)))


def label_of(identifier: str, segment: vtkSegment, value: int) -> Label:
    """Return id, name, colour and codes of a segment as a label with a value."""
    colour = tuple(round(255 * min(1.0, max(0.0, part))) for part in segment.GetColor())
    entry = segment.GetTerminology() if hasattr(segment, "GetTerminology") else ""  # Slicer older than 5.10 has none
    codes: dict[str, Any] = parse_codes(f"TerminologyEntry:{entry}|")
    return Label(value, identifier, segment.GetName() or "", colour, **codes)


def _converted(node: vtkMRMLSegmentationNode) -> vtkSegmentation:
    """Return a copy of what a node holds, with a label map of each segment, all on one grid.

    :raises ImageError: if Slicer cannot convert its representation.
    """
    import slicer

    converter = slicer.vtkSegmentationConverter
    segmentation, parameter = slicer.vtkSegmentation(), converter.GetReferenceImageGeometryParameterName()
    segmentation.DeepCopy(node.GetSegmentation())
    if not segmentation.GetConversionParameter(parameter):
        segmentation.SetConversionParameter(parameter, converter.SerializeImageGeometry(_grid_of(segmentation)))
    if not segmentation.CreateRepresentation(LABELMAP):
        raise ImageError(
            f"Slicer cannot make label maps of {node.GetName()}, whose segments are of the kind "
            f"{segmentation.GetSourceRepresentationName()}. In the module Segmentations, create the representation "
            f"{LABELMAP}."
        )
    return segmentation


def _grid_of(segmentation: vtkSegmentation) -> vtkOrientedImageData:
    """Return an image without voxels on the grid of the first image, else one of about 250 voxels around all."""
    import slicer

    image = slicer.vtkOrientedImageData()
    for identifier in segmentation.GetSegmentIDs():
        own = segmentation.GetSegment(identifier).GetRepresentation(segmentation.GetSourceRepresentationName())
        if own is not None and own.IsA("vtkOrientedImageData"):
            image.CopyDirections(own)
            image.SetOrigin(own.GetOrigin())
            image.SetSpacing(own.GetSpacing())
            image.SetExtent(own.GetExtent())
            return image
    bounds = [0.0] * 6
    segmentation.GetBounds(bounds)
    low, high = np.array(bounds[::2]), np.array(bounds[1::2])
    spacing = max(float((high - low).max()), 1e-3) / _VOXELS_ACROSS
    size = np.maximum(np.ceil((high - low) / spacing), 0).astype(int) + 3
    image.SetSpacing(spacing, spacing, spacing)
    image.SetOrigin(*(low - spacing).tolist())
    image.SetExtent(*np.ravel([[0, count - 1] for count in size.tolist()]).tolist())
    return image


def _read(segmentation: vtkSegmentation, world: np.ndarray, resample: bool, grid_of: str = "") -> Opened | None:
    """Return what a segmentation with label maps holds.

    :param world: ``(4, 4)``, from its coordinates to the world, RAS in mm.
    :param resample: whether images on several grids are resampled, and those that are no label maps left out; otherwise
        there is no result.
    :param grid_of: as of :func:`open_segmentation`.
    """
    segments = {i: segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()}
    if not segments:
        return None
    values = fresh_values([segment.GetLabelValue() for segment in segments.values()])
    given = dict(zip(segments, values, strict=True))
    images = _images(segments)
    if None in images and not resample:
        return None
    images.pop(None, None)
    first_image = next((image for image in images if _has_voxels(image)), None)
    if first_image is None:
        return None
    wanted = segments[grid_of].GetRepresentation(LABELMAP) if grid_of in segments else None
    first_image = wanted if wanted is not None and _has_voxels(wanted) else first_image
    pieces = []
    for image, identifiers in images.items():
        if _has_voxels(image):
            labels = [{segments[i].GetLabelValue(): given[i] for i in group} for group in identifiers]
            found = _pieces(image, first_image, labels, resample)
            if found is None:
                return None
            pieces += found
    first = np.min([piece.first for piece in pieces], axis=0)
    last = np.max([piece.last for piece in pieces], axis=0)
    reference = _reference_extent(segmentation, first_image)
    if reference is not None:
        first, last = np.minimum(reference[::2], first), np.maximum(reference[1::2], last)
    size = tuple((last - first + 1).tolist())
    check_memory("The segmentation", "x".join(map(str, size)), 2 * math.prod(size))
    layers, counts = _layers(pieces, first, size[::-1])
    table, ids = _table(segments, given), {value: identifier for identifier, value in given.items()}
    matrix = world @ image_to_world(first_image)
    matrix[:3, 3] += matrix[:3, :3] @ first
    geometry = grid(matrix, size)
    whole, *more = layers
    result = Segmentation(whole, table, geometry, counts=counts, more_layers=tuple(more))
    return Opened(result, class_volumes(counts, table, geometry), ids)


def _images(segments: Mapping[str, vtkSegment]) -> dict[vtkOrientedImageData | None, list[list[str]]]:
    """Return the images of the segments, and the segments of each in groups, in which no label value is twice.

    Segments that share an image and their label value are the same voxels twice.
    """
    images: dict[vtkOrientedImageData | None, list[list[str]]] = {}
    seen: dict[tuple[vtkOrientedImageData | None, int], int] = {}
    for identifier, segment in segments.items():
        image = segment.GetRepresentation(LABELMAP)
        groups, key = images.setdefault(image, []), (image, segment.GetLabelValue())
        place = seen[key] = seen.get(key, -1) + 1
        if place == len(groups):
            groups.append([])
        groups[place].append(identifier)
    return images


def _has_voxels(image: vtkOrientedImageData) -> bool:
    return image.GetPointData().GetScalars() is not None and image.GetNumberOfPoints() > 0


def _pieces(
    image: vtkOrientedImageData, first_image: vtkOrientedImageData, labels: Sequence[dict[int, int]], resample: bool
) -> list[_Piece] | None:
    """Return the voxels of an image on the grid of the first one.

    :param labels: for each group of its segments the new label values by those in the image.
    :returns: ``None`` if it is on another grid, or has no labels, and is not to be resampled.
    """
    from vtk.util.numpy_support import vtk_to_numpy

    voxels = vtk_to_numpy(image.GetPointData().GetScalars())
    if voxels.ndim != 1 or voxels.size != image.GetNumberOfPoints():
        return [] if resample else None
    voxels = voxels.reshape(image.GetDimensions()[::-1])
    if voxels.dtype not in (np.uint8, np.uint16):
        if voxels.dtype.kind not in "iu" or voxels.min() < 0 or voxels.max() > MAX_VALUE:
            if not resample:
                return None
            with np.errstate(invalid="ignore"):
                voxels = np.nan_to_num(np.rint(voxels)).clip(0, MAX_VALUE)
        voxels = voxels.astype(np.uint16)
    steps = np.linalg.inv(image_to_world(first_image)) @ image_to_world(image)
    extent = image.GetExtent()
    away = np.rint(steps[:3, 3]).astype(int)
    if np.allclose(steps[:3, :3], np.eye(3), atol=1e-6) and np.abs(steps[:3, 3] - away).max() < _APART:
        first = np.add(extent[::2], away)
    elif not resample:
        return None
    else:
        low, high = np.array(extent[::2]) - 0.5, np.array(extent[1::2]) + 0.5  # voxels reach beyond their centres
        corners = np.array([np.where(ends, high, low) for ends in np.ndindex(2, 2, 2)])
        reached = corners @ steps[:3, :3].T + steps[:3, 3]
        first, last = np.ceil(reached.min(0)).astype(int), np.floor(reached.max(0)).astype(int)
        last = np.maximum(first, last)
        size = tuple((last - first + 1).tolist())
        check_memory("A segment", "x".join(map(str, size)), 2 * math.prod(size))
        back = np.linalg.inv(steps)
        start = back[:3, :3] @ first + back[:3, 3] - extent[::2]
        voxels = nearest(voxels.astype(np.uint16), back[:3, :3], start, size[::-1])
    return [_Piece(voxels, first, {old: new for old, new in known.items() if old > 0}) for known in labels]


def _table(segments: Mapping[str, vtkSegment], given: Mapping[str, int]) -> LabelTable:
    """Return the labels of the segments. Ids that a label table cannot tell apart get another form."""
    labels, taken = [], set[str]()
    for identifier, segment in segments.items():
        label, count = label_of(identifier, segment, given[identifier]), 1
        while label.id in taken:
            count += 1
            label = replace(label, id=f"{one_line(identifier)}_{count}")
        taken.add(label.id)
        labels.append(label)
    return LabelTable(tuple(labels))


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


def _reference_extent(segmentation: vtkSegmentation, image: vtkOrientedImageData) -> np.ndarray | None:
    """Return the extent of the reference geometry, in voxels of ``image``; ``None`` if it is on another lattice."""
    import slicer

    converter = slicer.vtkSegmentationConverter
    text = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    reference = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, reference, False):
        return None
    own, other = image_to_world(image), image_to_world(reference)
    away = np.rint(np.linalg.solve(own, other)[:3, 3])  # an image may count its voxels from elsewhere
    own[:3, 3] += own[:3, :3] @ away
    same = np.allclose(other, own, atol=1e-4)
    return np.add(reference.GetExtent(), np.repeat(away, 2).astype(int)) if same else None
