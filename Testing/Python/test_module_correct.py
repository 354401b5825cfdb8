# ruff: noqa: F811  fixtures
"""From the table of structures to the Segment Editor and back, with the corrected structure."""

from __future__ import annotations

import numpy as np
import pytest
from ClassScaleSegLib.images.dicom.seg import UsedModel
from ClassScaleSegLib.scene import correction
from ClassScaleSegLib.scene.checked import checked_structures
from ClassScaleSegLib.scene.confidence import confidence_of, note_confidence
from ClassScaleSegLib.scene.correction import STRUCTURE, correction_in
from ClassScaleSegLib.scene.dicom import remember_origin
from ClassScaleSegLib.scene.segment_editor import Change, are_others_locked, change_segment, editor_node
from ClassScaleSegLib.scene.segmentation_node import shared_image
from ClassScaleSegLib.scene.segmentation_reader import open_structures
from ClassScaleSegLib.scene.training_folder import saved_cases
from painting import EVERYWHERE, paint
from slicer_application import add_volume, application, import_scene, qt, saved_scene, slicer
from test_correction import LIVER, SPLEEN, STRIP, voxels
from test_correction_meanwhile import frames, go_to  # noqa: F401
from test_module_compare import SHAPE, labels, panel, scene, segmentation, select, shown, told  # noqa: F401
from test_module_training import choose, read

from ClassScaleSegPanel.results.review import MARK  # isort: skip  needs the stand-ins


@pytest.fixture
def found(scene, panel):
    """A result that is listed, and its volume."""
    volume = add_volume(np.zeros(SHAPE, np.int16), "CT 1")
    node = segmentation(scene, "Result")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    remember_origin(node, [UsedModel("Organs")], open_structures(node).statistics)
    panel.store(inputVolume=volume)
    select(panel.ui.resultSelector, node)
    yield node, volume
    slicer.util.selectModule("ClassScaleSeg")


def click(panel, name):
    table = panel.results.table
    row = [row[0] for row in shown(table)].index(name)
    table.view.setCurrentIndex(table.proxy.index(row, 0))
    table.view.clicked.emit(table.proxy.index(row, 0))


def correct(panel, name):
    click(panel, name)
    panel.ui.correctButton.click()
    application.processEvents()
    return panel.results.correcting.bar


def test_a_click_opens_the_segment_editor_on_the_structure_and_a_click_takes_it_over(scene, panel, found):
    node, volume = found
    panel.results.table.tick([SPLEEN])
    other = add_volume(np.zeros(SHAPE, np.int16), "Other")
    bar, editor = correct(panel, "spleen"), editor_node(scene)
    assert slicer.modules.segmenteditor.widgetRepresentation().isEntered and panel.state.parameters is None
    assert not bar.widget.isHidden() and bar.text == "You are correcting spleen in Result." and bar.lock_box.checked
    assert editor.GetSegmentationNode() is correction_in(scene) and editor.GetSourceVolumeNode() is volume
    assert editor.GetSelectedSegmentID() == STRUCTURE and are_others_locked(editor)
    paint(STRIP)
    bar.back_button.click()
    application.processEvents()
    wanted = labels()
    wanted[STRIP] = np.where(wanted[STRIP] == 0, 2, wanted[STRIP])
    assert (voxels(node) == wanted).all() and correction_in(scene) is None and bar.widget.isHidden()
    after, before = [f"{np.count_nonzero(one == 2) / 1000:.3f}" for one in (wanted, labels())]
    assert panel.results.text == f"spleen is corrected: {after} mL, before {before} mL."
    assert [row for row in shown(panel.results.table) if row[0] == "spleen"] == [["spleen", after, MARK]]
    assert panel.results.table.ticked() == [SPLEEN] and panel.results.table.current() == SPLEEN
    assert panel.state.node is node and panel.state.parameters.inputVolume is volume is not other


def test_how_sure_the_model_was_is_listed_until_the_structure_is_corrected(scene, panel, found, tmp_path):
    node, _volume = found
    for identifier, sure in zip((LIVER, SPLEEN), (0.871, 0.5), strict=True):
        note_confidence(node.GetSegmentation().GetSegment(identifier), sure)
    panel.results.show_node(node)
    table = panel.results.table
    assert {row[0]: row[2] for row in shown(table)} == {"liver": "0.87", "spleen": "0.50", "kidney_left": ""}
    table.view.sortByColumn(2, qt.Qt.AscendingOrder)
    assert [row[0] for row in shown(table)] == ["spleen", "liver", "kidney_left"]
    bar = correct(panel, "spleen")
    paint(STRIP)
    bar.back_button.click()
    application.processEvents()
    assert {row[0]: row[2] for row in shown(table)} == {"liver": "0.87", "spleen": "", "kidney_left": ""}
    storage, again = (
        slicer.vtkMRMLSegmentationStorageNode(),
        scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Again"),
    )
    storage.SetFileName(str(tmp_path / "result.seg.nrrd"))
    assert storage.WriteData(node) and storage.ReadData(again)
    segment = again.GetSegmentation().GetSegment(LIVER)
    assert confidence_of(segment) == 0.871, "Slicer keeps it"
    segment.SetTag("ClassScaleSeg.Confidence", "nan")
    assert confidence_of(segment) is None


def test_the_bar_unlocks_the_other_structures_and_says_from_which_voxels_were_taken(scene, panel, found):
    node, _volume = found
    panel.results.statistics.menu.actions()[0].trigger()
    bar, editor = correct(panel, "liver"), editor_node(scene)
    bar.lock_box.click()
    assert not are_others_locked(editor)
    editor.SetOverwriteMode(editor.OverwriteNone)  # the user, in the Segment Editor itself
    assert bar.lock_box.checked
    editor.SetOverwriteMode(editor.OverwriteAllSegments)
    assert not bar.lock_box.checked
    paint(EVERYWHERE)
    slicer.util.selectModule("ClassScaleSeg")  # as the module selector does
    assert (voxels(node) == 1).all() and [row[0] for row in shown(panel.results.table)] == ["liver"]
    assert panel.results.text.endswith(
        "Voxels were taken from spleen, kidney_left. The statistics in the table Result statistics are from before the "
        "correction."
    )


def test_a_correction_can_be_discarded(scene, panel, found, monkeypatch):
    node, _volume = found
    bar = correct(panel, "liver")
    paint(STRIP)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: False)
    bar.discard_button.click()
    assert correction_in(scene) is not None and not bar.widget.isHidden()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: True)
    bar.discard_button.click()
    application.processEvents()
    assert correction_in(scene) is None and (voxels(node) == labels()).all() and bar.widget.isHidden()
    assert panel.state.parameters is not None and panel.results.text.startswith("3 structures found")
    correct(panel, "liver")
    slicer.util.selectModule("ClassScaleSeg")
    assert panel.results.text == "liver has not changed."


def test_save_for_training_takes_the_corrected_segmentation(panel, found, tmp_path, monkeypatch):
    choose(monkeypatch, tmp_path)
    correct(panel, "liver")
    paint(STRIP)
    slicer.util.selectModule("ClassScaleSeg")
    panel.ui.trainingButton.click()
    assert panel.results.text.startswith("CT_1 is saved.") and "Nobody" not in panel.results.text
    assert (read(tmp_path)[1].labels == voxels(found[0])).all()
    assert [case.corrected for case in saved_cases(tmp_path)] == [("liver",)]


def test_a_correction_that_is_removed_or_closed_leaves_nothing(scene, panel, found):
    node, _volume = found
    bar = correct(panel, "liver")
    scene.RemoveNode(correction_in(scene))
    assert bar.widget.isHidden() and node.GetDisplayNode().GetVisibility2DFill()
    slicer.util.selectModule("ClassScaleSeg")
    correct(panel, "liver")
    scene.Clear()
    assert bar.widget.isHidden() and panel.state.node is None
    slicer.util.selectModule("ClassScaleSeg")
    assert panel.results.text == "No structures to show."


@pytest.mark.parametrize("in_panel", [True, False])
def test_a_correction_that_was_saved_goes_on_when_the_scene_is_loaded(scene, panel, found, in_panel):
    """Loading takes nothing over, so it can still be discarded."""
    bar = correct(panel, "liver")
    bar.lock_box.click()
    paint(STRIP)
    held = {node.GetName(): node.GetSegmentation() for node in (found[0], correction_in(scene))}
    text = saved_scene()
    if in_panel:
        slicer.util.selectModule("ClassScaleSeg")
    scene.Clear()
    assert bar.widget.isHidden()
    import_scene(text)
    for name, inside in held.items():  # the files are not part of the text
        scene.GetFirstNodeByName(name).SetAndObserveSegmentation(inside)
    before = voxels(scene.GetFirstNodeByName("Result")).copy()
    application.processEvents()
    editor = editor_node(scene)
    assert slicer.modules.segmenteditor.widgetRepresentation().isEntered and panel.state.parameters is None
    assert editor.GetSegmentationNode() is correction_in(scene) and not are_others_locked(editor)
    assert not bar.widget.isHidden() and bar.text == "You are correcting liver in Result." and not bar.lock_box.checked
    assert (voxels(scene.GetFirstNodeByName("Result")) == before).all()
    paint((slice(0, 1), slice(None), slice(None)))
    bar.back_button.click()
    assert (voxels(scene.GetFirstNodeByName("Result"))[0] == 1).all() and bar.widget.isHidden()
    assert panel.results.text.startswith("liver is corrected")


def test_a_name_that_the_user_gives_in_the_segment_editor_is_told(panel, found):
    bar = correct(panel, "liver")
    painted = editor_node(slicer.mrmlScene).GetSegmentationNode().GetSegmentation().GetSegment(STRUCTURE)
    painted.SetName("heart")
    bar.back_button.click()
    assert panel.results.text == "liver is called heart now."
    assert [row[0] for row in shown(panel.results.table)] == ["heart", "spleen", "kidney_left"]
    bar = correct(panel, "heart")
    editor_node(slicer.mrmlScene).GetSegmentationNode().GetSegmentation().GetSegment(STRUCTURE).SetColor(0, 0, 1)
    paint(STRIP)
    assert bar.text == "You are correcting heart in Result."
    bar.back_button.click()
    assert panel.results.text.startswith("heart has the colour and the codes that you have chosen. heart is corrected")


def test_the_bar_names_the_structure_whatever_else_the_user_adds_or_removes(panel, found):
    bar, editor = correct(panel, "liver"), editor_node(slicer.mrmlScene)
    inside = editor.GetSegmentationNode().GetSegmentation()
    cyst = slicer.vtkSegment()
    cyst.SetName("cyst")
    inside.AddSegment(cyst, "Segment_1", STRUCTURE)
    assert inside.GetNthSegment(0).GetName() == "cyst"
    editor.Modified()
    assert bar.text == "You are correcting liver in Result."


def test_segments_that_are_added_are_told(panel, found):
    bar, editor = correct(panel, "liver"), editor_node(slicer.mrmlScene)
    editor.GetSegmentationNode().GetSegmentation().AddEmptySegment("new", "cyst")
    paint((slice(0, 1), slice(0, 2), slice(0, 2)), segment="new")
    bar.back_button.click()
    assert panel.results.text == "Added: cyst." and "cyst" in [row[0] for row in shown(panel.results.table)]


def test_the_bar_says_that_the_result_was_removed(scene, panel, found, told):
    bar = correct(panel, "liver")
    scene.RemoveNode(found[0])
    application.processEvents()
    assert not bar.widget.isHidden()
    said = "You are correcting liver of a segmentation that was removed. What you paint can be kept."
    assert bar.text == said
    bar.back_button.click()
    assert told.pop().endswith("What you have painted is the segmentation liver (Result).")


def test_a_run_that_changes_the_result_meanwhile_is_told(panel, found):
    bar = correct(panel, "liver")
    paint(STRIP)
    grown = (labels() == 2).astype(np.uint8)
    grown[5:9, 1:7, 4:9] = 1
    image = shared_image(grown, open_structures(found[0]).segmentation.geometry)
    change_segment(found[0], SPLEEN, image, Change.ADD)
    bar.back_button.click()
    assert panel.results.text.endswith("Other structures have changed meanwhile, and keep what they have now.")


def test_a_frame_of_a_sequence_is_corrected_and_listed(panel, frames):
    node, browser, volume = frames
    select(panel.ui.resultSelector, node)
    bar = correct(panel, "liver")
    assert editor_node(slicer.mrmlScene).GetSourceVolumeNode() is volume
    paint(EVERYWHERE)
    go_to(browser, 2)
    bar.back_button.click()
    application.processEvents()
    assert panel.results.text.startswith("liver is corrected") and browser.GetSelectedItemNumber() == 0
    after = f"{np.count_nonzero((labels() == 0) | (labels() == 1)) / 1000:.3f}"
    assert [row for row in shown(panel.results.table) if row[0] == "liver"] == [["liver", after, MARK]]


def test_a_frame_of_a_sequence_keeps_which_structures_are_checked(panel, frames):
    node, browser, _volume = frames
    select(panel.ui.resultSelector, node)
    click(panel, "liver")
    panel.ui.checkedButton.click()
    go_to(browser, 1)
    assert checked_structures(node) == []
    go_to(browser, 0)
    assert checked_structures(node) == [LIVER]
    panel.logic.noteChecked(node, LIVER, False)
    go_to(browser, 2)
    go_to(browser, 0)
    assert checked_structures(node) == []


def out_of_memory(*given, **more):
    raise MemoryError


def test_what_is_not_possible_is_told(scene, panel, found, monkeypatch, told):
    monkeypatch.setattr(slicer.util, "infoDisplay", lambda text, **more: told.append(text))
    panel.ui.correctButton.click()
    assert told.pop() == "To correct a structure, click it in the table below."
    click(panel, "liver")
    with monkeypatch.context() as without:
        without.delattr(slicer.modules, "segmenteditor")
        panel.ui.correctButton.click()
    assert told.pop().startswith("This Slicer has no module Segment Editor")
    with monkeypatch.context() as full:
        full.setattr(correction, "fill_segmentation_node", out_of_memory)
        before = scene.GetNumberOfNodes()
        panel.ui.correctButton.click()
    assert told.pop() == "There is not enough memory to correct the structure." and panel.state.parameters is not None
    assert correction_in(scene) is None and scene.GetNumberOfNodes() == before
    found[0].GetSegmentation().GetSegment(LIVER).SetName("heart")
    bar = correct(panel, "liver")
    assert bar.text == "You are correcting heart in Result."
    found[0].GetSegmentation().RemoveSegment(LIVER)
    slicer.util.selectModule("ClassScaleSeg")
    assert told.pop() == (
        "There is no structure heart in Result any more. What you have painted is the segmentation heart (Result)."
    )
    select(panel.ui.resultSelector, None)
    assert not panel.ui.correctButton.enabled


def test_a_frame_keeps_the_mark_of_a_structure_that_was_looked_at_and_left(panel, frames):
    node, browser, _volume = frames
    select(panel.ui.resultSelector, node)
    bar = correct(panel, "liver")
    bar.next_button.click()
    application.processEvents()
    bar.discard_button.click()
    application.processEvents()
    go_to(browser, 1)
    go_to(browser, 0)
    assert checked_structures(node) == [LIVER]
