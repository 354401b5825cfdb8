# ruff: noqa: F811  fixtures
"""Results of several volumes beside their references, in the panel: found, corrected, compared and saved."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.scene.case_pairs import find_case_pairs
from ClassScaleSegLib.scene.dicom import remember_origin
from slicer_application import add_volume, application, qt, slicer
from test_module_compare import FILTERS, NAMES, SHAPE, labels, panel, scene, segmentation, shown, told  # noqa: F401

from ClassScaleSegPanel.results import case_comparison  # isort: skip  needs the stand-ins
from ClassScaleSegPanel.widgets import saving  # isort: skip


def volume(name):
    return add_volume(np.zeros(SHAPE, np.int16), name)


def of_volume(node, image, is_result=False):
    node.SetReferenceImageGeometryParameterFromVolumeNode(image)
    if is_result:
        remember_origin(node, [], [])
    return node


def result(scene, image, voxels=None, name=None):
    name = name or f"{image.GetName()} segmentation"
    return of_volume(segmentation(scene, name, labels(1) if voxels is None else voxels), image, is_result=True)


def without(value):
    voxels = labels(1)
    voxels[voxels == value] = 0
    return voxels


@pytest.fixture
def cases(scene, panel):
    """Three volumes with a result and a reference each: drawn on the volume, called like it, and none for the last."""
    images = [volume(f"CT {number}") for number in (1, 2, 3)]
    found = [result(scene, image, voxels) for image, voxels in zip(images, (None, without(2), None), strict=True)]
    drawn = [of_volume(segmentation(scene, "Drawn"), images[0]), segmentation(scene, "ct_2 reference")]
    return found, drawn


def opened(panel):
    panel.ui.compareCasesButton.click()
    return panel.case_comparison


def names(scene):
    return {pair.name: pair.reference and pair.reference.GetName() for pair in find_case_pairs(scene)}


def test_references_are_of_the_same_volume_or_called_like_it(scene, cases):
    assert names(scene) == {"CT 1": "Drawn", "CT 2": "ct_2 reference", "CT 3": None}
    segmentation(scene, "CT 1 seg")
    assert names(scene)["CT 1"] == "Drawn", "the volume says more than the name"
    of_volume(segmentation(scene, "Drawn again"), slicer.util.getNode("CT 1"))
    segmentation(scene, "CT 2 mask")
    assert names(scene) == {"CT 1": None, "CT 2": None, "CT 3": None}, "two are possible"


def test_the_latest_result_of_a_volume_is_its_case(scene, panel, cases):
    again = result(scene, slicer.util.getNode("CT 1"), name="Again")
    assert names(scene) == {
        "CT 1": "Drawn",
        "CT 2": "ct_2 reference",
        "CT 3": None,
        "CT 1 (CT 1 segmentation)": "Drawn",
    }
    assert find_case_pairs(scene)[-1].latest is False
    dialog = opened(panel)
    assert again.GetID() in dialog.list.table.ticked() and cases[0][0].GetID() not in dialog.list.table.ticked()


def test_what_is_no_reference_is_not_taken_for_one(scene, panel):
    image = volume("CT")
    one = result(scene, image)
    panel.logic.showDifferences(of_volume(segmentation(scene, "CT drawn"), image), one)
    assert [node.GetName() for node in scene.GetNodes() if node.GetName().endswith("differences")]
    assert names(scene) == {"CT": "CT drawn"}
    scene.RemoveNode(image)
    assert names(scene) == {}


def test_cases_are_compared_in_one_table_with_means_and_single_cases(panel, cases):
    dialog = opened(panel)
    assert [row[::2] for row in shown(dialog.list.table)] == [
        ["CT 1", "Drawn"],
        ["CT 2", "ct_2 reference"],
        ["CT 3", "choose one"],
    ]
    assert dialog.compare_button.enabled and not dialog.save_button.enabled
    dialog.compare_button.click()
    assert [row[:4] for row in shown(dialog.found)] == [
        ["liver", "mean of 2", "0.800", "0.000"],
        ["liver", "CT 1", "0.800", "–"],
        ["liver", "CT 2", "0.800", "–"],
        ["spleen", "mean of 2", "0.500", "0.707"],
        ["spleen", "CT 1", "1.000", "–"],
        ["spleen", "CT 2", "0.000", "–"],
        ["kidney_left", "mean of 2", "1.000", "0.000"],
        ["kidney_left", "CT 1", "1.000", "–"],
        ["kidney_left", "CT 2", "1.000", "–"],
    ]
    assert dialog.line.text == (
        "Mean Dice 0.767 over 3 structures of 2 cases. Cases that lack structures of other results, whose "
        "Dice is therefore 0: 1."
    )
    dialog.found.search.text = "mean"
    assert len(shown(dialog.found)) == 3
    assert "-0.030" in shown(dialog.found)[1], "the mean difference"


def test_the_file_is_that_of_the_command_for_the_same_cases_as_files(panel, cases, tmp_path, monkeypatch):
    dialog = opened(panel)
    dialog.compare_button.click()
    monkeypatch.setattr(saving, "show", lambda *given: (str(tmp_path / "panel"), FILTERS[0]))
    dialog.save_button.click()
    assert dialog.line.text == "The comparison is in the file panel.csv."
    for folder, nodes in zip(("found", "drawn"), cases, strict=True):
        (tmp_path / folder).mkdir()
        for number, node in enumerate(nodes[:2], start=1):
            panel.logic.saveSegmentation(node, tmp_path / folder / f"CT {number}.seg.nrrd")
    assert main(["compare", str(tmp_path / "drawn"), str(tmp_path / "found"), "-o", str(tmp_path / "command.csv")]) == 0

    def rows(name):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            return [
                {key: cell for key, cell in row.items() if key != "OtherLabelValue"} for row in csv.DictReader(file)
            ]

    assert rows("panel.csv") == rows("command.csv") and len(rows("panel.csv")) == 6


def test_the_user_corrects_a_reference_and_it_is_remembered(scene, panel, cases):
    found, drawn = cases
    dialog = opened(panel)
    dialog.list.table.view.clicked.emit(dialog.list.table.proxy.index(2, 0))
    box = dialog.list.reference_box
    offered = [box.itemText(index) for index in range(box.count)]
    assert offered == ["None", "CT 1 segmentation", "CT 2 segmentation", "Drawn", "ct_2 reference"]
    box.setCurrentIndex(box.findText("Drawn"))
    assert shown(dialog.list.table)[2][2] == "Drawn" and found[2].GetID() in dialog.list.table.ticked()
    dialog.compare_button.click()
    assert list(dialog.cases) == ["CT 1", "CT 2", "CT 3"]
    dialog.close()
    dialog = opened(panel)
    assert shown(dialog.list.table)[2][2] == "Drawn" and not dialog.cases
    dialog.list.table.view.clicked.emit(dialog.list.table.proxy.index(0, 0))
    dialog.list.reference_box.setCurrentIndex(0)
    assert shown(dialog.list.table)[0][2] == "choose one"
    dialog.compare_button.click()
    assert list(dialog.cases) == ["CT 2", "CT 3"]
    scene.RemoveNode(drawn[0])
    assert [row[2] for row in shown(dialog.list.table)] == ["choose one", "ct_2 reference", "choose one"]
    assert not dialog.cases and dialog.line.text == "A segmentation was removed, so the comparison is gone."


def test_a_row_leads_to_its_structure(panel, cases, monkeypatch):
    went, dialog = [], opened(panel)
    monkeypatch.setattr(panel.logic, "centerViews", lambda node, identifier: went.append((node.GetName(), identifier)))
    dialog.compare_button.click()
    for row in (0, 1, 5):
        dialog.found.view.clicked.emit(dialog.found.proxy.index(row, 0))
    assert went == [("Drawn", "Segment_1"), ("ct_2 reference", "Segment_2")]


def test_a_case_that_cannot_be_compared_does_not_stop_the_rest(scene, panel, cases, monkeypatch):
    found, drawn = cases
    drawn[0].GetSegmentation().RemoveAllSegments()
    found[1].GetSegmentation().RemoveAllSegments()
    dialog = opened(panel)
    dialog.compare_button.click()
    assert list(dialog.cases) == ["CT 2"] and dialog.cases["CT 2"][0].dice is None
    assert dialog.line.text == "No structure is in both. CT 1: There is no structure in Drawn."


def test_an_empty_result_has_missed_what_the_others_have(scene, panel, cases):
    cases[0][1].GetSegmentation().RemoveAllSegments()
    dialog = opened(panel)
    dialog.compare_button.click()
    assert [row.dice for row in dialog.cases["CT 2"]] == [0, 0, 0]


def test_a_comparison_that_is_not_true_any_more_goes(scene, panel, cases):
    dialog = opened(panel)
    dialog.compare_button.click()
    cases[0][0].GetSegmentation().RemoveSegment("Segment_1")
    assert not dialog.cases and not shown(dialog.found) and not dialog.save_button.enabled
    assert dialog.line.text == "The segmentations have changed. Press Compare again."
    dialog.compare_button.click()
    assert dialog.cases
    scene.Clear()
    assert dialog.dialog is None and not dialog.cases and not dialog._held
    assert opened(panel).line.text == "There is no result of a run whose volume is in the scene."
    assert not dialog.compare_button.enabled and not dialog.list.reference_box.enabled


def test_a_segmentation_that_changes_or_goes_during_the_comparison_does_not_count(scene, panel, cases, monkeypatch):
    from ClassScaleSegLib.scene import case_pairs

    compare, dialog = case_pairs.compare_case, opened(panel)

    def change_after(pair):
        found = compare(pair)
        if pair.name == "CT 2":
            cases[0][0].GetSegmentation().RemoveSegment("Segment_1")
        return found

    monkeypatch.setattr(case_pairs, "compare_case", change_after)
    dialog.compare_button.click()
    assert not dialog.cases and dialog.line.text == "The segmentations have changed. Press Compare again."

    def remove_after(pair):
        found = compare(pair)
        if pair.name == "CT 1":
            scene.RemoveNode(cases[1][1])
        return found

    monkeypatch.setattr(case_pairs, "compare_case", remove_after)
    dialog.compare_button.click()
    assert list(dialog.cases) == ["CT 1"]


@pytest.mark.parametrize("removed", [False, True])
def test_what_a_run_changes_meanwhile_is_not_compared(scene, panel, cases, monkeypatch, removed):
    first, dialog = cases[0][0], opened(panel)

    class Progress(qt.QProgressDialog):
        def setValue(self, number):
            if number == 1 and removed:  # as a run that ends while events are processed
                scene.RemoveNode(first)
            elif number == 1:
                first.GetSegmentation().RemoveSegment("Segment_1")

        value = property(None, setValue)

    monkeypatch.setattr(qt, "QProgressDialog", Progress)
    dialog.compare_button.click()
    assert not dialog.cases and not dialog.save_button.enabled
    gone = "A segmentation was removed, so the comparison is gone."
    assert dialog.line.text == (gone if removed else "The segmentations have changed. Press Compare again.")


def test_cancel_and_too_many_rows(panel, cases, monkeypatch):
    dialog = opened(panel)
    monkeypatch.setattr(case_comparison, "MOST_ROWS", 5)
    dialog.compare_button.click()
    assert [row[1] for row in shown(dialog.found)] == ["mean of 2"] * 3
    assert dialog.line.text.endswith("There are too many rows to list: save them to see those of single cases.")
    monkeypatch.setattr(qt.QProgressDialog, "wasCanceled", True)
    dialog.compare_button.click()
    assert not dialog.cases and not dialog.save_button.enabled and dialog.line.text == ""


def test_results_that_come_while_the_dialog_is_open_are_listed_and_nothing_else_moves(scene, panel, cases):
    dialog = opened(panel)
    table, view = dialog.list.table, dialog.list.table.view
    for number in range(4, 30):
        result(scene, volume(f"CT {number}"))
    application.processEvents()
    assert len(table.keys()) == 29
    view.sortByColumn(0, qt.Qt.DescendingOrder)
    table.tick(["nothing"])
    chosen = table.keys()[2]
    row = table.shown().index(chosen)
    view.selectRow(row)
    view.clicked.emit(table.proxy.index(row, 0))
    view.verticalScrollBar().setValue(3)
    assert view.verticalScrollBar().value == 3 and dialog.list.reference_box.count > 10
    again, new = result(scene, slicer.util.getNode("CT 1"), name="Again"), result(scene, volume("CT 0"))
    drawn = segmentation(scene, "CT 3 drawn")
    assert len(table.keys()) == 29, "not before the segmentations are complete"
    application.processEvents()
    assert len(table.keys()) == 31 and set(table.ticked()) == {again.GetID(), new.GetID()}
    assert view.currentIndex().row() == table.shown().index(chosen) and view.verticalScrollBar().value == 3
    assert table.shown()[-1] == new.GetID(), "sorted as before"
    assert dialog.list.reference_box.currentText == "CT 3 drawn", "of the row that was clicked"
    scene.RemoveNode(drawn)
    application.processEvents()
    assert dialog.list.reference_box.currentText == "None" and len(table.keys()) == 31
    scene.RemoveNode(slicer.util.getNode("CT 0"))
    application.processEvents()
    assert new.GetID() not in table.keys(), "its volume has gone"


def test_a_later_result_takes_the_tick_of_an_earlier_one(scene, panel, cases):
    dialog = opened(panel)
    assert cases[0][0].GetID() in dialog.list.table.ticked()
    again = result(scene, slicer.util.getNode("CT 1"), name="Again")
    application.processEvents()
    assert again.GetID() in dialog.list.table.ticked() and cases[0][0].GetID() not in dialog.list.table.ticked()
    dialog.close()
    result(scene, volume("CT 9"))
    application.processEvents()
    assert dialog.dialog is None


def test_the_comparison_goes_into_one_table_of_the_scene(scene, panel, cases):
    dialog = opened(panel)
    assert not dialog.table_button.enabled
    dialog.compare_button.click()
    dialog.table_button.click()
    assert dialog.line.text == "The comparison is in the table Comparison of cases."
    (table,) = scene.GetNodesByClass("vtkMRMLTableNode")
    columns = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    assert columns[:3] == ["Case", "Structure", "Label value"] and columns[-1] == "Difference (mL)"
    assert table.GetNumberOfRows() == 6
    rows = [[table.GetCellText(row, column) for column in (0, 1, 4)] for row in range(6)]
    assert rows[0][:2] == ["CT 1", "liver"] and float(rows[0][2]) == pytest.approx(0.8)
    assert rows[4][:2] == ["CT 2", "spleen"] and float(rows[4][2]) == 0
    table.SetName("Mine")
    dialog.list.table.tick([cases[0][0].GetID()])
    dialog.compare_button.click()
    dialog.table_button.click()
    assert table.GetNumberOfRows() == 3 and dialog.line.text == "The comparison is in the table Mine."


def test_a_queue_of_the_panel_makes_cases(panel, scene, told):
    """With real runs, of the embedded model."""
    from slicer_application import load_sample

    images = [load_sample("One"), load_sample("Two")]
    panel.choose_models(("toy-120",))
    panel.queue.add([(image.GetID(), image.GetName()) for image in images])
    panel.ui.applyButton.click()
    while panel.state.run is not None:
        application.processEvents()
        panel.runs.poll()
    for image in images:
        copy = slicer.vtkMRMLSegmentationNode()
        copy.Copy(slicer.util.getNode(f"{image.GetName()} segmentation"))
        copy.SetName(f"{image.GetName()} reference")
        scene.AddNode(copy)
        copy.RemoveAttribute("ClassScaleSeg.Origin")  # as if somebody had drawn it
    dialog = opened(panel)
    assert [row[::2] for row in shown(dialog.list.table)] == [["One", "One reference"], ["Two", "Two reference"]]
    dialog.compare_button.click()
    assert dialog.line.text.startswith("Mean Dice 1.000 over 120 structures of 2 cases.") and told == []
    assert set(NAMES) and len(shown(dialog.found)) == 360
