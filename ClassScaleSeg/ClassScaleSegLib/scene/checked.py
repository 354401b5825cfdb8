"""Which structures somebody has checked: the status "Completed" of a segment, which Slicer shows and saves.

The order in which structures are worth checking is that of the model's doubt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..images.seg_nrrd import CHECKED, NOT_CHECKED, STATUS_TAG
from .confidence import confidence_of
from .sequence import shown_frame

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode, vtkSegment


def is_checked(segment: vtkSegment) -> bool:
    """Return whether a structure has been checked, here or by the status in Slicer's table of segments."""
    import vtk

    text = vtk.reference("")
    return bool(segment.GetTag(STATUS_TAG, text)) and str(text) == CHECKED


def note_checked(segment: vtkSegment, checked: bool = True) -> None:
    """Note that a structure has been checked, or that it has to be checked again.

    >>> import slicer
    >>> segment = slicer.vtkSegment()
    >>> note_checked(segment)
    >>> is_checked(segment)
    True
    >>> note_checked(segment, False)
    >>> is_checked(segment)
    False
    """
    segment.SetTag(STATUS_TAG, CHECKED if checked else NOT_CHECKED)


def mark_checked(node: vtkMRMLSegmentationNode, segment_id: str, checked: bool = True) -> None:
    """Note of a segment of a node that it has been checked, or has to be again; of a sequence, in the frame shown."""
    for each in (node, shown_frame(node)):
        segment = None if each is None else each.GetSegmentation().GetSegment(segment_id)
        if segment is not None:
            note_checked(segment, checked)


def checked_structures(node: vtkMRMLSegmentationNode) -> list[str]:
    """Return the ids of the segments of a node that have been checked, in their order."""
    segmentation = node.GetSegmentation()
    return [each for each in segmentation.GetSegmentIDs() if is_checked(segmentation.GetSegment(each))]


def least_sure_first(node: vtkMRMLSegmentationNode, segment_ids: Iterable[str] | None = None) -> list[str]:
    """Return ids of segments in the order of the model's mean confidence in them, those without one last.

    :param segment_ids: of which segments; ``None``: of all. Those that do not exist are left out.
    """
    segmentation = node.GetSegmentation()
    wanted = segmentation.GetSegmentIDs() if segment_ids is None else segment_ids
    sure = {}
    for identifier in wanted:
        segment = segmentation.GetSegment(identifier)
        if segment is not None:
            confidence = confidence_of(segment)
            sure[identifier] = math.inf if confidence is None else confidence
    return sorted(sure, key=lambda identifier: sure[identifier])
