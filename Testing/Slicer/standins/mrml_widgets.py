"""The qMRML widgets of the panel, connected to a real scene."""

from __future__ import annotations

from typing import Any

import shiboken6
import slicer

from . import ctk, qt


@qt.custom_widget
class qMRMLWidget(qt.QWidget):
    """A widget that passes its scene on to the widgets inside it. In Slicer, connections in the .ui file do that."""

    mrmlSceneChanged = qt.Signal("vtkMRMLScene*")
    node_signals = ("mrmlSceneChanged",)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: slicer.vtkMRMLScene | None = None
        self.isEntered = False

    @qt.Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene
        for child in self.findChildren(qt.QWidget):
            if child is not self and hasattr(child, "setMRMLScene"):
                child.setMRMLScene(scene)

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self._scene


def _option(kind: type | str, default: Any) -> qt.Property:
    """Return a property that keeps its value in the dictionary ``_options`` of the widget."""
    key = object()
    return qt.Property(
        kind, lambda self: self._options.get(key, default), lambda self, value: self._options.__setitem__(key, value)
    )


@qt.custom_widget
class qMRMLNodeComboBox(qt.QWidget):
    """A list from which one node of the given classes is selected."""

    currentNodeChanged = qt.Signal(object)
    nodeAddedByUser = qt.Signal(object)
    node_signals = ("currentNodeChanged", "nodeAddedByUser")

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._options: dict[object, Any] = {}
        self._scene: slicer.vtkMRMLScene | None = None
        self._id = ""
        self._box = qt.QComboBox()
        self._box.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.activated.connect(lambda index: self.setCurrentNodeID(self._box.itemData(index)))

    nodeTypes = _option("QStringList", ())
    noneEnabled, addEnabled, removeEnabled = _option(bool, False), _option(bool, True), _option(bool, True)
    renameEnabled, editEnabled, showChildNodeTypes = _option(bool, False), _option(bool, False), _option(bool, True)
    selectNodeUponCreation = _option(bool, True)
    noneDisplay, baseName = _option(str, "None"), _option(str, "")

    @qt.Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            scene.AddObserver(event, lambda *_: self._refill())
        self._refill()

    def _nodes(self) -> list[slicer.vtkMRMLNode]:
        found = []
        for kind in self.nodeTypes:
            nodes = self._scene.GetNodesByClass(kind)
            nodes.UnRegister(None)
            found += [nodes.GetItemAsObject(i) for i in range(nodes.GetNumberOfItems())]
        return [node for node in found if not node.GetHideFromEditors()]

    def _refill(self) -> None:
        nodes = self._nodes()
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay, "")
        for node in nodes:
            self._box.addItem(node.GetName(), node.GetID())
        if self._id not in [node.GetID() for node in nodes]:
            self.setCurrentNodeID("" if self.noneEnabled or not nodes else nodes[0].GetID())
        self._box.setCurrentIndex(self._box.findData(self._id))

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        return self._scene.GetNodeByID(self._id) if self._scene and self._id else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, identifier: str | None) -> None:
        identifier = identifier or ""
        if identifier != self._id:
            self._id = identifier
            self._box.setCurrentIndex(self._box.findData(identifier))
            self.currentNodeChanged.emit(self.currentNode())

    def addNode(self) -> slicer.vtkMRMLNode:
        """Add a node, as the user does with "Create new", and select it."""
        node = self._scene.AddNewNodeByClass(self.nodeTypes[0], self._scene.GenerateUniqueName(self.baseName or "Node"))
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node


@qt.custom_widget
class qMRMLSegmentationShow3DButton(qt.QPushButton):
    """A button that makes the missing closed surfaces when it is turned on, and removes all when it is turned off.

    As in Slicer, every event of the segmentation node updates the button, even while the mouse holds it down.
    """

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__("Show 3D", parent)
        self._node: slicer.vtkMRMLSegmentationNode | None = None
        self._observers: list[int] = []
        self.setCheckable(True)
        self.toggled.connect(self._toggled)
        self.setEnabled(False)

    def setSegmentationNode(self, node: slicer.vtkMRMLSegmentationNode | None) -> None:
        if node is self._node:
            return
        for tag in self._observers:
            self._node.RemoveObserver(tag)
        kind = slicer.vtkSegmentation
        events = ("ModifiedEvent", kind.SegmentAdded, kind.SegmentRemoved, kind.ContainedRepresentationNamesModified)
        self._node = node
        self._observers = [node.AddObserver(event, self._follow) for event in events] if node is not None else []
        self._follow()

    def _follow(self, *_: Any) -> None:
        if not shiboken6.isValid(self):  # the panel was deleted, but the node still sends events
            return
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        self.setEnabled(segmentation is not None and segmentation.GetNumberOfSegments() > 0)
        if segmentation is not None:
            blocked = self.blockSignals(True)
            self.setChecked(segmentation.ContainsRepresentation("Closed surface"))
            self.blockSignals(blocked)

    def segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self._node

    def _toggled(self, on: bool) -> None:
        if self._node is not None:
            segmentation = self._node.GetSegmentation()
            getattr(segmentation, "CreateRepresentation" if on else "RemoveRepresentation")("Closed surface")


class qMRMLRangeWidget(qt.QWidget):
    """Only referred to by Slicer's own parameter nodes."""


class qMRMLSliderWidget(ctk.ctkSliderWidget):
    """Only referred to by Slicer's own parameter nodes."""


class qMRMLSpinBox(qt.QDoubleSpinBox):
    """Only referred to by Slicer's own parameter nodes."""


def install(namespace: Any) -> None:
    """Add the widgets to ``namespace``, the module ``slicer``, where code looks for ``slicer.qMRMLWidget``."""
    for kind in (
        qMRMLWidget,
        qMRMLNodeComboBox,
        qMRMLSegmentationShow3DButton,
        qMRMLRangeWidget,
        qMRMLSliderWidget,
        qMRMLSpinBox,
    ):
        setattr(namespace, kind.__name__, kind)


assert slicer  # loads the classes of the scene before any widget needs them
