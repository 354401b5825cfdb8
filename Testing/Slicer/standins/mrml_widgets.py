"""The qMRML widgets that the panel uses, on the real scene."""

from __future__ import annotations

import shiboken6
import slicer

from . import ctk, qt


@qt.custom_widget
class qMRMLWidget(qt.QWidget):
    """Hands its scene on to the widgets within it, which in Slicer connections of the .ui file do."""

    mrmlSceneChanged = qt.Signal("vtkMRMLScene*")
    node_signals = ("mrmlSceneChanged",)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self.isEntered = None, False

    @qt.Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene):
        self._scene = scene
        for child in self.findChildren(qt.QWidget):
            if child is not self and hasattr(child, "setMRMLScene"):
                child.setMRMLScene(scene)

    def mrmlScene(self):
        return self._scene


def _option(kind, default):
    key = object()
    return qt.Property(
        kind, lambda self: self._options.get(key, default), lambda self, value: self._options.__setitem__(key, value)
    )


@qt.custom_widget
class qMRMLNodeComboBox(qt.QWidget):
    """Chooses one node of the given classes."""

    currentNodeChanged = qt.Signal(object)
    nodeAddedByUser = qt.Signal(object)
    node_signals = ("currentNodeChanged", "nodeAddedByUser")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._options, self._scene, self._id = {}, None, ""
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
    def setMRMLScene(self, scene):
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            scene.AddObserver(event, lambda *_: self._refill())
        self._refill()

    def _nodes(self):
        found = []
        for kind in self.nodeTypes:
            nodes = self._scene.GetNodesByClass(kind)
            nodes.UnRegister(None)
            found += [nodes.GetItemAsObject(i) for i in range(nodes.GetNumberOfItems())]
        return [node for node in found if not node.GetHideFromEditors()]

    def _refill(self):
        nodes = self._nodes()
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay, "")
        for node in nodes:
            self._box.addItem(node.GetName(), node.GetID())
        if self._id not in [node.GetID() for node in nodes]:
            self.setCurrentNodeID("" if self.noneEnabled or not nodes else nodes[0].GetID())
        self._box.setCurrentIndex(self._box.findData(self._id))

    def currentNode(self):
        return self._scene.GetNodeByID(self._id) if self._scene and self._id else None

    def setCurrentNode(self, node):
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, identifier):
        identifier = identifier or ""
        if identifier != self._id:
            self._id = identifier
            self._box.setCurrentIndex(self._box.findData(identifier))
            self.currentNodeChanged.emit(self.currentNode())

    def addNode(self):
        node = self._scene.AddNewNodeByClass(self.nodeTypes[0], self._scene.GenerateUniqueName(self.baseName or "Node"))
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node


@qt.custom_widget
class qMRMLSegmentationShow3DButton(qt.QPushButton):
    """Makes the closed surfaces that are missing when it is toggled on, and removes all when it is toggled off.

    As in Slicer, it follows the node at each of its events, be it pressed down or not.
    """

    def __init__(self, parent=None):
        super().__init__("Show 3D", parent)
        self._node, self._observers = None, []
        self.setCheckable(True)
        self.toggled.connect(self._toggled)
        self.setEnabled(False)

    def setSegmentationNode(self, node):
        if node is self._node:
            return
        for tag in self._observers:
            self._node.RemoveObserver(tag)
        kind = slicer.vtkSegmentation
        events = ("ModifiedEvent", kind.SegmentAdded, kind.SegmentRemoved, kind.ContainedRepresentationNamesModified)
        self._node = node
        self._observers = [node.AddObserver(event, self._follow) for event in events] if node is not None else []
        self._follow()

    def _follow(self, *_):
        if not shiboken6.isValid(self):  # the panel is gone, and the node is not
            return
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        self.setEnabled(segmentation is not None and segmentation.GetNumberOfSegments() > 0)
        if segmentation is not None:
            blocked = self.blockSignals(True)
            self.setChecked(segmentation.ContainsRepresentation("Closed surface"))
            self.blockSignals(blocked)

    def segmentationNode(self):
        return self._node

    def _toggled(self, on):
        if self._node is not None:
            segmentation = self._node.GetSegmentation()
            getattr(segmentation, "CreateRepresentation" if on else "RemoveRepresentation")("Closed surface")


class qMRMLRangeWidget(qt.QWidget):
    """Named by Slicer's own parameter nodes."""


class qMRMLSliderWidget(ctk.ctkSliderWidget):
    """Named by Slicer's own parameter nodes."""


class qMRMLSpinBox(qt.QDoubleSpinBox):
    """Named by Slicer's own parameter nodes."""


def install(namespace) -> None:
    """Put the widgets where ``slicer.qMRMLWidget`` is looked up."""
    for kind in (
        qMRMLWidget,
        qMRMLNodeComboBox,
        qMRMLSegmentationShow3DButton,
        qMRMLRangeWidget,
        qMRMLSliderWidget,
        qMRMLSpinBox,
    ):
        setattr(namespace, kind.__name__, kind)


assert slicer  # the scene's classes are loaded before any widget asks for them
