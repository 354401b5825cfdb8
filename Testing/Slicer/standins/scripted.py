"""The Python parts of Slicer that slicer-core lacks: base classes of modules, translation, sample data."""

from __future__ import annotations

import functools
import os
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import slicer
import vtk

from . import parameter_node, qt


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        self.parent = parent
        self.layout = parent.layout()
        self.moduleName = type(self).__name__[: -len("Widget")]
        self.developerMode = False

    def resourcePath(self, name: str) -> str:
        return os.path.join(os.path.dirname(sys.modules[self.moduleName].__file__), "Resources", name)

    def setup(self) -> None:
        pass

    def cleanup(self) -> None:
        pass

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__[: -len("Logic")]

    def getParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message: str, *_: Any, **__: Any) -> None:
        qt.QCoreApplication.processEvents()

    def runTest(self) -> None:
        for name in [name for name in dir(self) if name.startswith("test")]:
            self.setUp()
            getattr(self, name)()


class SampleDataLogic:
    """Keeps the registered samples, and loads them as Slicer does: without the storage node of the file."""

    sources: list[dict] = []

    @classmethod
    def registerCustomSampleDataSource(cls, **source: Any) -> None:
        cls.sources.append(source)

    def downloadSample(self, name: str) -> slicer.vtkMRMLNode:
        source = next(source for source in self.sources if source["sampleName"] == name)
        path = qt.QUrl(source["uris"]).toLocalFile()
        node = slicer.util.loadVolume(path, {"name": source["nodeNames"]})
        slicer.mrmlScene.RemoveNode(node.GetStorageNode())
        node.SetAndObserveStorageNodeID(None)
        return node


def translate(context: str, text: str) -> str:
    return slicer.app.translate(context, text) if hasattr(slicer, "app") else text


def tr(text: str) -> str:
    """Translate a text in the context of the file that calls, as Slicer names it; `update_translations.py` does so."""
    return translate(_context(sys._getframe(1).f_code.co_filename), text)


@functools.cache
def _context(path: str) -> str:
    file = Path(path)
    package = f"{file.parent.name}." if (file.parent / "__init__.py").is_file() else ""
    return package + file.stem


def install(namespace: Any, own: bool) -> None:
    """Make the imitated modules importable.

    :param namespace: the module ``slicer``.
    :param own: also imitate the modules that a Slicer checkout would provide.
    """
    sample_data = types.ModuleType("SampleData")
    sample_data.SampleDataLogic = SampleDataLogic
    sys.modules["SampleData"] = sample_data
    import slicer.util  # noqa: F401  Slicer's own

    if not own:
        return
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    names = [name for name in globals() if name.startswith("ScriptedLoadableModule")]
    for name in names:
        setattr(base, name, globals()[name])
    translation = types.ModuleType("slicer.i18n")
    translation.tr, translation.translate = tr, translate
    for module in (base, translation, parameter_node.as_module()):
        sys.modules[module.__name__] = module
        setattr(namespace, module.__name__.rpartition(".")[2], module)
    assert vtk
