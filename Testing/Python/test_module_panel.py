"""The panel, clicked through on stand-ins of Qt's wrappers: real scene, real child process, real catalogue."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
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
)

TOY = ROOT / "Resources" / "Models" / "toy-120.zip"
SAMPLES = ROOT / "Resources" / "SampleData"


def wait_until(condition, seconds=60):
    """Let the application live, as its event loop does, until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        application.processEvents()
        time.sleep(0.01)


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


def test_a_model_removed_between_choice_and_apply_is_told(panel, answers, tmp_path):
    copy = tmp_path / "own model.zip"
    shutil.copy(TOY, copy)
    panel.ui.inputSelector.setCurrentNode(add_volume(np.zeros((20, 20, 20), np.int16), "CT"))
    panel.models.add(str(copy))  # calls itself as the embedded one, so the file gives the name
    assert not answers and panel.state.entry.name == "own model" and panel.ui.applyButton.enabled
    panel.models.add(str(copy))
    assert answers.pop().endswith("is in the catalogue already, as own model.")
    copy.unlink()
    panel.ui.applyButton.click()
    assert "is no longer at" in answers.pop() and panel.state.run is None
    assert not panel.ui.applyButton.enabled
    panel.models.remove()
    assert answers.pop().startswith("Remove own model from the list?") and panel.state.entry is None
    assert "which is not in the catalogue" in panel.ui.needLabel.text


def test_a_model_is_added_by_drop_and_other_files_are_left_to_slicer(panel, answers, tmp_path):
    from ClassScaleSegPanel.models.drop import dropped_model

    archive = tmp_path / "evil.zip"
    archive.write_bytes(b"PK\x05\x06" + bytes(18))

    def dropped(*paths):
        mime = qt.QMimeData()
        mime.setUrls([qt.QUrl.fromLocalFile(str(path)) for path in paths])
        point = qt.QPoint(5, 5)
        event = qt.QDropEvent(point, qt.Qt.CopyAction, mime, qt.Qt.LeftButton, qt.Qt.NoModifier)
        return panel.model_drop.eventFilter(panel.widget, event), dropped_model(mime)

    assert dropped(tmp_path / "ct.nrrd") == (False, None)
    assert dropped(archive, archive) == (False, None)
    assert dropped(archive) == (True, str(archive))
    assert len(answers) == 1 and "evil.zip" in answers[0]


def test_a_model_card_of_a_stranger_opens_neither_files_nor_addresses(panel, monkeypatch):
    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toString()))
    card = """# Card
![a](file:////host/share/a.png) !![b](http://host/b.png) ![c][1] <img src="//host/d.png"> `x<y` 1 < 2
[program](file:////host/share/run) [page](https://example.org/page) <https://example.org/auto>

<a href="file:////host/share/e">html</a>

[1]: //host/c.png
"""
    (model,) = panel.state.models
    (summary,) = model.summaries
    panel.state.models = (replace(model, summaries=(replace(summary, card=card),)),)
    panel.models.show_card()
    (browser,) = panel.models.card.dialog.findChildren(qt.QTextBrowser)
    shown = browser.toHtml()
    assert "<img" not in shown and '<a href="file:////host/share/e' not in shown
    assert "x<y 1 < 2" in browser.toPlainText().replace("\u2060", "") and 'href="https://example.org/auto"' in shown
    for address in ("file:////host/share/run", "https://example.org/page", "javascript:1", "//host/c.png", "#top"):
        browser.anchorClicked.emit(qt.QUrl(address))
    assert opened == ["https://example.org/page"] and not browser.openExternalLinks


def test_the_model_card_can_be_read(panel, monkeypatch):
    said = []
    monkeypatch.setattr(slicer.util, "infoDisplay", lambda text, **more: said.append(text), raising=False)
    (action,) = [action for action in panel.models._menu.actions() if action.text == "Model card..."]
    action.trigger()
    (browser,) = panel.models.card.dialog.findChildren(qt.QTextBrowser)
    text = browser.toPlainText()
    assert text.startswith("Toy atlas, 120 classes") and "generated by classscale_training.toy" in text and not said
    panel.models.close()
    assert panel.models.card.dialog is None
    panel.store(model="totalsegmentator-3mm")
    action.trigger()
    assert said == ["This model has no model card, or it is not downloaded yet."]


def test_a_download_is_asked_for_with_address_size_and_licence(panel, answers, monkeypatch):
    panel.store(model="totalsegmentator-1.5mm")
    assert not panel.ui.applyButton.enabled and "not downloaded" in panel.ui.needLabel.text
    assert "117 classes, CT" in panel.ui.modelFactsLabel.text
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: asked.append(text))
    panel.ui.downloadButton.click()  # and the user says no
    assert asked[0].count("https://") >= 5 and "Licence: Apache-2.0" in asked[0] and " MB) from" in asked[0]
    assert answers == []


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


def test_a_sample_that_is_chosen_brings_its_model_along(panel):
    models, selector = panel.ui.modelComboBox, panel.ui.inputSelector
    toy, head = (slicer.util.loadVolume(str(SAMPLES / f"{name}.nrrd")) for name in ("toy-1000", "head-mr"))
    other = add_volume(np.zeros((20, 20, 20), np.int16), "CT")
    for volume, model in ((toy, "toy-1000"), (head, "head-mr-312"), (other, "head-mr-312"), (toy, "toy-1000")):
        selector.setCurrentNode(volume)
        assert models.currentData == model and panel.state.parameters.model == model
        assert panel.ui.needLabel.text != "" and panel.ui.applyButton.enabled
    panel.store(model="toy-120")  # the user's choice stays, also when the module is left and entered again
    application.leave()
    application.enter()
    assert panel.state.parameters.inputVolume is toy and panel.state.parameters.model == "toy-120"


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


def test_a_model_that_cannot_locate_the_ticked_classes_is_told_before_the_run(panel):
    load_sample()
    ui, parameters = panel.ui, panel.state.parameters
    parameters.model, parameters.locateWith = "toy-1000", "toy-120"
    text = ui.needLabel.text
    assert text.startswith("Toy atlas, 120 classes cannot locate cell 121, cell 122, cell 123 and 877 more.")
    assert not ui.applyButton.enabled
    parameters.classes = "cell 5\ncell 6"
    assert ui.needLabel.text.startswith("This run will take") and ui.applyButton.enabled
    parameters.locateWith = "gone"
    assert ui.locateComboBox.currentData == "gone" and not ui.applyButton.enabled
    assert ui.needLabel.text.startswith("The model gone, which is to locate classes, is not on this computer.")
    parameters.locateWith = ""
    assert ui.locateComboBox.currentText == "Whole image" and ui.applyButton.enabled


def test_a_model_that_the_catalogue_locates_says_with_which_and_what_is_missing(panel, monkeypatch):
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.catalog.entries import Entry, LocateWith, Part
    from ClassScaleSegPanel.runs.request import request_of

    def known(*coarse):
        fine = Entry("fine", "Fine", classes=120, parts=toy, locate_with=LocateWith("coarse", ("cell 1", "cell 7"), 7))
        for catalog in (Catalog, panel.models._catalog):
            monkeypatch.setattr(catalog, "_known", (fine, Entry("coarse", "Coarse", classes=120, parts=coarse)))
        panel.models.reload()

    toy = (Part(file="toy-120.zip"),)
    known(*toy)
    load_sample()
    ui, parameters = panel.ui, panel.state.parameters
    parameters.model = "fine"
    assert ui.locateComboBox.currentText == "Automatic: Coarse" and ui.applyButton.enabled
    assert ui.needLabel.text.startswith("This run will take")
    assert request_of(parameters, replace_segments=False).options.locate_with is None  # as the catalogue says
    known(Part("https://a/b.zip"))
    assert ui.needLabel.text.startswith("Fine looks only where the model coarse finds structures, which is not on")
    assert not ui.applyButton.enabled
    ui.locateComboBox.setCurrentIndex(ui.locateComboBox.findText("Whole image"))
    assert parameters.locateWith == "none" and ui.applyButton.enabled
    assert request_of(parameters, replace_segments=False).options.locate_with == "none"
    parameters.model = "toy-120"
    assert ui.locateComboBox.currentText == "Whole image"
    known(*toy)
    parameters.model, parameters.locateWith = "fine", "coarse"  # the same model, by name
    assert ui.locateComboBox.currentText == "Coarse" and ui.applyButton.enabled


def test_models_are_searched_by_what_they_segment_and_the_selected_one_stays(panel):
    load_sample()
    ui, parameters = panel.ui, panel.state.parameters
    box, search = ui.modelComboBox, ui.modelSearchBox
    listed = lambda: [box.itemData(index) for index in range(box.count)]  # noqa: E731
    everything = listed()
    assert len(everything) == len(panel.models._catalog.entries()) > 70
    search.text = "Amygdala left"
    assert listed() == ["toy-120", "head-mr-312", "meshnet-104"] and box.currentData == parameters.model == "toy-120"
    box.setCurrentIndex(1)
    assert parameters.model == "head-mr-312" and ui.modelFactsLabel.text.startswith("311 classes")
    search.text = "pancras"
    assert listed() == ["head-mr-312"] and "did you mean pancreas" in ui.modelFactsLabel.text
    parameters.model = "toy-1000"  # by a scene or a script
    assert box.currentData == "toy-1000" and "toy-1000" in listed()
    search.text = ""
    assert listed() == everything and box.currentData == "toy-1000"
    assert ui.modelFactsLabel.text.startswith("1000 classes")
