"""The module Segment Editor, as far as other modules see it: its node, what it selects by itself, and its layout.

As in Slicer, its widget is made when it is first asked for. When it is shown another segmentation, it selects the
volume that this refers to, and its first segment.
"""

from __future__ import annotations

import types
from typing import Any

import slicer
import vtk

from . import qt


class SegmentEditorWidget:
    """The scripted widget, without the editor itself."""

    def __init__(self, parent: qt.QWidget) -> None:
        self.parent, self.layout = parent, parent.layout()
        self.layout.addWidget(qt.QLabel("Segmentation:"))
        self.parameterSetNode: Any = None
        self._segmentation: Any = None

    def enter(self) -> None:
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("SegmentEditor")
            node = scene.AddNode(node)
        if node is not self.parameterSetNode:
            self.parameterSetNode = node
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update())
        self._update()
        if node.GetSegmentationNode() is None:
            first = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
            node.SetAndObserveSegmentationNode(first or scene.AddNewNodeByClass("vtkMRMLSegmentationNode"))

    def exit(self) -> None:
        self.parameterSetNode.SetActiveEffectName("")

    def _update(self) -> None:
        node = self.parameterSetNode
        segmentation = node.GetSegmentationNode()
        if segmentation is self._segmentation:
            return
        self._segmentation = segmentation
        if segmentation is not None:
            volume = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
            node.SetAndObserveSourceVolumeNode(volume)
            segmentation.CreateDefaultDisplayNodes()
            if segmentation.GetSegmentation().GetNumberOfSegments():
                node.SetSelectedSegmentID(segmentation.GetSegmentation().GetNthSegmentID(0))


def install(application: Any) -> None:
    """Add the module to ``slicer.modules``, and let ``slicer.util.selectModule`` open it and the tested module."""
    made: list[Any] = []

    def representation() -> qt.QWidget:
        if not made:
            holder = slicer.qMRMLWidget()
            holder.setLayout(qt.QVBoxLayout())
            widget = SegmentEditorWidget(holder)
            holder.self = lambda: widget
            made.append(holder)
        return made[0]

    slicer.modules.segmenteditor = types.SimpleNamespace(name="SegmentEditor", widgetRepresentation=representation)

    def select(module: Any) -> None:
        name, holder = module if isinstance(module, str) else module.name, representation()
        if name == "SegmentEditor":
            if application.widget.parent.isEntered:
                application.leave()
            holder.isEntered = True
            holder.self().enter()
            return
        if holder.isEntered:
            holder.isEntered = False
            holder.self().exit()
        if not application.widget.parent.isEntered:
            application.enter()

    slicer.util.selectModule = select
