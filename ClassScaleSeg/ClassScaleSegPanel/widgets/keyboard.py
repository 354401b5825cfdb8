"""Everything in the panel by keyboard alone, and with a name for screen readers.

The order of the Tab key is that of the layout, from top to bottom, also for what Python adds to the .ui file. What is
focused is not changed by progress or results: only if the focused button is disabled, its counterpart gets the focus.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import qt

NODE_LIST = "qMRMLNodeComboBox"


def arrange(panel: qt.QWidget) -> None:
    """Put the controls of the panel into the order of the layout, and name those that have a label.

    To be called once all of them are there.
    """
    for label in panel.findChildren(qt.QLabel):
        if label.buddy() is not None:
            name_from_label(label)
    controls = list(in_order(panel.layout()))
    for before, after in zip(controls, controls[1:], strict=False):
        qt.QWidget.setTabOrder(before, after)


def in_order(layout: qt.QLayout) -> Iterator[qt.QWidget]:
    """Return the controls of a layout that can have the focus, whether they are visible or not."""
    for number in range(layout.count()):
        widget, inner = layout.itemAt(number).widget(), layout.itemAt(number).layout()
        if widget is not None:
            widget = focused(widget)
            if widget.focusPolicy not in (qt.Qt.NoFocus, qt.Qt.ClickFocus):
                yield widget
            inner = widget.layout()
        if inner is not None:
            yield from in_order(inner)


def focused(control: qt.QWidget) -> qt.QWidget:
    """Return the widget that has the focus if a control has it: of a list of nodes, which cannot, the list inside."""
    return control.findChildren(qt.QComboBox)[0] if control.className() == NODE_LIST else control


def name_from_label(label: qt.QLabel) -> None:
    """Let a label focus its control by its shortcut, and give the control the name and the tip that people see."""
    control, shown = focused(label.buddy()), label.buddy()
    if control is not shown:
        label.setBuddy(control)
        control.toolTip = shown.toolTip
    control.accessibleName = without_shortcut(label.text).rstrip(": ")


def without_shortcut(text: str) -> str:
    """Return the text of a label or button as people see it.

    >>> without_shortcut("&Save && close")
    'Save & close'
    """
    return re.sub(r"&(.)", r"\1", text)


def show_buttons(ui: Any, ready: bool, running: bool, need: str, status: str) -> None:
    """Enable Apply or Cancel, and let screen readers say with them what the lines above and below say.

    :param ready: whether a run can begin.
    :param running: whether one is under way.
    :param need: the line above the buttons.
    :param status: the line below.
    """
    apply, cancel = ui.applyButton, ui.cancelButton
    stage = status.partition(",")[0]  # not the time that is left, which would be said every second
    for button, text in ((apply, f"{'' if running else status} {need}"), (cancel, stage if running else "")):
        if button.accessibleDescription != text.strip():
            button.accessibleDescription = text.strip()
    # first the one that is enabled: Qt would hand the focus of a disabled button to whatever comes next
    apply_on = ready and not running
    for button, on, other in sorted(((apply, apply_on, cancel), (cancel, running, apply)), key=lambda one: not one[1]):
        if not on and button.focus and other.enabled:
            other.setFocus()
        button.enabled = on


class SearchKeys(qt.QObject):
    """Event filter of a search box: Escape empties it, and Down goes to what was found."""

    def __init__(self, box: qt.QLineEdit, on_down: Callable[[], None]) -> None:
        qt.QObject.__init__(self)
        self._box, self._on_down = box, on_down
        box.installEventFilter(self)

    def eventFilter(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        """Handle the two keys, and return whether it was one of them."""
        if event.type() != qt.QEvent.KeyPress:
            return False
        if event.key() == qt.Qt.Key_Down:
            self._on_down()
            return True
        if event.key() == qt.Qt.Key_Escape and self._box.text:
            self._box.text = ""
            return True
        return False


class TableKeys(qt.QObject):
    """Event filter of a table: Space ticks, Enter chooses, and Up in the first row goes back to the search box.

    Qt ticks only if the first column is the current one.

    :param on_space: called with the row.
    :param on_enter: called with the row.
    """

    def __init__(
        self,
        view: qt.QTableView,
        on_space: Callable[[int], None],
        on_enter: Callable[[int], None],
        on_top: Callable[[], None],
    ) -> None:
        qt.QObject.__init__(self)
        self._view, self._on_top = view, on_top
        self._actions = {
            qt.Qt.Key_Space: on_space,
            qt.Qt.Key_Return: on_enter,
            qt.Qt.Key_Enter: on_enter,
        }
        view.installEventFilter(self)

    def eventFilter(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        """Handle these keys, and return whether it was one of them."""
        if event.type() != qt.QEvent.KeyPress:
            return False
        key, row = event.key(), self._view.currentIndex().row()
        if key == qt.Qt.Key_Up and row <= 0:
            self._on_top()
            return True
        if key not in self._actions or row < 0:
            return False
        self._actions[key](row)
        return True
