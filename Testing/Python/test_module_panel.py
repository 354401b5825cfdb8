"""The panel, clicked through on stand-ins of Qt's wrappers: real scene, real child process, real catalogue."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import LabelTable
from ClassScaleSegLib.scene.surfaces import SURFACE
from slicer_application import (
    ROOT,
    add_volume,
    application,
    import_scene,
    load_sample,
    module,
    qt,
    saved_scene,
    slicer,
    wait_until,
)

TOY = ROOT / "Resources" / "Models" / "toy-120.zip"
SAMPLES = ROOT / "Resources" / "SampleData"


def click_row(table, key):
    index = next(i for i in range(table.proxy.rowCount()) if table.shown()[i] == key)
    table.view.clicked.emit(table.proxy.index(index, 0))


def anatomy(count=117):
    return LabelTable(
        LabelTable.from_csv(ROOT / "Resources" / "LabelTables" / "totalsegmentator.csv").labels[: count + 1]
    )


def test_a_fresh_panel_says_what_is_missing_and_cannot_start(panel):
    assert panel.ui.needLabel.text.startswith("No volume is selected")
    assert not panel.ui.applyButton.enabled and not panel.ui.cancelButton.enabled
    assert not panel.ui.channelSelector2.visible and panel.ui.advancedCollapsibleButton.collapsed
    assert "120 classes" in panel.ui.modelFactsLabel.text and "not for clinical use" in panel.ui.modelFactsLabel.text
    volume = add_volume(np.zeros((20, 20, 20), np.int16), "CT")
    panel.ui.inputSelector.setCurrentNode(volume)
    assert panel.ui.applyButton.enabled and "does not grow with the number of classes" in panel.ui.needLabel.text
    panel.class_list.none_button.click()
    assert (
        not panel.ui.applyButton.enabled and panel.ui.needLabel.text == "No class is ticked. Tick at least one class."
    )


def test_the_need_follows_device_region_step_and_voxels(panel):
    panel.ui.inputSelector.setCurrentNode(add_volume(np.zeros((300, 300, 300), np.uint8), "CT"))
    whole = panel.ui.needLabel.text
    assert "GPU memory" in whole
    panel.ui.deviceComboBox.setCurrentIndex(panel.ui.deviceComboBox.findData("cpu"))
    assert panel.state.parameters.device == "cpu" and "GPU" not in panel.ui.needLabel.text
    on_cpu = panel.ui.needLabel.text
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    roi.SetCenter(150.0, 150.0, 150.0)
    roi.SetSize(50.0, 50.0, 50.0)
    panel.ui.regionSelector.setCurrentNode(roi)
    assert panel.ui.needLabel.text != on_cpu
    roi.SetCenter(-900.0, 0.0, 0.0)
    panel.render()
    assert "contains no voxel of CT" in panel.ui.needLabel.text and not panel.ui.applyButton.enabled
    panel.ui.regionSelector.setCurrentNode(None)
    panel.ui.inputSelector.currentNode().SetSpacing(1, 1, 9)
    panel.render()
    assert (
        "up to 9.0 mm long, 4.5 times as long as the model's" in panel.ui.needLabel.text
        and panel.ui.applyButton.enabled
    )


def test_classes_are_searched_by_name_code_and_group_and_ticked(panel):
    classes = panel.class_list
    classes.set_table(anatomy())
    table = classes.table
    assert len(table.shown()) == 117 and classes.chosen() is None and classes.count.text == "117 of 117"
    table.search.text = "left kidn"
    assert [classes._names[key] for key in table.shown()] == ["kidney_left", "kidney_cyst_left"]
    table.search.text = "10200004"  # the code of the liver
    assert [classes._names[key] for key in table.shown()] == ["liver"]
    table.search.text = "(.*["
    assert table.shown() == []
    table.search.text = "ribs"
    ribs = table.shown()
    assert 24 <= len(ribs) < 30
    classes.none_button.click()
    assert classes.count.text == f"{117 - len(ribs)} of 117"
    table.search.text = ""
    classes.none_button.click()
    assert classes.chosen() == []
    row = next(r for r in range(table.model.rowCount()) if table.model.item(r, 0).text() == "liver")
    table.model.item(row, 0).setCheckState(qt.Qt.Checked)  # as a click on the box does
    assert classes.chosen() == ["liver"] and panel.state.parameters.classes == "liver"


def test_a_search_finds_words_in_any_order_on_every_line_of_a_row(panel):
    from ClassScaleSegPanel.widgets.search_table import Row

    texts, table = {"a": "CT 1 failed:\nMemory ran out.", "b": "ct 2"}, panel.queue.table
    table.set_rows([Row(key, (0, 0, 0), (key, ""), (key, ""), text) for key, text in texts.items()])
    for text, found in (("memory CT 1", ["a"]), ("ct", ["a", "b"]), ("1 2", []), ("", ["a", "b"])):
        table.search.text = text
        assert table.shown() == found


def test_a_group_is_ticked_alone_or_added(panel):
    classes = panel.class_list
    classes.set_table(anatomy())
    classes.group_menu.aboutToShow.emit()
    actions = {action.text.rpartition(" (")[0]: action for action in classes.group_menu.actions()}
    assert len(actions) > 5 and actions["Ribs and sternum"].checked
    only = next(action for action in classes.group_menu.actions() if action.menu())
    next(action for action in only.menu().actions() if action.text == "Ribs and sternum").trigger()
    chosen = classes.chosen()
    assert "rib_left_1" in chosen and "liver" not in chosen
    classes.group_menu.aboutToShow.emit()
    vertebrae = next(action for action in classes.group_menu.actions() if action.text.startswith("Vertebrae"))
    assert not vertebrae.checked
    vertebrae.trigger()
    assert len(classes.chosen()) > len(chosen) and "vertebrae_L5" in classes.chosen()


def test_presets_outlive_the_panel_and_fit_other_models(panel, answers):
    classes = panel.class_list
    classes.set_table(anatomy())
    classes.choose(["liver", "spleen"])
    classes.save_preset("Upper abdomen")
    application.leave()
    other = application.make_widget(module).panel
    other.class_list.set_table(anatomy(3))  # spleen and both kidneys
    other.class_list.preset_menu.aboutToShow.emit()
    next(a for a in other.class_list.preset_menu.actions() if a.text == "Upper abdomen").trigger()
    assert other.class_list.chosen() == ["spleen"]
    assert answers == ["This model does not have 1 of the classes in the preset."]
    other.class_list._delete("Upper abdomen")
    application.widget.cleanup()
    classes.preset_menu.aboutToShow.emit()
    assert [a.text for a in classes.preset_menu.actions() if a.text] == ["Save ticked classes..."]


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps({"half \ud800": ["liver"], "Mine": 5, "b": ["\udfff"]})])
def test_presets_that_cannot_be_read_are_left_out(panel, text):
    application.settings.setValue("ClassScaleSeg/ClassPresets", text)
    panel.class_list.preset_menu.aboutToShow.emit()
    assert [a.text for a in panel.class_list.preset_menu.actions() if a.text] == ["Save ticked classes..."]


def test_choices_are_saved_with_the_scene(panel, tmp_path):
    panel.ui.inputSelector.setCurrentNode(add_volume(np.zeros((20, 20, 20), np.int16), "CT"))
    panel.class_list.apply(["cell 5", "cell 6"])
    panel.ui.stepSpinBox.value = 0.75
    panel.ui.keepEmptyCheckBox.checked = True
    saved = saved_scene()
    slicer.mrmlScene.Clear()
    assert panel.class_list.chosen() is None and panel.ui.stepSpinBox.value == 0
    import_scene(saved)
    application.enter()
    assert panel.class_list.chosen() == ["cell 5", "cell 6"]
    assert panel.ui.stepSpinBox.value == 0.75 and panel.ui.keepEmptyCheckBox.checked


def test_progress_of_several_models_and_frames_is_one_percentage():
    from ClassScaleSegLib.process import Event
    from ClassScaleSegPanel.runs.progress import RunProgress

    progress = RunProgress()
    progress.update(Event("progress", "segment", 1500, 5000, remaining=30.4, part=2, parts=5))
    assert (progress.percent, progress.text) == (31, "Segmenting (part 2 of 5), about 30 s left")
    progress.update(Event("progress", "decode", 1000, 5000, part=1, parts=5))
    assert progress.percent == 31  # never backwards
    progress.update(Event("begin", facts={"index": 2, "count": 2}))
    progress.update(Event("progress", "segment", 1, 2))
    assert (progress.percent, progress.text) == (76, "Segmenting (frame 2 of 2)")


def test_apply_shows_progress_and_a_result_that_can_be_explored(panel, answers):
    ui = panel.ui
    ui.inputSelector.setCurrentNode(load_sample())
    ui.applyButton.click()
    assert ui.progressBar.visible is not None and panel.runs.timer.active and ui.cancelButton.enabled
    assert not ui.applyButton.enabled
    texts, percents = [], []
    wait_until(
        lambda: (texts.append(ui.statusLabel.text), percents.append(ui.progressBar.value)) and panel.state.run is None
    )
    assert answers == [] and {"Starting", "Segmenting", "Done: 120 structures found."} <= {
        text.split(",")[0] for text in texts
    }
    assert percents == sorted(percents) and percents[-1] > 50 and not panel.runs.timer.active
    node = ui.segmentationSelector.currentNode()
    assert node.GetSegmentation().GetNumberOfSegments() == 120 and node.GetDisplayNode().GetVisibility()
    assert "segment" in ui.logTextEdit.plainText
    ui.copyLogButton.click()
    assert qt.QApplication.clipboard().text() == ui.logTextEdit.plainText
    explore(panel, node, answers)
    ui.applyButton.click()  # once more, into the same node
    assert answers.pop() == "The run will replace the contents of CT segmentation. Continue?"
    ui.cancelButton.click()
    assert node.GetSegmentation().GetNumberOfSegments() == 120 and ui.statusLabel.text.startswith("Cancelled")


def explore(panel, node, answers):
    """Search, go to a structure, and show a few in 3D."""
    table = panel.results.table
    assert len(table.shown()) == 120
    table.search.text = "cell 77"
    assert table.shown() == ["Segment_77"]
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    camera = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode", "Camera")
    click_row(table, "Segment_77")
    centre = [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    assert list(camera.GetFocalPoint()) == pytest.approx(centre)
    labels = panel.runs and node.GetSegmentation().GetSegment("Segment_77").GetRepresentation("Binary labelmap")
    inverse = slicer.vtkOrientedImageData()
    inverse.SetExtent(labels.GetExtent())
    inverse.CopyDirections(labels)
    world_to_image = __import__("vtk").vtkMatrix4x4()
    labels.GetWorldToImageMatrix(world_to_image)
    index = [round(part) for part in world_to_image.MultiplyPoint((*centre, 1))[:3]]
    assert labels.GetScalarComponentAsDouble(*index, 0) == 77
    button = panel.ui.show3DButton
    table.search.text = ""
    table.tick(["Segment_3", "Segment_4"])
    button.click()
    surfaces = {
        i: node.GetSegmentation().GetSegment(i).GetRepresentation(SURFACE)
        for i in node.GetSegmentation().GetSegmentIDs()
    }
    assert {i for i, surface in surfaces.items() if surface.GetNumberOfPolys()} == {"Segment_3", "Segment_4"}
    assert button.checked and node.GetDisplayNode().GetSegmentVisibility3D("Segment_3")
    assert not node.GetDisplayNode().GetSegmentVisibility3D("Segment_5")
    row = next(r for r in range(table.model.rowCount()) if table.model.item(r, 0).text() == "cell 5")
    table.model.item(row, 0).setCheckState(qt.Qt.Checked)
    assert node.GetSegmentation().GetSegment("Segment_5").GetRepresentation(SURFACE).GetNumberOfPolys() > 100
    button.click()
    assert node.GetSegmentation().GetSegment("Segment_5").GetRepresentation(SURFACE) is None


def test_cancel_ends_the_process_and_leaves_the_scene_as_it_was(panel):
    import psutil

    panel.ui.inputSelector.setCurrentNode(load_sample())
    before = slicer.mrmlScene.GetNumberOfNodes()
    panel.ui.applyButton.click()
    child = psutil.Process(panel.state.run._process.pid)
    panel.ui.cancelButton.click()
    assert not child.is_running() and panel.ui.statusLabel.text == "Cancelled. The scene was not changed."
    assert slicer.mrmlScene.GetNumberOfNodes() == before and panel.ui.applyButton.enabled


def test_a_failure_is_shown_as_the_sentence_of_the_child(panel, answers):
    panel.ui.inputSelector.setCurrentNode(load_sample())
    panel.state.parameters.device = "cpu"
    panel.ui.memoryLimitSpinBox.value = 0.1
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None)
    assert len(answers) == 1 and "Raise the limit" in answers[0] and panel.ui.statusLabel.text == answers[0]
    assert panel.ui.applyButton.enabled and not panel.ui.progressBar.visible


def test_closing_the_scene_stops_the_run(panel):
    panel.ui.inputSelector.setCurrentNode(load_sample())
    panel.ui.applyButton.click()
    slicer.mrmlScene.Clear()
    assert panel.state.run is None and "scene was closed" in panel.ui.statusLabel.text
    assert panel.ui.needLabel.text.startswith("No volume is selected")


def test_leaving_the_module_does_not_stop_the_run_and_unloading_does(panel):
    panel.ui.inputSelector.setCurrentNode(load_sample())
    panel.ui.applyButton.click()
    application.leave()
    panel.runs.poll()
    assert panel.state.run is not None and panel.state.run.state == "running"
    application.enter()
    application.widget.cleanup()
    assert panel.state.run is None and slicer.modules.ClassScaleSegInstance.running == []


def test_a_missing_package_is_asked_for_and_declining_says_what_to_do(panel, answers, monkeypatch):
    from ClassScaleSegPanel.install import dialog, missing, packages

    panel.ui.inputSelector.setCurrentNode(add_volume(np.zeros((20, 20, 20), np.int16), "CT"))
    monkeypatch.setattr(missing, "PACKAGES", [*missing.PACKAGES, "no-such-package>=1"])
    asked = []
    monkeypatch.setattr(dialog, "show", lambda text, button: asked.append(text) or "")
    panel.ui.applyButton.click()
    assert len(asked) == 1 and "\n- no-such-package>=1\n" in asked[0] and "torch" not in asked[0]
    assert (
        len(answers) == 1
        and "without these Python packages: no-such-package>=1. To install them, press Apply" in answers[0]
    )
    assert panel.state.run is None
    assert "numpy==" in packages.constraints() and "SimpleITK==" in packages.constraints()


def test_sample_data_are_registered_with_their_checksums():
    import hashlib

    import SampleData

    sources = {Path(source["uris"]).name: source for source in SampleData.SampleDataLogic.sources}
    assert set(sources) == {"toy-120.nrrd", "toy-1000.nrrd", "head-mr.nrrd"}
    for name, source in sources.items():
        assert source["uris"].startswith("file://") and source["uris"].endswith(f"/Resources/SampleData/{name}")
        digest = hashlib.sha256((ROOT / "Resources" / "SampleData" / name).read_bytes()).hexdigest()
        assert source["checksums"] == f"SHA256:{digest}" and Path(source["thumbnailFileName"]).exists()


def test_importing_the_module_loads_nothing_heavy():
    code = (
        "import sys; sys.path.insert(0, 'Testing/Slicer'); import standins; application = standins.start();"
        "before = set(sys.modules); application.load_module('ClassScaleSeg/ClassScaleSeg.py');"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"torch", "nnunetv2", "SimpleITK", "scipy", "matplotlib", "pandas", "skimage", "requests"}
    assert "ClassScaleSeg" in loaded and not heavy & {name.partition(".")[0] for name in loaded}
    assert len(loaded) < 250


def test_reload_stops_the_run_and_gives_a_fresh_panel_of_fresh_code():
    code = (
        "import sys; sys.path.insert(0, 'Testing/Python');"
        "from slicer_application import application, load_sample, module, slicer;"
        "volume = load_sample(); widget = application.make_widget(module); old = widget.panel;"
        "old.ui.applyButton.click(); import psutil, ClassScaleSegLib as before;"
        "child = psutil.Process(old.state.run._process.pid); widget.onReload();"
        "new = slicer.modules.ClassScaleSegWidget.panel; import ClassScaleSegLib as fresh;"
        "print(child.is_running(), old.state.run, new is old, fresh is before, new.ui.applyButton.enabled)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["False None False False True"], done.stderr


def test_the_test_of_the_panel_for_inside_slicer_passes(panel):
    import unittest

    from ClassScaleSegPanelTest import ClassScaleSegPanelTest

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(ClassScaleSegPanelTest).run(result)
    assert result.testsRun == 4 and not result.failures and not result.errors and not result.skipped, result


def test_the_modules_own_test_passes():
    test = module.ClassScaleSegTest()
    test.runTest()
    slicer.mrmlScene.Clear()


def test_smoothing_islands_and_a_model_that_locates_are_part_of_the_request(panel):
    from ClassScaleSegPanel.runs.request import request_of

    load_sample()
    ui, parameters = panel.ui, panel.state.parameters
    assert ui.smoothSpinBox.text == ui.islandsSpinBox.text == "Off" and ui.locateComboBox.currentText == "Whole image"
    options = request_of(parameters, replace_segments=False).options
    assert options.smooth is options.remove_islands is options.locate_with is None
    ui.smoothSpinBox.value, ui.islandsSpinBox.value = 1.5, 250
    ui.locateComboBox.setCurrentIndex(ui.locateComboBox.findData("toy-120"))
    options = request_of(parameters, replace_segments=False).options
    assert (options.smooth, options.remove_islands, options.locate_with) == (1.5, 250, "toy-120")
    assert ui.applyButton.enabled
