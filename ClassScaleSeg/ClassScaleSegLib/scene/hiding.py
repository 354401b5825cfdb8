"""Hide segmentations while another one is shown in their place, and give them back the visibility that they had.

What is hidden is noted in the scene, on the node that is shown instead. A scene that is saved, loaded, undone or
restored from a view therefore knows it too. The switches for 2D and 3D are not touched: a display node that is not
visible shows nothing in any view, whatever these say.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from slicer import vtkMRMLDisplayNode, vtkMRMLNode, vtkMRMLScene, vtkMRMLSegmentationNode

_HIDDEN = "ClassScaleSeg.Hidden"  # role of the display nodes that are hidden while a segmentation is shown
_HIDING = "ClassScaleSeg.Hiding"  # attribute of that segmentation while it is shown


def hide_while_shown(node: vtkMRMLSegmentationNode, others: Iterable[vtkMRMLSegmentationNode]) -> None:
    """Hide some segmentations in all views until ``node`` is hidden or removed; they are hidden again when it is shown.

    Each display node gets back the visibility that it had. What the user shows meanwhile stays shown, and what was
    hidden already stays hidden. An earlier call with the same ``node`` is undone.
    """
    follow(node.GetScene())
    before = _hidden_by(node) if is_shown_instead(node) else []
    hidden = _unless_hidden([display for other in others for display in _displays(other)])
    _hide(node, hidden)
    for display in before:
        if display not in hidden:
            _give_back(display)
    _FOLLOWERS[node.GetScene()].watch(node.GetScene())


def stand_ins(scene: vtkMRMLScene) -> list[vtkMRMLSegmentationNode]:
    """Return the segmentations that are shown in the place of others, or were before they were hidden."""
    kind = "vtkMRMLSegmentationNode"
    nodes = [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]
    return [node for node in nodes if is_shown_instead(node) or _hidden_by(node)]


def is_shown_instead(node: vtkMRMLNode) -> bool:
    """Return whether a node is shown in the place of others."""
    return node.GetAttribute(_HIDING) is not None


def hide_stand_ins(scene: vtkMRMLScene) -> None:
    """Hide the segmentations that are shown in the place of others, so that the others are shown again."""
    for node in stand_ins(scene):
        if is_shown_instead(node):
            node.SetDisplayVisibility(False)


def bring_back(node: vtkMRMLSegmentationNode) -> None:
    """Show a segmentation that is hidden while another one is shown. One that the user has hidden stays so."""
    for display in _displays(node):
        if node.GetScene() is not None and _forget(display):
            display.SetVisibility(True)


def stand_in_no_longer(node: vtkMRMLSegmentationNode) -> None:
    """Show again what a segmentation has hidden, because it holds something else from now on."""
    if is_shown_instead(node):
        _stop_hiding(node)
    node.RemoveNodeReferenceIDs(_HIDDEN)


def follow(scene: vtkMRMLScene) -> None:
    """Follow from now on what the user shows, hides and removes in a scene. Only the first call does anything."""
    if scene not in _FOLLOWERS:
        _FOLLOWERS[scene] = _Follower(scene)


class _Follower:
    """The observers of a scene, which it keeps no longer than VTK does."""

    def __init__(self, scene: vtkMRMLScene) -> None:
        import vtk

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def leave(scene: vtkMRMLScene, event: str, node: vtkMRMLNode) -> None:
            self._leave(scene, node)

        self._observed: list[tuple[vtkMRMLNode, int]] = []
        self._paused = False  # while nodes change one by one, so that what is hidden is not yet what will be
        # before the panel, which shows what is left
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, leave, 20.0)
        for change in ("Import", "Restore", "Undo", "Redo", "Close"):
            scene.AddObserver(getattr(scene, f"Start{change}Event"), lambda scene, event: self._pause())
            # VTK has no names for the scene's events, so an observer is not told which one it was
            end = functools.partial(self._resume, restored=change == "Restore")
            scene.AddObserver(getattr(scene, f"End{change}Event"), end)
        self._resume(scene, "")

    def watch(self, scene: vtkMRMLScene) -> None:
        """Observe the segmentations that are shown in the place of others, and what is hidden for them."""
        import slicer
        import vtk

        for node, tag in self._observed:
            node.RemoveObserver(tag)
        showing = stand_ins(scene)
        changed = slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent
        self._observed = [(node, node.AddObserver(changed, self._follow_stand_in, 1.0)) for node in showing]
        for display in {display for node in showing for display in _hidden_by(node)}:
            self._observed.append((display, display.AddObserver(vtk.vtkCommand.ModifiedEvent, self._follow_hidden)))

    def _follow_stand_in(self, node: vtkMRMLSegmentationNode, event: str) -> None:
        """Hide or give back what belongs to a node that the user has shown or hidden."""
        if not self._paused and _is_shown(node) != is_shown_instead(node):
            if is_shown_instead(node):
                _stop_hiding(node)
            else:
                _hide(node, _unless_hidden(_hidden_by(node)))

    def _follow_hidden(self, display: vtkMRMLDisplayNode, event: str) -> None:
        """Leave a display node alone from now on, if the user has shown it though it was hidden."""
        if not self._paused and display.GetVisibility():
            _forget(display)

    def _pause(self) -> None:
        self._paused = True

    def _resume(self, scene: vtkMRMLScene, event: str, restored: bool = False) -> None:
        """Make true what the scene says: an undone step, for one, may have brought back one node of two."""
        self._paused = False
        for node in stand_ins(scene):
            if _is_shown(node):
                _hide(node, _hidden_by(node))
            elif restored:
                node.RemoveAttribute(_HIDING)  # the view says of all display nodes what they were
            elif is_shown_instead(node):
                _stop_hiding(node)
        self.watch(scene)

    def _leave(self, scene: vtkMRMLScene, node: vtkMRMLNode) -> None:
        """Undo what a node has hidden that is removed from the scene."""
        if is_shown_instead(node) and not scene.IsClosing():
            _stop_hiding(node)
        for observed, tag in self._observed:
            if observed is node:
                observed.RemoveObserver(tag)
        self._observed = [one for one in self._observed if one[0] is not node]


_FOLLOWERS: WeakKeyDictionary[Any, _Follower] = WeakKeyDictionary()  # by scene


def _hide(node: vtkMRMLSegmentationNode, displays: list[vtkMRMLDisplayNode]) -> None:
    """Hide display nodes while ``node`` is shown."""
    node.RemoveNodeReferenceIDs(_HIDDEN)
    for display in displays:
        node.AddNodeReferenceID(_HIDDEN, display.GetID())
    node.SetAttribute(_HIDING, "true")
    for display in displays:
        display.SetVisibility(False)


def _unless_hidden(displays: list[vtkMRMLDisplayNode]) -> list[vtkMRMLDisplayNode]:
    """Return display nodes without those that the user has hidden."""
    return [display for display in displays if display.GetVisibility() or _is_hidden(display)]


def _stop_hiding(node: vtkMRMLSegmentationNode) -> None:
    node.RemoveAttribute(_HIDING)
    for display in _hidden_by(node):
        _give_back(display)


def _give_back(display: vtkMRMLDisplayNode) -> None:
    if not _is_hidden(display):
        display.SetVisibility(True)


def _forget(display: vtkMRMLDisplayNode) -> bool:
    """Let no segmentation hide a display node any longer. Return whether one did."""
    found = False
    for node in _showing(display):
        for number in reversed(range(node.GetNumberOfNodeReferences(_HIDDEN))):
            if node.GetNthNodeReference(_HIDDEN, number) is display:
                node.RemoveNthNodeReferenceID(_HIDDEN, number)
                found = True
    return found


def _showing(display: vtkMRMLDisplayNode) -> list[vtkMRMLSegmentationNode]:
    return [node for node in stand_ins(display.GetScene()) if is_shown_instead(node)]


def _is_hidden(display: vtkMRMLDisplayNode) -> bool:
    """Return whether a display node is hidden because some segmentation is shown."""
    return any(display in _hidden_by(node) for node in _showing(display))


def _hidden_by(node: vtkMRMLSegmentationNode) -> list[vtkMRMLDisplayNode]:
    """Return what a segmentation hides while it is shown."""
    found = [node.GetNthNodeReference(_HIDDEN, n) for n in range(node.GetNumberOfNodeReferences(_HIDDEN))]
    return [display for display in found if display is not None]


def _is_shown(node: vtkMRMLSegmentationNode) -> bool:
    return any(
        display.GetVisibility() and (display.GetVisibility2D() or display.GetVisibility3D())
        for display in _displays(node)
    )


def _displays(node: vtkMRMLSegmentationNode) -> list[vtkMRMLDisplayNode]:
    found = [node.GetNthDisplayNode(number) for number in range(node.GetNumberOfDisplayNodes())]
    return [display for display in found if display is not None]
