"""Whether a segmentation was changed since it was looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
import vtk

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


def contents(node: vtkMRMLSegmentationNode | None) -> object:
    """Return what tells whether segments were changed: names, colours, label values and voxels, and the transform."""
    if node is None:
        return None
    segmentation = node.GetSegmentation()
    segments = [(i, segmentation.GetSegment(i)) for i in segmentation.GetSegmentIDs()]
    kinds = {"Binary labelmap", segmentation.GetSourceRepresentationName()}
    held = [segment.GetRepresentation(kind) for _identifier, segment in segments for kind in kinds]
    transform = node.GetParentTransformNode()
    return (
        [(i, segment.GetName(), segment.GetColor(), segment.GetLabelValue()) for i, segment in segments],
        {(image.GetAddressAsString(""), image.GetMTime()) for image in held if image is not None},
        (node.GetTransformNodeID(), None if transform is None else transform.GetTransformToWorldMTime()),
    )


def changes() -> tuple[int, ...]:
    """Return the events of a segmentation node after which its :func:`contents` may be others."""
    kinds = slicer.vtkSegmentation
    segments = (kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SegmentModified)
    return (vtk.vtkCommand.ModifiedEvent, *segments, kinds.SourceRepresentationModified)
