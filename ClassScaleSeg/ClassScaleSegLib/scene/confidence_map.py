"""Show in the slice views where a model was unsure: the confidence of each voxel, in colours above the image.

The volume with the confidence is the foreground of the slice views meanwhile, and segments are faint outlines. What was
there before is noted in the scene, so that it comes back also after that was saved and loaded.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .confidence_colors import LEAST, MOST, confidence_color
from .confidence_volume import confidence_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slicer import (
        vtkMRMLColorTableNode,
        vtkMRMLNode,
        vtkMRMLScalarVolumeDisplayNode,
        vtkMRMLScalarVolumeNode,
        vtkMRMLScene,
        vtkMRMLSegmentationNode,
        vtkMRMLSliceCompositeNode,
    )

SHOWN_BELOW = 0.9  # what the model was surer of is transparent
_OPACITY, _OUTLINES = 0.8, 0.4  # opacities of the map and of the segments above it
_COLORS = "ClassScaleSegConfidence"  # tag of the table of colours, of which a scene has one
_BEFORE = "ClassScaleSeg.ForegroundBefore"  # role of the foreground that a slice view had before
# attributes, while the map is shown: of a slice view, of the display node of the volume, and of that of a segmentation
_OPACITY_BEFORE = "ClassScaleSeg.ForegroundOpacityBefore"
_DISPLAYED_BEFORE = "ClassScaleSeg.DisplayedBefore"
_FILLED_BEFORE = "ClassScaleSeg.FilledBefore"


def shows_confidence_map(node: vtkMRMLSegmentationNode) -> bool:
    """Return whether a slice view shows the confidence of each voxel of a segmentation."""
    volume = confidence_volume(node)
    return volume is not None and any(_shows(view, volume) for view in _views(node.GetScene()))


def show_confidence_map(node: vtkMRMLSegmentationNode, on: bool = True) -> bool:
    """Show the confidence of each voxel of a segmentation above the image in all slice views, or as before again.

    Yellow is a confidence of 0.5 or less; voxels of more than 0.9 are transparent. The segments are faint outlines
    meanwhile. A foreground that a view had comes back, unless somebody has chosen another one there.

    :returns: whether it is shown now: ``False`` also if the scene has no such confidence, or no slice view.
    """
    volume, scene = confidence_volume(node), node.GetScene()
    for view in _views(scene) if volume is not None else ():
        if on:
            _use(view, volume)
        elif _shows(view, volume):
            _give_back(view)
    follow_confidence_maps(scene)
    return shows_confidence_map(node)


def follow_confidence_maps(scene: vtkMRMLScene | None) -> None:
    """Bring all up to date after a scene was loaded, a node was removed, or a slice view was changed elsewhere."""
    if scene is not None and scene.IsBatchProcessing():
        return  # it is loaded or closed, and what belongs together is not all there
    owned = set()
    for node in _nodes(scene, "vtkMRMLSegmentationNode"):
        volume, shown = confidence_volume(node), shows_confidence_map(node)
        if volume is not None:
            _color(volume, shown)
            owned.add(volume.GetID())
        _outline(node, shown)
    for view in _views(scene):
        volume = _foreground(view)
        if view.GetAttribute(_OPACITY_BEFORE) is None:
            continue
        if volume is not None and not _is_map(volume):
            _forget(view)  # somebody has chosen another foreground
        elif volume is None or volume.GetID() not in owned:
            _give_back(view)  # the volume or its segmentation was removed
    for volume in _nodes(scene, "vtkMRMLScalarVolumeNode"):
        if volume.GetID() not in owned and _is_map(volume):
            _color(volume, False)


def _views(scene: vtkMRMLScene | None) -> list[vtkMRMLSliceCompositeNode]:
    return _nodes(scene, "vtkMRMLSliceCompositeNode")


def _nodes(scene: vtkMRMLScene | None, kind: str) -> list[Any]:
    if scene is None:
        return []
    return [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]


def _shows(view: vtkMRMLSliceCompositeNode, volume: vtkMRMLScalarVolumeNode) -> bool:
    return view.GetAttribute(_OPACITY_BEFORE) is not None and view.GetForegroundVolumeID() == volume.GetID()


def _use(view: vtkMRMLSliceCompositeNode, volume: vtkMRMLScalarVolumeNode) -> None:
    """Make a volume the foreground of a view, and note what was there before: not the map of another segmentation."""
    if view.GetAttribute(_OPACITY_BEFORE) is None or not _is_map(_foreground(view)):
        view.SetNodeReferenceID(_BEFORE, view.GetForegroundVolumeID())
        view.SetAttribute(_OPACITY_BEFORE, f"{view.GetForegroundOpacity():g}")
    view.SetForegroundVolumeID(volume.GetID())
    view.SetForegroundOpacity(_OPACITY)


def _give_back(view: vtkMRMLSliceCompositeNode) -> None:
    """Show in a view what was noted."""
    before = view.GetNodeReference(_BEFORE)
    view.SetForegroundVolumeID(None if before is None else before.GetID())
    view.SetForegroundOpacity(min(1.0, max(0.0, _number(view.GetAttribute(_OPACITY_BEFORE)))))
    _forget(view)


def _forget(view: vtkMRMLSliceCompositeNode) -> None:
    view.RemoveNodeReferenceIDs(_BEFORE)
    view.RemoveAttribute(_OPACITY_BEFORE)


def _foreground(view: vtkMRMLSliceCompositeNode) -> vtkMRMLNode | None:
    return view.GetScene().GetNodeByID(view.GetForegroundVolumeID() or "")


def _is_map(volume: vtkMRMLNode | None) -> bool:
    display = volume.GetDisplayNode() if volume is not None and volume.IsA("vtkMRMLVolumeNode") else None
    return display is not None and display.GetAttribute(_DISPLAYED_BEFORE) is not None


def _color(volume: vtkMRMLScalarVolumeNode, on: bool) -> None:
    """Give a volume the colours of confidences, transparent where the model was sure, or its own colours again."""
    import slicer

    if volume.GetDisplayNode() is None:
        volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    noted = display.GetAttribute(_DISPLAYED_BEFORE)
    with slicer.util.NodeModify(display):
        if on and (noted is None or display.GetColorNode() is None):
            if noted is None:
                display.SetAttribute(_DISPLAYED_BEFORE, json.dumps(_look(display)))
            _show(display, _Look(_colors(volume.GetScene()).GetID(), LEAST, MOST, True, 0.0, SHOWN_BELOW))
        elif not on and noted is not None:
            display.RemoveAttribute(_DISPLAYED_BEFORE)
            _show(display, _read_look(noted))


def _outline(node: vtkMRMLSegmentationNode, on: bool) -> None:
    """Show the segments as faint outlines, or as before again."""
    for number in range(node.GetNumberOfDisplayNodes()):
        display = node.GetNthDisplayNode(number)
        if display is None or not display.IsA("vtkMRMLSegmentationDisplayNode"):
            continue
        noted = display.GetAttribute(_FILLED_BEFORE)
        if on and noted is None:
            before = bool(display.GetVisibility2DFill()), display.GetOpacity2DOutline()
            display.SetAttribute(_FILLED_BEFORE, json.dumps(before))
            display.SetVisibility2DFill(False)
            display.SetOpacity2DOutline(_OUTLINES)
        elif not on and noted is not None:
            filled, opacity = _noted(noted, (True, 1.0))
            display.RemoveAttribute(_FILLED_BEFORE)
            display.SetVisibility2DFill(filled is not False)
            display.SetOpacity2DOutline(min(1.0, max(0.0, _number(opacity, 1.0))))


class _Look(NamedTuple):
    """How a volume is displayed.

    :ivar color: id of the table of colours.
    :ivar low: value of the first colour, ``high`` of the last.
    :ivar cut: whether voxels below ``lower`` and above ``upper`` are transparent.
    """

    color: str
    low: float
    high: float
    cut: bool
    lower: float
    upper: float


def _look(display: vtkMRMLScalarVolumeDisplayNode) -> _Look:
    middle, half = display.GetLevel(), display.GetWindow() / 2
    cut = bool(display.GetApplyThreshold())
    limits = display.GetLowerThreshold(), display.GetUpperThreshold()
    return _Look(display.GetColorNodeID() or "", middle - half, middle + half, cut, *limits)


def _read_look(text: str) -> _Look:
    color, low, high, cut, lower, upper = _noted(text, _Look("vtkMRMLColorTableNodeGrey", 0.0, 1.0, False, 0.0, 1.0))
    return _Look(str(color), _number(low), _number(high, 1.0), cut is True, _number(lower), _number(upper, 1.0))


def _noted(text: str, otherwise: Sequence[object]) -> Sequence[object]:
    """Return what was noted as a list, or something else if that has another length: the scene may be anybody's."""
    try:
        noted = json.loads(text)
    except (ValueError, RecursionError):
        return otherwise
    return noted if isinstance(noted, list) and len(noted) == len(otherwise) else otherwise


def _show(display: vtkMRMLScalarVolumeDisplayNode, look: _Look) -> None:
    display.SetAndObserveColorNodeID(look.color or None)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(look.low, look.high)
    display.SetAutoThreshold(False)
    display.SetThreshold(look.lower, look.upper)
    display.SetApplyThreshold(look.cut)


def _number(noted: object, otherwise: float = 0.0) -> float:
    """Return a number that was noted; another one if it is none."""
    try:
        number = float(str(noted))
    except ValueError:
        return otherwise
    return number if math.isfinite(number) else otherwise


def _colors(scene: vtkMRMLScene) -> vtkMRMLColorTableNode:
    """Return the table of colours for confidences from ``LEAST`` to ``MOST``. It is not saved with the scene."""
    import slicer

    found = scene.GetSingletonNode(_COLORS, "vtkMRMLColorTableNode")
    if found is not None:
        return found
    table = slicer.vtkMRMLColorTableNode()
    table.SetSingletonTag(_COLORS)
    table.SetName("Confidence")
    table.SetSaveWithScene(False)
    table.SetTypeToUser()
    steps = np.linspace(LEAST, MOST, 256)
    table.SetNumberOfColors(len(steps))
    for number, confidence in enumerate(steps.tolist()):
        red, green, blue = confidence_color(confidence)
        table.SetColor(number, f"{confidence:.3f}", red / 255, green / 255, blue / 255, 1.0)
    return scene.AddNode(table)
