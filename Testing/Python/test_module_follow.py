"""The panel follows the scene and its nodes: models, classes, regions, results, and the button of the 3D view."""

import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ClassScaleSegLib import ClassScaleError, Segmentation
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.scene.results import show_result
from ClassScaleSegLib.scene.surfaces import SURFACE
from conftest import TOY, small_dataset, small_plans
from slicer_application import (
    SAMPLE,
    TURNED,
    add_volume,
    import_scene,
    load_sample,
    qt,
    saved_scene,
    slicer,
    transform,
)

TRUTH = SAMPLE.with_name("toy-120-labels.nrrd")


@pytest.fixture
def shown(panel):
    """The true segmentation of the sample, in the scene."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Earlier")
    truth = Segmentation.from_image(TRUTH)
    show_result(node, (truth, truth.statistics()), load_sample(), False, False)
    return node


def surfaces(node):
    """Segments with a surface that has faces; ``None`` where Slicer holds no surfaces at all."""
    segmentation = node.GetSegmentation()
    if not segmentation.ContainsRepresentation(SURFACE):
        return None
    found = {i: segmentation.GetSegment(i).GetRepresentation(SURFACE) for i in segmentation.GetSegmentIDs()}
    return {i for i, surface in found.items() if surface.GetNumberOfPolys()}


def test_surfaces_stay_when_the_mouse_button_is_released_and_go_at_the_next_click(panel, shown, answers):
    from PySide6.QtTest import QTest

    panel.state.parameters.segmentation = shown
    button, table = panel.ui.show3DButton, panel.results.table
    for chosen, disturbed in (({"Segment_3", "Segment_4"}, False), ({"Segment_9"}, True)):
        table.tick(chosen)
        QTest.mousePress(button, qt.Qt.LeftButton)
        if disturbed:
            shown.Modified()  # whatever else happens to the node is no reason to lose them
        QTest.mouseRelease(button, qt.Qt.LeftButton)
        assert button.checked and surfaces(shown) == chosen
        QTest.mouseClick(button, qt.Qt.LeftButton)
        assert not button.checked and surfaces(shown) is None
    assert answers == []


def test_without_ticks_the_hint_comes_after_the_click_and_no_surface_is_made(panel, shown, answers):
    from PySide6.QtTest import QTest

    panel.state.parameters.segmentation = shown
    button = panel.ui.show3DButton
    QTest.mousePress(button, qt.Qt.LeftButton)
    assert answers == []
    QTest.mouseRelease(button, qt.Qt.LeftButton)
    assert answers == ["To show structures in 3D, tick them in the table below."]
    assert not button.checked and surfaces(shown) is None


def test_choosing_a_segmentation_lists_its_structures(panel, shown):
    panel.ui.segmentationSelector.setCurrentNode(shown)
    table = panel.results.table
    assert len(table.keys()) == 120 and panel.state.node is shown and panel.ui.saveButton.enabled
    result = Segmentation.from_image(TRUTH)
    volume = next(row.volume_ml for row in result.statistics() if row.value == 7)
    row = table.keys().index("Segment_7")
    assert float(table.model.item(row, 1).text().replace(",", "")) == pytest.approx(volume, abs=5e-4)
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    drawn.GetSegmentation().AddEmptySegment("mine", "mine")
    panel.ui.segmentationSelector.setCurrentNode(drawn)
    assert table.keys() == [] and panel.state.node is drawn
    panel.state.parameters.segmentation = None  # for the next run a new one; the last result stays to be looked at
    assert panel.state.node is drawn


def test_voxels_of_a_result_are_counted_once(panel, monkeypatch):
    from ClassScaleSegLib.images.counts import voxel_counts

    counted = []
    for module in [module for module in sys.modules.values() if vars(module).get("voxel_counts") is voxel_counts]:
        monkeypatch.setattr(module, "voxel_counts", lambda labels: counted.append(labels) or voxel_counts(labels))
    parameters = panel.state.parameters
    parameters.inputVolume, parameters.device, parameters.step = load_sample(), "cpu", 1.0
    parameters.confidence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    parameters.statistics = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    parameters.region = panel.ui.regionSelector.addNode()
    panel.ui.applyButton.click()
    panel.state.run._process.wait()
    panel.runs.poll()
    shown = panel.state.node
    assert len(panel.results.table.keys()) == parameters.statistics.GetNumberOfRows() == 120
    assert len(counted) == 1 and counted[0].shape == (96, 96, 96)
    panel.results.show(None, None)
    panel.results.show_node(shown)  # lists the node's structures again
    assert panel.state.node is shown and len(counted) == 2


def test_a_new_region_lies_around_the_volume_and_can_be_dragged(panel):
    volume = load_sample()
    transform(volume, TURNED)
    panel.ui.inputSelector.setCurrentNode(volume)
    whole = panel.ui.needLabel.text
    roi = panel.ui.regionSelector.addNode()
    bounds, of_roi = [0.0] * 6, [0.0] * 6
    volume.GetRASBounds(bounds)
    roi.GetRASBounds(of_roi)
    assert of_roi == pytest.approx(bounds) and panel.state.parameters.region is roi
    display = roi.GetDisplayNode()
    assert display.GetVisibility() and display.GetHandlesInteractive() and not display.GetFillVisibility()
    assert panel.ui.needLabel.text == whole and panel.ui.applyButton.enabled
    slicer.mrmlScene.Clear()
    assert list(panel.ui.regionSelector.addNode().GetSize()) == [100, 100, 100]


def test_classes_of_another_model_are_forgotten_and_all_are_segmented(panel, write_model):
    dataset = small_dataset(channels=2) | {"channel_names": {"0": "T1", "1": "T2"}}
    Catalog().add(write_model(small_plans(channels=2), dataset), "Organs")
    panel.models.reload()
    volume = add_volume(np.zeros((20, 20, 20), np.int16))
    panel.ui.inputSelector.setCurrentNode(volume)
    assert panel.ui.inputLabel.text == "V&olume:"
    panel.class_list.apply(["cell 5"])
    assert panel.state.parameters.classes == "cell 5"
    panel.store(model="own-organs")
    assert panel.class_list.count.text == "20 of 20" and panel.state.parameters.classes == ""
    assert (panel.ui.inputLabel.text, panel.ui.channelLabel2.text) == ("T1:", "T2:")
    panel.state.parameters.channel2 = volume
    from ClassScaleSegPanel.runs.request import request_of

    assert request_of(panel.state.parameters, replace_segments=False).options.classes is None
    panel.state.parameters.classes = "ORGAN_7\norgan-8"  # as the engine would read them
    assert panel.class_list.chosen() == ["organ 7", "organ 8"] and panel.state.parameters.classes == "ORGAN_7\norgan-8"
    panel.state.parameters.classes = ""
    assert panel.class_list.count.text == "20 of 20"


def test_a_scene_loaded_into_the_open_module_brings_its_model_and_classes(panel, tmp_path):
    second = Catalog().add(shutil.copy(TOY, tmp_path / "second.zip"))
    panel.models.reload()
    panel.store(model=second.id)
    panel.class_list.apply(["cell 5", "cell 6"])
    load_sample()
    scene = slicer.mrmlScene
    saved = saved_scene()
    volumes = "vtkMRMLScalarVolumeNode"
    for known in (True, False):
        scene.Clear(0)
        assert panel.state.entry.id == "toy-120" and panel.class_list.chosen() is None
        if not known:
            Catalog().remove(second)
            panel.models.reload()
        import_scene(saved)
        assert panel.state.parameters.model == second.id
        panel.ui.inputSelector.setCurrentNode(add_volume(np.zeros((20, 20, 20), np.int16)))
        assert panel.state.parameters.classes == "cell 5\ncell 6" and scene.GetNumberOfNodesByClass(volumes)
        if known:
            assert panel.state.entry.id == second.id and panel.ui.applyButton.enabled
            assert panel.class_list.chosen() == ["cell 5", "cell 6"]
    assert panel.state.entry is None and panel.ui.modelComboBox.currentIndex == -1
    sentence = f"The scene uses the model {second.id}, which is not in the catalogue. "
    sentence += "Select another model, or add this one."
    assert panel.ui.needLabel.text == sentence and not panel.ui.applyButton.enabled
    panel.models.reload()
    assert panel.state.entry is None and panel.state.parameters.model == second.id
    panel.store(model="toy-120")  # as the user does; its classes are called alike, so they stay chosen
    assert panel.state.parameters.model == "toy-120" and panel.class_list.chosen() == ["cell 5", "cell 6"]
    assert panel.ui.applyButton.enabled


def test_a_model_may_have_braces_in_its_name(panel, tmp_path):
    entry = Catalog().add(shutil.copy(TOY, tmp_path / "study.zip"), "study {0} {x}")
    panel.models.reload()
    panel.store(model=entry.id)
    assert panel.ui.modelComboBox.currentText == "study {0} {x}"
    remote = Catalog().add("https://example.org/a.zip", "{} remote")
    panel.models.reload()
    panel.store(model=remote.id)
    assert panel.ui.modelComboBox.currentText == "{} remote (not downloaded)"


def test_packages_that_are_too_old_count_as_missing(panel, monkeypatch):
    from ClassScaleSegPanel.install import missing, packages

    real = missing.version
    assert missing.missing_packages() == [] and missing.has_torch()
    monkeypatch.setattr(
        missing, "version", lambda name: {"nnunetv2": "2.2.1", "torch": "2.1.2+cu118"}.get(name) or real(name)
    )
    assert missing.missing_packages() == ["torch>=2.2", "nnunetv2>=2.7"] and not missing.has_torch()
    with pytest.raises(
        ClassScaleError, match="packages are missing: torch>=2.2, nnunetv2>=2.7. To install them, press Apply"
    ):
        missing.refuse_missing_dependencies()
    with pytest.raises(ClassScaleError, match=r"PyTorch 2.1.2\+cu118 is installed, but >=2.2 is needed"):
        packages.ensure_dependencies()
    monkeypatch.setattr(missing, "version", lambda name: "2.8.0.dev1" if name == "torch" else real(name))
    assert missing.has_torch()


@pytest.mark.parametrize("outcome", [True, False, RuntimeError("no network")])
def test_the_extensions_manager_asks_again_afterwards(answers, monkeypatch, outcome):
    from ClassScaleSegPanel.install import packages

    def from_server(name, restart):
        assert manager.interactive is False
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    manager = SimpleNamespace(interactive=True, installExtensionFromServer=from_server)
    monkeypatch.setattr(
        slicer, "app", SimpleNamespace(extensionsManagerModel=lambda: manager, translate=lambda context, text: text)
    )
    with pytest.raises((ClassScaleError, RuntimeError)):
        packages._install_torch_extension()
    assert manager.interactive is True
