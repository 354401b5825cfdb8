"""The list of a model's classes, with search, ticks, groups and presets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import add_named, ask_text, tell

if TYPE_CHECKING:
    from ClassScaleSegLib.labels.label import Label
    from ClassScaleSegLib.labels.table import LabelTable

    from ..parameters import ClassScaleSegParameterNode
    from ..state import PanelState

# Presets are in the application's settings, because they are for all scenes and models.
_SETTING = "ClassScaleSeg/ClassPresets"


class ClassList:
    """The section "Classes" of the panel.

    :ivar table: the table of classes; keys of its rows are label values as text.
    :ivar ticked: keys of the ticked rows.
    :param on_chosen: called with the classes that the user has ticked, as the parameter node keeps them.
    """

    def __init__(self, on_chosen: Callable[[str], None]) -> None:
        self._on_chosen = on_chosen
        self.ticked: list[str] = []
        self._names: dict[str, str] = {}  # by key
        self._groups: dict[str, list[str]] = {}  # keys by group
        self._lookup: Callable[[str], Sequence[Label]] | None = None
        self.table = SearchTable(
            [_("Class"), _("Code"), _("Group"), _("Model")], _("Search by name, code or group"), on_ticked=self._ticked
        )
        self.count, self.group_menu, self.preset_menu = qt.QLabel(), qt.QMenu(), qt.QMenu()
        self.all_button, self.none_button, self.group_button, preset_button = (qt.QToolButton() for _number in range(4))
        row = qt.QHBoxLayout()
        row.setSpacing(3)  # room for "1120 of 1120" where the panel is narrow
        for button, text, tip in (
            (self.all_button, _("A&ll"), _("Tick all classes that the search shows.")),
            (self.none_button, _("&None"), _("Untick all classes that the search shows.")),
            (self.group_button, _("Gro&ups"), _("Tick or untick all classes of a group.")),
            (preset_button, _("&Presets"), _("Save the ticked classes, or tick classes that you saved.")),
        ):
            button.text, button.toolTip = text, tip
            row.addWidget(button)
        row.addStretch(1)
        row.addWidget(self.count)
        self.table.layout.insertLayout(1, row)
        self.all_button.connect("clicked(bool)", lambda: self._tick_also(self.table.shown(), True))
        self.none_button.connect("clicked(bool)", lambda: self._tick_also(self.table.shown(), False))
        for button, menu, fill in (
            (self.group_button, self.group_menu, self._fill_groups),
            (preset_button, self.preset_menu, self._fill_presets),
        ):
            button.setMenu(menu)
            button.popupMode = qt.QToolButton.InstantPopup
            menu.connect("aboutToShow()", fill)

    def follow(self, parameters: ClassScaleSegParameterNode, state: PanelState) -> None:
        """List the classes of the models, and tick those that the parameter node names.

        Classes that the models lack make it all classes.
        """
        if state.listed is not state.table:
            state.listed = state.table
            self.set_table(state.table, {value: owner for value, (owner, _own) in state.owners.items()})
        # without the table of the model the names cannot be checked, so they are kept
        if state.table is not None and parameters.classes != self.value():
            if self.choose(parameters.classes.splitlines() or None):
                self.choose(None)
                parameters.classes = ""

    def set_table(self, table: LabelTable | None, owners: Mapping[int, str] | None = None) -> None:
        """List the classes of the models, all ticked. ``None``, for a model that is not downloaded, empties the list.

        :param owners: the name of the model of each class, if there are several models.
        """
        labels = table.foreground if table is not None else ()
        self._lookup = table.lookup if table is not None else None
        self._names = {str(label.value): label.name for label in labels}
        self._groups = {}
        for label in labels:
            if label.group:
                self._groups.setdefault(label.group, []).append(str(label.value))
        rows = [_row(label, (owners or {}).get(label.value, "")) for label in labels]
        self.table.set_rows(rows, ticked=True)
        for column, texts in enumerate(zip(*(row.cells for row in rows), strict=True)):
            self.table.set_width(column, max(texts, key=len))
        self.group_button.enabled = bool(self._groups)
        self._show_count()

    def chosen(self) -> list[str] | None:
        """Return the names of the ticked classes, or ``None`` if all are ticked."""
        return None if len(self.ticked) == len(self._names) else [self._names[key] for key in self.ticked]

    def value(self) -> str:
        """Return the ticked classes as the parameter node keeps them: a name per line; nothing for all, or for none."""
        return "\n".join(self.chosen() or ())

    def choose(self, names: Iterable[str] | None) -> int:
        """Tick the classes with the given names or label values, as the engine reads them, and untick all others.

        :param names: ``None`` ticks all classes.
        :returns: how many of the names the model does not have.
        """
        found: list[Sequence[Label]] = [() if self._lookup is None else self._lookup(name) for name in names or ()]
        chosen = (str(label.value) for labels in found for label in labels)
        self.table.tick(self._names if names is None else chosen)
        self._show_count()
        return sum(not labels for labels in found)

    def known(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that the model has."""
        return [name for name in names if self._lookup is not None and self._lookup(name)]

    def _tick_also(self, keys: Iterable[str], on: bool) -> None:
        ticked = set(self.ticked)
        self._tick_only(ticked.union(keys) if on else ticked.difference(keys))

    def _tick_only(self, keys: Iterable[str]) -> None:
        self.table.tick(keys)
        self._ticked()

    def _ticked(self) -> None:
        self._show_count()
        self._on_chosen(self.value())

    def _show_count(self) -> None:
        self.ticked = self.table.ticked()
        self.count.text = _("{ticked} of {all}").format(ticked=len(self.ticked), all=len(self._names))

    def _fill_groups(self) -> None:
        ticked = set(self.ticked)
        self.group_menu.clear()
        for group, keys in self._groups.items():
            action = add_named(self.group_menu, group, partial(_counted, len(keys)))
            action.checkable, action.checked = True, ticked.issuperset(keys)
            action.connect("triggered(bool)", lambda on, keys=keys: self._tick_also(keys, on))
        self.group_menu.addSeparator()
        only = self.group_menu.addMenu(_("Only"))
        for group, keys in self._groups.items():
            add_named(only, group).connect("triggered(bool)", lambda on, keys=keys: self._tick_only(keys))

    def _fill_presets(self) -> None:
        presets = load_presets()
        self.preset_menu.clear()
        for name, names in presets.items():
            action = add_named(self.preset_menu, name)
            action.connect("triggered(bool)", lambda on, names=names: self.apply(names))
        self.preset_menu.addSeparator()
        self.preset_menu.addAction(_("Save ticked classes...")).connect("triggered(bool)", lambda: self._save())
        if presets:
            delete = self.preset_menu.addMenu(_("Delete"))
            for name in presets:
                add_named(delete, name).connect("triggered(bool)", lambda on, name=name: self._delete(name))

    def apply(self, names: Sequence[str]) -> None:
        """Tick the classes of a preset, as the user does."""
        missing = self.choose(names)
        self._on_chosen(self.value())
        if missing:
            text = _("This model does not have {count} of the classes in the preset.").format(count=missing)
            tell(text, _("Preset"))

    def _save(self) -> None:
        if name := ask_text(_("Save preset"), _("Name:")):
            self.save_preset(name)

    def save_preset(self, name: str) -> None:
        """Save the ticked classes as a preset, and replace the preset of that name if there is one."""
        save_presets({**load_presets(), name: [self._names[key] for key in self.ticked]})

    def _delete(self, name: str) -> None:
        save_presets({other: names for other, names in load_presets().items() if other != name})


def _counted(count: int, group: str) -> str:
    return _("{group} ({count})").format(group=group, count=count)


def _row(label: Label, owner: str) -> Row:
    cells = (label.name, label.type.value if label.type else "", label.group or "", owner)
    searched = " ".join((*cells, *(part.meaning for part in label.codes.values() if part)))
    return Row(str(label.value), label.color, cells, tuple(text.casefold() for text in cells), searched)


def load_presets() -> dict[str, list[str]]:
    """Return the class names of each preset, by name of the preset. Presets that cannot be read are left out."""
    try:
        content = json.loads(slicer.app.userSettings().value(_SETTING) or "{}")
    except (TypeError, ValueError, RecursionError):
        return {}
    presets = content.items() if isinstance(content, dict) else ()
    found = {name: [str(item) for item in names] for name, names in presets if isinstance(names, list)}
    # half letters, which JSON can hold, are no text for Qt
    return {name: names for name, names in found.items() if not re.search("[\ud800-\udfff]", "".join((name, *names)))}


def save_presets(presets: dict[str, list[str]]) -> None:
    """Replace all saved presets."""
    slicer.app.userSettings().setValue(_SETTING, json.dumps(presets))
