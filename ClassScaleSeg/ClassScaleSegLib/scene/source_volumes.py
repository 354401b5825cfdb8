"""Remember on a segmentation node of which volumes it was made, one per channel of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ImageError
from .sequence import browser_of

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

_COUNT = "ClassScaleSeg.Channels"  # attribute; also tells that a volume was removed, whose reference then goes
_REGION = "ClassScaleSeg.OfRegion"
_CHANNEL = "ClassScaleSeg.Channel{number}"  # roles of the volumes, from 1
_VOLUME = "vtkMRMLScalarVolumeNode"  # a label map, on which segments can be drawn too, is no image
_MOST = 1000  # channels that are believed of a scene from elsewhere


def remember_volumes(
    node: vtkMRMLSegmentationNode,
    volumes: Sequence[vtkMRMLScalarVolumeNode],
    of_region: bool = False,
) -> None:
    """Note the volumes on a segmentation node, in the order of the model's channels; those of an earlier run go.

    :param of_region: only a region of the volumes was segmented.
    """
    keeper = _keeper(node)
    for number in range(1, max(len(volumes), _count(keeper)) + 1):
        volume = volumes[number - 1] if number <= len(volumes) else None
        keeper.SetNodeReferenceID(_CHANNEL.format(number=number), None if volume is None else volume.GetID())
    keeper.SetAttribute(_COUNT, str(len(volumes)))
    keeper.SetAttribute(_REGION, "true" if of_region else None)


def is_of_region(node: vtkMRMLSegmentationNode) -> bool:
    """Return whether a segmentation was made in a region of its volumes, outside of which nothing was looked for."""
    return _keeper(node).GetAttribute(_REGION) == "true"


def source_volumes(node: vtkMRMLSegmentationNode) -> tuple[vtkMRMLScalarVolumeNode, ...]:
    """Return the volumes of which a segmentation was made, in the order of the model's channels.

    Of a segmentation that this module has not made, that is the volume on whose grid it was drawn.

    :returns: nothing if that is not known, or if that one volume is not in the scene any more.
    :raises ImageError: if some of several volumes are not in the scene any more.

    >>> import slicer
    >>> scene = slicer.vtkMRMLScene()
    >>> node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    >>> remember_volumes(node, [scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in ("T1", "FLAIR")])
    >>> [volume.GetName() for volume in source_volumes(node)]
    ['T1', 'FLAIR']
    """
    drawn_on = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    keeper = _keeper(node)
    count = _count(keeper)
    found = [keeper.GetNodeReference(_CHANNEL.format(number=number)) for number in range(1, count + 1)]
    if count < 2:
        found = [found[0] if found and found[0] is not None else drawn_on]
    kept = tuple(volume for volume in found if volume is not None and volume.GetClassName() == _VOLUME)
    if len(kept) < count and count > 1:
        raise ImageError(
            f"{node.GetName()} was made from {count} volumes, and {count - len(kept)} of them are not in the scene any "
            "more. Load them, and run again."
        )
    return kept


def first_volume(node: vtkMRMLSegmentationNode) -> vtkMRMLScalarVolumeNode | None:
    """Return the first volume of which a segmentation was made; ``None`` if it is not known, or not there any more."""
    try:
        return next(iter(source_volumes(node)), None)
    except ImageError:  # of several, some are missing
        return None


def _keeper(node: vtkMRMLSegmentationNode) -> vtkMRMLNode:
    """Return the node that has the notes: that of the sequence, if there is one, as each frame replaces the others."""
    browser = browser_of(node) if node.GetScene() is not None else None
    return node if browser is None else browser.GetSequenceNode(node)


def _count(node: vtkMRMLNode) -> int:
    text = node.GetAttribute(_COUNT) or ""
    return min(int(text), _MOST) if text.isdecimal() and len(text) < 5 else 0
