"""``slicer.app``, the scene, and the logics of modules, as far as a scripted module uses them."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import types
from typing import Any

import slicer
import vtk

from . import qt

LOGICS = {
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Sequences": "vtkSlicerSequencesLogic",
}


class Modules:
    """``slicer.modules``: the loaded modules, by lower-case name."""


class ModulePanel(qt.QScrollArea):
    """The part of the main window that shows a module. Like Slicer's, it never scrolls sideways: it gets wider."""

    def __init__(self, holder: qt.QWidget) -> None:
        super().__init__()
        self._holder, content = holder, qt.QWidget()
        content.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        layout = qt.QVBoxLayout(content)
        layout.setSizeConstraint(qt.QLayout.SetMinAndMaxSize)
        layout.setContentsMargins(0, 0, 0, 0)
        holder.layout().setContentsMargins(0, 0, 0, 0)
        holder.setSizePolicy(qt.QSizePolicy.Minimum, holder.sizePolicy.verticalPolicy())
        layout.addWidget(holder, 1)
        self.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        self.setWidgetResizable(True)
        self.setWidget(content)
        self.setFrameShape(qt.QFrame.NoFrame)

    def release(self) -> None:
        """Show no module any longer."""
        self._holder.setParent(None)

    def minimumSizeHint(self) -> qt.QSize:
        bar = self.verticalScrollBar().sizeHint().width()
        return qt.QSize(self.widget().minimumSizeHint().width() + bar, super().minimumSizeHint().height())


class Application(qt.QObject):
    """``slicer.app``, with the methods and properties that the module uses.

    :ivar widget: the last widget of a module that was made.
    :ivar vtk_messages: the warnings and errors of VTK, which Slicer shows in its error log.
    """

    startupCompleted = qt.Signal()
    moduleAboutToBeUnloaded = qt.Signal(str)
    applicationName = "Slicer"
    majorVersion, minorVersion = 5, 12

    def __init__(self) -> None:
        super().__init__()
        self.temporaryPath = tempfile.gettempdir()
        self.testing = True
        self.widget: Any = None
        self.applicationLocaleName = "en_US"  # the language of Slicer
        self.settings = qt.QSettings(os.path.join(tempfile.mkdtemp(), "Slicer.ini"), qt.QSettings.IniFormat)
        self.logic = slicer.vtkSlicerApplicationLogic()
        slicer.app, slicer.modules = self, Modules()
        slicer.mrmlScene = slicer.vtkMRMLScene()
        slicer.qSlicerScriptedLoadableModule = types.new_class("qSlicerScriptedLoadableModule")
        self.vtk_messages: list[str] = []
        self._prepare_scene()

    def _prepare_scene(self) -> None:
        scene = slicer.mrmlScene
        self.logic.SetMRMLScene(scene)
        self.logic.SetSliceLogics(vtk.vtkCollection())
        self.logic.SetViewLogics(vtk.vtkCollection())
        self.logic.GetColorLogic().SetMRMLScene(scene)
        self.logic.GetColorLogic().AddDefaultColorNodes()
        scene.RegisterNodeClass(slicer.vtkMRMLSceneViewNode())
        factory = slicer.vtkSegmentationConverterFactory.GetInstance()
        for rule in (
            "BinaryLabelmapToClosedSurface",
            "ClosedSurfaceToBinaryLabelmap",
            "FractionalLabelmapToClosedSurface",
        ):
            factory.RegisterConverterRule(getattr(slicer, f"vtk{rule}ConversionRule")())
        self.logic.SetModuleLogic("Colors", self.logic.GetColorLogic())
        for name, kind in LOGICS.items():
            logic = getattr(slicer, kind)()
            logic.SetMRMLScene(scene)
            if hasattr(logic, "SetMRMLApplicationLogic"):
                logic.SetMRMLApplicationLogic(self.logic)
            self.logic.SetModuleLogic(name, logic)
            setattr(slicer.modules, name.lower(), types.SimpleNamespace(logic=lambda logic=logic: logic))

        @vtk.calldata_type(vtk.VTK_STRING)
        def say(caller: Any, event: str, text: str) -> None:
            self.vtk_messages.append(text)

        for event in ("ErrorEvent", "WarningEvent"):
            vtk.vtkOutputWindow.GetInstance().AddObserver(event, say)

    def applicationLogic(self) -> slicer.vtkSlicerApplicationLogic:
        return self.logic

    def moduleManager(self) -> Application:
        return self

    def layoutManager(self) -> None:
        return None

    def coreIOManager(self) -> Application:
        return self

    def loadNodes(self, kind: str, properties: dict[str, Any], loaded: vtk.vtkCollection, messages: Any = None) -> bool:
        """Load a volume; other kinds of files cannot be loaded here.

        :param loaded: the node is added to it.
        :returns: whether the node was loaded.
        """
        logic, path = self.logic.GetModuleLogic("Volumes"), properties["fileName"]
        node = logic.AddArchetypeVolume(path, properties.get("name") or os.path.basename(path).split(".")[0])
        if kind != "VolumeFile" or node is None:
            return False
        loaded.AddItem(node)
        return True

    def fileWriterFileType(self, node: slicer.vtkMRMLNode) -> str:
        return node.GetClassName()

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any = None) -> bool:
        """Write one node with its storage node, in a folder that is made if it does not exist."""
        node, path = slicer.mrmlScene.GetNodeByID(properties["nodeID"]), properties["fileName"]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(path)
        node.GetStorageNode().SetFileName(path)
        return bool(node.GetStorageNode().WriteData(node))

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        return slicer.mrmlScene

    def userSettings(self) -> qt.QSettings:
        return self.settings

    def processEvents(self) -> None:
        qt.QCoreApplication.processEvents()

    def testingEnabled(self) -> bool:
        return self.testing

    def commandOptions(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(noMainWindow=True, testingEnabled=self.testing)

    def translate(self, context: str, text: str) -> str:
        return qt.QCoreApplication.translate(context, text)

    def installTranslator(self, translator: qt.QTranslator) -> bool:
        return qt.QCoreApplication.installTranslator(translator)

    def setOverrideCursor(self, shape: qt.Qt.CursorShape) -> None:
        qt.QApplication.setOverrideCursor(qt.QCursor(shape))

    def restoreOverrideCursor(self) -> None:
        qt.QApplication.restoreOverrideCursor()

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"https://slicer.readthedocs.io/{name}"

    def topLevelWidgets(self) -> list[qt.QWidget]:
        return qt.QApplication.topLevelWidgets()

    def load_module(self, path: str | os.PathLike[str]) -> types.ModuleType:
        """Import a module file as Slicer does, make its module object, and emit ``startupCompleted``."""
        path = os.path.abspath(path)
        name = os.path.splitext(os.path.basename(path))[0]
        if os.path.dirname(path) not in sys.path:
            sys.path.insert(0, os.path.dirname(path))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        facts = ("title", "helpText", "acknowledgementText", "icon", "categories", "dependencies", "contributors")
        parent = types.SimpleNamespace(path=path, name=name, hidden=False, **dict.fromkeys(facts))
        setattr(slicer.modules, f"{name}Instance", getattr(module, name)(parent))
        represented = types.SimpleNamespace(path=path, name=name, parent=parent)
        setattr(slicer.modules, name.lower(), represented)
        self.startupCompleted.emit()
        return module

    def make_widget(self, module: types.ModuleType) -> Any:
        """Return a new widget object of the module, set up. Its ``parent`` is the qMRMLWidget that contains it."""
        holder = slicer.qMRMLWidget()
        holder.setLayout(qt.QVBoxLayout())
        holder.setMRMLScene(slicer.mrmlScene)
        holder.reload = lambda: self._fill(holder, sys.modules[module.__name__])
        getattr(slicer.modules, module.__name__.lower()).widgetRepresentation = lambda: holder
        return self._fill(holder, module)

    def enter(self) -> None:
        """Open the module of the last widget that was made, as the module selector does."""
        self.widget.parent.isEntered = True
        self.widget.enter()

    def leave(self) -> None:
        """Open another module instead."""
        self.widget.parent.isEntered = False
        self.widget.exit()

    def _fill(self, holder: qt.QWidget, module: types.ModuleType) -> Any:
        self.widget = widget = getattr(module, f"{module.__name__}Widget")(holder)
        setattr(slicer.modules, f"{module.__name__}Widget", widget)
        widget.setup()
        holder.isEntered, holder.self = True, lambda: widget
        return widget
