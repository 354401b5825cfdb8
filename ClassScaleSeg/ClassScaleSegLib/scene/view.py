"""Centre Slicer's views on a point, such as one inside a segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..images.occupied import middle_voxel
from .volume import image_to_world

if TYPE_CHECKING:
    from slicer import vtkMRMLScene, vtkMRMLSegmentationNode, vtkMRMLTransformableNode


def structure_point(node: vtkMRMLSegmentationNode, segment_id: str) -> tuple[float, float, float] | None:
    """Return the world coordinates, RAS in mm, of the voxel of a segment that is nearest to its centre of mass.

    :returns: ``None`` if the segment is empty or does not exist.
    """
    import slicer

    segment = node.GetSegmentation().GetSegment(segment_id)
    image = segment.GetRepresentation("Binary labelmap") if segment is not None else None
    if image is None or image.GetPointData().GetScalars() is None:
        return None
    labels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, segment_id)
    nearest = middle_voxel(labels == segment.GetLabelValue(), image.GetSpacing()[::-1])
    if nearest is None:
        return None
    point = (image_to_world(image) @ (*np.add(nearest[::-1], image.GetExtent()[::2]), 1))[:3].tolist()
    return to_world(node, point)


def to_world(node: vtkMRMLTransformableNode, point: Sequence[float]) -> tuple[float, float, float]:
    """Return where a point of a node is under the transforms above it; both in RAS, mm."""
    import vtk

    transform, place = node.GetParentTransformNode(), vtk.vtkGeneralTransform()
    if transform is not None:
        transform.GetTransformToWorld(place)
    right, anterior, superior = place.TransformPoint(point)
    return right, anterior, superior


def centre_views(node: vtkMRMLSegmentationNode, segment_id: str) -> tuple[float, float, float] | None:
    """Centre all slice views and 3D cameras on a segment.

    :returns: the centre, RAS in mm; ``None``, with no view moved, if the segment is empty or does not exist.
    """
    point = structure_point(node, segment_id)
    if point is not None:
        look_at(node.GetScene(), point)
    return point


def look_at(scene: vtkMRMLScene, point: tuple[float, float, float]) -> None:
    """Centre all slice views and 3D cameras on a point, RAS in mm."""
    import slicer

    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *point, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLCameraNode")):
        camera = scene.GetNthNodeByClass(index, "vtkMRMLCameraNode")
        position, focus = np.array(camera.GetPosition()), np.array(camera.GetFocalPoint())
        camera.SetPosition(*(position + point - focus))
        camera.SetFocalPoint(*point)
        camera.ResetClippingRange()
