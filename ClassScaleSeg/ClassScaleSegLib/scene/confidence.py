"""How sure the model was of each structure: a tag of its segment, which Slicer saves with the segmentation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..images.seg_nrrd import CONFIDENCE_TAG, confidence_text

if TYPE_CHECKING:
    from slicer import vtkSegment


def note_confidence(segment: vtkSegment, confidence: float) -> None:
    """Note the mean confidence in the voxels of a structure, 0 to 1."""
    segment.SetTag(CONFIDENCE_TAG, confidence_text(confidence))


def forget_confidence(segment: vtkSegment) -> None:
    """Forget it, because the structure is not as the model found it any more."""
    segment.RemoveTag(CONFIDENCE_TAG)


def confidence_of(segment: vtkSegment) -> float | None:
    """Return the mean confidence that was noted; ``None`` if there is none. A scene from elsewhere is not trusted.

    >>> import slicer
    >>> segment = slicer.vtkSegment()
    >>> confidence_of(segment)
    >>> note_confidence(segment, 0.876543)
    >>> confidence_of(segment)
    0.8765
    """
    import vtk

    text = vtk.reference("")
    if not segment.GetTag(CONFIDENCE_TAG, text):
        return None
    try:
        confidence = float(str(text))
    except ValueError:
        return None
    return confidence if math.isfinite(confidence) and 0 <= confidence <= 1 else None
