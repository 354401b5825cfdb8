"""The Python parts of Slicer that the slicer-core wheel lacks: base classes of modules, translation, sample data."""

from __future__ import annotations

import os
import sys
import types
import unittest

import slicer
import vtk

from . import parameter_node, qt


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.parent = parent
        self.layout = parent.layout()
        self.moduleName = type(self).__name__[: -len("Widget")]
        self.developerMode = False

    def resourcePath(self, name):
        return os.path.join(os.path.dirname(sys.modules[self.moduleName].__file__), "Resources", name)

    def setup(self):
        pass

    def cleanup(self):
        pass

    def onReload(self):
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__[: -len("Logic")]

    def getParameterNode(self):
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
    def delayDisplay(self, message, *_, **__):
        qt.QCoreApplication.processEvents()

    def runTest(self):
        for name in [name for name in dir(self) if name.startswith("test")]:
            self.setUp()
            getattr(self, name)()


class SampleDataLogic:
    """Keeps what is registered, for tests to look at."""

    sources: list[dict] = []
    categories: list[str] = []

    @classmethod
    def registerCustomSampleDataCategory(cls, category, title=None):
        cls.categories.append(category)

    @classmethod
    def registerCustomSampleDataSource(cls, **source):
        cls.sources.append(source)


def install(namespace, own: bool) -> None:
    """Make the modules importable. ``own``: imitate also those that a Slicer checkout would provide."""
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
    translation.tr = lambda text: text
    translation.translate = lambda context, text: text
    for module in (base, translation, parameter_node.as_module()):
        sys.modules[module.__name__] = module
        setattr(namespace, module.__name__.rpartition(".")[2], module)
    assert vtk
