"""The folder of the report: chosen, asked for if it came with a scene, and its page opened after a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..state import PanelState
from ..widgets.texts import ask, tell
from .last_choice import load_choices


class ReportFolder:
    """Controls the row "Report" and the button "View report" of the .ui file.

    A scene keeps the folder, as every choice. A report has pictures of patients, and the scene may be somebody else's,
    so a folder that the user has neither chosen now nor used before is asked for at Apply.
    """

    def __init__(self, ui: Any, state: PanelState) -> None:
        self._ui, self._state = ui, state
        self._agreed: set[str] = set()  # folders that the user has agreed to
        self._typed = ""
        ui.reportLineEdit.connect("textEdited(QString)", self._type)
        ui.reportFolderButton.connect("clicked(bool)", lambda: self.choose())
        ui.reportButton.connect("clicked(bool)", lambda: self.open())
        ui.reportButton.visible = False

    def _type(self, text: str) -> None:
        self._typed = text

    def choose(self) -> None:
        """Let the user choose the folder."""
        title, before = _("Folder of the report"), self._ui.reportLineEdit.text
        chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, before)
        if chosen:
            self._typed = chosen
            self._ui.reportLineEdit.text = chosen

    def agreed(self) -> bool:
        """Return whether the report may be written; ask, if its folder came with the scene."""
        folder = self._state.parameters.report if self._state.parameters is not None else ""
        used = {"", self._typed, *self._agreed, *(choices.get("report") for choices in load_choices().values())}
        if folder in used:
            return True
        question = _(
            "The scene names {folder} as the folder of a report, which has pictures of the volume. Write the report "
            "there?"
        )
        if ask(question.format(folder=folder), _("Report")):
            self._agreed.add(folder)
        return folder in self._agreed

    def open(self) -> None:
        """Show the page in the web browser."""
        page = self._state.page
        if page is not None and not page.is_file():
            tell(_("{file} is not there any more.").format(file=page), _("Report"))
        elif page is not None and not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(page))):
            tell(_("No web browser could be started. Open {file} yourself.").format(file=page), _("Report"))


def folder_text(folder: str) -> tuple[str, bool]:
    """Return what the line above Apply says of the folder of the report, and whether it can be one.

    :param folder: empty if there is no report.
    """
    if not folder:
        return "", True
    if not os.path.isabs(folder):
        example = Path.home() / "report"
        return _("The folder of the report needs its whole path, such as {example}.").format(example=example), False
    return _("A report is written into {folder}.").format(folder=folder), True
