"""Remember on a segmentation node which of its structures have been corrected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .checked import note_checked
from .confidence import forget_confidence
from .confidence_colors import follow_confidence

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

_CORRECTED = "ClassScaleSeg.Corrected"  # attribute: ids of segments, as JSON; of a frame, the sequence keeps it


def note_corrected(node: vtkMRMLSegmentationNode, segment_id: str) -> None:
    """Note that a structure has been corrected, so it is checked too. How sure the model was of it is forgotten."""
    segment = node.GetSegmentation().GetSegment(segment_id)
    if segment is not None:
        forget_confidence(segment)
        note_checked(segment)
    follow_confidence(node)
    node.SetAttribute(_CORRECTED, json.dumps([*dict.fromkeys((*_noted(node), segment_id))]))


def remember_corrected(node: vtkMRMLSegmentationNode, names: Sequence[str]) -> None:
    """Note which structures of a node had been corrected when it was saved. Those that it lacks are left out."""
    segmentation = node.GetSegmentation()
    ids = [each for each in segmentation.GetSegmentIDs() if segmentation.GetSegment(each).GetName() in names]
    if ids:
        node.SetAttribute(_CORRECTED, json.dumps(ids))


def corrected_structures(node: vtkMRMLSegmentationNode) -> tuple[str, ...]:
    """Return the names of the structures of a node that have been corrected and are still there.

    What somebody has changed in the Segment Editor itself is not known.

    >>> import numpy as np
    >>> import slicer
    >>> from ClassScaleSegLib import Geometry, LabelTable, Segmentation
    >>> from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
    >>> scene = slicer.vtkMRMLScene()
    >>> node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    >>> geometry = Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> found = Segmentation(np.ones((4, 4, 4), np.uint16), LabelTable.from_names({1: "spleen"}), geometry)
    >>> fill_segmentation_node(node, found)
    >>> note_corrected(node, node.GetSegmentation().GetNthSegmentID(0))
    >>> corrected_structures(node)
    ('spleen',)
    """
    segments = map(node.GetSegmentation().GetSegment, _noted(node))
    return tuple(segment.GetName() or "" for segment in segments if segment is not None)


def forget_corrected(node: vtkMRMLSegmentationNode) -> None:
    """Forget which structures have been corrected, because a run makes them anew."""
    node.RemoveAttribute(_CORRECTED)


def _noted(node: vtkMRMLSegmentationNode) -> list[str]:
    """Return the ids. A scene from elsewhere is not trusted."""
    try:
        found = json.loads(node.GetAttribute(_CORRECTED) or "[]")
    except (ValueError, RecursionError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
