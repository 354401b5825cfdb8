"""Bringing one structure out of hundreds before the eyes: a point inside it, and the views centred there."""

from __future__ import annotations

from typing import Any

import numpy as np

from .volume import image_to_world


def structure_point(node: Any, segment_id: str) -> tuple[float, float, float] | None:
    """World coordinates, mm, of the voxel of a segment that is nearest to its centre of mass; ``None`` if it is empty.

    The centre itself may lie outside, between the arms of a rib or beside a vessel.
    """
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    segment = node.GetSegmentation().GetSegment(segment_id)
    image = segment.GetRepresentation("Binary labelmap") if segment is not None else None
    if image is None or image.GetPointData().GetScalars() is None:
        return None
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
    voxels = np.argwhere(labels == segment.GetLabelValue())
    if not len(voxels):
        return None
    z, y, x = voxels[np.square(voxels - voxels.mean(0)).sum(1).argmin()].tolist()
    point = (image_to_world(image) @ (x + x0, y + y0, z + z0, 1))[:3].tolist()
    transform = node.GetParentTransformNode()
    if transform is not None:
        to_world = vtk.vtkGeneralTransform()
        transform.GetTransformToWorld(to_world)
        point = to_world.TransformPoint(point)
    return tuple(point)


def centre_views(node: Any, segment_id: str) -> tuple[float, float, float] | None:
    """Centre all slice views and 3D cameras on a segment; returns the point, ``None`` if the segment is empty."""
    import slicer

    point = structure_point(node, segment_id)
    if point is not None:
        scene = node.GetScene()
        slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *point, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
        for camera in _nodes(scene, "vtkMRMLCameraNode"):
            position, focus = np.array(camera.GetPosition()), np.array(camera.GetFocalPoint())
            camera.SetPosition(*(position + point - focus))
            camera.SetFocalPoint(*point)
            camera.ResetClippingRange()
    return point


def _nodes(scene: Any, kind: str) -> list[Any]:
    found = scene.GetNodesByClass(kind)
    found.UnRegister(None)
    return [found.GetItemAsObject(index) for index in range(found.GetNumberOfItems())]
