"""The qMRML widgets of the panel, connected to a real scene."""

from __future__ import annotations

from typing import Any

import shiboken6
import slicer
import vtk

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
    """A list from which one node of the given classes is selected.

    As in Slicer, the list ends with actions ("Create new ..."), whose texts count for its least width; it does not know
    the nodes of a scene before their import has ended; and when the current node is removed, its neighbour is selected.
    """

    currentNodeChanged = qt.Signal(object)
    nodeAddedByUser = qt.Signal(object)
    node_signals = ("currentNodeChanged", "nodeAddedByUser")

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._options: dict[object, Any] = {}
        self._scene: slicer.vtkMRMLScene | None = None
        self._listing = False
        self._box = ctk.ctkComboBox()
        self.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Fixed)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.currentIndexChanged.connect(self._changed)

    nodeTypes = _option("QStringList", ())
    noneEnabled, addEnabled, removeEnabled = _option(bool, False), _option(bool, True), _option(bool, True)
    renameEnabled, editEnabled, showChildNodeTypes = _option(bool, False), _option(bool, False), _option(bool, True)
    selectNodeUponCreation = _option(bool, True)
    noneDisplay, baseName = _option(str, "None"), _option(str, "")

    @qt.Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(caller: Any, event: str, node: slicer.vtkMRMLNode) -> None:
            if not scene.IsImporting() and shiboken6.isValid(self) and self._fits(node):
                self._insert(self._box.count - len(self._actions()), node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(caller: Any, event: str, node: slicer.vtkMRMLNode) -> None:
            if not scene.IsClosing() and shiboken6.isValid(self) and self._box.findData(node.GetID()) >= 0:
                self._box.removeItem(self._box.findData(node.GetID()))

        scene.AddObserver(scene.NodeAddedEvent, added)
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, removed)
        for event in (scene.EndImportEvent, scene.EndCloseEvent):
            scene.AddObserver(event, lambda *_: self._list())
        self._list()

    def _fits(self, node: slicer.vtkMRMLNode) -> bool:
        exact = [node.GetClassName() == kind or (self.showChildNodeTypes and node.IsA(kind)) for kind in self.nodeTypes]
        return any(exact) and not node.GetHideFromEditors()

    def _nodes(self) -> list[slicer.vtkMRMLNode]:
        return [node for node in self._scene.GetNodes() if self._fits(node)]

    def _actions(self) -> list[str]:
        kind = self._scene.GetTypeDisplayNameByClassName(self.nodeTypes[0]) or "node"
        shown = {
            f"Rename current {kind}": self.renameEnabled,
            f"Edit current {kind}": self.editEnabled,
            f"Create new {kind}": self.addEnabled,
            f"Create new {kind} as...": self.addEnabled and self.renameEnabled,
            f"Delete current {kind}": self.removeEnabled,
        }
        return [text for text, there in shown.items() if there]

    def _list(self) -> None:
        if not shiboken6.isValid(self):  # the panel was deleted, but the scene still sends events
            return
        current, self._listing = self._box.currentData if self._box.count else "", True
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay, "")
        for node in self._nodes():
            self._insert(self._box.count, node)
        for text in self._actions():
            self._box.addItem(text, None)
        self._listing = False
        self.setCurrentNodeID(current)

    def _insert(self, row: int, node: slicer.vtkMRMLNode) -> None:
        self._box.insertItem(row, node.GetName(), node.GetID())
        self._box.setItemData(row, node.GetNodeTagName(), qt.Qt.ToolTipRole)  # as qMRMLSceneModel does

    def _changed(self, index: int) -> None:
        if self._listing or self._scene is None:
            return
        nodes = [index for index in range(self._box.count) if self._box.itemData(index)]
        if index >= 0 and self._box.itemData(index) is None and nodes:  # an action: the last node is selected instead
            self._box.setCurrentIndex(nodes[-1])
        else:
            self.currentNodeChanged.emit(self.currentNode())

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        identifier = self._box.currentData
        return self._scene.GetNodeByID(identifier) if self._scene is not None and identifier else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, identifier: str | None) -> None:
        index = self._box.findData(identifier) if identifier else -1
        self._box.setCurrentIndex(index if index >= 0 or not self.noneEnabled else 0)

    def addNode(self) -> slicer.vtkMRMLNode:
        """Add a node, as the user does with "Create new", and select it."""
        node = self._scene.AddNewNodeByClass(self.nodeTypes[0], self._scene.GenerateUniqueName(self.baseName or "Node"))
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node


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
        qMRMLRangeWidget,
        qMRMLSliderWidget,
        qMRMLSpinBox,
    ):
        setattr(namespace, kind.__name__, kind)


assert slicer  # loads the classes of the scene before any widget needs them
