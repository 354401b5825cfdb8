"""The dialog "Review cases": the segmentations of a folder, one after the other, checked, corrected and saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.images.case_claim import MOST_LETTERS, claim, release
from slicer.i18n import tr as _

from ..translation import translated
from ..widgets.folders import ask_folder
from ..widgets.forms import add_row, browse_button, dialog_button
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import Wrapping, ask, tell_error
from ..widgets.whole_texts import WholeTexts
from .contents import contents
from .folder_comparing import FolderComparing
from .listed_cases import ListedCases, held_text, titles
from .section import attempt

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Agreement
    from ClassScaleSegLib.scene.case_files import CaseFiles, OpenedCase
    from slicer import vtkMRMLNode, vtkMRMLSegmentationNode

# settings
_IMAGES, _SEGMENTATIONS = "ClassScaleSeg/ReviewImages", "ClassScaleSeg/ReviewSegmentations"
_CONFIDENCES, _OTHERS = "ClassScaleSeg/ReviewConfidences", "ClassScaleSeg/ReviewOthers"
_READER = "ClassScaleSeg/Reader"
_OWN = "ClassScaleSeg"  # name of the module


class CaseReview:
    """Opens the dialog at the press of a button. It stays beside the panel, in which the open case is listed.

    :ivar dialog: ``None`` while it is closed. The open case stays open then.
    :ivar opened: the case that is in the scene; ``None`` if there is none.
    :param show: called with the segmentation of a case, to list it in the panel, and with the other one to compare it
        with, or ``None``.
    """

    def __init__(
        self,
        button: qt.QPushButton,
        show: Callable[[vtkMRMLSegmentationNode, vtkMRMLSegmentationNode | None], None],
    ) -> None:
        self._show = show
        self.dialog: qt.QDialog | None = None
        self.opened: OpenedCase | None = None
        self._abandoned: OpenedCase | None = None  # its segmentation was removed, its image is still there
        self._held: object = None  # what the open case held when it was loaded or saved
        self._cases = ListedCases()
        self._listed = ("", "", "", "")  # the folders
        self.comparing = FolderComparing(self._tell_comparing, self._take_agreements)
        self._whole_texts, self._wrapping = WholeTexts(), list[Any]()
        button.connect("clicked(bool)", lambda: self.open())

    def open(self) -> None:
        """Show the dialog, with the cases of the folders that were chosen last."""
        if self.dialog is not None:
            if not self.dialog.visible:  # the window was closed, and others may have worked in the folder since
                self._list()
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
        self.others, self.reader, self.line = qt.QLineEdit(), qt.QLineEdit(), qt.QLabel()
        fields = {_IMAGES: self.images, _SEGMENTATIONS: self.segmentations, _CONFIDENCES: self.confidences}
        fields[_OTHERS] = self.others
        for setting, field in (fields | {_READER: self.reader}).items():
            field.text = str(settings.value(setting) or "")
        self.confidences.placeholderText = self.others.placeholderText = _("None")
        self.reader.placeholderText = _("Your name, if others may read it")
        self.reader.maxLength = MOST_LETTERS
        self.line.textFormat = intro.textFormat = qt.Qt.PlainText  # it shows names of files
        self._wrapping = [Wrapping(label) for label in (intro, self.line)]
        add_row(form, _("&Images:"), self.images, browse_button(_("Folder of images"), self._browse_images))
        tip = _("Folder of segmentations")
        add_row(form, _("&Segmentations:"), self.segmentations, browse_button(tip, self._browse_segmentations))
        tip = _("Folder of the confidence of each voxel")
        add_row(form, _("C&onfidence:"), self.confidences, browse_button(tip, self._browse_confidences))
        tip = _("Folder of other segmentations")
        add_row(form, _("Compare &with:"), self.others, browse_button(tip, self._browse_others))
        add_row(form, _("&Reader:"), self.reader)
        self.reader.connect("editingFinished()", lambda: settings.setValue(_READER, self.reader.text.strip()))
        self.table = SearchTable(titles(), _("Search cases"), None)
        self.table.view.connect("doubleClicked(QModelIndex)", lambda index: self._open_current())
        self.open_button = dialog_button(_("Open"), self._open_current)
        self.save_button = dialog_button(_("Save"), self._save)
        self.next_button = dialog_button(_("Save and next"), self._save_and_next)
        self.compare_button = dialog_button(_("Compare all"), self._compare_all)
        buttons, close_button = qt.QHBoxLayout(), dialog_button(_("Close"), self.close)
        for button in (self.open_button, self.save_button, self.next_button, self.compare_button, close_button):
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
        self.dialog.resize(600, 600)
        self.dialog.show()

    def close(self) -> None:
        """Close the dialog if it is open."""
        if self.dialog is not None:
            self.dialog.close()
            self.dialog.deleteLater()
            self.dialog = None

    def end(self) -> None:
        """Close the dialog and leave the open case to others, because the application closes or the module reloads."""
        self.comparing.end()
        self.close()
        self.forget(None)

    def forget(self, node: vtkMRMLNode | None) -> None:
        """Forget the open case if its segmentation is removed from the scene; ``None``: the scene is closed."""
        if self.opened is not None and (node is None or node is self.opened.segmentation):
            release(self.opened.files.segmentation)
            self._abandoned = None if node is None else self.opened
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

    def _browse_others(self) -> None:
        if chosen := ask_folder(_("Folder of other segmentations"), _OTHERS):
            self.others.text = chosen
            self._list()

    def _folders(self) -> tuple[str, str, str, str]:
        images, segmentations = self.images.text.strip(), self.segmentations.text.strip()
        return images, segmentations, self.confidences.text.strip(), self.others.text.strip()

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
        if self._folders() != self._listed:
            self.comparing.cancel()  # of other folders
        images, segmentations, *_more = self._listed = self._folders()
        if images and segmentations:
            settings = slicer.app.userSettings()
            for setting, folder in zip((_IMAGES, _SEGMENTATIONS, _CONFIDENCES, _OTHERS), self._listed, strict=True):
                settings.setValue(setting, folder)
        self._say(translated(self._cases.find(*self._listed)))
        self._fill()

    def _fill(self) -> None:
        if self.dialog is None:
            return
        with self.table.place_kept():
            self.table.set_rows(self._rows())
        self.table.set_width(1, "0000/0000")
        self.table.set_width(2, "0.00" if self._cases else "")
        self.table.set_width(3, "M" * 11)
        self.table.set_width(4, self._cases.most_agreement)
        self._render()

    def _rows(self) -> list[Row]:
        return [self._cases.row(case, self._is_open(case)) for case in self._cases]

    def _is_open(self, case: CaseFiles) -> bool:
        return self.opened is not None and self.opened.files.is_same(case)

    def _render(self) -> None:
        if self.dialog is None:
            return
        self.open_button.enabled = bool(self._cases)
        self.save_button.enabled = self.next_button.enabled = self.opened is not None
        self.compare_button.text = _("Cancel") if self.comparing.is_running else _("Compare all")
        self.compare_button.enabled = self.comparing.is_running or bool(self._cases and self._listed[3])
        self.table.recolor({row.key: row.color for row in self._rows()})

    def _say(self, text: str) -> None:
        if self.dialog is not None:
            self.line.text = text

    # --- the segmentations of another reader

    def _compare_all(self) -> None:
        """Compare the files of all cases with the other ones, or stop that."""
        if self.comparing.is_running:
            self.comparing.cancel()
        else:
            _images, first, _confidences, second = (Path(os.path.expanduser(folder)) for folder in self._listed)
            self._cases.begin_comparison()
            self.comparing.start(first.absolute(), second.absolute())

    def _tell_comparing(self, text: str) -> None:
        self._say(text)
        self._render()

    def _take_agreements(self, found: Mapping[str, Agreement]) -> None:
        self._cases.set_agreements(found)
        self._fill()

    # --- the open case

    def _open_current(self) -> None:
        case = self._cases.get(self.table.current())
        if case is None:
            self._say(_("To open a case, click it in the table."))
            return
        self._cases.look(case.name)
        if self._may_share(case) and self._may_leave():
            self._open(case)
        else:
            self._fill()

    def _may_share(self, case: CaseFiles) -> bool:
        """Return whether nobody else has a case open, or the user opens it nevertheless."""
        held, question = self._cases.holder(case.name), _("Open it nevertheless?")
        return held is None or ask(f"{held_text(case.name, held)} {question}", _("Review cases"))

    def _open(self, case: CaseFiles) -> bool:
        """Load a case in the place of the one that is open, and return whether that was possible."""
        from ClassScaleSegLib.scene.case_files import close_case, open_case

        before, again = self.opened, self._is_open(case)
        claim(case.segmentation, self.reader.text.strip())  # before it is loaded, which can take long
        opened, fault = attempt(
            lambda: open_case(slicer.mrmlScene, case), _("There is not enough memory to load the case.")
        )
        if opened is None:
            if not again:
                release(case.segmentation)
            tell_error(fault, _("The case was not opened"))
            return False
        self.opened = opened
        if before is not None and not again:
            release(before.files.segmentation)
        for each in (before, self._abandoned):
            if each is not None:
                close_case(slicer.mrmlScene, each)
        self._abandoned = None
        self._cases.look(case.name)
        self._show(opened.segmentation, opened.other)
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
        reader = self.reader.text.strip()
        saved, fault = attempt(
            lambda: save_case(opened, reader), _("There is not enough memory to save the segmentation.")
        )
        if saved is None:
            tell_error(fault, _("The segmentation was not saved"))
            return False
        self.opened = saved
        self._held = self._contents()
        if self._is_listed_open(name):  # not that of another folder, of the same name
            self._cases.look(name)
        self._say(_("{name} is saved.").format(name=name))
        self._fill()
        return True

    def _save_and_next(self) -> None:
        """Save the open case, and open the next one in the table that is left to be checked and nobody else has open.

        One that cannot be opened is told, and does not stop the way.
        """
        here = None if self.opened is None else self.opened.files.name
        shown = self.table.shown()  # before the saved case moves in a table that is sorted
        if not self._save() or here is None:
            return
        place = next((n for n, name in enumerate(shown) if self._is_listed_open(name)), -1)
        for name in shown[place + 1 :]:
            case = self._cases.get(name)
            if case is None:
                continue
            self._cases.look(name)  # others may work in the same folder
            if self._cases.is_left(name) and self._open(case):
                return
        self._say(_("In the table below {name}, no case is left to be checked.").format(name=here))
        self._fill()

    def _is_listed_open(self, name: str) -> bool:
        case = self._cases.get(name)
        return case is not None and self._is_open(case)
