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

from ..install.failures import asking_archives
from ..install.packages import ensure_all
from ..widgets.folders import ask_folder
from ..widgets.forms import add_row, browse_button, dialog_button
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import Wrapping, shortened
from ..widgets.whole_texts import WholeTexts
from .access import AccessFields
from .criteria import CriteriaFields
from .words import panel_words

if TYPE_CHECKING:
    from ClassScaleSegLib.process import ArchiveProcess, Event

POLL_MILLISECONDS = 200
_FOLDER = "ClassScaleSeg/ArchiveFolder"  # setting: where series are fetched to
_PACKAGES = ("psutil", "tqdm")  # that Slicer may lack
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


class FetchDialog:
    """Opened by :meth:`open`; not modal. A fetch goes on while the dialog is closed.

    :ivar dialog: the window, or ``None`` while it is closed.
    :ivar process: the search or fetch that is under way, or ``None``.
    :param on_fetched: called with the series that are whole, and the folder of each.
    """

    def __init__(self, on_fetched: Callable[[Sequence[tuple[FoundSeries, str]]], None]) -> None:
        self._on_fetched = on_fetched
        self.dialog: qt.QDialog | None = None
        self.process: ArchiveProcess | None = None
        self.found: dict[str, FoundSeries] = {}  # by UID
        self._states: dict[str, tuple[str, tuple[int, int, int]]] = {}  # in words, with a colour, by UID
        self._fetching: tuple[str, ...] = ()  # the UIDs; empty while there is a search
        self._notices: list[str] = []
        self._at, self._count = 0, 1  # which series of how many is fetched
        self._percent, self._status = 0, ""
        self._whole_texts = WholeTexts()
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.poll)

    def open(self) -> None:
        """Show the dialog."""
        self.close()
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("From an archive")
        layout, forms = qt.QVBoxLayout(self.dialog), qt.QHBoxLayout()
        intro, self.status = qt.QLabel(), qt.QLabel()
        intro.text = _(
            "Finds series in an archive (PACS) by DICOMweb, and fetches them. What you search for is sent to the "
            "archive. The files have names and dates of patients: choose a folder that others cannot read."
        )
        left, right, below = qt.QFormLayout(), qt.QFormLayout(), qt.QFormLayout()
        forms.addLayout(left, 3)
        forms.addLayout(right, 2)
        self.access, self.criteria = AccessFields(left), CriteriaFields(right)
        self.search_button = dialog_button(_("Search"), self.search)
        for field in self.criteria.lines:
            field.connect("returnPressed()", lambda: self.search_button.click())
        headers = [_("Patient"), _("Study"), _("Series"), _("Images"), _("State")]
        self.table = SearchTable(headers, _("Search in what was found"), on_ticked=self.render)
        self.folder, self.decompress = qt.QLineEdit(), qt.QCheckBox()
        self.folder.text = str(slicer.app.userSettings().value(_FOLDER) or "")
        self.folder.connect("textChanged(QString)", lambda text: self.render())
        self.decompress.text = _("Let the archive decompress images")
        self._browse = browse_button(_("Choose the folder"), self._choose_folder)
        add_row(below, _("F&older:"), self.folder, self._browse)
        below.addRow(qt.QLabel(), self.decompress)
        self.fetch_button = dialog_button(_("Fetch"), self.fetch)
        self.cancel_button = dialog_button(_("Cancel"), self.cancel)
        above, buttons = qt.QHBoxLayout(), qt.QHBoxLayout()
        above.addStretch(1)
        above.addWidget(self.search_button)
        for button in (self.fetch_button, self.cancel_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        buttons.addWidget(dialog_button(_("Close"), self.close))
        self.bar = qt.QProgressBar()
        self.bar.accessibleName = _("Progress")
        layout.addWidget(intro)
        for inner in (forms, above):
            layout.addLayout(inner)
        layout.addWidget(self.table.widget, 1)
        for inner in (below, buttons):
            layout.addLayout(inner)
        for widget in (self.bar, self.status):
            layout.addWidget(widget)
        intro.wordWrap = True
        self._wrapping = Wrapping(self.status)
        self.status.textFormat = qt.Qt.PlainText
        self.status.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self._whole_texts.watch(self.dialog)
        self._list()
        self.dialog.connect("finished(int)", lambda result: self._closed())
        self.dialog.resize(760, 680)
        self.dialog.show()
        self.access.address.setFocus()

    def close(self) -> None:
        """Close the window if it is open; a fetch goes on."""
        if self.dialog is not None:
            self.dialog.close()
            self._closed()

    def end(self) -> None:
        """Stop what is under way and close the window, because the application closes or the module is reloaded."""
        self._stop()
        self.close()

    def search(self) -> None:
        """Search for studies. What is wrong is said below."""
        try:
            wanted = self.criteria.wanted()
        except ClassScaleError as error:
            self._say(str(error))
            return
        if self._start("find", [], wanted):
            self.found, self._states, self._fetching = {}, {}, ()
            self._list()
            self._say(_("Searching"))

    def fetch(self) -> None:
        """Fetch the ticked series. What is wrong is said below."""
        folder = os.path.expanduser(self.folder.text.strip())
        if not os.path.isabs(folder):
            self._say(_("Choose the folder to which the series are fetched; give its whole path."))
            return
        ticked = [self.found[uid] for uid in self.table.ticked()]
        words = ["--study", *dict.fromkeys(series.study for series in ticked)]
        words += ["--series", *(series.uid for series in ticked), "-o", folder]
        if self._start("fetch", words + ["--decompress"] * bool(self.decompress.checked), None):
            slicer.app.userSettings().setValue(_FOLDER, folder)
            self._fetching = tuple(series.uid for series in ticked)
            self._states |= dict.fromkeys(self._fetching, (_("waiting"), _GREY))
            self._list()
            self._say(_("Starting"))

    def cancel(self) -> None:
        """Stop the search or the fetch, and take over the series that are whole."""
        if self.process is not None:
            text = _("Cancelled.")
            if self._fetching:
                text += " " + _("What has arrived is kept: to go on, fetch the same series to the same folder.")
            self.process.cancel()
            self._conclude(text)

    def poll(self) -> None:
        """Show how far the search or the fetch is, and at its end what came of it."""
        process = self.process
        if process is None:
            return
        for event in process.poll():
            self._follow(event)
        if process.state == "running":
            self.render()
        elif process.state == "finished":
            self._conclude("")
        else:
            self._conclude(panel_words(process.error or ""))

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        if self.dialog is None:
            return
        running = self.process is not None
        self.access.enable(not running)
        for widget in (*self.criteria.fields, self.folder, self._browse, self.decompress, self.table.view):
            widget.enabled = not running
        ready = not running and bool(self.table.ticked())
        if running:
            self.cancel_button.enabled = True
            if self.search_button.focus or self.fetch_button.focus:  # Qt would hand it to whatever comes next
                self.cancel_button.setFocus()
        self.search_button.enabled = not running
        self.fetch_button.enabled = ready
        if not running:
            if self.cancel_button.focus:
                (self.fetch_button if ready else self.search_button).setFocus()
            self.cancel_button.enabled = False
        self.bar.visible = running
        self.bar.maximum = 100 if self._fetching else 0  # 0: busy
        self.bar.value = self._percent
        self.status.text = self._status

    def _start(self, action: str, words: list[str], wanted: dict[str, str] | None) -> bool:
        """Start a child process, and return whether that was done."""
        from ClassScaleSegLib.process import ArchiveProcess

        try:
            ensure_all(_PACKAGES, asking_archives())
            access = self.access.access()
            if access is None:
                return False
            process = ArchiveProcess(action, access, words, wanted)
            process.start()
        except ClassScaleError as error:
            self._say(panel_words(str(error)))
            return False
        self.process, self._notices = process, []
        self._at, self._count, self._percent = 0, 1, 0
        self.timer.start()
        return True

    def _follow(self, event: Event) -> None:
        """Take an event of the child process into account."""
        uid = str(event.facts.get("case", ""))
        if event.kind == "message":
            self._notices.append(panel_words(event.text))
        elif event.kind == "begin":
            self._at, self._count = int(event.facts["index"]), max(1, int(event.facts["count"]))
            self._show_state(uid, _("fetching"), _BLUE)
        elif event.kind == "progress" and event.stage == "fetch":
            share = min(1, event.done / event.total) if event.total else 0
            self._percent = max(self._percent, int(100 * (self._at - 1 + share) / self._count))
            text = _("Fetching series {number} of {count}: {done} of {total} images")
            text = text if event.total else _("Fetching series {number} of {count}: {done} images")
            self._status = text.format(number=self._at, count=self._count, done=event.done, total=event.total)
        elif event.kind == "result" and self._fetching:
            self._show_state(str(event.facts.get("series")), *_state_of(event.facts))

    def _conclude(self, fault: str) -> None:
        """Take over what a process that has ended has found or fetched.

        :param fault: why it has not done all; empty if it has ended by itself.
        """
        process, fetching = self.process, self._fetching
        if process is None:
            return
        results = process.results
        self._stop()
        told = [fault] * bool(fault)
        if not fault and (kept := self.access.remember() if self.dialog is not None else ""):
            told.append(panel_words(kept))
        if fetching:
            self._states = {uid: state for uid, state in self._states.items() if state[1] not in (_BLUE, _GREY)}
            told = [*told, *self._take_fetched(results)]
            if self.dialog is None:
                self.open()
        elif not fault:
            told = [*self._take_found(results), *told]
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
        self.render()

    def _say(self, text: str) -> None:
        self._status = text
        self.render()

    def _stop(self) -> None:
        self.timer.stop()
        if self.process is not None:
            self.process.close()
        self.process, self._fetching = None, ()

    def _closed(self) -> None:
        """End a search whose window is closed, also by Escape or by its frame: nobody waits for it."""
        if self.dialog is not None:
            if self.process is not None and not self._fetching:
                self._stop()
                self._status = ""
            self.dialog.deleteLater()
            self.dialog = None

    def _choose_folder(self) -> None:
        if chosen := ask_folder(_("Folder for the series"), _FOLDER):
            self.folder.text = chosen


def _series(study: dict[str, Any], series: dict[str, Any]) -> FoundSeries:
    patient = one_line(study["name"].replace("^", " ")) or one_line(study["patient"]) or _("without name")
    date = study["date"]
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else date
    description = one_line(series["description"]) or _("without description")
    title = f"{one_line(series['modality']) or '?'}: {description}"
    when = one_line(f"{day} {study['description']}")
    return FoundSeries(series["uid"], study["uid"], patient, when, title, series["images"])


def _state_of(row: dict[str, Any]) -> tuple[str, tuple[int, int, int]]:
    if row.get("state") == "whole":
        return _("fetched"), _GREEN
    if row.get("state") == "incomplete":
        return _("incomplete"), _RED
    return _("not fetched"), _RED
