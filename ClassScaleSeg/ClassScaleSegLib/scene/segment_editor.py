"""The settings of Slicer's module Segment Editor, and its way to change the voxels of a segment."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLScalarVolumeNode,
        vtkMRMLScene,
        vtkMRMLSegmentationNode,
        vtkMRMLSegmentEditorNode,
        vtkOrientedImageData,
    )

_TAG, _KIND = "SegmentEditor", "vtkMRMLSegmentEditorNode"  # singleton tag and class of the module's node


class Change(Enum):
    """What :func:`change_segment` does with some voxels: removes them, adds them, or also takes them from others."""

    REMOVE = auto()
    ADD = auto()
    ADD_AND_TAKE = auto()


def editor_node(scene: vtkMRMLScene) -> vtkMRMLSegmentEditorNode:
    """Return the settings of the module Segment Editor, which are made as that module does if there are none yet.

    >>> import slicer
    >>> scene = slicer.vtkMRMLScene()
    >>> editor_node(scene) is editor_node(scene)
    True
    """
    import slicer

    node = scene.GetSingletonNode(_TAG, _KIND)
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_TAG)
        node = scene.AddNode(node)
    return node


def select_segment(
    editor: vtkMRMLSegmentEditorNode,
    node: vtkMRMLSegmentationNode,
    volume: vtkMRMLScalarVolumeNode | None,
    segment_id: str,
) -> None:
    """Let the Segment Editor edit a segment.

    :param volume: that is shown, and whose intensities the tools use.
    """
    editor.SetAndObserveSegmentationNode(node)  # upon this the module selects a volume, and the first segment
    editor.SetAndObserveSourceVolumeNode(volume)
    editor.SetSelectedSegmentID(segment_id)


def lock_others(editor: vtkMRMLSegmentEditorNode, on: bool) -> None:
    """Lock the segments that are not edited: painting stops at their borders. Otherwise it takes voxels from them."""
    import slicer

    kind = slicer.vtkMRMLSegmentationNode
    with slicer.util.NodeModify(editor):
        editor.SetMaskMode(kind.EditAllowedOutsideAllSegments if on else kind.EditAllowedEverywhere)
        editor.SetOverwriteMode(editor.OverwriteNone if on else editor.OverwriteAllSegments)


def are_others_locked(editor: vtkMRMLSegmentEditorNode) -> bool:
    """Return whether painting takes no voxel from another segment, whoever has set the module so."""
    import slicer

    outside = slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments
    return bool(editor.GetMaskMode() == outside or editor.GetOverwriteMode() != editor.OverwriteAllSegments)


def change_segment(node: vtkMRMLSegmentationNode, segment_id: str, image: vtkOrientedImageData, change: Change) -> None:
    """Change voxels of a segment as the Segment Editor does, whatever the settings of its module.

    :param image: uint8, other than 0 at these voxels; on the grid of the segment.
    """
    import slicer

    scene, logic = node.GetScene(), slicer.vtkSlicerSegmentEditorLogic()
    editor = scene.AddNode(slicer.vtkMRMLSegmentEditorNode())  # a scene of a frame does not know classes of modules
    try:
        editor.SetAndObserveSegmentationNode(node)
        take = change is Change.ADD_AND_TAKE
        editor.SetOverwriteMode(editor.OverwriteAllSegments if take else editor.OverwriteNone)
        logic.SetMRMLScene(scene)
        logic.SetSegmentEditorNode(editor)
        mode = logic.ModificationModeRemove if change is Change.REMOVE else logic.ModificationModeAdd
        logic.ModifySegmentByLabelmap(node, segment_id, image, mode, True, False)
        logic.SetSegmentEditorNode(None)
    finally:
        scene.RemoveNode(editor)
