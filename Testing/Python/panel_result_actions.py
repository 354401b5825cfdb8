"""What a user does with results, and with comparisons of them: see ``panel_user.py``."""

from __future__ import annotations

from ClassScaleSegLib.scene.correction import correction_in
from hypothesis import strategies as st
from painting import paint
from panel_actions import Acting, action, number, toggle, yes
from panel_scene import NAMES
from slicer_application import slicer

FILES = ("", "a", "a.seg.nrrd", "missing/b", "folder")
COMPARING = ("compareButton", "compareButton", "compareTableButton", "differencesButton", "hideDifferencesButton")
EDITS = ("rename", "remove", "colour", "erase", "add", "own image", "all 3D", "no 3D", "surface as source", "new value")
BUTTONS = {"lock": "lock_box", "back": "back_button", "next": "next_button", "discard": "discard_button"}
CORRECTING = ("begin", "begin", "add", "erase", "other segment", "new segment", "back", *BUTTONS)
CASES = ("open", "row", "reference", "reference", "compare", "compare", "save", "structure set", "tick", "close")


class ResultActions(Acting):
    """Lists, edits, saves, measures and compares segmentations."""

    @action(index=number, segment=number, how=st.sampled_from(EDITS))
    def edit_segments(self, index: int, segment: int, how: str) -> None:
        if (node := self.pick(index, "vtkMRMLSegmentationNode")) is None:
            return
        segmentation = node.GetSegmentation()
        if how == "add":
            segmentation.AddEmptySegment()
        if not (ids := segmentation.GetSegmentIDs()):
            return
        identifier = ids[segment % len(ids)]
        one = segmentation.GetSegment(identifier)
        if how in ("all 3D", "no 3D"):  # as Slicer's own button does
            getattr(segmentation, "CreateRepresentation" if how == "all 3D" else "RemoveRepresentation")(
                "Closed surface"
            )
        elif how == "surface as source":
            segmentation.CreateRepresentation("Closed surface")
            segmentation.SetSourceRepresentationName("Closed surface")
        elif how == "new value":
            one.SetLabelValue(segment)
        elif how == "rename":
            one.SetName(NAMES[segment % len(NAMES)])
        elif how == "remove":
            segmentation.RemoveSegment(identifier)
        elif how == "colour":
            one.SetColor(0.1, 0.2, 0.3)
        elif how == "own image":
            segmentation.SeparateSegmentLabelmap(identifier)
        elif how == "erase" and (image := one.GetRepresentation("Binary labelmap")) is not None:
            if image.GetPointData().GetScalars() is not None:
                array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, identifier)
                array[array == one.GetLabelValue()] = 0
                image.Modified()
                segmentation.InvokeEvent(segmentation.SourceRepresentationModified)

    @action(index=number)
    def tick_structure(self, index: int) -> None:
        if self.open:
            toggle(self.panel.results.table, index)

    @action(yes=yes)
    def show_3d(self, yes: bool) -> None:
        self.yes = yes
        if self.open:
            self.panel.ui.show3DButton.click()

    @action(by=st.sampled_from(("own", "confidence", "map", "confidence", "script", "script no more", "script map")))
    def color_structures(self, by: str) -> None:
        box, node = self.panel.ui.colorsComboBox, self.panel.state.node
        if by == "script map" and node is not None:
            self.panel.logic.showConfidenceMap(node)
        elif by.startswith("script") and node is not None:
            self.panel.logic.colorByConfidence(node, by == "script")
        elif self.open and not self.panel.ui.colorsWidget.isHidden():
            box.setCurrentIndex(max(0, box.findData(by)))

    @action(index=number)
    def click_structure(self, index: int) -> None:
        table = self.panel.results.table
        if self.open and table.proxy.rowCount():
            table.view.clicked.emit(table.proxy.index(index % table.proxy.rowCount(), 0))

    @action(button=st.sampled_from(("checkedButton", "nextButton")))
    def review(self, button: str) -> None:
        if self.open:
            getattr(self.panel.ui, button).click()

    @action(file=st.sampled_from(FILES), yes=yes)
    def save_result(self, file: str, yes: bool) -> None:
        self.file, self.yes = file, yes
        if self.open:
            self.panel.ui.saveButton.click()

    @action(what=st.sampled_from(CORRECTING), index=number, yes=yes)
    def correct(self, what: str, index: int, yes: bool) -> None:
        self.yes, table, bar = yes, self.panel.results.table, self.panel.results.correcting.bar
        if what == "begin" and self.open:
            if table.proxy.rowCount():
                table.view.setCurrentIndex(table.proxy.index(index % table.proxy.rowCount(), 0))
            self.panel.ui.correctButton.click()
        correction = correction_in(self.scene)
        if self.open or correction is None:
            return
        segmentation = correction.GetSegmentation()
        if what in ("add", "erase") and (ids := segmentation.GetSegmentIDs()):
            box = (slice(index, index + 3), slice(0, 2 * index + 1), slice(None))
            paint(box, "Add" if what == "add" else "Remove", ids[0])
        elif what == "other segment" and (ids := segmentation.GetSegmentIDs()):
            segmentation.RemoveSegment(ids[index % len(ids)])
        elif what == "new segment":
            segmentation.AddEmptySegment()
        elif what in BUTTONS:
            getattr(bar, BUTTONS[what]).click()

    @action(folder=st.sampled_from(("", "results/training", "results/a")), yes=yes)
    def save_for_training(self, folder: str, yes: bool) -> None:
        self.yes, self.folder_chosen = yes, folder and str(self.folder / folder)
        if self.open:
            self.panel.ui.trainingButton.click()

    @action(index=number, section=st.sampled_from(("result", "compare")))
    def list_or_compare_with(self, index: int, section: str) -> None:
        selector = getattr(self.panel.ui, f"{section}Selector")
        if self.open:
            nodes = [None, *selector._nodes()]
            selector.setCurrentNode(nodes[index % len(nodes)])

    @action(file=st.sampled_from(("*table", *FILES, "a.csv")), yes=yes)
    def use_statistics(self, file: str, yes: bool) -> None:
        self.file, self.yes = file, yes
        to_table, save = self.panel.results.statistics.menu.actions()
        if self.open and self.panel.ui.tableButton.enabled:
            (to_table if file == "*table" else save).trigger()

    @action(button=st.sampled_from(COMPARING))
    def press(self, button: str) -> None:
        if self.open:
            getattr(self.panel.ui, button).click()

    @action(index=number, on=st.booleans())
    def show_or_hide(self, index: int, on: bool) -> None:
        if node := self.pick(index, "vtkMRMLSegmentationNode"):
            node.SetDisplayVisibility(on)

    @action(file=st.sampled_from(FILES), yes=yes)
    def save_comparison(self, file: str, yes: bool) -> None:
        self.file, self.yes = file, yes
        if self.open:
            self.panel.ui.compareSaveButton.click()

    @action(index=number)
    def click_comparison(self, index: int) -> None:
        table = self.panel.comparing.table
        if self.open and table.proxy.rowCount():
            table.view.clicked.emit(table.proxy.index(index % table.proxy.rowCount(), 0))

    @action(what=st.sampled_from(CASES), index=number, file=st.sampled_from(FILES), yes=yes)
    def use_cases(self, what: str, index: int, file: str, yes: bool) -> None:
        self.yes, self.file, cases = yes, file, self.panel.case_comparison
        if what == "open" and self.open:
            self.panel.ui.compareCasesButton.click()
        elif cases.dialog is None:
            return
        elif what == "row" and cases.list.table.proxy.rowCount():
            cases.list.table.view.clicked.emit(
                cases.list.table.proxy.index(index % cases.list.table.proxy.rowCount(), 0)
            )
        elif what == "reference" and cases.list.reference_box.enabled:
            cases.list.reference_box.setCurrentIndex(index % cases.list.reference_box.count)
        elif what == "tick":
            toggle(cases.list.table, index)
        else:
            buttons = {"compare": cases.compare_button, "save": cases.save_button}
            buttons |= {"structure set": cases.list.structure_set_button}
            buttons[what].click() if what in buttons else cases.close()

    @action()
    def go_back(self) -> None:
        if self.open and not self.panel.ui.backButton.isHidden():
            self.panel.ui.backButton.click()

    @action(file=st.sampled_from(FILES))
    def load_structure_set(self, file: str) -> None:
        self.file = file
        if self.open:
            self.panel.ui.structureSetButton.click()
