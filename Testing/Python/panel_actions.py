"""What the files with actions of a user share: see ``panel_user.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from panel_checks import PanelChecks
from slicer_application import qt

SEARCHES = ("", "cell 7", "rib", "(.*[", "nothing at all")
ACTIONS: dict[str, dict[str, st.SearchStrategy]] = {}  # by name: the strategies of their arguments
number = st.integers(0, 11)
yes = st.booleans()


def action(**arguments: st.SearchStrategy) -> Callable[[Callable], Callable]:
    """Decorator of what the user can do: `ACTIONS` lists it with the strategies of its arguments."""

    def list_it(function: Callable) -> Callable:
        ACTIONS[function.__name__] = arguments
        return function

    return list_it


class Acting(PanelChecks):
    """Knows the panel, the scene, and what the user answers to questions.

    :ivar yes: what the user answers to a question.
    :ivar file: what the user types as the name of a file; empty if dialogues are cancelled.
    :ivar folder_chosen: the folder that the user chooses; empty if dialogues are cancelled.
    """

    widget: Any
    folder: Path
    folder_chosen: str
    yes: bool
    file: str

    @property
    def open(self) -> bool:
        return self.widget.parent.isEntered

    def pick(self, index: int, *kinds: str) -> Any:
        nodes = [n for n in self.scene.GetNodes() if any(n.IsA(kind) for kind in kinds)]
        return nodes[index % len(nodes)] if nodes else None

    def visible(self) -> list[Any]:
        return [node for node in self.scene.GetNodes() if not node.GetHideFromEditors() and not node.GetSingletonTag()]


def toggle(table: Any, index: int) -> None:
    if table.model.rowCount():
        item = table.model.item(index % table.model.rowCount(), 0)
        item.setCheckState(qt.Qt.Unchecked if item.checkState() == qt.Qt.Checked else qt.Qt.Checked)


def leaves(menu: Any) -> list[Any]:
    return [one for entry in menu.actions() for one in (leaves(entry.menu()) if entry.menu() else [entry])]
