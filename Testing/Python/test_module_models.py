"""Several models in one run of the panel: their list, the table of all classes, the result."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, Segmentation
from ClassScaleSegLib.catalog.catalog import Catalog
from conftest import small_dataset
from slicer_application import ROOT, load_sample, module, slicer, wait_until

TOY = ROOT / "Resources" / "Models" / "toy-120.zip"


@pytest.fixture
def two(monkeypatch, tmp_path):
    """A second model, the same as toy-120 but for its name, in a catalogue of its own."""
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))
    shutil.copy(TOY, tmp_path / "second.zip")
    return Catalog().add(tmp_path / "second.zip", "Second").id


@pytest.fixture
def listed(two, panel):
    """The panel with the sample and both models."""
    panel.ui.inputSelector.setCurrentNode(load_sample("CT"))
    panel.models.reload()
    menu = panel.model_list.add_menu
    menu.aboutToShow.emit()
    next(action for action in menu.actions() if action.text == "Second").trigger()
    return panel


def rows(panel):
    widget = panel.ui.modelsListWidget
    return [widget.item(row).text() for row in range(widget.count)]


def test_a_model_is_added_shown_replaced_moved_and_removed(listed, two):
    ui, node = listed.ui, listed.state.parameters
    assert rows(listed) == ["1. Toy atlas, 120 classes", "2. Second"] and (node.model, node.moreModels) == (
        "toy-120",
        two,
    )
    assert ui.modelsListWidget.currentRow == 1 and ui.modelComboBox.currentData == two  # the new one is shown
    ui.modelUpButton.click()
    assert rows(listed) == ["1. Second", "2. Toy atlas, 120 classes"] and ui.modelsListWidget.currentRow == 0
    assert ui.modelComboBox.currentData == two and not ui.modelUpButton.enabled and ui.modelDownButton.enabled
    ui.modelsListWidget.setCurrentRow(1)
    assert ui.modelComboBox.currentData == "toy-120"
    ui.modelComboBox.setCurrentIndex(ui.modelComboBox.findData("toy-1000"))
    assert (node.model, node.moreModels) == (two, "toy-1000") and "1000 classes" in ui.modelFactsLabel.text
    ui.modelComboBox.setCurrentIndex(ui.modelComboBox.findData(two))  # is there already, so it is shown
    assert ui.modelsListWidget.currentRow == 0 and (node.model, node.moreModels) == (two, "toy-1000")
    ui.removeModelButton.click()
    assert (node.model, node.moreModels) == ("toy-1000", "") and ui.modelsFrame.isHidden()
    assert ui.overlapComboBox.isHidden() and len(listed.class_list.table.keys()) == 1000


def test_the_classes_of_all_models_are_in_one_table_with_their_model(listed):
    table = listed.class_list.table
    assert len(table.keys()) == 240 and not table.view.isColumnHidden(3)
    cells = [[table.model.item(row, column).text() for column in (0, 3)] for row in (0, 120)]
    assert cells == [["cell 1 (Toy atlas, 120 classes)", "Toy atlas, 120 classes"], ["cell 1 (Second)", "Second"]]
    table.search.text = "second cell 7"
    assert len(table.shown()) == 21 and all(int(key) > 120 for key in table.shown())


def test_two_models_make_one_segmentation_and_the_later_one_wins(listed):
    ui = listed.ui
    assert ui.applyButton.enabled
    ui.applyButton.click()
    wait_until(lambda: listed.state.run is None)
    segmentation = listed.state.node.GetSegmentation()
    names = [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]
    assert len(names) > 100 and all(name.endswith("(Second)") for name in names)
    assert ui.statusLabel.text.startswith(f"Done: {len(names)} structures found.")


def test_overlaps_are_kept_when_asked(listed):
    ui = listed.ui
    ui.overlapComboBox.setCurrentIndex(ui.overlapComboBox.findData("keep"))
    assert listed.state.parameters.overlap == "keep"
    listed.store(confidence=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence"))
    assert not ui.applyButton.enabled and "do not keep overlaps" in ui.needLabel.text
    listed.store(confidence=None)
    ui.applyButton.click()
    wait_until(lambda: listed.state.run is None)
    segmentation = listed.state.node.GetSegmentation()
    names = [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]
    first, second = (sorted(n.partition(" (")[0] for n in names if n.endswith(end)) for end in ("classes)", "(Second)"))
    assert first == second and len(first) > 100
    images = {segmentation.GetNthSegment(i).GetRepresentation("Binary labelmap") for i in range(len(names))}
    assert len(images) == 2 and len(listed.results.table.keys()) == len(names)


def test_a_model_of_which_no_class_is_ticked_is_told(listed):
    assert "does not run" not in listed.ui.needLabel.text
    listed.store(moreModels="toy-1000", classes="cell 200")  # a class of the second one alone
    told = "No class of Toy atlas, 120 classes is ticked, so this model does not run."
    assert listed.ui.needLabel.text.endswith(told) and listed.ui.applyButton.enabled
    listed.queue.add([(listed.state.parameters.inputVolume.GetID(), "CT")])
    assert listed.ui.needLabel.text.endswith(told) and listed.ui.applyButton.enabled


def test_overlaps_that_were_kept_of_two_models_do_not_forbid_the_confidence_of_one(listed):
    listed.store(overlap="keep", confidence=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence"))
    listed.ui.removeModelButton.click()
    assert listed.ui.overlapComboBox.isHidden() and listed.ui.applyButton.enabled
    listed.ui.applyButton.click()
    wait_until(lambda: listed.state.run is None)
    assert listed.ui.statusLabel.text.startswith("Done: ")
    assert listed.state.parameters.confidence.GetImageData() is not None


def test_models_that_need_other_volumes_or_are_missing_are_told(listed):
    ui = listed.ui
    listed.store(moreModels="gone")
    assert not ui.applyButton.enabled and "uses the model gone, which is not in the catalogue" in ui.needLabel.text
    listed.store(moreModels="toy-120")
    assert ui.needLabel.text == "Toy atlas, 120 classes is in the list twice. Remove it once."
    listed.store(moreModels="totalsegmentator-3mm")
    assert "is not downloaded" in ui.needLabel.text
    ui.modelsListWidget.setCurrentRow(1)
    assert not ui.downloadButton.isHidden()
    ui.removeModelButton.click()
    assert ui.applyButton.enabled


def test_the_panel_names_classes_as_the_child_process_does_also_if_two_models_have_one_name(two, panel):
    from ClassScaleSegLib.commands.job_models import completed_job, find_models
    from ClassScaleSegLib.process.job import Job

    own = Catalog().folder / "own.json"  # a later catalogue may have a model of the same name as the user's
    own.write_text(own.read_text(encoding="utf-8").replace('"Second"', '"Toy atlas, 120 classes"'), encoding="utf-8")
    panel.models.reload()
    panel.store(model="toy-120", moreModels=two)
    listed = panel.state.table
    assert listed is not None and listed[121].name == "cell 1 (Toy atlas, 120 classes 2)"
    assert find_models(completed_job(Job(("ct.nrrd",), ("toy-120", two), "o.seg.nrrd"))).table.names == listed.names


def test_a_class_that_was_told_apart_keeps_its_name_in_each_result_whatever_else_is_found(write_model, tmp_path):
    pytest.importorskip("nnunetv2")
    from ClassScaleSegLib.catalog.chosen import choose
    from ClassScaleSegLib.scene.results import read_result

    labels = {"background": 0, "liver": 1, "spleen": 2}
    models = [write_model(dataset=small_dataset(labels), root=tmp_path / letter) for letter in "ab"]
    both = module.ClassScaleSegLogic().request((), models)
    grid, path = Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), tmp_path / "found.seg.nrrd"
    for request, name, shown in (
        (both, "liver (Dataset007_Small)", "liver (Dataset007_Small)"),
        (replace(both, model=models[0]), "liver", "Liver"),
    ):
        table = choose(request.models, request.options).table
        found = Segmentation(np.ones((2, 2, 2), np.uint16), table, grid)
        assert found.table[1].name == name
        found.write(path, overwrite=True)  # with the one class that was found
        result, _statistics = read_result(path, None, None, grid, table)
        assert [label.name for label in result.table.foreground] == [shown]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_download_shows_how_far_it_is_and_can_be_cancelled(panel, answers, monkeypatch, cancelled):
    from ClassScaleSegLib.errors import Cancelled
    from ClassScaleSegPanel.models.download import download
    from slicer_application import qt

    class Arriving(Catalog):
        def download(self, entry, progress, cancel):
            dialog = next(
                one
                for one in qt.QApplication.topLevelWidgets()
                if one.className() == "QProgressDialog" and one.isVisible()
            )
            for done in (0, 250):
                progress(done, 1000)
                seen.append(dialog.value)
            if cancelled:
                dialog.cancel()
            if cancel.is_set():
                raise Cancelled("The download was cancelled.")
            seen.append("arrived")

    seen: list = []
    catalog = Arriving()
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: seen.append(text))
    assert download(catalog, catalog.find("totalsegmentator-3mm")) and len(answers) == 1
    assert seen == [0, 250] + ["arrived"] * (not cancelled)
