"""Paint as somebody does in Slicer's Segment Editor, by its own logic."""

from __future__ import annotations

from ClassScaleSegLib.scene.correction import STRUCTURE
from ClassScaleSegLib.scene.segment_editor import editor_node
from slicer_application import slicer
from vtk.util.numpy_support import vtk_to_numpy

EVERYWHERE = (slice(None),) * 3


def paint(box: tuple[slice, ...], mode: str = "Add", segment: str = STRUCTURE) -> None:
    """Paint a box of voxels with the settings of the Segment Editor's module.

    :param box: slices along z, y, x on the whole grid of the segmentation.
    :param mode: "Add" or "Remove".
    """
    editor = editor_node(slicer.mrmlScene)
    node, logic = editor.GetSegmentationNode(), slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetSegmentEditorNode(editor)
    editor.SetSelectedSegmentID(segment)
    assert logic.ResetModifierLabelmapToDefault()
    image = logic.GetModifierLabelmap()
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    array[:] = 0
    array[box] = 1
    logic.ModifySegmentByLabelmap(node, segment, image, getattr(logic, f"ModificationMode{mode}"), True, False)
    logic.SetSegmentEditorNode(None)
