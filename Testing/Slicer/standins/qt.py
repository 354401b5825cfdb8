"""The module ``qt`` of Slicer (PythonQt), imitated with PySide6.

In PythonQt, Qt properties are plain attributes (``button.text = "Apply"``), and signals are connected by their C++
signature (``button.connect("clicked(bool)", f)``). A slot gets as many arguments as it takes, file dialogs return a
plain string, and attributes that a wrapped class does not have cannot be set. All this is imitated, so that a panel
that breaks these rules fails here.
"""

from __future__ import annotations

import ctypes
import inspect
import re
import sys
import types
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import *  # noqa: F403
from PySide6.QtGui import *  # noqa: F403
from PySide6.QtUiTools import QUiLoader as _Loader
from PySide6.QtWidgets import *  # noqa: F403

application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
# PySide6 6.12 returns None for an empty QVariant without counting the reference. Before Python 3.12 this ends the
# process after some ten thousand calls ("deallocating None"), unless enough references are held that are never freed.
if sys.version_info < (3, 12):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object([None] * (1 << 22)))
custom_widgets: dict[str, type] = {}
_shown: set[type] = set()
# Qt calls these as methods of widgets that Python has made, so they must not become attributes.
_VIRTUAL = ("sizeHint", "minimumSizeHint", "QProgressBar.text")
_SIGNAL = re.compile(r"2?\s*(\w+)\s*(?:\((.*)\))?\s*")


def custom_widget(kind: type) -> type:
    """Class decorator: allow the widget in .ui files, and make its properties attributes."""
    _show_properties(kind)
    custom_widgets[kind.__name__] = kind
    return kind


def _show_properties(kind: type) -> None:
    """Replace the getter of every Qt property that ``kind`` adds by a Python attribute."""
    if kind in _shown:
        return
    _shown.add(kind)
    meta = kind.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        qt_property = meta.property(index)
        name = qt_property.name()
        virtual = name in _VIRTUAL or f"{kind.__name__}.{name}" in _VIRTUAL
        if not virtual and not isinstance(kind.__dict__.get(name), QtCore.Property):
            setattr(kind, name, _attribute(name, qt_property.isWritable()))
    if kind.__module__.startswith("PySide6"):
        kind.__setattr__ = _set_known


def _attribute(name: str, writable: bool) -> property:
    def read(self: QtCore.QObject) -> Any:
        return QtCore.QObject.property(self, name)

    def write(self: QtCore.QObject, value: Any) -> None:
        if not writable:
            raise AttributeError(f"Property '{name}' of {type(self).__name__} is read-only")
        value = value.value if hasattr(value, "value") and type(value).__module__.startswith("PySide6") else value
        if not self.setProperty(name, value):
            raise ValueError(f"{type(self).__name__}.{name} cannot be {value!r}")

    return property(read, write)


def _set_known(self: Any, name: str, value: Any) -> None:
    """Assign an attribute as PythonQt does: only properties, and attributes that the wrapped class has."""
    found = inspect.getattr_static(type(self), name, None)
    if isinstance(found, QtCore.Property):
        self.setProperty(name, value)
    elif hasattr(type(found), "__set__"):
        type(found).__set__(found, self, value)
    elif found is None and type(self).__module__.startswith("PySide6") and not name.startswith("_"):
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")
    else:
        self.__dict__[name] = value


def _connect(self: Any, signature: str, function: Callable[..., Any]) -> bool:
    name, arguments = _SIGNAL.fullmatch(signature).groups()
    known = {
        bytes(self.metaObject().method(i).methodSignature()).decode() for i in range(self.metaObject().methodCount())
    }
    wanted = bytes(QtCore.QMetaObject.normalizedSignature(f"{name}({arguments or ''})").data()).decode()
    overload = next((s for s in known if s == wanted or (arguments is None and s.startswith(name + "("))), None)
    if overload is None and name not in getattr(type(self), "node_signals", ()):
        raise ValueError(f"{type(self).__name__} has no signal {wanted}")
    taken = _arity(function)
    signal = getattr(self, name)
    if arguments and name not in getattr(type(self), "node_signals", ()):
        signal = signal[wanted[len(name) + 1 : -1]]

    def slot(*values: Any) -> Any:
        return function(*values[: len(values) if taken is None else taken])

    self.__dict__.setdefault("_slots", []).append((name, function, signal, slot))
    signal.connect(slot)
    return True


def _disconnect(self: Any, signature: str, function: Callable[..., Any] | None = None) -> bool:
    name = _SIGNAL.fullmatch(signature).group(1)
    for entry in [e for e in self.__dict__.get("_slots", []) if e[0] == name and function in (None, e[1])]:
        entry[2].disconnect(entry[3])
        self.__dict__["_slots"].remove(entry)
    return True


def _arity(function: Callable[..., Any]) -> int | None:
    """Return how many positional arguments ``function`` takes; ``None``: any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _answer_first(kind: type) -> None:
    # PySide6 finds its own connect and disconnect before any attribute that Python code sets on its classes
    given = kind.__dict__["__getattribute__"]

    def look_up(self: Any, name: str) -> Any:
        if name == "connect":
            return types.MethodType(_connect, self)
        if name == "disconnect":
            return types.MethodType(_disconnect, self)
        return given(self, name)

    kind.__getattribute__ = look_up


def _find_by_name(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``findChild`` and ``findChildren`` take the name of a class too."""

    def find(self: Any, kind: type | str, *more: Any) -> Any:
        return method(self, globals().get(kind, custom_widgets.get(kind)) if isinstance(kind, str) else kind, *more)

    return find


def _install() -> None:
    kinds = [QtCore.QObject]
    for module in (QtCore, QtGui, QtWidgets):
        kinds += [k for k in vars(module).values() if isinstance(k, type) and issubclass(k, QtCore.QObject)]
    for kind in dict.fromkeys(kinds):
        if "__getattribute__" in kind.__dict__:
            _answer_first(kind)
        _show_properties(kind)
    base = QtCore.QObject
    base.name = property(lambda self: self.objectName, lambda self, text: self.setObjectName(text))
    base.className = lambda self: self.metaObject().className()
    base.delete = lambda self: self.deleteLater()
    base.findChild, base.findChildren = _find_by_name(base.findChild), _find_by_name(base.findChildren)
    dialog = QtWidgets.QFileDialog
    for name in ("getOpenFileName", "getSaveFileName"):
        answer = getattr(dialog, name)
        setattr(dialog, name, staticmethod(lambda *a, answer=answer, **k: answer(*a, **k)[0]))


_install()


class QUiLoader(_Loader):
    """Loads .ui files with the custom widgets, and raises an error if a file uses a class that is not imitated here."""

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        for kind in custom_widgets.values():
            self.registerCustomWidget(kind)

    def load(self, file: QtCore.QFile, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        from xml.etree import ElementTree

        known = {*self.availableWidgets(), *custom_widgets, "Line"}
        used = {widget.get("class") for widget in ElementTree.parse(file.fileName()).iter("widget")}
        if used - known:
            raise RuntimeError(f"{file.fileName()} uses {', '.join(sorted(used - known))}, which is not imitated.")
        return _Loader.load(self, file, parent)
