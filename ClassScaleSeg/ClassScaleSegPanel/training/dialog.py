"""The dialog "Train": trains a model further on saved cases, in a child process that can be stopped and goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.failures import training
from ..install.missing import TRAINING, Wanted
from ..install.packages import ensure_dependencies
from ..models.source import CatalogModels
from ..state import silent
from ..translation import translated
from ..widgets.folders import TRAINING_FOLDER, ask_folder
from ..widgets.forms import add_row, browse_button, dialog_button
from ..widgets.texts import Wrapping, ask, tell_error, tip
from ..widgets.whole_texts import WholeTexts
from .choices import EPOCHS, Choices, new_folder, proposed_output, remember, remembered, typed_path
from .comparison import ComparisonTable, summary_text
from .progress import TrainingProgress
from .words import device_texts, keep_a_fifth, missing_texts, overlap_texts, panel_words

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.process.training import TrainingProcess

POLL_MILLISECONDS = 200


class TrainingDialog:
    """Opened by a button, and at the end of a training; not modal. A training goes on while the dialog is closed.

    :ivar dialog: the window, or ``None`` while it is closed.
    :ivar process: the training that is under way, or ``None``.
    :param button: opens the dialog.
    :param shown: returns the id of the model that the panel shows.
    :param on_made: called with the path of a new model that the user wants to use.
    """

    def __init__(
        self, button: qt.QPushButton, catalog: Catalog, shown: Callable[[], str], on_made: Callable[[str], None]
    ) -> None:
        self._models, self._shown, self._on_made = CatalogModels(catalog), shown, on_made
        self.dialog: qt.QDialog | None = None
        self.process: TrainingProcess | None = None
        self._progress, self._status, self._log, self._made = TrainingProgress(), "", "", ""
        self._structures: list[Mapping[str, Any]] = []
        self._proposed = ""  # the output that was proposed for the folder
        self._browse_buttons: list[Any] = []
        self._whole_texts = WholeTexts()
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.poll)
        button.connect("clicked(bool)", lambda: self.open())

    def open(self) -> None:
        """Show the dialog."""
        self.close()
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Train")
        layout, form = qt.QVBoxLayout(self.dialog), qt.QFormLayout()
        intro = qt.QLabel(
            _(
                "Trains a model further on the cases that you have corrected and saved for training. It takes hours, "
                "and a GPU unless the network is small. You can stop it, and go on later."
            )
        )
        self.folder, self.output = qt.QLineEdit(), qt.QLineEdit()
        self.cases, self.status = qt.QLabel(), qt.QLabel()
        self.model, self.epochs, self.device = qt.QComboBox(), qt.QComboBox(), qt.QComboBox()
        self.missing, self.overlap = qt.QComboBox(), qt.QComboBox()
        self.validate, self.corrected = qt.QCheckBox(), qt.QCheckBox()
        self.validate.text = keep_a_fifth()
        self.corrected.text = _("Leave out results that nobody has corrected")
        self.model.toolTip = tip(
            _("Models on this computer that are one network of nnU-Net. Others, as of Auto3DSeg, cannot be trained.")
        )
        self.epochs.toolTip = tip(_("An epoch is 250 steps of one batch each. More epochs need more time."))
        self._browse_buttons = [
            browse_button(_("Choose the folder"), self._browse_folder),
            browse_button(_("Choose the file"), self._browse_output),
        ]
        add_row(form, _("C&ases:"), self.folder, self._browse_buttons[0])
        form.addRow(qt.QLabel(), self.cases)
        add_row(form, _("&Begin with:"), self.model)
        add_row(form, _("&New model:"), self.output, self._browse_buttons[1])
        add_row(form, _("&Epochs:"), self.epochs)
        add_row(form, _("&Device:"), self.device)
        add_row(form, _("What a case &lacks:"), self.missing)
        add_row(form, _("Structures that &overlap:"), self.overlap)
        form.addRow(qt.QLabel(), self.validate)
        form.addRow(qt.QLabel(), self.corrected)
        self.start_button = dialog_button(_("Start"), self.start)
        self.stop_button = dialog_button(_("Stop"), self.stop)
        self.use_button = dialog_button(_("Use the new model"), self._use)
        buttons = qt.QHBoxLayout()
        for button in (self.start_button, self.stop_button, self.use_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        buttons.addWidget(dialog_button(_("Close"), self.close))
        self.bar, self.log = qt.QProgressBar(), qt.QPlainTextEdit()
        self.bar.accessibleName, self.log.accessibleName = _("Progress"), _("Log")
        self.log.readOnly = True
        layout.addWidget(intro)
        layout.addLayout(form)
        layout.addLayout(buttons)
        self.comparison = ComparisonTable()
        for widget in (self.bar, self.status, self.comparison.widget, self.log):
            layout.addWidget(widget)
        self._wrapping = [Wrapping(label) for label in (intro, self.cases, self.status)]
        for label in (self.cases, self.status):
            label.textFormat = qt.Qt.PlainText
        self.status.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self._fill()
        self.folder.connect("textChanged(QString)", lambda text: self._follow_folder())
        self._whole_texts.watch(self.dialog)
        self.render()
        self.dialog.connect("finished(int)", lambda result: self._closed())
        self.dialog.resize(520, 560)
        self.dialog.show()

    def close(self) -> None:
        """Close the window if it is open; a training goes on."""
        if self.dialog is not None:
            self.dialog.close()
            self._closed()

    def end(self) -> None:
        """Stop the training and close the window, because the application closes or the module is reloaded."""
        self.stop()
        self.close()

    def choices(self) -> Choices:
        """Return what the open dialog shows."""
        data = {name: getattr(self, name).itemData(getattr(self, name).currentIndex) for name in _LISTS}
        return Choices(
            folder=typed_path(self.folder.text),
            output=typed_path(self.output.text),
            validate=bool(self.validate.checked),
            corrected=bool(self.corrected.checked),
            **{name: value if value is not None else getattr(Choices(), name) for name, value in data.items()},
        )

    def start(self) -> None:
        """Begin the training, or go on with it. Errors are shown in a message box."""
        from ClassScaleSegLib.process.training import TrainingProcess

        choices, title = self.choices(), _("Train")
        if need := choices.need():
            tell_error(need, title)
            return
        question = _("{file} exists. Replace it once the training is done?")
        replace = os.path.isfile(choices.output)
        if replace and not ask(question.format(file=choices.output), title):
            return
        try:
            ensure_dependencies(Wanted((TRAINING,)), purpose=training())
            process = TrainingProcess(choices.arguments(replace))
            process.start()
        except ClassScaleError as error:
            tell_error(str(error), title)
            return
        remember(choices)
        self.process, self._progress, self._made = process, TrainingProgress(choices.validate), ""
        self._structures = []
        self.timer.start()
        self.poll()

    def stop(self) -> None:
        """Stop the training if one is under way."""
        if self.process is not None:
            self.process.cancel()
            said = _("Stopped. What was learned is kept: press Start to go on.")
            if self._progress.written:
                self._made = remembered().output
                said = _("Stopped. The new model is {file}. It was not compared.").format(file=self._made)
            self._end(said)

    def poll(self) -> None:
        """Show the progress of the training, and at its end the new model or the error."""
        process = self.process
        if process is None:
            return
        for event in process.poll():
            self._progress.update(event)
        if process.state == "running":
            self._status, self._log = self._progress.text, process.log
            self.render()
        elif process.state == "finished":
            self._made = str(process.result["output"])
            self._structures = list(process.result.get("structures") or ())
            self._end(_done(self._made, process.result))
            if self.dialog is None:
                self.open()
        else:
            fault = panel_words(translated(process.error or ""))
            first, _line, rest = fault.partition("\n")
            self._end(first + " " + _("The log has the rest.") if rest else first)
            tell_error(fault, _("The training has failed"))

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        if self.dialog is None:
            return
        running = self.process is not None
        for widget in (*(getattr(self, name) for name in (*_LISTS, *_FIELDS)), *self._browse_buttons):
            widget.enabled = not running
        on, off = (self.stop_button, self.start_button) if running else (self.start_button, self.stop_button)
        on.enabled = True
        if off.focus:  # Qt would hand it to whatever comes next
            on.setFocus()
        off.enabled = False
        self.use_button.visible = bool(self._made)
        if len(self._structures) != self.comparison.model.rowCount():
            self.comparison.fill(self._structures)
        self.comparison.widget.visible = bool(self._structures)
        self.bar.visible, self.bar.value = running, self._progress.percent
        self.status.text = self._status
        if self.log.plainText != self._log:
            scroll = self.log.verticalScrollBar()
            read = scroll.value if scroll.value < scroll.maximum else None  # somebody reads what was there before
            self.log.plainText = self._log
            scroll.value = scroll.maximum if read is None else read
        self.log.visible = bool(self._log)

    def _closed(self) -> None:
        """Remember the choices of a window that is closed, also by Escape or by its frame."""
        if self.dialog is not None:
            if self.process is None:
                remember(self.choices())
            self.dialog.deleteLater()
            self.dialog = None

    def _end(self, status: str) -> None:
        self.timer.stop()
        if self.process is not None:
            self._log = self.process.log
            self.process.close()
        self.process, self._status = None, status
        self.render()

    def _use(self) -> None:
        self._on_made(self._made)

    def _fill(self) -> None:
        """Show what was chosen last. Another folder, in which a case was saved since then, begins another training."""
        kept, installed = remembered(), self._installed()
        saved = new_folder(kept)
        if saved and self.process is None:
            self._proposed = proposed_output(saved)
            kept = Choices(folder=saved, model=self._shown(), output=self._proposed)
        model = next((name for name in (kept.model, self._shown()) if name in installed), "")
        _choose(self.model, installed, model)
        _choose(self.epochs, {count: str(count) for count in EPOCHS}, kept.epochs)
        _choose(self.device, device_texts(), kept.device)
        _choose(self.missing, missing_texts(), kept.missing)
        _choose(self.overlap, overlap_texts(), kept.overlap)
        self.folder.text, self.output.text = kept.folder, kept.output
        self.validate.checked, self.corrected.checked = kept.validate, kept.corrected
        self._tell_cases()

    def _installed(self) -> dict[str, str]:
        """Return the names of the models of this computer that can be trained further, by their ids."""
        try:
            entries = self._models.entries()
        except ClassScaleError as error:
            tell_error(str(error), _("Model catalogue"))
            return {}
        return {entry.id: entry.name for entry in entries if self._models.is_trainable(entry)}

    def _follow_folder(self) -> None:
        """Propose another output for another folder, unless the user has chosen one."""
        if self.output.text in ("", self._proposed):
            self._proposed = proposed_output(typed_path(self.folder.text))
            self.output.text = self._proposed
        self._tell_cases()

    def _tell_cases(self) -> None:
        from ClassScaleSegLib.scene.training_folder import saved_cases

        folder = typed_path(self.folder.text)
        try:
            cases = saved_cases(Path(folder)) if folder else []
        except ClassScaleError as error:
            self.cases.text = translated(str(error))
            return
        text = _("{count} cases, the latest of which is {name}.") if cases else _("No case was saved there.")
        text = _("One case, {name}.") if len(cases) == 1 else text
        self.cases.text = text.format(count=len(cases), name=cases[0].name if cases else "") if folder else ""

    def _browse_folder(self) -> None:
        if chosen := ask_folder(_("Folder with the cases"), TRAINING_FOLDER):
            self.folder.text = chosen

    def _browse_output(self) -> None:
        kinds = _("Model bundles") + " (*.zip)"
        chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), _("New model"), self.output.text, kinds)
        path = str((chosen[0] if isinstance(chosen, tuple) else chosen) or "")
        if path:
            self.output.text = path if path.lower().endswith(".zip") else f"{path}.zip"


_LISTS = ("model", "epochs", "device", "missing", "overlap")
_FIELDS = ("folder", "output", "validate", "corrected")


def _choose(box: qt.QComboBox, choices: Mapping[Any, str], chosen: Any) -> None:
    """Fill a list, and choose an entry; none if there is none of it."""
    with silent(box):
        box.clear()
        for choice, text in choices.items():
            box.addItem(text, choice)
        box.setCurrentIndex(box.findData(chosen))


def _done(file: str, result: Mapping[str, Any]) -> str:
    """Return the status after a training that has finished."""
    done = _("Done. The new model is {file}.").format(file=file)
    return f"{done} {summary_text(result)}".rstrip()
