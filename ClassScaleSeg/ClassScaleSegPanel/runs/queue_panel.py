"""The section "Several volumes": volumes that one press of Apply segments one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.scene.queue import QueueItem, SceneQueue
from ClassScaleSegLib.scene.run import SceneRun
from slicer.i18n import tr as _

from ..inputs.image_files import choose_cases, choose_images, key_of_file
from ..inputs.queued_case import case_key, is_gone
from ..inputs.scene_volumes import cases, folders, images
from ..state import PanelState
from ..translation import translated
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import Wrapping, add_named

if TYPE_CHECKING:
    from ..archives.fetching import FoundSeries

_GREY, _GREEN, _RED, _BLUE = (128, 128, 128), (60, 160, 60), (200, 60, 60), (60, 110, 200)
_LONGEST_STATE = 16  # characters for which there is room, whatever the reason of a failure; its tip tells the rest


class QueuePanel:
    """Controls the section "Several volumes" of the .ui file.

    With a model of several channels, a row is a case: the volumes of a folder, patient or study.

    :ivar table: the volumes with their states; keys of its rows are node ids, UIDs of series and images of the file
        system that are not loaded, or those of `case_key`.
    :ivar add_menu: where volumes can be taken from.
    :param on_changed: called without arguments when other volumes are ticked.
    :param on_archive: called without arguments when series of an archive are wanted.
    :param on_watch: called without arguments when an archive is to be watched.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        on_changed: Callable[[], None],
        on_archive: Callable[[], None],
        on_watch: Callable[[], None],
    ) -> None:
        self._ui, self._state, self._on_changed = ui, state, on_changed
        self._on_archive, self._on_watch = on_archive, on_watch
        self._names: dict[str, str] = {}  # of the volumes, by key
        self._states: dict[str, tuple[str, tuple[int, int, int]]] = {}  # in words, with a colour, by key
        self.table = SearchTable([_("Volume"), _("State")], _("Search volumes"), on_ticked=self._changed)
        self.add_menu = qt.QMenu()
        self.add_menu.connect("aboutToShow()", self._fill)
        row, add, self.empty_button = qt.QHBoxLayout(), qt.QToolButton(), qt.QToolButton()
        add.text, add.accessibleName = _("Add"), _("Add volumes")
        add.toolTip = _("Add volumes of the scene, from the DICOM database, of a folder of files, or from an archive.")
        add.setMenu(self.add_menu)
        add.popupMode = qt.QToolButton.InstantPopup
        self.empty_button.text, self.empty_button.toolTip = _("Remove all"), _("Empty this list. The volumes stay.")
        self.empty_button.connect("clicked(bool)", lambda: self.empty())
        for button in (add, self.empty_button):
            row.addWidget(button)
        row.addStretch(1)
        self.table.layout.insertLayout(0, row)
        self.watched = qt.QLabel()
        self.watched.textFormat, self.watched.visible = qt.Qt.PlainText, False
        self._wrapping = Wrapping(self.watched)
        ui.queueCollapsibleButton.layout().addWidget(self.table.widget)
        ui.queueCollapsibleButton.layout().addWidget(self.watched)
        self._list()

    def chosen(self) -> list[tuple[str, str]]:
        """Return key and name of the ticked volumes, in their order."""
        return [(key, self._names[key]) for key in self.table.ticked()]

    def add(self, volumes: Iterable[tuple[str, str]]) -> None:
        """Add volumes, ticked.

        :param volumes: key and name of each.
        """
        ticked = set(self.table.ticked())
        for key, name in volumes:
            self._names[key] = name
            ticked.add(key)
        self._list(ticked)
        self._on_changed()

    def add_fetched(self, fetched: Iterable[tuple[FoundSeries, str]]) -> None:
        """Add series that were fetched from an archive, ticked. If the model has several channels, a study is a case.

        :param fetched: each with its folder.
        """
        rows = [(series, key_of_file(folder)) for series, folder in fetched]
        if len(self._state.channels) > 1:
            studies: dict[str, list[str]] = {}
            names: dict[str, str] = {}
            for series, key in rows:
                studies.setdefault(series.study, []).append(key)
                names[series.study] = " / ".join(filter(None, (series.patient, series.when)))
            self.add((case_key(members), names[study]) for study, members in studies.items())
        else:
            self.add((key, series.name) for series, key in rows)

    def show_watched(self, text: str) -> None:
        """Show a line on the archive that is watched; an empty one hides it."""
        self.watched.text, self.watched.visible = text, bool(text)

    def empty(self) -> None:
        """Remove all volumes from the list."""
        self._names, self._states = {}, {}
        self._list()
        self._on_changed()

    def forget(self, node_id: str) -> None:
        """Remove a volume that goes from the scene."""
        if gone := [key for key in self._names if is_gone(key, node_id)]:
            ticked = self.table.ticked()
            for key in gone:
                del self._names[key]
            self._list(ticked)

    def follow(self, queue: SceneRun | SceneQueue | None) -> None:
        """Show how far the volumes of a queue are; those that are finished lose their tick."""
        if not isinstance(queue, SceneQueue):
            return
        states = {item.key: _state_of(item) for item in queue.items if item.key in self._names}
        if any(self._states.get(key) != state for key, state in states.items()):
            done = {item.key for item in queue.items if item.state == "finished"}
            self._states |= states
            self._list(set(self.table.ticked()) - done)

    def render(self) -> None:
        """Show that the list cannot be changed during a run."""
        idle = self._state.run is None
        self.empty_button.enabled = idle and bool(self._names)
        self.table.view.enabled = idle or not isinstance(self._state.run, SceneQueue)

    def _changed(self) -> None:
        """Note which volumes are to be segmented one after the other."""
        self._state.queued = tuple(self.chosen())
        self._on_changed()

    def _list(self, ticked: Iterable[str] = ()) -> None:
        rows = []
        for key, name in self._names.items():
            text, color = self._states.get(key, (_("waiting"), _GREY))
            rows.append(Row(key, color, (name, text), (name.casefold(), text), f"{name} {text}"))
        with self.table.place_kept():
            self.table.set_rows(rows, ticked=False)
        self.table.set_width(1, max((row.cells[1] for row in rows), key=len, default=_("waiting"))[:_LONGEST_STATE])
        self.table.tick(ticked)
        self._state.queued = tuple(self.chosen())

    def _fill(self) -> None:
        self.add_menu.clear()
        database = getattr(slicer, "dicomDatabase", None)
        database = database if database is not None and database.isOpen else None
        (self._fill_with_cases if len(self._state.channels) > 1 else self._fill_with_volumes)(database)

    def _fill_with_volumes(self, database: Any) -> None:
        menu, volumes = self.add_menu, list(images())
        action = menu.addAction(_("All volumes of the scene"))
        action.enabled = bool(volumes)
        action.connect("triggered(bool)", lambda on: self.add((node.GetID(), node.GetName()) for node in volumes))
        inner = menu.addMenu(_("Folder, patient or study of the scene"))
        for name, inside in folders().items():
            action = add_named(inner, name, partial(_counted, len(inside)))
            action.connect("triggered(bool)", lambda on, inside=inside: self.add(inside))
        inner.enabled = bool(inner.actions())
        if database is not None:
            from ..inputs.dicom_series import choose_series

            text = _("Series of the DICOM database...")
            menu.addAction(text).connect("triggered(bool)", lambda on: self.add(choose_series(database)))
        menu.addAction(_("Folder of images...")).connect("triggered(bool)", lambda on: self.add(choose_images()))
        self._add_archive()

    def _fill_with_cases(self, database: Any) -> None:
        menu, found = self.add_menu, [(case_key(members), name) for name, members in cases()]
        action = menu.addAction(_("All folders, patients and studies of the scene"))
        action.enabled = bool(found)
        action.connect("triggered(bool)", lambda on: self.add(found))
        inner = menu.addMenu(_("Folder, patient or study of the scene"))
        for path in folders():
            inside = [(key, name) for key, name in found if f"{name} / ".startswith(f"{path} / ")]
            action = add_named(inner, path, partial(_counted, len(inside)))
            action.connect("triggered(bool)", lambda on, inside=inside: self.add(inside))
        inner.enabled = bool(inner.actions())
        if database is not None:
            from ..inputs.dicom_series import choose_studies

            def choose() -> None:
                self.add((case_key(members), name) for members, name in choose_studies(database))

            menu.addAction(_("Series of the DICOM database...")).connect("triggered(bool)", lambda on: choose())

        def choose_in_folder() -> None:
            self.add((case_key(members), name) for members, name in choose_cases())

        menu.addAction(_("Folder of images...")).connect("triggered(bool)", lambda on: choose_in_folder())
        self._add_archive()

    def _add_archive(self) -> None:
        action = self.add_menu.addAction(_("From an archive..."))
        action.connect("triggered(bool)", lambda on: self._on_archive())
        action = self.add_menu.addAction(_("Watch an archive..."))
        action.connect("triggered(bool)", lambda on: self._on_watch())


def _counted(count: int, folder: str) -> str:
    return _("{folder} ({count})").format(folder=folder, count=count)


def _state_of(item: QueueItem) -> tuple[str, tuple[int, int, int]]:
    if item.state == "finished":
        return _("{count} structures").format(count=item.found), _GREEN
    if item.state == "failed":
        return _("failed: {reason}").format(reason=translated(item.error)), _RED
    words = {"waiting": _("waiting"), "running": _("running"), "cancelled": _("cancelled")}
    return words[item.state], _BLUE if item.state == "running" else _GREY
