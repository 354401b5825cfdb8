"""The volume with the confidence of each voxel of a segmentation, and where in a structure the model was least sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..images.dense_place import Box, dense_place
from .results import note, noted
from .segmentation_reader import LABELMAP
from .view import centre_views, look_at, to_world
from .volume import image_to_world

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

_VOLUME = "ClassScaleSeg.ConfidenceVolume"  # role of the volume, in the reference
_APART = 1e-3  # voxels, by which the grid of a segment may be off that of the volume


def remember_confidence(node: vtkMRMLSegmentationNode, volume: vtkMRMLScalarVolumeNode | None) -> None:
    """Note the volume with the confidence of each voxel of a segmentation; ``None``: that of an earlier run goes."""
    if volume is None:
        node.RemoveNodeReferenceIDs(_VOLUME)
    else:
        note(node, _VOLUME, volume)


def confidence_volume(node: vtkMRMLSegmentationNode) -> vtkMRMLScalarVolumeNode | None:
    """Return that volume; ``None`` if there is none any more, or a run has filled it with that of another segmentation.

    >>> import slicer
    >>> scene = slicer.vtkMRMLScene()
    >>> first, second = (scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name) for name in ("CT 1", "CT 2"))
    >>> volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence")
    >>> volume.SetAndObserveImageData(slicer.vtkOrientedImageData())
    >>> for node in (first, second):
    ...     remember_confidence(node, volume)
    >>> confidence_volume(first) is None, confidence_volume(second).GetName()
    (True, 'Confidence')
    """
    volume = noted(node, _VOLUME, "vtkMRMLScalarVolumeNode")
    if volume is None or volume.GetImageData() is None or volume.GetImageData().GetNumberOfScalarComponents() != 1:
        return None
    return volume


def centre_least_sure(node: vtkMRMLSegmentationNode, segment_id: str) -> tuple[float, float, float] | None:
    """Centre all views on where in a segment the model was least sure, or if that is not known, on the segment.

    :returns: the centre, RAS in mm; ``None``, with no view moved, if the segment is empty or does not exist.
    """
    point = least_sure_point(node, segment_id)
    if point is None:
        return centre_views(node, segment_id)
    look_at(node.GetScene(), point)
    return point


def least_sure_point(node: vtkMRMLSegmentationNode, segment_id: str) -> tuple[float, float, float] | None:
    """Return where in a segment most doubt is within about 10 mm, in world coordinates, RAS in mm.

    The doubt of a voxel is 1 minus its confidence.

    :returns: ``None`` if the confidence of its voxels is not known, the segment has none, or there is no doubt.
    """
    import slicer

    segment, volume = node.GetSegmentation().GetSegment(segment_id), confidence_volume(node)
    image = segment.GetRepresentation(LABELMAP) if segment is not None else None
    if volume is None or image is None or image.GetPointData().GetScalars() is None:
        return None
    confidence = slicer.util.arrayFromVolume(volume)
    labels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, segment_id)
    first, value = _first_voxel(node, segment_id, volume), segment.GetLabelValue()
    if first is None or any(a < 0 for a in first):
        return None
    if any(a + size > whole for a, size, whole in zip(first, labels.shape, confidence.shape, strict=True)):
        return None
    here = confidence[tuple(slice(a, a + size) for a, size in zip(first, labels.shape, strict=True))]

    def doubt(box: Box) -> np.ndarray:
        inside = labels[box] == value
        if not inside.any():
            return inside
        found = np.zeros(inside.shape, np.float32)
        found[inside] = 1 - np.clip(np.nan_to_num(here[box][inside], nan=1.0), 0, 1)
        return found

    place = dense_place(doubt, labels.shape, image.GetSpacing()[::-1])
    if place is None:
        return None
    index = np.add(place[::-1], image.GetExtent()[::2])
    return to_world(node, (image_to_world(image) @ (*index, 1))[:3].tolist())


def _first_voxel(
    node: vtkMRMLSegmentationNode, segment_id: str, volume: vtkMRMLScalarVolumeNode
) -> tuple[int, int, int] | None:
    """Return the index z, y, x in a volume of the first voxel of the label map of a segment.

    :returns: ``None`` if they are not on one grid.
    """
    import slicer
    import vtk

    if node.GetParentTransformNode() is not volume.GetParentTransformNode():
        return None
    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    image = node.GetSegmentation().GetSegment(segment_id).GetRepresentation(LABELMAP)
    between = slicer.util.arrayFromVTKMatrix(matrix) @ image_to_world(image)
    first = between @ (*image.GetExtent()[::2], 1)
    x, y, z = np.round(first[:3]).astype(int).tolist()
    steps = np.abs(between[:3, :3] - np.eye(3)).max() * max(image.GetDimensions())
    return None if steps > _APART or np.abs(first[:3] - (x, y, z)).max() > _APART else (z, y, x)
