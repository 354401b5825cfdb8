"""The dialog "Review cases": the segmentations of a folder, one after the other, checked, corrected and saved."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..translation import translated
from ..widgets.folders import ask_folder
from ..widgets.forms import add_row, browse_button, dialog_button
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import Wrapping, ask, tell_error
from ..widgets.whole_texts import WholeTexts
from .contents import contents
from .section import attempt

if TYPE_CHECKING:
    from ClassScaleSegLib.images.review_state import ReviewState
    from ClassScaleSegLib.scene.case_files import CaseFiles, OpenedCase
    from slicer import vtkMRMLNode, vtkMRMLSegmentationNode

# settings
_IMAGES, _SEGMENTATIONS = "ClassScaleSeg/ReviewImages", "ClassScaleSeg/ReviewSegmentations"
_CONFIDENCES = "ClassScaleSeg/ReviewConfidences"
_OWN = "ClassScaleSeg"  # name of the module
_GREEN, _BLUE, _GREY = (60, 160, 60), (60, 110, 200), (128, 128, 128)  # all checked; open; the others


class CaseReview:
    """Opens the dialog at the press of a button. It stays beside the panel, in which the open case is listed.

    :ivar dialog: ``None`` while it is closed. The open case stays open then.
    :ivar opened: the case that is in the scene; ``None`` if there is none.
    :param show: called with the segmentation of a case, to list it in the panel.
    """

    def __init__(self, button: qt.QPushButton, show: Callable[[vtkMRMLSegmentationNode], None]) -> None:
        self._show = show
        self.dialog: qt.QDialog | None = None
        self.opened: OpenedCase | None = None
        self._held: object = None  # what the open case held when it was loaded or saved
        self._cases: dict[str, CaseFiles] = {}
        self._states: dict[str, ReviewState | None] = {}  # of the files, when they were listed or saved
        self._listed = ("", "", "")  # the folders
        self._whole_texts, self._wrapping = WholeTexts(), list[Any]()
        button.connect("clicked(bool)", lambda: self.open())

    def open(self) -> None:
        """Show the dialog, with the cases of the folders that were chosen last."""
        if self.dialog is not None:
            self.dialog.show()
            self.dialog.raise_()
            return
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Review cases")
        layout, form, settings = qt.QVBoxLayout(self.dialog), qt.QFormLayout(), slicer.app.userSettings()
        intro = qt.QLabel(
            _(
                "Goes through the segmentations of a folder. The open case is listed under Result: check and correct "
                "it there, then save it and go on."
            )
        )
        self.images, self.segmentations, self.confidences = qt.QLineEdit(), qt.QLineEdit(), qt.QLineEdit()
        self.line = qt.QLabel()
        fields = {_IMAGES: self.images, _SEGMENTATIONS: self.segmentations, _CONFIDENCES: self.confidences}
        for setting, field in fields.items():
            field.text = str(settings.value(setting) or "")
        self.confidences.placeholderText = _("None")
        self.line.textFormat = intro.textFormat = qt.Qt.PlainText  # it shows names of files
        self._wrapping = [Wrapping(label) for label in (intro, self.line)]
        add_row(form, _("&Images:"), self.images, browse_button(_("Folder of images"), self._browse_images))
        tip = _("Folder of segmentations")
        add_row(form, _("&Segmentations:"), self.segmentations, browse_button(tip, self._browse_segmentations))
        tip = _("Folder of the confidence of each voxel")
        add_row(form, _("C&onfidence:"), self.confidences, browse_button(tip, self._browse_confidences))
        self.table = SearchTable([_("Case"), _("Checked"), _("Confidence")], _("Search cases"), None)
        self.table.view.connect("doubleClicked(QModelIndex)", lambda index: self._open_current())
        self.open_button = dialog_button(_("Open"), self._open_current)
        self.save_button = dialog_button(_("Save"), self._save)
        self.next_button = dialog_button(_("Save and next"), self._save_and_next)
        buttons = qt.QHBoxLayout()
        for button in (self.open_button, self.save_button, self.next_button, dialog_button(_("Close"), self.close)):
            buttons.addWidget(button)
        layout.addWidget(intro)
        layout.addLayout(form)
        layout.addWidget(self.table.widget)
        layout.addWidget(self.line)
        layout.addLayout(buttons)
        for field in fields.values():
            field.connect("returnPressed()", self._list)  # also the same folders again
            field.connect("editingFinished()", self._list_others)
        self._whole_texts.watch(self.dialog)
        self._list()
        self.dialog.resize(520, 560)
        self.dialog.show()

    def close(self) -> None:
        """Close the dialog if it is open."""
        if self.dialog is not None:
            self.dialog.close()
            self.dialog.deleteLater()
            self.dialog = None

    def forget(self, node: vtkMRMLNode | None) -> None:
        """Forget the open case if its segmentation is removed from the scene; ``None``: the scene is closed."""
        if self.opened is not None and (node is None or node is self.opened.segmentation):
            self.opened = None
            self._render()

    # --- the cases

    def _browse_images(self) -> None:
        from ClassScaleSegLib.scene.training_folder import IMAGES, SEGMENTATIONS

        chosen = ask_folder(_("Folder of images"), _IMAGES)
        if not chosen:
            return
        inner = Path(chosen, IMAGES), Path(chosen, SEGMENTATIONS)
        if all(folder.is_dir() for folder in inner):  # a folder of cases that were saved for training
            self.images.text, self.segmentations.text = map(str, inner)
        else:
            self.images.text = chosen
        self._list()

    def _browse_segmentations(self) -> None:
        if chosen := ask_folder(_("Folder of segmentations"), _SEGMENTATIONS):
            self.segmentations.text = chosen
            self._list()

    def _browse_confidences(self) -> None:
        if chosen := ask_folder(_("Folder of the confidence of each voxel"), _CONFIDENCES):
            self.confidences.text = chosen
            self._list()

    def _folders(self) -> tuple[str, str, str]:
        return self.images.text.strip(), self.segmentations.text.strip(), self.confidences.text.strip()

    def _list_others(self) -> None:
        """List the cases if the folders are others: each file is read, and the fields are left often."""
        if self._folders() != self._listed:
            self._list()

    def _list(self) -> None:
        """List the cases of both folders."""
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self._read_folders()
        finally:
            slicer.app.restoreOverrideCursor()

    def _read_folders(self) -> None:
        from ClassScaleSegLib.scene.case_files import find_cases

        images, segmentations, confidences = self._listed = self._folders()
        self._cases, text = {}, _("Choose both folders. A folder of cases for training has both.")
        if images and segmentations:
            settings = slicer.app.userSettings()
            for setting, folder in zip((_IMAGES, _SEGMENTATIONS, _CONFIDENCES), self._listed, strict=True):
                settings.setValue(setting, folder)
            paths = [Path(os.path.expanduser(folder)) for folder in (images, segmentations, confidences) if folder]
            try:
                cases, text = find_cases(*paths)
            except (ClassScaleError, OSError) as error:
                cases, text = [], str(error)
            self._cases = {case.name: case for case in cases}
        self._states = {name: _state(case.segmentation) for name, case in self._cases.items()}
        self._say(translated(text))
        self._fill()

    def _fill(self) -> None:
        if self.dialog is None:
            return
        with self.table.place_kept():
            self.table.set_rows([self._row(case) for case in self._cases.values()])
        self.table.set_width(1, "0000/0000")
        self.table.set_width(2, "0.00" if self._cases else "")
        self._render()

    def _row(self, case: CaseFiles) -> Row:
        state = self._states[case.name]
        done = state is not None and state.checked == state.structures
        color = _BLUE if self._is_open(case) else _GREEN if done else _GREY
        checked = "?" if state is None else f"{state.checked}/{state.structures}"
        sure = None if state is None else state.least_sure
        left = -1.0 if state is None else float(state.structures - state.checked)
        cells = (case.name, checked, "" if sure is None else f"{sure:.2f}")
        order = (case.name.casefold(), left, 2.0 if sure is None else sure)  # what is unknown comes last
        return Row(case.name, color, cells, order, case.name)

    def _is_open(self, case: CaseFiles) -> bool:
        return self.opened is not None and self.opened.files.segmentation == case.segmentation

    def _render(self) -> None:
        if self.dialog is None:
            return
        self.open_button.enabled = bool(self._cases)
        self.save_button.enabled = self.next_button.enabled = self.opened is not None
        colors = {row.key: row.color for row in map(self._row, self._cases.values())}
        self.table.recolor(colors)

    def _say(self, text: str) -> None:
        if self.dialog is not None:
            self.line.text = text

    # --- the open case

    def _open_current(self) -> None:
        case = self._cases.get(self.table.current())
        if case is None:
            self._say(_("To open a case, click it in the table."))
        elif self._may_leave():
            self._open(case)

    def _open(self, case: CaseFiles) -> bool:
        """Load a case in the place of the one that is open, and return whether that was possible."""
        from ClassScaleSegLib.scene.case_files import close_case, open_case

        before = self.opened
        opened, fault = attempt(
            lambda: open_case(slicer.mrmlScene, case), _("There is not enough memory to load the case.")
        )
        if opened is None:
            tell_error(fault, _("The case was not opened"))
            return False
        if before is not None:
            close_case(before)
        self.opened = opened
        self._show(opened.segmentation)
        self._held = self._contents()
        if self.dialog is not None:
            self.table.go_to(case.name)
        said = _("{name} is open.").format(name=case.name)
        self._say(f"{said} {translated(opened.notice)}".strip())
        self._fill()
        return True

    def _may_leave(self) -> bool:
        """Take over what is being corrected, and return whether changes of the open case are saved or may be lost."""
        if self.opened is None:
            return True
        slicer.util.selectModule(_OWN)
        if self._contents() == self._held:
            return True
        question = _("{name} was changed and not saved. Discard the changes?").format(name=self.opened.files.name)
        return ask(question, _("Review cases"))

    def _contents(self) -> object:
        from ClassScaleSegLib.scene.checked import checked_structures

        if self.opened is None:
            return None
        node = self.opened.segmentation
        return contents(node), checked_structures(node)

    def _save(self) -> bool:
        """Save the open case if it has changed, and return whether it is saved.

        A file that nobody has looked at must stay as the model has made it: by that, the training knows.
        """
        from ClassScaleSegLib.scene.case_files import changed_elsewhere, save_case

        if self.opened is None:
            return False
        slicer.util.selectModule(_OWN)  # which takes over what is being corrected
        opened, name = self.opened, self.opened.files.name
        if self._contents() == self._held:
            self._say(_("{name} has not changed, so there is nothing to save.").format(name=name))
            return True
        if changed_elsewhere(opened):
            question = _("{file} was changed by somebody else since you opened it. Replace it?")
            if not ask(question.format(file=opened.files.segmentation), _("Review cases")):
                return False
        saved, fault = attempt(lambda: save_case(opened), _("There is not enough memory to save the segmentation."))
        if saved is None:
            tell_error(fault, _("The segmentation was not saved"))
            return False
        self.opened = saved
        self._held = self._contents()
        if name in self._cases and self._is_open(self._cases[name]):  # not that of another folder, of the same name
            self._states[name] = _state(opened.files.segmentation)
        self._say(_("{name} is saved.").format(name=name))
        self._fill()
        return True

    def _save_and_next(self) -> None:
        """Save the open case, and open the next one in the table of which not all structures are checked.

        One that cannot be opened is told, and does not stop the way.
        """
        here = None if self.opened is None else self.opened.files.name
        shown = self.table.shown()  # before the saved case moves in a table that is sorted
        if not self._save() or here is None:
            return
        place = next((n for n, name in enumerate(shown) if self._is_open(self._cases[name])), -1)
        for name in shown[place + 1 :]:
            # read again, because others may work in the same folder
            state = self._states[name] = _state(self._cases[name].segmentation)
            if (state is None or state.checked < state.structures) and self._open(self._cases[name]):
                return
        self._say(_("In the table below {name}, no case is left to be checked.").format(name=here))


def _state(file: Path) -> ReviewState | None:
    """Return how far a case is; ``None`` if its file cannot be read, which is told when it is opened."""
    from ClassScaleSegLib.images.review_state import review_state

    try:
        return review_state(file)
    except ClassScaleError:
        return None
