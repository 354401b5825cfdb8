"""A small ``slicer.parameterNodeWrapper``: typed attributes kept in a node and bound to widgets.

As in Slicer, nodes are stored as references and all other values as text, so that saving and loading keeps them. Also
as in Slicer, values are cached, and read again only when the parameter node is modified: a reference that is read while
its node is not in the scene yet, as during an import, stays ``None``.
"""

from __future__ import annotations

import ast
import functools
import types
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from . import ctk, qt


@dataclass
class WithinRange:
    """The least and the greatest value of a number, for its widget."""

    minimum: float
    maximum: float


class _Cached:
    """A value that is read again when the node is modified, by an observer of its own, as in Slicer.

    VTK calls the first observer of a node last of all.
    """

    def __init__(self, node: slicer.vtkMRMLScriptedModuleNode, read: Callable[[], Any]) -> None:
        self._node, self._read, self.value, itself = node, read, read(), weakref.ref(self)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: itself().update())

    def __del__(self) -> None:
        self._node.RemoveObserver(self._tag)

    def update(self) -> None:
        self.value = self._read()


def parameterNodeWrapper(kind: type) -> type:
    """Class decorator: turn annotated attributes into properties stored in a parameter node, as Slicer does."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {
        name: (typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint) for name, hint in hints.items()
    }
    ranges = {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    defaults = {name: getattr(kind, name, None) for name in fields}
    for name, field in fields.items():
        setattr(kind, name, property(lambda self, name=name: self._cache[name].value, _writer(name, field)))

    def stored(node: slicer.vtkMRMLScriptedModuleNode, name: str) -> Any:
        field, default = fields[name], defaults[name]
        if _is_node(field):
            return node.GetNodeReference(name)
        if not node.HasParameter(name):
            return field() if default is None else default
        text = node.GetParameter(name)
        return text if field is str else ast.literal_eval(text)

    def construct(self: Any, node: slicer.vtkMRMLScriptedModuleNode) -> None:
        self.parameterNode, self._bound, self._writing = node, {}, False
        self.AddObserver, self.RemoveObserver, self.Modified = node.AddObserver, node.RemoveObserver, node.Modified
        self.StartModify, self.EndModify = node.StartModify, node.EndModify
        self._cache = {name: _Cached(node, functools.partial(stored, node, name)) for name in fields}

    def connect(self: Any, bound: dict[str, qt.QWidget]) -> int:
        for name, widget in bound.items():
            if name not in fields:
                raise ValueError(f"Cannot find a param with the given name: {name}")
            if name in ranges:
                widget.minimum, widget.maximum = ranges[name].minimum, ranges[name].maximum
        _write_widgets(self, bound)
        for name, widget in bound.items():
            signal, read, _ = _access(widget)

            def changed(*_: Any, name: str = name, read: Callable[[], Any] = read) -> None:
                if not self._writing:
                    setattr(self, name, read())

            signal.connect(changed)
            self._bound[name] = (signal, changed)
        self._tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _write_widgets(self, bound))
        return self._tag

    def disconnect(self: Any, tag: int) -> None:
        for signal, changed in self._bound.values():
            signal.disconnect(changed)
        self._bound = {}
        self.RemoveObserver(tag)

    kind.__init__, kind.connectParametersToGui, kind.disconnectGui = construct, connect, disconnect
    kind.setValue, kind.getValue = setattr, getattr
    return kind


def _is_node(field: type) -> bool:
    return isinstance(field, type) and issubclass(field, slicer.vtkMRMLNode)


def _writer(name: str, field: type) -> Callable[[Any, Any], None]:
    def write(self: Any, value: Any) -> None:
        with slicer.util.NodeModify(self.parameterNode):  # observers come last, when the new value can be read
            if not _is_node(field):
                self.parameterNode.SetParameter(name, value if field is str else repr(value))
            elif value is not None and not isinstance(value, field):
                raise TypeError(f"{name} cannot be a {value.GetClassName()}")
            else:
                self.parameterNode.SetNodeReferenceID(name, value.GetID() if value else None)
            self._cache[name].value = value

    return write


def _write_widgets(self: Any, bound: dict[str, qt.QWidget]) -> None:
    if self._writing:
        return
    self._writing = True
    try:
        for name, widget in bound.items():
            _access(widget)[2](getattr(self, name))
    finally:
        self._writing = False


def _access(widget: qt.QWidget) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    """Return the signal of a change of the widget's value, and functions that read and write the value."""
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
    """Return the decorator and `WithinRange` as the module ``slicer.parameterNodeWrapper``."""
    module = types.ModuleType("slicer.parameterNodeWrapper")
    module.parameterNodeWrapper, module.WithinRange = parameterNodeWrapper, WithinRange
    return module
