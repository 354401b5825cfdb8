"""What both dialogs with saved cases share: their folder, a child process, two models side by side, and the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..models.source import CatalogModels
from ..translation import translated
from ..widgets.folders import TRAINING_FOLDER, ask_folder
from ..widgets.forms import add_row, browse_button
from ..widgets.process_dialog import ProcessDialog
from ..widgets.texts import Wrapping, tell_error
from .choices import typed_path
from .comparison import ComparisonTable
from .words import panel_words

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.catalog.entries import Entry


class CasesDialog(ProcessDialog):
    """A subclass makes the window between :meth:`_make_parts` and :meth:`_show_parts`.

    :ivar comparison: the table with both models.
    """

    def __init__(self, catalog: Catalog) -> None:
        ProcessDialog.__init__(self)
        self._models, self._log = CatalogModels(catalog), ""
        self._structures: list[Mapping[str, Any]] = []  # of the comparison
        self._fields: list[Any] = []  # that cannot be changed while something is under way
        self._browse_buttons: list[Any] = []

    def _make_parts(self, form: qt.QFormLayout, comparison: ComparisonTable) -> None:
        """Make the parts that both dialogs have.

        :param form: gets the row of the folder, and a line that says which cases are there.
        """
        self.folder, self.cases, self.log = qt.QLineEdit(), qt.QLabel(), qt.QPlainTextEdit()
        self._browse_buttons = [browse_button(_("Choose the folder"), self._browse_folder)]
        self.cases.textFormat = qt.Qt.PlainText
        self._wrapping.append(Wrapping(self.cases))
        add_row(form, _("C&ases:"), self.folder, self._browse_buttons[0])
        form.addRow(qt.QLabel(), self.cases)
        self.comparison, self.log.accessibleName, self.log.readOnly = comparison, _("Log"), True

    def _show_parts(self, layout: qt.QVBoxLayout, form: qt.QFormLayout, buttons: Sequence[qt.QPushButton]) -> None:
        """Show the window, once the fields say what was chosen last."""
        layout.addLayout(form)
        self._tell_cases()
        self.folder.connect("textChanged(QString)", lambda text: self._follow_folder())
        self._show_window(layout, buttons, (520, 560), self.comparison.widget, self.log)

    def end(self) -> None:
        """Stop what is under way and close the window, because the application closes or the module is reloaded."""
        self.cancel()
        self.close()

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        if self.process is not None:
            self._log = self.process.log
        ProcessDialog.render(self)
        if self.dialog is None:
            return
        for widget in (self.folder, *self._fields, *self._browse_buttons):
            widget.enabled = self.process is None
        if len(self._structures) != self.comparison.model.rowCount():
            self.comparison.fill(self._structures)
        self.comparison.widget.visible = bool(self._structures)
        if self.log.plainText != self._log:
            scroll = self.log.verticalScrollBar()
            read = scroll.value if scroll.value < scroll.maximum else None  # somebody reads what was there before
            self.log.plainText = self._log
            scroll.value = scroll.maximum if read is None else read
        self.log.visible = bool(self._log)

    def _words(self, text: str) -> str:
        return panel_words(translated(text))

    def _end(self, status: str) -> None:
        """End the process, and say what came of it."""
        if self.process is not None:
            self._log = self.process.log
        self._stop()
        self._say(status)

    def _fail(self, fault: str, title: str) -> None:
        """End a process that has failed, and say why, in short below the bar."""
        first, _line, rest = fault.partition("\n")
        self._end(first + " " + _("The log has the rest.") if rest else first)
        tell_error(fault, title)

    def _installed(self, fits: Callable[[Entry], bool]) -> dict[str, str]:
        """Return the names of the models of this computer that fit, by their ids."""
        try:
            return {entry.id: entry.name for entry in self._models.entries() if fits(entry)}
        except ClassScaleError as error:
            tell_error(str(error), _("Model catalogue"))
            return {}

    def _follow_folder(self) -> None:
        """Follow what the user types or chooses."""
        self._tell_cases()

    def _tell_cases(self) -> None:
        """Say which cases the folder has."""
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
