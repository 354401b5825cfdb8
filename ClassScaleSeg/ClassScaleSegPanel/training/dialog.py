"""The dialog "Train": trains a model further on saved cases, in a child process that can be stopped and goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.failures import training
from ..install.missing import TRAINING, Wanted
from ..install.packages import ensure_dependencies
from ..widgets.forms import add_row, browse_button, dialog_button, fill_list
from ..widgets.texts import ask, tell_error, tip
from .cases_dialog import CasesDialog
from .choices import EPOCHS, Choices, new_folder, proposed_output, remember, remembered, typed_path
from .comparison import ComparisonTable, summary_text
from .progress import TrainingProgress
from .words import device_texts, keep_a_fifth, missing_texts, overlap_texts

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.process import Event


class TrainingDialog(CasesDialog):
    """Opened by a button, and at the end of a training; not modal. A training goes on while the dialog is closed.

    :param button: opens the dialog.
    :param shown: returns the id of the model that the panel shows.
    :param on_made: called with the path of a new model that the user wants to use.
    """

    def __init__(
        self, button: qt.QPushButton, catalog: Catalog, shown: Callable[[], str], on_made: Callable[[str], None]
    ) -> None:
        CasesDialog.__init__(self, catalog)
        self._shown, self._on_made = shown, on_made
        self._progress, self._made = TrainingProgress(), ""
        self._proposed = ""  # the output that was proposed for the folder
        button.connect("clicked(bool)", lambda: self.open())

    def open(self) -> None:
        """Show the dialog."""
        self.close()
        intro = _(
            "Trains a model further on the cases that you have corrected and saved for training. It takes hours, "
            "and a GPU unless the network is small. You can stop it, and go on later."
        )
        layout, form = self._make_window(_("Train"), intro, _("Stop")), qt.QFormLayout()
        self._make_parts(form, ComparisonTable(_("Before"), _("Now")))
        self.output, self.model, self.epochs, self.device = (
            qt.QLineEdit(),
            qt.QComboBox(),
            qt.QComboBox(),
            qt.QComboBox(),
        )
        self.missing, self.overlap = qt.QComboBox(), qt.QComboBox()
        self.fill, self.validate, self.corrected = qt.QCheckBox(), qt.QCheckBox(), qt.QCheckBox()
        self.fill.text = _("Let the model find what nobody has drawn")
        self.fill.toolTip = tip(
            _(
                "Adds a structure to a model: draw the new one alone, and the model fills in those that it knows. What "
                "is drawn stays. Empty the segment of what is not in the image: if you remove it, the model fills it "
                "in again."
            )
        )
        self.validate.text = keep_a_fifth()
        self.corrected.text = _("Leave out results that nobody has corrected or checked")
        self.model.toolTip = tip(
            _("Models on this computer that are one network of nnU-Net. Others, as of Auto3DSeg, cannot be trained.")
        )
        self.epochs.toolTip = tip(_("An epoch is 250 steps of one batch each. More epochs need more time."))
        self._browse_buttons.append(browse_button(_("Choose the file"), self._browse_output))
        add_row(form, _("&Begin with:"), self.model)
        add_row(form, _("&New model:"), self.output, self._browse_buttons[1])
        add_row(form, _("&Epochs:"), self.epochs)
        add_row(form, _("&Device:"), self.device)
        add_row(form, _("What a case &lacks:"), self.missing)
        add_row(form, _("Structures that &overlap:"), self.overlap)
        boxes = [getattr(self, name) for name in _BOXES]
        for box in boxes:
            form.addRow(qt.QLabel(), box)
        self._fields = [*(getattr(self, name) for name in _LISTS), self.output, *boxes]
        self.start_button = dialog_button(_("Start"), self.start)
        self.use_button = dialog_button(_("Use the new model"), self._use)
        self._fill()
        self._show_parts(layout, form, (self.start_button, self.cancel_button, self.use_button))

    def choices(self) -> Choices:
        """Return what the open dialog shows."""
        data = {name: getattr(self, name).itemData(getattr(self, name).currentIndex) for name in _LISTS}
        boxes: dict[str, Any] = {name: bool(getattr(self, name).checked) for name in _BOXES}
        return Choices(
            folder=typed_path(self.folder.text),
            output=typed_path(self.output.text),
            **boxes,
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
        self._progress, self._made, self._structures = TrainingProgress(choices.validate, choices.fill), "", []
        self._begun(process)
        self.poll()

    def cancel(self) -> None:
        """Stop the training if one is under way."""
        if self.process is not None:
            self.process.cancel()
            said = _("Stopped. What was learned is kept: press Start to go on.")
            if self._progress.written:
                self._made = remembered().output
                said = _("Stopped. The new model is {file}. It was not compared.").format(file=self._made)
            self._end(said)

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        CasesDialog.render(self)
        if self.dialog is not None:
            self._enable_buttons((self.start_button, True))
            self.use_button.visible = bool(self._made)

    def _follow(self, event: Event) -> None:
        self._progress.update(event)
        self._percent, self._status = self._progress.percent, self._progress.text

    def _conclude(self, fault: str) -> None:
        if fault:
            self._fail(fault, _("The training has failed"))
            return
        assert self.process is not None
        result = self.process.result
        self._made, self._structures = str(result["output"]), list(result.get("structures") or ())
        self._end(_done(self._made, result))
        if self.dialog is None:
            self.open()

    def _closed(self) -> None:
        """Remember the choices of a window that is closed, also by Escape or by its frame."""
        if self.dialog is not None and self.process is None:
            remember(self.choices())
        CasesDialog._closed(self)

    def _use(self) -> None:
        self._on_made(self._made)

    def _fill(self) -> None:
        """Show what was chosen last. Another folder, in which a case was saved since then, begins another training."""
        kept, installed = remembered(), self._installed(self._models.is_trainable)
        saved = new_folder(kept)
        if saved and self.process is None:
            self._proposed = proposed_output(saved)
            kept = Choices(folder=saved, model=self._shown(), output=self._proposed)
        model = next((name for name in (kept.model, self._shown()) if name in installed), "")
        fill_list(self.model, installed, model)
        fill_list(self.epochs, {count: str(count) for count in EPOCHS}, kept.epochs)
        fill_list(self.device, device_texts(), kept.device)
        fill_list(self.missing, missing_texts(), kept.missing)
        fill_list(self.overlap, overlap_texts(), kept.overlap)
        self.folder.text, self.output.text = kept.folder, kept.output
        for name in _BOXES:
            getattr(self, name).checked = getattr(kept, name)

    def _follow_folder(self) -> None:
        """Propose another output for another folder, unless the user has chosen one."""
        if self.output.text in ("", self._proposed):
            self._proposed = proposed_output(typed_path(self.folder.text))
            self.output.text = self._proposed
        CasesDialog._follow_folder(self)

    def _browse_output(self) -> None:
        kinds = _("Model bundles") + " (*.zip)"
        chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), _("New model"), self.output.text, kinds)
        path = str((chosen[0] if isinstance(chosen, tuple) else chosen) or "")
        if path:
            self.output.text = path if path.lower().endswith(".zip") else f"{path}.zip"


_LISTS = ("model", "epochs", "device", "missing", "overlap")
_BOXES = ("fill", "validate", "corrected")


def _done(file: str, result: Mapping[str, Any]) -> str:
    """Return the status after a training that has finished."""
    done = _("Done. The new model is {file}.").format(file=file)
    return f"{done} {summary_text(result)}".rstrip()
