"""A small ``slicer.parameterNodeWrapper``: typed attributes kept in a node and bound to widgets.

Values are kept as Slicer keeps them, nodes as references and all else as text, so that they survive save and load.
"""

from __future__ import annotations

import ast
import functools
import types
import typing
from dataclasses import dataclass

import slicer
import vtk

from . import ctk, qt


@dataclass
class WithinRange:
    minimum: float
    maximum: float


def parameterNodeWrapper(kind):
    """Class decorator as in Slicer; see there."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {
        name: (typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint) for name, hint in hints.items()
    }
    ranges = {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    defaults = {name: getattr(kind, name, None) for name in fields}
    for name, field in fields.items():
        setattr(kind, name, property(_reader(name, field, defaults[name]), _writer(name, field)))

    def construct(self, node):
        self.parameterNode, self._bound, self._writing = node, {}, False
        self.AddObserver, self.RemoveObserver, self.Modified = node.AddObserver, node.RemoveObserver, node.Modified
        self.StartModify, self.EndModify = node.StartModify, node.EndModify

    def connect_gui(self, gui):
        widgets = [w for w in vars(gui).values() if w.property("SlicerParameterName")]
        bound = {w.property("SlicerParameterName"): w for w in widgets}
        for name, widget in bound.items():
            if name not in fields:
                raise ValueError(f"Cannot find a param with the given name: {name}")
            if name in ranges:
                widget.minimum, widget.maximum = ranges[name].minimum, ranges[name].maximum
        _write_widgets(self, bound)
        for name, widget in bound.items():
            signal, read, _ = _access(widget)

            def changed(*_, name=name, read=read):
                if not self._writing:
                    setattr(self, name, read())

            signal.connect(changed)
            self._bound[name] = (signal, changed)
        self._tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _write_widgets(self, bound))
        return self._tag

    def disconnect_gui(self, tag):
        for signal, changed in self._bound.values():
            signal.disconnect(changed)
        self._bound = {}
        self.RemoveObserver(tag)

    kind.__init__, kind.connectGui, kind.disconnectGui = construct, connect_gui, disconnect_gui
    kind.setValue, kind.getValue = setattr, getattr
    return kind


def _is_node(field) -> bool:
    return isinstance(field, type) and issubclass(field, slicer.vtkMRMLNode)


def _reader(name, field, default):
    def read(self):
        if _is_node(field):
            return self.parameterNode.GetNodeReference(name)
        text = self.parameterNode.GetParameter(name)
        if not self.parameterNode.HasParameter(name):
            return field() if default is None else default
        return text if field is str else ast.literal_eval(text)

    return read


def _writer(name, field):
    def write(self, value):
        if _is_node(field):
            self.parameterNode.SetNodeReferenceID(name, value.GetID() if value else None)
        else:
            self.parameterNode.SetParameter(name, value if field is str else repr(value))

    return write


def _write_widgets(self, bound):
    if self._writing:
        return
    self._writing = True
    try:
        for name, widget in bound.items():
            _access(widget)[2](getattr(self, name))
    finally:
        self._writing = False


def _access(widget):
    """Signal of a change, reader and writer of the value."""
    if isinstance(widget, slicer.qMRMLNodeComboBox):
        return widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode
    for kind, signal, name in (
        (qt.QCheckBox, "stateChanged", "checked"),
        (qt.QLineEdit, "textChanged", "text"),
        (qt.QSpinBox, "valueChanged", "value"),
        (qt.QDoubleSpinBox, "valueChanged", "value"),
        (ctk.ctkSliderWidget, "valueChanged", "value"),
    ):
        if isinstance(widget, kind):
            read, write = functools.partial(getattr, widget, name), functools.partial(setattr, widget, name)
            return getattr(widget, signal), read, write
    raise RuntimeError(f"Unable to create GUI connector for widget type {type(widget)}")


def as_module() -> types.ModuleType:
    module = types.ModuleType("slicer.parameterNodeWrapper")
    module.parameterNodeWrapper, module.WithinRange = parameterNodeWrapper, WithinRange
    return module
