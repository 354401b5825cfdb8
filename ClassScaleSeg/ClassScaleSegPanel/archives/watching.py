"""The dialog "Watch an archive": segments the series of an archive as they arrive, until it is stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ArchiveError, ClassScaleError
from ClassScaleSegLib.images.dicom.seg import HIGHDICOM
from slicer.i18n import tr as _

from ..install.missing import wanted_by
from ..install.packages import ensure_dependencies
from ..widgets.folders import ask_folder
from ..widgets.forms import add_row, browse_button, dialog_button, fill_list
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import ask_yes, tip
from .dialog import ArchiveDialog
from .sending import DICOMWEB_CLIENT
from .words import panel_words

if TYPE_CHECKING:
    from ClassScaleSegLib.options import Options
    from ClassScaleSegLib.process import ArchiveProcess, Event

    from .known import KnownArchive

_CHOICES, _FOLDER = "ClassScaleSeg/Watch", "ClassScaleSeg/WatchFolder"  # settings
_MODALITIES = ("CT", "MR", "PT", "NM")  # others can be typed
_DAYS = (1, 2, 3, 7, 14, 30)
_MOST_IMAGES = 100_000
EVERY = 60  # seconds between two looks
_GREY, _RED = (128, 128, 128), (200, 60, 60)


class WatchDialog(ArchiveDialog):
    """Opened by :meth:`open`. Watching goes on while the dialog is closed, and ends with Slicer.

    :ivar told: what is known of it in a line, for the panel; empty if no archive is watched.
    :param chosen: returns the models and the options that the panel shows; or a sentence on why an archive cannot be
        watched with them.
    :param on_told: called without arguments when `told` has changed, and when the window is closed.
    """

    packages = (HIGHDICOM, DICOMWEB_CLIENT)

    def __init__(
        self, chosen: Callable[[], tuple[tuple[str, ...], Options] | str], on_told: Callable[[], None]
    ) -> None:
        ArchiveDialog.__init__(self)
        self._chosen, self._on_told = chosen, on_told
        self.told = ""
        self._facts: dict[str, Any] = {}  # what the process has told last
        self._answered = False  # the archive has
        self._watched: KnownArchive | None = None  # the last one

    def open(self) -> None:
        """Show the dialog."""
        self.close()
        intro = _(
            "Looks every minute for new series in an archive (PACS), and segments each with the model and the device "
            "that the panel shows now. This goes on until you press Stop or leave Slicer, also if you close this "
            "window. The files have names and dates of patients: choose a folder that others cannot read."
        )
        left, right, below = qt.QFormLayout(), qt.QFormLayout(), qt.QFormLayout()
        layout, forms = self._make_window(_("Watch an archive"), intro, _("Stop")), qt.QHBoxLayout()
        self._make_access(left)
        if self._watched is not None:  # others may have been asked since, and this one not have answered yet
            self.access.show(self._watched)
        forms.addLayout(left, 3)
        forms.addLayout(right, 2)
        self.modality, self.days, self.sends = qt.QComboBox(), qt.QComboBox(), qt.QCheckBox()
        self.description, self.least, self.folder = qt.QLineEdit(), qt.QLineEdit(), qt.QLineEdit()
        self.modality.editable = True
        self.modality.addItems(list(_MODALITIES))
        self.description.placeholderText = _("all")
        self.description.toolTip = tip(_("A part of the description of the series, in any case."))
        self.least.toolTip = tip(_("Series with fewer images are passed over."))
        self.sends.text = _("Send the results to this archive")
        self.folder.toolTip = tip(_("For the results, and for what is done: the same folder goes on there."))
        self._browse = browse_button(_("Choose the folder"), self._choose_folder)
        add_row(right, _("&Modality:"), self.modality)
        add_row(right, _("Studies of the last &days:"), self.days)
        add_row(right, _("&Description:"), self.description)
        add_row(right, _("Images, at &least:"), self.least)
        add_row(below, _("F&older:"), self.folder, self._browse)
        below.addRow(qt.QLabel(), self.sends)
        self._fill()
        self.start_button = dialog_button(_("Start"), self.start)
        headers = [_("Series"), _("State"), _("Time"), _("Reason")]
        self.table = SearchTable(headers, _("Search in what has failed"), None)
        for inner in (forms, below):
            layout.addLayout(inner)
        layout.addWidget(self.table.widget, 1)
        self._list()
        self._finish(layout, self.start_button, 760, 640)

    def start(self) -> None:
        """Watch the archive, after asking. What is wrong is said below."""
        try:
            models, options = self._models()
            words = [*self._words_of_dialog(), "-m", *models, *_words_of(options)]
            ensure_dependencies(wanted_by(models, options))
        except ClassScaleError as error:
            self._say(panel_words(str(error)))
            return
        if self._start("watch", words, prepare=self._agreed):
            self._remember_choices()
            self._facts, self._answered, self._watched = {}, False, self.access.archive()
            self._list()
            self._tell(_("Starting"))

    def cancel(self) -> None:
        """Stop watching."""
        if self.process is not None:
            self.process.cancel()
            self._conclude(_("Stopped. To go on, start with the same folder."))

    def end(self) -> None:
        """Stop, and close the window, because the application closes or the module is reloaded."""
        ArchiveDialog.end(self)
        self.told = ""

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        ArchiveDialog.render(self)
        if self.dialog is not None:
            for widget in (self.modality, self.days, self.description, self.least, self.folder, self._browse):
                widget.enabled = self.process is None
            self.sends.enabled = self.process is None
            self._enable_buttons((self.start_button, True))

    def _models(self) -> tuple[tuple[str, ...], Options]:
        chosen = self._chosen()
        if isinstance(chosen, str):
            raise ArchiveError(chosen)
        return chosen

    def _words_of_dialog(self) -> list[str]:
        """Return what is searched for, and where results go, as arguments of the command.

        :raises ArchiveError: if something is missing.
        """
        folder, modality = os.path.expanduser(self.folder.text.strip()), self.modality.currentText.strip()
        least, description = self.least.text.strip(), self.description.text.strip()
        if not modality:
            raise ArchiveError(_("Choose a modality, such as CT."))
        if not (least.isascii() and least.isdecimal() and 1 <= int(least) <= _MOST_IMAGES):
            raise ArchiveError(_("The least number of images must be a whole number, such as 10."))
        if not os.path.isabs(folder):
            raise ArchiveError(_("Choose the folder for the results; give its whole path."))
        words = ["-o", folder, f"--modality={modality}", "--days", str(self._day_count()), "--least-images", least]
        words += ["--every", str(EVERY)]
        words += [f"--series-description={description}"] * bool(description)
        return words + ["--no-send"] * (not self.sends.checked)

    def _day_count(self) -> int:
        return int(self.days.itemData(self.days.currentIndex) or _DAYS[0])

    def _agreed(self, process: ArchiveProcess) -> bool:
        """Return whether results may be sent, of which nobody is asked again."""
        if not self.sends.checked:
            return True
        lines = [
            _("Send the results to {address}?").format(address=self.access.archive().address),
            "",
            _("{title}: {value}").format(title=_("Modality"), value=self.modality.currentText.strip()),
            _("{title}: {value}").format(title=_("Studies"), value=self.days.currentText),
            _("{title}: {value}").format(title=_("Description"), value=self.description.text.strip() or _("all")),
            "",
            _(
                "The results of all such series are sent WITHOUT a further question, and without anybody having looked "
                "at them, until you press Stop or leave Slicer."
            ),
        ]
        return ask_yes("\n".join(lines), _("Watch an archive"))

    def _follow(self, event: Event) -> None:
        if event.kind != "result":
            return
        self._facts = event.facts
        look = self._facts.get("look")
        if look and not look.get("fault") and not self._answered:
            self._answered = True
            self._notices += self._remember()
        self._list()
        self._tell(_state_of(self._facts))

    def _conclude(self, fault: str) -> None:
        """Say why it has ended."""
        if self.process is None:
            return
        stopped = self.process.state == "cancelled"
        self._stop()
        self.told = ""
        if self.dialog is None and not stopped:
            self.open()
        self._say(" ".join(filter(None, [fault, *self._notices])))
        self._on_told()

    def _tell(self, text: str) -> None:
        self.told = _("An archive is watched. {state}").format(state=" ".join(text.split("\n")))
        self._say(" ".join([text, *self._notices]))
        self._on_told()

    def _closed(self) -> None:
        was_open = self.dialog is not None
        ArchiveDialog._closed(self)
        if was_open and self.process is not None:
            self._on_told()

    def _list(self) -> None:
        """List the series that have failed, or whose results were not sent."""
        if self.dialog is None:
            return
        rows = []
        for row in self._facts.get("failed", ()):
            if not row["reason"]:  # it is being sent
                continue
            failed = row["state"] == "failed"
            state = _("failed") if failed else _("not sent")
            cells = (row["series"], state, row["time"], panel_words(row["reason"]))
            rows.append(Row(row["series"], _RED if failed else _GREY, cells, list(cells), " ".join(cells)))
        with self.table.place_kept():
            self.table.set_rows(rows)
        self.table.set_width(1, max((row.cells[1] for row in rows), key=len, default=_("failed")))
        self.table.set_width(2, "0000-00-00 00:00:00")
        self.table.set_width(3, "0" * 40)

    def _fill(self) -> None:
        """Show what was chosen last."""
        settings = slicer.app.userSettings()
        kept = _read(str(settings.value(_CHOICES) or ""))
        days = kept.get("days")
        texts = {day: _("today") if day == 1 else str(day) for day in _DAYS}
        fill_list(self.days, texts, days if days in _DAYS else 3)
        self.modality.setEditText(str(kept.get("modality") or "CT"))
        self.description.text = str(kept.get("description") or "")
        self.least.text = str(kept.get("least") or 10)
        self.sends.checked = kept.get("sends") is not False
        self.folder.text = str(settings.value(_FOLDER) or "")

    def _remember_choices(self) -> None:
        kept = {
            "modality": self.modality.currentText,
            "days": self._day_count(),
            "description": self.description.text,
            "least": self.least.text,
            "sends": bool(self.sends.checked),
        }
        slicer.app.userSettings().setValue(_CHOICES, json.dumps(kept))
        slicer.app.userSettings().setValue(_FOLDER, self.folder.text.strip())

    def _choose_folder(self) -> None:
        if chosen := ask_folder(_("Folder for the results"), _FOLDER):
            self.folder.text = chosen


def _read(text: str) -> dict[str, Any]:
    """Return the choices of the last time from the settings, which are not trusted."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words_of(options: Options) -> list[str]:
    """Return the options of a run as arguments of the command."""
    from ClassScaleSegLib.options import FIELDS, flag

    words: list[str] = []
    for name in FIELDS:
        value = getattr(options, name)
        if value != FIELDS[name].default and value is not None:
            words.append(flag(name))
            words += map(str, value) if isinstance(value, tuple) else [] if isinstance(value, bool) else [str(value)]
    return words


def _state_of(facts: dict[str, Any]) -> str:
    """Return in words what there was at the last look, and how many series are done."""
    states, look = facts.get("states") or {}, facts.get("look") or {}
    counts = _("{done} done, {left} left out, {unsent} not sent, {failed} failed.").format(
        done=states.get("done", 0),
        left=states.get("left out", 0),
        unsent=states.get("segmented", 0),
        failed=states.get("failed", 0),
    )
    said = []
    if look:
        said.append(_("Last look: {time}.").format(time=look["time"]))
    if look.get("fault"):
        said.append(panel_words(look["fault"]))
    elif look:
        said.append(_("To do: {due}, arriving: {arriving}.").format(due=look["due"], arriving=look["arriving"]))
    if look.get("series"):
        said.append(_("At work on {series} since {time}.").format(series=look["series"], time=look["since"]))
    return "\n".join(filter(None, [" ".join(said), counts, *map(panel_words, facts.get("faults", ()))]))
