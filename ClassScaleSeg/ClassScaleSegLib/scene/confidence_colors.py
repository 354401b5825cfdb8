"""Colour segments by how sure the model was of them, and by their own colours again.

Slicer's display nodes can show a segment in another colour than its own, an override colour. So nothing of the segments
changes: what is saved, compared or corrected has their own colours, and one that the user chooses meanwhile stays. The
override colours are saved with the scene.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .confidence import confidence_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slicer import vtkMRMLSegmentationDisplayNode, vtkMRMLSegmentationNode, vtkSegment

LEAST, MOST = 0.5, 1.0  # mean confidences at both ends of the colours; less than the least looks like it
# matplotlib's viridis, from its bright end: people who are colour-blind tell its colours apart, and on the grey of an
# image, yellow strikes more than violet
RAMP = (
    (253, 231, 37),
    (189, 223, 38),
    (122, 209, 81),
    (68, 191, 112),
    (34, 168, 132),
    (33, 144, 141),
    (42, 120, 142),
    (53, 95, 141),
    (65, 68, 135),
    (72, 36, 117),
    (68, 1, 84),
)
_SHOWN = "ClassScaleSeg.ConfidenceColors"  # attribute of a display node while it shows them


def confidence_color(confidence: float) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, for a mean confidence, 0 to 1: yellow for doubt, violet for certainty.

    >>> confidence_color(0.3) == confidence_color(0.5) == (253, 231, 37), confidence_color(1)
    (True, (68, 1, 84))
    """
    places = np.linspace(LEAST, MOST, len(RAMP))
    red, green, blue = (round(float(np.interp(confidence, places, part))) for part in zip(*RAMP, strict=True))
    return red, green, blue


def has_confidence(node: vtkMRMLSegmentationNode) -> bool:
    """Return whether the confidence is known of any segment of a node."""
    return any(True for _identifier, _confidence in _known(node))


def shows_confidence(node: vtkMRMLSegmentationNode) -> bool:
    """Return whether segments are coloured by their confidence."""
    return any(display.GetAttribute(_SHOWN) is not None for display in _displays(node))


def show_confidence(node: vtkMRMLSegmentationNode, on: bool = True) -> bool:
    """Colour segments by their mean confidence, in all views, or by their own colours again.

    Segments whose confidence is not known, such as those that somebody has drawn, keep their own colours.

    :returns: whether they are coloured by it now: ``False`` also if it is not known of any, or nothing displays them.

    >>> import slicer
    >>> from ClassScaleSegLib.scene.confidence import note_confidence
    >>> scene = slicer.vtkMRMLScene()
    >>> node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    >>> node.CreateDefaultDisplayNodes()
    >>> liver = node.GetSegmentation().AddEmptySegment("Segment_1", "liver", (1, 0, 0))
    >>> note_confidence(node.GetSegmentation().GetSegment(liver), 0.5)
    >>> show_confidence(node)
    True
    >>> [round(255 * part) for part in node.GetDisplayNode().GetSegmentColor(liver)]
    [253, 231, 37]
    >>> show_confidence(node, False)
    False
    >>> list(node.GetDisplayNode().GetSegmentColor(liver))
    [1.0, 0.0, 0.0]
    """
    import slicer

    wanted = dict(_known(node)) if on else {}
    for display in _displays(node):
        with slicer.util.NodeModify(display):
            for identifier in node.GetSegmentation().GetSegmentIDs():
                if identifier in wanted:
                    color = (part / 255 for part in confidence_color(wanted[identifier]))
                    display.SetSegmentOverrideColor(identifier, *color)
                elif display.GetAttribute(_SHOWN) is not None:
                    display.UnsetSegmentOverrideColor(identifier)
            if wanted:
                display.SetAttribute(_SHOWN, "true")
            else:
                display.RemoveAttribute(_SHOWN)
    return shows_confidence(node)


def follow_confidence(node: vtkMRMLSegmentationNode) -> None:
    """Bring the colours up to date after a change of confidences, if they are shown; without any, they are not."""
    if shows_confidence(node):
        show_confidence(node)


def _known(node: vtkMRMLSegmentationNode) -> Iterator[tuple[str, float]]:
    """Return the segments whose confidence is known, by their ids, and the confidence."""
    segmentation = node.GetSegmentation()
    for identifier in segmentation.GetSegmentIDs():
        segment: vtkSegment = segmentation.GetSegment(identifier)
        confidence = confidence_of(segment)
        if confidence is not None:
            yield identifier, confidence


def _displays(node: vtkMRMLSegmentationNode) -> list[vtkMRMLSegmentationDisplayNode]:
    found = [node.GetNthDisplayNode(number) for number in range(node.GetNumberOfDisplayNodes())]
    return [display for display in found if display is not None and display.IsA("vtkMRMLSegmentationDisplayNode")]
