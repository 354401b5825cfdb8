"""The dialog "From an archive": finds series in a DICOM archive, and fetches them for the list of several volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.labels.label import one_line
from slicer.i18n import tr as _

from ..widgets.folders import ask_folder
from ..widgets.forms import add_row, browse_button, dialog_button
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import shortened
from .criteria import CriteriaFields
from .dialog import ArchiveDialog
from .words import day, panel_words

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Event

_FOLDER = "ClassScaleSeg/ArchiveFolder"  # setting: where series are fetched to
# what has no voxels to segment
_NO_IMAGES = {"AU", "DOC", "ECG", "FID", "KO", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT", "RWV"}
_NO_IMAGES |= {"SEG", "SMR", "SR", "TEXTUREMAP"}
_GREY, _GREEN, _RED, _BLUE = (128, 128, 128), (60, 160, 60), (200, 60, 60), (60, 110, 200)
_MOST_FAULTS = 3  # that are told of one fetch


@dataclass(frozen=True)
class FoundSeries:
    """A series of an archive.

    :ivar uid: SeriesInstanceUID.
    :ivar study: StudyInstanceUID.
    :ivar patient: name of the patient, or the ID.
    :ivar when: day and description of the study.
    :ivar title: modality and description of the series.
    :ivar images: their number; ``None`` if the archive does not tell.
    """

    uid: str
    study: str
    patient: str
    when: str
    title: str
    images: int | None

    @property
    def name(self) -> str:
        """What people see in the list of volumes."""
        return f"{self.patient} - {self.title}"


class FetchDialog(ArchiveDialog):
    """Opened by :meth:`open`. A fetch goes on while the dialog is closed.

    :param on_fetched: called with the series that are whole, and the folder of each.
    """

    def __init__(self, on_fetched: Callable[[Sequence[tuple[FoundSeries, str]]], None]) -> None:
        ArchiveDialog.__init__(self)
        self._on_fetched = on_fetched
        self.found: dict[str, FoundSeries] = {}  # by UID
        self._states: dict[str, tuple[str, tuple[int, int, int]]] = {}  # in words, with a colour, by UID
        self._fetching = False  # or it is a search
        self._at, self._count = 0, 1  # which series of how many is fetched

    def open(self) -> None:
        """Show the dialog."""
        self.close()
        intro = _(
            "Finds series in an archive (PACS) by DICOMweb, and fetches them. What you search for is sent to the "
            "archive. The files have names and dates of patients: choose a folder that others cannot read."
        )
        left, right, below = qt.QFormLayout(), qt.QFormLayout(), qt.QFormLayout()
        layout, forms, above = self._begin(_("From an archive"), intro, left), qt.QHBoxLayout(), qt.QHBoxLayout()
        forms.addLayout(left, 3)
        forms.addLayout(right, 2)
        self.criteria = CriteriaFields(right)
        self.search_button = dialog_button(_("Search"), self.search)
        for field in self.criteria.lines:
            field.connect("returnPressed()", lambda: self.search_button.click())
        headers = [_("Patient"), _("Study"), _("Series"), _("Images"), _("State")]
        self.table = SearchTable(headers, _("Search in what was found"), on_ticked=self.render)
        self.folder, self.decompress = qt.QLineEdit(), qt.QCheckBox()
        self.folder.text = str(slicer.app.userSettings().value(_FOLDER) or "")
        self.decompress.text = _("Let the archive decompress images")
        self._browse = browse_button(_("Choose the folder"), self._choose_folder)
        add_row(below, _("F&older:"), self.folder, self._browse)
        below.addRow(qt.QLabel(), self.decompress)
        self.fetch_button = dialog_button(_("Fetch"), self.fetch)
        above.addStretch(1)
        above.addWidget(self.search_button)
        for inner in (forms, above):
            layout.addLayout(inner)
        layout.addWidget(self.table.widget, 1)
        layout.addLayout(below)
        self._list()
        self._finish(layout, self.fetch_button, 760, 680)

    def search(self) -> None:
        """Search for studies. What is wrong is said below."""
        try:
            wanted = self.criteria.wanted()
        except ClassScaleError as error:
            self._say(str(error))
            return
        if self._start("find", wanted=wanted):
            self.found, self._states, self._fetching = {}, {}, False
            self._list()
            self._say(_("Searching"))

    def fetch(self) -> None:
        """Fetch the ticked series. What is wrong is said below."""
        folder = os.path.expanduser(self.folder.text.strip())
        if not os.path.isabs(folder):
            self._say(_("Choose the folder to which the series are fetched; give its whole path."))
            return
        ticked = [self.found[uid] for uid in self.table.ticked()]
        studies = list(dict.fromkeys(series.study for series in ticked))
        wanted = {"study": studies, "series": [series.uid for series in ticked]}
        if self._start("fetch", ["-o", folder] + ["--decompress"] * bool(self.decompress.checked), wanted):
            slicer.app.userSettings().setValue(_FOLDER, folder)
            self._fetching, self._at, self._count = True, 0, 1
            self._states |= {series.uid: (_("waiting"), _GREY) for series in ticked}
            self._list()
            self._say(_("Starting"))

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        ArchiveDialog.render(self)
        if self.dialog is not None:
            for widget in (*self.criteria.fields, self.folder, self._browse, self.decompress, self.table.view):
                widget.enabled = self.process is None
            self._enable_buttons((self.fetch_button, bool(self.table.ticked())), (self.search_button, True))

    def _follow(self, event: Event) -> None:
        if event.kind == "begin":
            self._at, self._count = int(event.facts["index"]), max(1, int(event.facts["count"]))
            self._show_state(str(event.facts["case"]), _("fetching"), _BLUE)
        elif event.kind == "progress" and event.stage == "fetch":
            share = min(1, event.done / event.total) if event.total else 0
            self._percent = max(self._percent, int(100 * (self._at - 1 + share) / self._count))
            text = _("Fetching series {number} of {count}: {done} of {total} images")
            text = text if event.total else _("Fetching series {number} of {count}: {done} images")
            self._status = text.format(number=self._at, count=self._count, done=event.done, total=event.total)
        elif event.kind == "result" and self._fetching:
            self._show_state(str(event.facts.get("series")), *_state_of(event.facts))

    def _conclude(self, fault: str) -> None:
        """List what was found, or pass on the series that are whole."""
        if self.process is None:
            return
        results, cancelled = self.process.results, self.process.state == "cancelled"
        self._stop()
        told = [fault] * bool(fault)
        if self._fetching:
            if cancelled:
                told.append(_("What has arrived is kept: to go on, fetch the same series to the same folder."))
            self._states = {uid: state for uid, state in self._states.items() if state[1] not in (_BLUE, _GREY)}
            told += self._take_fetched(results)
        elif not fault:
            told += self._take_found(results)
        told += self._remember() if not fault else []
        if self.dialog is None:
            self.open()
        self._list()
        self._say(" ".join([*told, *self._notices]))

    def _take_found(self, studies: Sequence[dict[str, Any]]) -> list[str]:
        """List the series of studies, and return what is said of them."""
        found = [(study, series) for study in studies for series in study["series"]]
        images = [(study, series) for study, series in found if series["modality"].upper() not in _NO_IMAGES]
        self.found = {series["uid"]: _series(study, series) for study, series in images}
        if not studies:
            text = _("No study is like that. Some archives compare upper and lower case, and accents of names.")
            return [text]
        said = [_("{count} series found. Tick those that you want.").format(count=len(self.found))]
        if len(found) > len(images):
            text = _("Of {count} more, such as segmentations and reports, nothing can be segmented.")
            said.append(text.format(count=len(found) - len(images)))
        return said

    def _take_fetched(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Pass on the series that are whole, and return what is said of all."""
        whole = [row for row in rows if row.get("state") == "whole" and row.get("series") in self.found]
        self._on_fetched([(self.found[row["series"]], str(row["folder"])) for row in whole])
        said = []
        if whole:
            text = _("One series is there, and in the list of volumes.") if len(whole) == 1 else ""
            text = text or _("{count} series are there, and in the list of volumes.")
            said.append(text.format(count=len(whole)))
        faults = [
            _("{name}: {fault}").format(name=shortened(self.found[row["series"]].name, 60), fault=panel_words(sentence))
            for row in rows
            if row.get("series") in self.found
            for sentence in (*row.get("faults", ()), *row.get("notices", ()))
        ]
        if len(faults) > _MOST_FAULTS:
            text = _("There are {count} more messages; the states of the series are in the table.")
            faults[_MOST_FAULTS:] = [text.format(count=len(faults) - _MOST_FAULTS)]
        return said + faults

    def _show_state(self, uid: str, text: str, color: tuple[int, int, int]) -> None:
        if uid in self.found and self._states.get(uid) != (text, color):
            self._states[uid] = (text, color)
            self._list()

    def _list(self) -> None:
        """List what was found; ticks and place stay."""
        if self.dialog is None:
            return
        rows = []
        for uid, series in self.found.items():
            state, color = self._states.get(uid, ("", _GREY))
            images = "?" if series.images is None else str(series.images)
            cells = (series.patient, series.when, series.title, images, state)
            order: list[str | float] = [cell.casefold() for cell in cells]
            order[3] = float(series.images or 0)
            rows.append(Row(uid, color, cells, order, " ".join(cells).lower()))
        ticked = set(self.table.ticked())
        ticked -= {uid for uid, (_text, color) in self._states.items() if color == _GREEN}
        with self.table.place_kept():
            self.table.set_rows(rows, ticked=False)
        self.table.tick(ticked)
        for column in (1, 2):
            self.table.set_width(column, shortened(max((row.cells[column] for row in rows), key=len, default=""), 28))
        self.table.set_width(3, "00000")
        self.table.set_width(4, max((row.cells[4] for row in rows), key=len, default=""))

    def _closed(self) -> None:
        """End a search whose window is closed, also by Escape or by its frame: nobody waits for it."""
        if self.dialog is not None and self.process is not None and not self._fetching:
            self._stop()
            self._status = ""
        ArchiveDialog._closed(self)

    def _choose_folder(self) -> None:
        if chosen := ask_folder(_("Folder for the series"), _FOLDER):
            self.folder.text = chosen


def _series(study: dict[str, Any], series: dict[str, Any]) -> FoundSeries:
    patient = one_line(study["name"].replace("^", " ")) or one_line(study["patient"]) or _("without name")
    description = one_line(series["description"]) or _("without description")
    title = f"{one_line(series['modality']) or '?'}: {description}"
    when = one_line(f"{day(study['date'])} {study['description']}")
    return FoundSeries(series["uid"], study["uid"], patient, when, title, series["images"])


def _state_of(row: dict[str, Any]) -> tuple[str, tuple[int, int, int]]:
    if row.get("state") == "whole":
        return _("fetched"), _GREEN
    if row.get("state") == "incomplete":
        return _("incomplete"), _RED
    return _("not fetched"), _RED
