"""Parts of dialogs that Python makes: rows with labels, lists, fields with a button to browse, buttons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt

from ..state import silent
from .keyboard import name_from_label


def add_row(form: qt.QFormLayout, text: str, field: qt.QWidget, button: qt.QToolButton | None = None) -> None:
    """Add a row with a label, whose shortcut leads to the field, and which names the field to screen readers.

    :param text: of the label.
    :param button: stands behind the field.
    """
    label, row = qt.QLabel(text), field
    if button is not None:
        row = qt.QHBoxLayout()
        row.addWidget(field, 1)
        row.addWidget(button)
    form.addRow(label, row)
    label.setBuddy(field)
    name_from_label(label)


def browse_button(name: str, slot: Callable[[], object]) -> Any:
    """Return a small button that opens a list of files.

    :param name: for screen readers.
    """
    button = qt.QToolButton()
    button.text, button.accessibleName = "...", name
    button.connect("clicked(bool)", lambda: slot())
    return button


def dialog_button(text: str, slot: Callable[[], object]) -> Any:
    """Return a button that Enter in a field does not press."""
    button = qt.QPushButton(text)
    button.autoDefault = False
    button.connect("clicked(bool)", lambda: slot())
    return button


def fill_list(box: qt.QComboBox, choices: Mapping[Any, str], chosen: Any) -> None:
    """Fill a list with texts, by what they stand for, and choose an entry; none if there is none of it."""
    with silent(box):
        box.clear()
        for choice, text in choices.items():
            box.addItem(text, choice)
        box.setCurrentIndex(box.findData(chosen))
