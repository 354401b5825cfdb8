# ruff: noqa: F811  fixtures
"""From one structure to the next that is worth a look, and where in it the model was unsure."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from classscale_training.data.collect.cases import folders_in, pair_cases, without_unchanged
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.images import dense_place
from ClassScaleSegLib.images.case_notes import CaseNotes, read_notes
from ClassScaleSegLib.images.dicom.seg import UsedModel
from ClassScaleSegLib.scene.checked import checked_structures, note_checked
from ClassScaleSegLib.scene.confidence_map import SHOWN_BELOW, shows_confidence_map
from ClassScaleSegLib.scene.confidence_volume import confidence_volume, least_sure_point, remember_confidence
from ClassScaleSegLib.scene.corrected import corrected_structures
from ClassScaleSegLib.scene.correction import correction_in
from ClassScaleSegLib.scene.dicom import remember_origin
from ClassScaleSegLib.scene.results import fill_confidence_node
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
from ClassScaleSegLib.scene.segmentation_reader import open_structures
from ClassScaleSegLib.scene.source_volumes import remember_volumes
from painting import paint
from slicer_application import add_volume, application, qt, transform
from test_correction import KIDNEY, LIVER, SPLEEN, STRIP
from test_module_colors import choose, found, own, result, seen  # noqa: F401
from test_module_compare import SHAPE, labels, panel, scene, segmentation, select  # noqa: F401

from ClassScaleSegPanel.results.review import MARK  # isort: skip  needs the stand-ins


@pytest.fixture
def views(scene):
    """Two slice views, of which one has a foreground already."""
    made = [scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name) for name in ("Red", "Green")]
    pet = add_volume(np.zeros(SHAPE, np.int16), "PET")
    made[1].SetForegroundVolumeID(pet.GetID())
    made[1].SetForegroundOpacity(0.3)
    return made


@pytest.fixture
def unsure(scene, found):
    """The confidence of each voxel of the result: lowest in one corner of the liver."""
    confidence = np.ones(SHAPE, np.float32)
    z, y, x = np.argwhere(labels() == 1)[0]
    confidence[z, y, x] = 0.2
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence")
    fill_confidence_node(volume, confidence, result().geometry)
    remember_confidence(found, volume)
    return volume


def foregrounds(views):
    return [(view.GetForegroundVolumeID(), round(view.GetForegroundOpacity(), 3)) for view in views]


def drawn(node):
    display = node.GetDisplayNode()
    return bool(display.GetVisibility2DFill()), round(display.GetOpacity2DOutline(), 3)


def marks(panel) -> dict[str, str]:
    return {key: items[3].text() for key, items in panel.results.table._rows.items()}


def visit(panel) -> str:
    panel.ui.nextButton.click()
    application.processEvents()
    return panel.results.table.current()


def test_next_goes_from_the_least_sure_to_the_surest_and_begins_again(panel, found):
    assert [visit(panel) for _ in range(4)] == [LIVER, KIDNEY, SPLEEN, LIVER]
    assert panel.results.text == "liver: confidence 0.55. Not yet checked: 3."


def test_checked_marks_a_structure_and_goes_on_and_checked_again_removes_the_mark(panel, found):
    visit(panel)
    panel.ui.checkedButton.click()
    assert panel.results.table.current() == KIDNEY and marks(panel) == {LIVER: MARK, SPLEEN: "", KIDNEY: ""}
    assert panel.results.text == "kidney_left: confidence 0.80. Not yet checked: 2."
    assert checked_structures(found) == [LIVER] and not panel.results.table.view.isColumnHidden(3)
    assert [visit(panel) for _ in range(2)] == [SPLEEN, KIDNEY]
    for _ in range(2):
        panel.ui.checkedButton.click()
    assert panel.results.text == "All structures are checked."
    assert checked_structures(found) == [LIVER, SPLEEN, KIDNEY] and panel.results.table.current() == SPLEEN
    panel.ui.checkedButton.click()
    assert panel.results.text == "spleen is no longer marked as checked."
    assert marks(panel)[SPLEEN] == "" and panel.results.table.current() == SPLEEN


def test_without_a_clicked_row_nothing_is_marked(panel, found, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "infoDisplay", lambda text, **more: told.append(text))
    panel.ui.checkedButton.click()
    assert told == ["To mark a structure as checked, click it in the table below."]
    assert checked_structures(found) == []


def test_only_what_the_search_shows_is_visited(panel, found):
    panel.results.table.search.text = "kid"
    assert visit(panel) == KIDNEY
    panel.ui.checkedButton.click()
    assert panel.results.text == "All structures that the search shows are checked."
    panel.results.table.search.text = ""


def test_a_structure_that_nobody_has_chosen_is_not_marked_if_the_search_hides_the_chosen_one(panel, found, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "infoDisplay", lambda text, **more: told.append(text))
    assert visit(panel) == LIVER
    panel.results.table.search.text = "spl"
    panel.ui.checkedButton.click()
    assert len(told) == 1 and checked_structures(found) == []
    panel.results.table.search.text = ""
    assert visit(panel) == LIVER, "the first one that the search shows"
    panel.results.table.search.text = "live"
    assert panel.results.table.current() == LIVER
    panel.results.table.search.text = ""


def test_without_confidence_the_order_is_that_of_the_table(scene, panel):
    drawn = segmentation(scene, "Drawn")
    select(panel.ui.resultSelector, drawn)
    panel.results.table.view.sortByColumn(0, qt.Qt.AscendingOrder)
    names = [drawn.GetSegmentation().GetSegment(visit(panel)).GetName() for _ in range(3)]
    assert names == sorted(names)
    assert panel.results.text == f"{names[-1]}. Not yet checked: 3."


def test_the_status_in_slicers_own_table_counts_and_a_new_run_forgets_it(panel, found):
    found.GetSegmentation().GetSegment(SPLEEN).SetTag("Segmentation.Status", "completed")
    application.processEvents()
    panel.results.follow()
    assert marks(panel) == {LIVER: "", SPLEEN: MARK, KIDNEY: ""}
    note_checked(found.GetSegmentation().GetSegment(SPLEEN), False)
    status = vtk.reference("")
    assert found.GetSegmentation().GetSegment(SPLEEN).GetTag("Segmentation.Status", status)
    assert str(status) == "notstarted"
    panel.logic.noteChecked(found, LIVER)
    assert panel.logic.structuresToCheck(found) == [KIDNEY, SPLEEN]
    fill_segmentation_node(found, result(), replace=True)
    panel.results.follow()
    assert set(marks(panel).values()) == {""} and panel.results.table.view.isColumnHidden(3)
    with pytest.raises(ImageError, match="has no segment Segment_77"):
        panel.logic.noteChecked(found, "Segment_77")


def test_a_corrected_structure_is_checked_and_the_way_goes_on_behind_it(panel, found):
    assert visit(panel) == LIVER and visit(panel) == KIDNEY
    panel.ui.correctButton.click()
    application.processEvents()
    paint(STRIP)
    panel.results.correcting.bar.back_button.click()
    application.processEvents()
    assert checked_structures(found) == [KIDNEY] and panel.results.table.current() == KIDNEY
    assert visit(panel) == SPLEEN, "not the liver again, which was skipped"


def test_the_next_structure_can_be_corrected_without_the_way_back(panel, found, scene):
    assert visit(panel) == LIVER
    panel.ui.correctButton.click()
    application.processEvents()
    bar = panel.results.correcting.bar
    bar.next_button.click()
    application.processEvents()
    assert bar.text == "You are correcting kidney_left in Result." and checked_structures(found) == [LIVER]
    paint(STRIP)
    bar.next_button.click()
    application.processEvents()
    assert bar.text == "You are correcting spleen in Result." and checked_structures(found) == [LIVER, KIDNEY]
    assert corrected_structures(found) == ("kidney_left",)
    bar.next_button.click()
    application.processEvents()
    assert bar.widget.isHidden() and correction_in(scene) is None and panel.state.parameters is not None
    assert panel.results.text == "spleen has not changed. All structures are checked."
    assert set(marks(panel).values()) == {MARK}


def test_next_centres_the_views_where_the_model_was_least_sure(panel, found, unsure):
    camera = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode", "Camera")
    place = np.argwhere(labels() == 1)[0][::-1]  # 1 mm voxels, and the axes of the image are those of RAS
    visit(panel)
    assert camera.GetFocalPoint() == pytest.approx(place)
    assert least_sure_point(found, LIVER) == pytest.approx(place)
    assert panel.logic.centerViews(found, LIVER) != pytest.approx(place)
    assert panel.logic.centerViews(found, LIVER, leastSure=True) == pytest.approx(place)


def test_only_slabs_with_the_structure_are_looked_at_closely(found, unsure, monkeypatch):
    looked, real = [], np.nan_to_num
    monkeypatch.setattr(dense_place, "VOXELS_AT_ONCE", 1)
    monkeypatch.setattr(np, "nan_to_num", lambda array, **more: looked.append(array.size) or real(array, **more))
    assert least_sure_point(found, LIVER) is not None
    voxels = labels() == 1
    slabs, occupied = len(voxels), int(voxels.any(axis=(1, 2)).sum())
    assert occupied < slabs and len(looked) == occupied + 1, "and once more at the place that was found"


def test_the_place_follows_transforms_and_other_grids_are_not_believed(found, unsure):
    place = least_sure_point(found, LIVER)
    moved = [[1, 0, 0, 10], [0, 1, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]]
    node = transform(found, moved)
    assert least_sure_point(found, LIVER) is None, "the volume did not move with it"
    unsure.SetAndObserveTransformNodeID(node.GetID())
    assert least_sure_point(found, LIVER) == pytest.approx(np.add(place, (10, 20, 30)))
    for put in (found, unsure):
        put.SetAndObserveTransformNodeID(None)
    unsure.SetSpacing(1.1, 1, 1)
    assert least_sure_point(found, LIVER) is None
    unsure.SetSpacing(1, 1, 1)
    unsure.SetOrigin(3, 0, 0)
    assert least_sure_point(found, LIVER) is None, "part of the segment is outside"


def test_the_confidence_of_voxels_is_shown_above_the_image_and_what_was_there_comes_back(panel, found, unsure, views):
    panel.results.follow()
    found.GetDisplayNode().SetOpacity2DOutline(0.9)
    before, look = foregrounds(views), unsure.GetDisplayNode().GetColorNodeID()
    choose(panel, "Unsure voxels")
    assert foregrounds(views) == [(unsure.GetID(), 0.8)] * 2
    display = unsure.GetDisplayNode()
    assert display.GetApplyThreshold() and display.GetUpperThreshold() == pytest.approx(SHOWN_BELOW)
    colors = display.GetColorNode().GetLookupTable()
    assert [round(255 * part) for part in colors.GetTableValue(0)[:3]] == [253, 231, 37]
    assert drawn(found) == (False, 0.4) and seen(found) == own(found)
    assert not panel.ui.rampLabel.isHidden() and panel.ui.colorsComboBox.currentText == "Unsure voxels"
    choose(panel, "Confidence")
    assert foregrounds(views) == before and drawn(found) == (True, 0.9)
    assert display.GetColorNodeID() == look and not display.GetApplyThreshold()
    assert (display.GetLevel(), display.GetWindow()) == (0.5, 1.0)
    assert not shows_confidence_map(found) and not panel.ui.rampLabel.isHidden()
    choose(panel, "Structures")
    assert panel.ui.rampLabel.isHidden()


def test_a_foreground_that_the_user_chooses_meanwhile_stays(panel, found, unsure, views):
    assert panel.logic.showConfidenceMap(found)
    ct = add_volume(np.zeros(SHAPE, np.int16), "CT 2")
    views[0].SetForegroundVolumeID(ct.GetID())
    assert not panel.logic.showConfidenceMap(found, False)
    assert views[0].GetForegroundVolumeID() == ct.GetID()
    assert views[1].GetForegroundVolumeID() == slicer.mrmlScene.GetFirstNodeByName("PET").GetID()


def test_the_map_of_another_result_replaces_it_and_the_first_foreground_comes_back(scene, panel, found, unsure, views):
    before = foregrounds(views)
    other, volume = segmentation(scene, "Other"), scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence 2")
    fill_confidence_node(volume, np.ones(SHAPE, np.float32), result().geometry)
    remember_confidence(other, volume)
    assert panel.logic.showConfidenceMap(found) and panel.logic.showConfidenceMap(other)
    assert not shows_confidence_map(found) and found.GetDisplayNode().GetVisibility2DFill()
    assert not unsure.GetDisplayNode().GetApplyThreshold()
    assert not panel.logic.showConfidenceMap(other, False) and foregrounds(views) == before


def test_removing_the_volume_ends_the_map(scene, panel, found, unsure, views):
    before = foregrounds(views)
    panel.results.follow()
    choose(panel, "Unsure voxels")
    scene.RemoveNode(unsure)
    application.processEvents()
    assert foregrounds(views) == before and found.GetDisplayNode().GetVisibility2DFill()
    assert panel.ui.colorsComboBox.findText("Unsure voxels") == -1
    assert panel.ui.colorsComboBox.currentText == "Structures" and not panel.ui.colorsWidget.isHidden()


def test_removing_the_segmentation_ends_its_map(scene, panel, found, unsure, views):
    before = foregrounds(views)
    panel.results.follow()
    choose(panel, "Unsure voxels")
    scene.RemoveNode(found)
    application.processEvents()
    assert foregrounds(views) == before and not unsure.GetDisplayNode().GetApplyThreshold()


def test_a_foreground_does_not_come_back_after_another_one_was_chosen(scene, panel, found, unsure, views):
    assert panel.logic.showConfidenceMap(found)
    ct = add_volume(np.zeros(SHAPE, np.int16), "CT 2")
    for view in views:
        view.SetForegroundVolumeID(ct.GetID())
    panel.results.follow()
    scene.RemoveNode(ct)
    panel.results.follow()
    assert [view.GetForegroundVolumeID() for view in views] == [None, None], "nor the PET"


def test_a_run_without_confidence_forgets_the_volume_of_the_one_before(found, unsure):
    assert confidence_volume(found) is unsure
    remember_confidence(found, None)
    assert confidence_volume(found) is None and least_sure_point(found, LIVER) is None


def test_files_of_the_command_have_the_confidences_and_may_be_looked_at_in_the_same_way(scene, panel, views, tmp_path):
    made = result()
    made.write(tmp_path / "CT 1.seg.nrrd")
    loaded = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Loaded")
    loaded.AddDefaultStorageNode(str(tmp_path / "CT 1.seg.nrrd"))
    loaded.GetStorageNode().SetFileName(str(tmp_path / "CT 1.seg.nrrd"))
    assert loaded.GetStorageNode().ReadData(loaded)
    select(panel.ui.resultSelector, loaded)
    assert [visit(panel) for _ in range(3)] == [LIVER, KIDNEY, SPLEEN]
    assert panel.results.text == "spleen: confidence 0.99. Not yet checked: 3."
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence")
    fill_confidence_node(volume, made.confidence, made.geometry)
    assert not panel.logic.showConfidenceMap(loaded) and panel.logic.showConfidenceMap(loaded, confidenceNode=volume)
    assert {view.GetForegroundVolumeID() for view in views} == {volume.GetID()}


def test_a_saved_scene_brings_the_map_back(scene, panel, found, unsure, views, tmp_path):
    note_checked(found.GetSegmentation().GetSegment(SPLEEN))
    panel.results.follow()
    choose(panel, "Unsure voxels")
    for node, name in ((found, "result.seg.nrrd"), (unsure, "confidence.nrrd")):
        node.AddDefaultStorageNode(str(tmp_path / name))
        node.GetStorageNode().SetFileName(str(tmp_path / name))
        assert node.GetStorageNode().WriteData(node)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    colors = scene.GetSingletonNode("ClassScaleSegConfidence", "vtkMRMLColorTableNode")
    scene.Clear()
    scene.RemoveNode(colors)  # as in a new session
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Import()
    again, volume = scene.GetFirstNodeByName("Result"), scene.GetFirstNodeByName("Confidence")
    select(panel.ui.resultSelector, again)
    assert panel.ui.colorsComboBox.currentText == "Unsure voxels" and marks(panel)[SPLEEN] == MARK
    assert volume.GetDisplayNode().GetColorNode().GetSingletonTag() == "ClassScaleSegConfidence"
    choose(panel, "Structures")
    shown = {
        view.GetName(): view.GetForegroundVolumeID() for view in scene.GetNodesByClass("vtkMRMLSliceCompositeNode")
    }
    assert shown.get("Red") is None and not volume.GetDisplayNode().GetApplyThreshold()
    assert again.GetDisplayNode().GetVisibility2DFill()


@pytest.mark.parametrize("noted", ["", "[", "{}", "[1, 2, 3]", '["red", "a", null, 3, {}, []]', "NaN"])
def test_what_a_scene_from_elsewhere_has_noted_is_not_believed(panel, found, unsure, views, noted):
    assert panel.logic.showConfidenceMap(found)
    display = unsure.GetDisplayNode()
    display.SetAttribute("ClassScaleSeg.DisplayedBefore", noted)
    found.GetDisplayNode().SetAttribute("ClassScaleSeg.FilledBefore", noted)
    views[0].SetAttribute("ClassScaleSeg.ForegroundOpacityBefore", noted)
    assert not panel.logic.showConfidenceMap(found, False)
    assert drawn(found) == (True, 1.0) and views[0].GetForegroundOpacity() == 0
    assert not display.GetApplyThreshold() and (display.GetLevel(), display.GetWindow()) == (0.5, 1.0)


def test_a_case_says_if_nobody_has_corrected_or_checked_it(panel, found, tmp_path):
    remember_volumes(found, [slicer.mrmlScene.GetFirstNodeByName("CT 1")])
    remember_origin(found, [UsedModel("Brain")], open_structures(found).statistics)
    file = tmp_path / "segmentations" / "CT_1.seg.nrrd"
    panel.logic.saveForTraining(found, tmp_path)
    assert read_notes(file) == CaseNotes((), ("Brain",))
    cases, _told = pair_cases(*folders_in(tmp_path), 1)
    kept, (finding,) = without_unchanged(cases, leave_out=True)
    assert kept == [] and "1 of 1 segmentations are as Brain made them" in str(finding)
    panel.logic.noteChecked(found, LIVER)
    panel.logic.saveForTraining(found, tmp_path, replace=True)
    assert read_notes(file) == CaseNotes() and without_unchanged(cases, leave_out=True) == (cases, [])
