# ruff: noqa: F811  fixtures
"""Segments coloured by how sure the model was of them, and by their own colours again."""

from __future__ import annotations

import numpy as np
import pytest
import vtk
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.scene.confidence import confidence_of
from ClassScaleSegLib.scene.confidence_colors import LEAST, MOST, RAMP, confidence_color, shows_confidence
from ClassScaleSegLib.scene.correction import correction_in
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
from painting import paint
from slicer_application import add_volume, application, qt, slicer
from test_correction import KIDNEY, LIVER, SPLEEN, STRIP
from test_module_compare import NAMES, SHAPE, labels, panel, scene, segmentation, select  # noqa: F401

SURE = {1: 0.55, 2: 0.99, 3: 0.8}
OWN = {LIVER: (255, 0, 0), SPLEEN: (0, 255, 0), KIDNEY: (0, 0, 255)}


def result(sure=SURE) -> Segmentation:
    """Three structures with these mean confidences, or without any."""
    table = LabelTable.from_names(NAMES)
    confidence = np.ones(SHAPE, np.float32)
    for value, mean in sure.items():
        confidence[labels() == value] = mean
    geometry = Geometry(SHAPE[::-1], (1.0,) * 3, (0.0, 0.0, 0.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return Segmentation(labels(), table, geometry, confidence if sure else None)


@pytest.fixture
def found(scene, panel):
    """A result with confidences and colours that are easily told apart, which is listed."""
    volume = add_volume(np.zeros(SHAPE, np.int16), "CT 1")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    fill_segmentation_node(node, result(), volume=volume)
    for identifier, color in OWN.items():
        node.GetSegmentation().GetSegment(identifier).SetColor(*(part / 255 for part in color))
    panel.store(inputVolume=volume)
    select(panel.ui.resultSelector, node)
    panel.ui.resultCollapsibleButton.collapsed = False
    yield node
    slicer.util.selectModule("ClassScaleSeg")


def choose(panel, text: str) -> None:
    box = panel.ui.colorsComboBox
    box.setCurrentIndex(box.findText(text))
    application.processEvents()


def parts(color) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in color)


def own(node) -> dict[str, tuple[int, ...]]:
    """The colours of the segments themselves."""
    segments = node.GetSegmentation()
    return {identifier: parts(segments.GetSegment(identifier).GetColor()) for identifier in segments.GetSegmentIDs()}


def seen(node) -> dict[str, tuple[int, ...]]:
    """The colours that Slicer's views show."""
    display = node.GetDisplayNode()
    return {identifier: parts(display.GetSegmentColor(identifier)) for identifier in own(node)}


def rows(panel) -> dict[str, tuple[int, ...]]:
    """The colours in the table of structures."""
    items = panel.results.table._items.items()
    return {key: item.data(qt.Qt.DecorationRole).getRgb()[:3] for key, item in items}


def test_the_colours_are_those_of_viridis_from_its_bright_end():
    viridis = pytest.importorskip("matplotlib").colormaps["viridis_r"]
    for place, color in zip(np.linspace(0, 1, len(RAMP)), RAMP, strict=True):
        assert color == parts(viridis(float(place))[:3])
        assert confidence_color(LEAST + place * (MOST - LEAST)) == color
    assert confidence_color(0) == RAMP[0]
    luminance = [np.dot(color, (0.2126, 0.7152, 0.0722)) for color in RAMP]
    assert (np.diff(luminance) < 0).all(), "also without colours, doubt is brighter than certainty"


def test_structures_are_coloured_by_the_confidence_and_get_their_own_colours_back(panel, found):
    assert not panel.ui.colorsWidget.isHidden() and panel.ui.rampLabel.isHidden()
    panel.results.table.tick([SPLEEN])
    choose(panel, "Confidence")
    wanted = {LIVER: confidence_color(0.55), SPLEEN: confidence_color(0.99), KIDNEY: confidence_color(0.8)}
    assert seen(found) == rows(panel) == wanted and own(found) == OWN
    assert not panel.ui.rampLabel.isHidden()
    assert panel.ui.leastLabel.text == "≤ 0.50" and panel.ui.mostLabel.text == "1.00"
    assert panel.results.table.ticked() == [SPLEEN]
    choose(panel, "Structures")
    assert seen(found) == own(found) == OWN and panel.ui.rampLabel.isHidden()
    assert rows(panel) == OWN


def test_what_somebody_has_drawn_keeps_its_colour_and_a_result_without_confidence_has_no_choice(scene, panel, found):
    found.GetSegmentation().AddEmptySegment("Drawn", "drawn", (0.2, 0.4, 0.6))
    choose(panel, "Confidence")
    assert seen(found)["Drawn"] == (51, 102, 153) and seen(found)[LIVER] == confidence_color(0.55)
    select(panel.ui.resultSelector, segmentation(scene, "Other"))
    assert panel.ui.colorsWidget.isHidden()
    select(panel.ui.resultSelector, found)
    assert not panel.ui.colorsWidget.isHidden() and panel.ui.colorsComboBox.currentText == "Confidence"
    select(panel.ui.resultSelector, None)
    assert panel.ui.colorsWidget.isHidden()


def test_a_colour_that_the_user_chooses_meanwhile_is_not_lost(panel, found):
    choose(panel, "Confidence")
    found.GetSegmentation().GetSegment(SPLEEN).SetColor(1, 1, 0)
    application.processEvents()
    assert seen(found)[SPLEEN] == confidence_color(0.99) and rows(panel)[SPLEEN] == confidence_color(0.99)
    choose(panel, "Structures")
    assert seen(found) == OWN | {SPLEEN: (255, 255, 0)} and rows(panel)[SPLEEN] == (255, 255, 0)


def test_a_saved_scene_brings_both_back(scene, panel, found, tmp_path):
    choose(panel, "Confidence")
    before = seen(found)
    file = tmp_path / "result.seg.nrrd"
    found.AddDefaultStorageNode(str(file))
    found.GetStorageNode().SetFileName(str(file))
    assert found.GetStorageNode().WriteData(found)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    scene.Clear()
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Import()
    again = scene.GetFirstNodeByName("Result")
    assert seen(again) == before
    select(panel.ui.resultSelector, again)
    assert panel.ui.colorsComboBox.currentText == "Confidence"
    choose(panel, "Structures")
    assert seen(again) == OWN


def test_files_have_the_own_colours_whoever_writes_them(panel, found, tmp_path):
    choose(panel, "Confidence")
    ours, slicers = tmp_path / "ours.seg.nrrd", tmp_path / "slicer.seg.nrrd"
    assert panel.logic.saveSegmentation(found, ours)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(slicers))
    assert storage.WriteData(found)
    for file in (ours, slicers):
        colors = {label.id: label.color for label in Segmentation.from_image(file).table.foreground}
        assert colors == OWN


def test_another_run_into_the_same_segmentation_is_coloured_by_its_own_confidence(panel, found):
    choose(panel, "Confidence")
    fill_segmentation_node(found, result({1: 0.9, 3: 0.7, 2: 0.6}), replace=True)
    assert seen(found) == {LIVER: confidence_color(0.9), SPLEEN: confidence_color(0.6), KIDNEY: confidence_color(0.7)}
    fill_segmentation_node(found, result({}), replace=True)
    assert seen(found) == own(found) and not shows_confidence(found)
    application.processEvents()
    panel.results.follow()
    assert panel.ui.colorsWidget.isHidden()


def test_a_corrected_structure_has_its_own_colour_and_the_others_stay(panel, found, scene):
    choose(panel, "Confidence")
    table = panel.results.table
    table.view.setCurrentIndex(table.proxy.index(table.keys().index(SPLEEN), 0))
    panel.ui.correctButton.click()
    application.processEvents()
    correction = correction_in(scene)
    assert seen(correction)["structure"] == OWN[SPLEEN], "it is edited in its own colour"
    paint(STRIP)
    panel.results.correcting.bar.back_button.click()
    application.processEvents()
    assert seen(found) == {LIVER: confidence_color(0.55), SPLEEN: OWN[SPLEEN], KIDNEY: confidence_color(0.8)}
    assert rows(panel)[SPLEEN] == (0, 255, 0)
    choose(panel, "Structures")
    assert seen(found) == own(found) == OWN


def test_what_a_script_or_a_restored_view_changes_is_shown(panel, found):
    panel.logic.colorByConfidence(found)
    application.processEvents()
    assert panel.ui.colorsComboBox.currentText == "Confidence" and rows(panel)[LIVER] == confidence_color(0.55)
    panel.logic.colorByConfidence(found, False)
    application.processEvents()
    assert panel.ui.colorsComboBox.currentText == "Structures" and rows(panel)[LIVER] == (255, 0, 0)


def test_a_saved_file_keeps_the_confidences_for_a_scene_that_is_saved_then(scene, panel, found, tmp_path):
    """After Save..., Slicer does not write the file again when the scene is saved."""
    choose(panel, "Confidence")
    found.GetSegmentation().GetSegment(LIVER).SetTag("Segmentation.Status", "completed")
    before, listed = seen(found), rows(panel)
    assert panel.logic.saveSegmentation(found, tmp_path / "result.seg.nrrd")
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    scene.Clear()
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Import()
    again = scene.GetFirstNodeByName("Result")
    select(panel.ui.resultSelector, again)
    assert seen(again) == before and rows(panel) == listed
    segments = again.GetSegmentation()
    assert {each: confidence_of(segments.GetSegment(each)) for each in OWN} == {LIVER: 0.55, SPLEEN: 0.99, KIDNEY: 0.8}
    status = vtk.reference("")
    assert segments.GetSegment(LIVER).GetTag("Segmentation.Status", status) and str(status) == "completed"
