"""The dialog "Compare models": which of two models knows the structures of saved cases better, in a child process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.failures import comparing_models
from ..install.missing import Wanted, wanted_by
from ..install.packages import ensure_dependencies
from ..widgets.forms import add_row, dialog_button, fill_list
from ..widgets.saving import ask_file
from ..widgets.texts import tell_error, time_left, tip
from .cases_dialog import CasesDialog
from .choices import ComparedModels, compared_models, new_folder, remember_compared, typed_path
from .comparison import ComparisonTable, counts_text
from .words import device_texts

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.process import Event

_TABLE = "models.csv"  # in the work folder of the child process
_SUFFIX = ".csv"
_LETTERS = ("A", "B")  # of the models


class ModelsDialog(CasesDialog):
    """Opened by a button, and at the end of a comparison; not modal. A comparison goes on while the dialog is closed.

    :param button: opens the dialog.
    :param shown: returns the id of the model that the panel shows.
    """

    def __init__(self, button: qt.QPushButton, catalog: Catalog, shown: Callable[[], str]) -> None:
        CasesDialog.__init__(self, catalog)
        self._shown = shown
        self._names, self._table = "", b""  # of the models that were compared, and the file with all figures
        button.connect("clicked(bool)", lambda: self.open())

    def open(self) -> None:
        """Show the dialog."""
        self.close()
        intro = _(
            "Segments the cases that you have corrected and saved for training with two models, and shows the Dice of "
            "each structure side by side. Cases that a model was trained on flatter it."
        )
        layout, form = self._make_window(_("Compare models"), intro, _("Cancel")), qt.QFormLayout()
        self._make_parts(form, ComparisonTable(*_LETTERS))
        self.first, self.second, self.device = qt.QComboBox(), qt.QComboBox(), qt.QComboBox()
        for box in (self.first, self.second):
            box.toolTip = tip(_("Models on this computer. Both must take the same number of images of a case."))
        add_row(form, _("&Model A:"), self.first)
        add_row(form, _("Model &B:"), self.second)
        add_row(form, _("&Device:"), self.device)
        self._fields = [self.first, self.second, self.device]
        self.start_button = dialog_button(_("Compare"), self.start)
        self.save_button = dialog_button(_("Save..."), self.save)
        self.save_button.toolTip = tip(_("Save the figures of all cases, structures and both models as a .csv file."))
        kept, installed = compared_models(), self._installed(self._models.is_there)
        fill_list(self.first, installed, kept.first if kept.first in installed else self._shown())
        fill_list(self.second, installed, kept.second)
        fill_list(self.device, device_texts(), kept.device)
        self.folder.text = (new_folder(kept) if self.process is None else "") or kept.folder
        self._show_parts(layout, form, (self.start_button, self.cancel_button, self.save_button))

    def choices(self) -> ComparedModels:
        """Return what the open dialog shows."""
        lists = {name: getattr(self, name) for name in ("first", "second", "device")}
        data = {name: box.itemData(box.currentIndex) for name, box in lists.items()}
        fitting = {
            name: value if value is not None else getattr(ComparedModels(), name) for name, value in data.items()
        }
        return ComparedModels(folder=typed_path(self.folder.text), **fitting)

    def start(self) -> None:
        """Begin the comparison. Errors are shown in a message box."""
        from ClassScaleSegLib.process.training import ModelComparisonProcess

        choices, title = self.choices(), _("Compare models")
        if need := choices.need():
            tell_error(need, title)
            return
        try:
            more = [package for model in (choices.first, choices.second) for package in wanted_by([model]).more]
            ensure_dependencies(Wanted(tuple(dict.fromkeys(more))), purpose=comparing_models())
            process = ModelComparisonProcess(choices.arguments())
            process.arguments += ("-o", str(process.work_folder / _TABLE))
            process.start()
        except ClassScaleError as error:
            tell_error(str(error), title)
            return
        remember_compared(choices)
        self._names, self._table, self._structures = f"{self.first.currentText} - {self.second.currentText}", b"", []
        self._status = _("Starting")
        self._begun(process)
        self.poll()

    def save(self) -> None:
        """Save the figures of all cases to a file that the user chooses."""
        from ClassScaleSegLib.files import replacing

        path = ask_file(_("Save comparison"), self._names, {_SUFFIX: _("Table")})
        if not path:
            return
        try:
            with replacing(Path(path), overwrite=True) as partial:
                partial.write_bytes(self._table)
        except ClassScaleError as error:
            tell_error(str(error), _("The comparison was not saved"))

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        CasesDialog.render(self)
        if self.dialog is not None:
            self._enable_buttons((self.start_button, True), (self.save_button, bool(self._table)))

    def _follow(self, event: Event) -> None:
        if event.kind == "progress" and event.stage == "segment" and event.total:
            self._percent = max(self._percent, 100 * event.done // event.total)
            text = _("Segmentation {number} of {total}").format(number=event.done + 1, total=event.total)
            self._status = ", ".join(filter(None, (text, time_left(event.remaining))))

    def _conclude(self, fault: str) -> None:
        process = self.process
        assert process is not None
        if process.state == "cancelled":
            self._end(_("Cancelled. Begin the same comparison again within a week, and it goes on there."))
            return
        if not fault:
            try:
                self._table = (process.work_folder / _TABLE).read_bytes()
            except OSError as error:
                fault = _("The table {file} cannot be read ({reason}).").format(
                    file=error.filename, reason=error.strerror
                )
        if fault:
            self._fail(fault, _("The models could not be compared"))
            return
        self._structures = list(process.result["structures"])
        self._end(" ".join(_said(process.result, self._words)))
        if self.dialog is None:
            self.open()

    def _closed(self) -> None:
        """Remember the choices of a window that is closed, also by Escape or by its frame."""
        if self.dialog is not None and self.process is None:
            remember_compared(self.choices())
        CasesDialog._closed(self)


def _said(result: Mapping[str, Any], words: Callable[[str], str]) -> list[str]:
    """Return what a comparison says of all structures together, and what is wrong with it, in a sentence each.

    :param words: turns a sentence of the command into one of the dialog.
    """
    # as the columns are called: the lists of models may show others by now
    names = [f"{letter} ({name})" for letter, name in zip(_LETTERS, result["names"], strict=True)]
    (first, second), dices, cases = names, result["mean_dice_of_all"], len(result["cases"])
    said = []
    if dices:
        text = _("On {cases} cases, the mean Dice of {first} is {dice}, and that of {second} is {other}.")
        text = (
            _("On one case, the mean Dice of {first} is {dice}, and that of {second} is {other}.")
            if cases == 1
            else text
        )
        dice, other = (f"{mean:.3f}" for mean in dices)
        said.append(text.format(cases=cases, first=first, second=second, dice=dice, other=other))
        said.append(
            counts_text(result["structures"], _("Structures that both know: {better} better with B, {worse} worse."))
        )
    elif result["without_common_classes"]:
        said.append(_("{first} and {second} have no class in common.").format(first=first, second=second))
    elif None not in result["mean_dice"]:
        said.append(_("Both models know structures that are drawn, but none of these together."))
    for name, mean in zip(names, result["mean_dice"], strict=True):
        if mean is None:
            said.append(_("{name} knows none of the structures that are drawn.").format(name=name))
    if faults := result["faults"]:
        text = _("{count} cases could not be compared, and count for no model. The first fault was: {fault}")
        text = _("One case could not be compared, and counts for no model: {fault}") if len(faults) == 1 else text
        said.append(text.format(count=len(faults), fault=words(faults[0])))
    return said
