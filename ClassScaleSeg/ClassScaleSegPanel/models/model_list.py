"""The list of models of one run, if there are several: their order, adding and removing, and which one gets a voxel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from ..state import PanelState, silent
from ..widgets.choice_list import ChoiceList
from ..widgets.texts import add_named


class ModelList:
    """Controls the frame "modelsFrame" and the button "+" of the .ui file.

    :ivar add_menu: the models that can be added.
    :param installed: returns the names of the models on this computer, by their ids.
    :param on_models: called with the ids of the models of the run, in their order.
    :param on_overlap: called with "later" or "keep".
    :param on_changed: called without arguments when another model of the list is to be shown.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        installed: Callable[[], Mapping[str, str]],
        on_models: Callable[[tuple[str, ...]], None],
        on_overlap: Callable[[str], None],
        on_changed: Callable[[], None],
    ) -> None:
        self._ui, self._state, self._installed = ui, state, installed
        self._on_models, self._on_changed = on_models, on_changed
        self._list = ui.modelsListWidget
        choices = {"later": _("The later model gets the voxel"), "keep": _("Keep both, in layers")}
        self._overlap = ChoiceList(ui.overlapComboBox, choices, on_overlap)
        self.add_menu = qt.QMenu()
        self.add_menu.connect("aboutToShow()", self._fill)
        ui.addModelButton.setMenu(self.add_menu)
        self._list.connect("currentRowChanged(int)", self._show)
        ui.modelUpButton.connect("clicked(bool)", lambda: self._move(-1))
        ui.modelDownButton.connect("clicked(bool)", lambda: self._move(1))
        ui.removeModelButton.connect("clicked(bool)", lambda: self._remove())

    def add(self, identifier: str) -> None:
        """Add a model at the end of the list."""
        self._on_models((*self._ids(), identifier))

    def render(self, overlap: str) -> None:
        """Show the models of the state, and which one gets a voxel that two claim."""
        ui, state = self._ui, self._state
        ui.modelsFrame.visible = len(state.models) > 1
        names = [_("{number}. {name}").format(number=n, name=name) for n, name in enumerate(self._names(), start=1)]
        current = min(state.current, len(names) - 1)
        with silent(self._list):
            if names != [self._list.item(row).text() for row in range(self._list.count)]:
                self._list.clear()
                self._list.addItems(names)
            self._list.setCurrentRow(current)
        ui.modelUpButton.enabled, ui.modelDownButton.enabled = current > 0, current < len(names) - 1
        several_networks = len(state.models) > 1 or len(state.summaries) > 1
        ui.overlapLabel.visible = ui.overlapComboBox.visible = several_networks
        self._overlap.render(overlap)

    def _names(self) -> list[str]:
        return [model.name for model in self._state.models]

    def _ids(self) -> list[str]:
        return [model.id for model in self._state.models]

    def _fill(self) -> None:
        taken = self._ids()
        self.add_menu.clear()
        for identifier, name in self._installed().items():
            if identifier not in taken:
                action = add_named(self.add_menu, name)
                action.connect("triggered(bool)", lambda on, identifier=identifier: self.add(identifier))
        if not self.add_menu.actions():
            self.add_menu.addAction(_("No other model is on this computer.")).enabled = False

    def _show(self, row: int) -> None:
        if row >= 0:
            self._state.current = row
            self._on_changed()

    def _move(self, by: int) -> None:
        ids, row = self._ids(), self._state.current
        if 0 <= row + by < len(ids):
            ids[row], ids[row + by] = ids[row + by], ids[row]
            self._state.current = row + by
            self._on_models(tuple(ids))

    def _remove(self) -> None:
        ids = self._ids()
        if len(ids) > 1:
            del ids[min(self._state.current, len(ids) - 1)]
            self._on_models(tuple(ids))
