"""What users met in a real Slicer, as tests on stand-ins that behave as Slicer does there."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import vtk
from ClassScaleSegLib import ClassScaleError, LabelTable, OutputError, Segmentation
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.scene.results import show_result
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
from ClassScaleSegLib.scene.surfaces import SURFACE
from conftest import small_dataset, small_plans
from slicer_application import (
    SAMPLE,
    add_volume,
    application,
    load_sample,
    module,
    qt,
    slicer,
)
from standins.application import ModulePanel

from ClassScaleSegPanel.widgets import saving  # isort: skip
from ClassScaleSegPanel.results.result_panel import SETTLE_MILLISECONDS  # isort: skip

LONG = "A very long name of something that somebody once has measured, " * 5


def small_volume(name="CT"):
    return add_volume(np.zeros((20, 20, 20), np.int16), name)


def add_result(name="Earlier", volume=None):
    """The true segmentation of the sample, in the scene."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    truth = Segmentation.from_image(SAMPLE.with_name("toy-120-labels.nrrd"))
    show_result(node, (truth, truth.statistics()), volume or small_volume(), False, False)
    return node


@pytest.fixture
def show_in_window():
    """A function that shows a panel in the main window, asked to be of a size in pixels."""
    windows = []

    def show(panel, width, height=700):
        window = ModulePanel(panel.widget.parentWidget())
        windows.append(window)
        window.resize(width, height)
        window.show()
        let_live()
        return window

    yield show
    for window in windows:
        window.release()


def let_live():
    for _round in range(4):  # heights follow widths
        application.processEvents()


def settle():
    """Let the time pass after which the panel follows events of the node that it lists."""
    end = time.monotonic() + SETTLE_MILLISECONDS / 1000 + 0.1
    while time.monotonic() < end:
        application.processEvents()
        time.sleep(0.01)


def wait_for(panel):
    panel.state.run._process.wait()
    panel.runs.poll()


# --- the button Show 3D


def press_space(button):
    from PySide6.QtTest import QTest

    QTest.keyClick(button, qt.Qt.Key_Space)


def press_mouse(button):
    from PySide6.QtTest import QTest

    QTest.mouseClick(button, qt.Qt.LeftButton)


@pytest.mark.parametrize("press", [press_mouse, press_space])
def test_only_the_ticked_structures_get_surfaces(panel, press):
    node = add_result()
    panel.state.parameters.segmentation = node
    panel.results.table.tick({"Segment_3", "Segment_4"})
    press(panel.ui.show3DButton)
    segments = {i: node.GetSegmentation().GetSegment(i) for i in node.GetSegmentation().GetSegmentIDs()}
    made = {i for i, segment in segments.items() if segment.GetRepresentation(SURFACE).GetNumberOfPolys()}
    assert made == {"Segment_3", "Segment_4"} and panel.ui.show3DButton.checked
    press(panel.ui.show3DButton)
    assert not node.GetSegmentation().ContainsRepresentation(SURFACE) and not panel.ui.show3DButton.checked


def test_the_button_follows_surfaces_that_another_module_makes_and_removes(panel):
    node = add_result()
    panel.state.parameters.segmentation = node
    assert not panel.ui.show3DButton.checked
    slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, "Segment_1")
    node.GetSegmentation().CreateRepresentation(SURFACE)
    settle()
    assert panel.ui.show3DButton.checked
    node.GetSegmentation().RemoveRepresentation(SURFACE)
    settle()
    assert not panel.ui.show3DButton.checked


# --- samples, and which volume is taken


@pytest.mark.parametrize("sample", ["HeadMR", "Toy1000"])
def test_a_sample_of_the_module_sample_data_brings_its_model(panel, sample):
    import SampleData

    panel.ui.inputSelector.setCurrentNode(small_volume())
    assert panel.state.parameters.model == "toy-120"
    application.leave()
    first, second = (SampleData.SampleDataLogic().downloadSample(f"ClassScaleSeg{sample}") for _twice in range(2))
    assert first.GetStorageNode() is None
    application.enter()
    for volume in (second, first):
        panel.store(model="toy-120")
        panel.ui.inputSelector.setCurrentNode(volume)
        assert panel.state.parameters.model == {"HeadMR": "head-mr-312", "Toy1000": "toy-1000"}[sample]


def test_a_label_map_is_neither_selected_nor_segmented(panel):
    scene = slicer.mrmlScene
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    labels.SetAndObserveImageData(small_volume("Other").GetImageData())
    scene.RemoveNode(scene.GetFirstNodeByName("Other"))
    scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Colours")
    application.enter()
    assert panel.state.parameters.inputVolume is None and not panel.ui.applyButton.enabled
    volume = small_volume()
    application.enter()
    assert panel.state.parameters.inputVolume is volume and panel.ui.applyButton.enabled
    with pytest.raises(ClassScaleError, match="Labels is a label map. Select the image that it belongs to."):
        panel.logic.segment(labels, "toy-120")


# --- nothing is overwritten without a question


def test_the_volume_to_segment_cannot_take_the_confidence(panel):
    volume, other = small_volume(), small_volume("Other")
    panel.state.parameters.inputVolume = volume
    panel.ui.confidenceSelector.setCurrentNode(volume)
    assert not panel.ui.applyButton.enabled
    assert panel.ui.needLabel.text.startswith("CT is the volume to segment, and the confidence would overwrite it.")
    with pytest.raises(OutputError, match="CT is the volume to segment"):
        panel.logic.segment(volume, "toy-120", confidence=volume)
    panel.ui.confidenceSelector.setCurrentNode(other)
    assert panel.ui.applyButton.enabled


def test_whatever_a_run_would_replace_is_asked_for_in_one_question(panel, answers, monkeypatch):
    parameters, scene = panel.state.parameters, slicer.mrmlScene
    parameters.inputVolume, parameters.confidence = load_sample(), small_volume("MR")
    parameters.step, parameters.mirroring, parameters.classes = 1.0, False, "cell 5"
    parameters.statistics = scene.AddNewNodeByClass("vtkMRMLTableNode", "Notes")
    panel.ui.applyButton.click()
    assert answers == ["The run will replace the contents of MR. Continue?"]
    wait_for(panel)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: answers.append(text))
    panel.ui.applyButton.click()
    assert answers[1:] == ["The run will replace the contents of CT segmentation, MR, Notes. Continue?"]
    assert panel.state.run is None


@pytest.mark.parametrize("typed", ["x", "x.nrrd", "x.seg", "x.seg.nrrd"])
def test_saving_over_a_file_asks_also_if_the_suffix_was_not_typed(panel, answers, monkeypatch, tmp_path, typed):
    panel.state.parameters.segmentation = add_result()
    file = tmp_path / "x.seg.nrrd"
    file.write_text("precious")
    monkeypatch.setattr(saving, "show", lambda title, proposed, filters: (str(tmp_path / typed), filters[0]))
    for answer in (False, True):
        monkeypatch.setattr(
            slicer.util, "confirmOkCancelDisplay", lambda text, answer=answer, **more: answers.append(text) or answer
        )
        panel.ui.saveButton.click()
        if typed != "x.seg.nrrd":  # Qt has asked about that
            assert answers.pop() == f"{file} already exists. Replace it?"
            assert (file.read_text(errors="replace") == "precious") is not answer
    assert answers == [] and len(Segmentation.from_image(file).table.foreground) == 120


def test_a_file_that_cannot_be_written_is_told_and_the_proposed_name_is_one_for_every_system(
    panel, answers, monkeypatch, tmp_path
):
    panel.state.parameters.segmentation = add_result('CT 1/2: "liver"')
    proposed = []
    monkeypatch.setattr(
        saving, "show", lambda title, *given: proposed.append(given[0]) or (str(tmp_path / "file" / "x"), given[1][0])
    )
    (tmp_path / "file").write_text("no folder")
    panel.ui.saveButton.click()
    assert Path(proposed[0]).name == "CT 1_2_ _liver_.seg.nrrd"
    assert len(answers) == 1 and "cannot be written" in answers[0] and not list(tmp_path.rglob("*.nrrd"))


# --- what is shown


def test_a_click_on_the_box_ticks_and_a_click_on_the_name_goes_there(panel, show_in_window):
    from PySide6.QtTest import QTest

    panel.state.parameters.segmentation = add_result()
    panel.ui.resultCollapsibleButton.collapsed = False
    show_in_window(panel, 420)
    went, table = [], panel.results.table
    table._on_chosen = went.append
    index = table.proxy.index(2, 0)
    rectangle = table.view.visualRect(index)
    option = qt.QStyleOptionViewItem()
    option.rect, option.features = rectangle, qt.QStyleOptionViewItem.HasCheckIndicator
    box = table.view.style().subElementRect(qt.QStyle.SE_ItemViewItemCheckIndicator, option, table.view)
    name = qt.QPoint(rectangle.right() - 20, rectangle.center().y())
    for point, ticked, gone in ((box.center(), 1, 0), (name, 1, 1), (box.center(), 0, 1), (name, 0, 2)):
        QTest.mouseClick(table.view.viewport(), qt.Qt.LeftButton, qt.Qt.NoModifier, point)
        assert (len(table.ticked()), len(went)) == (ticked, gone)
    table.view.setCurrentIndex(index)
    QTest.keyClick(table.view, qt.Qt.Key_Space)
    assert len(table.ticked()) == 1 and len(went) == 2
    QTest.mouseClick(table.view.viewport(), qt.Qt.LeftButton, qt.Qt.NoModifier, name)
    assert went == [table._key(2)] * 3


@pytest.mark.parametrize("end", ["close", "remove"])
def test_nothing_of_a_result_is_left_when_it_is_gone(panel, end):
    panel.ui.inputSelector.setCurrentNode(load_sample())
    panel.ui.stepSpinBox.value, panel.ui.mirroringCheckBox.checked = 1, False
    panel.ui.applyButton.click()
    wait_for(panel)
    assert panel.ui.statusLabel.text.startswith("Done") and panel.ui.saveButton.enabled
    if end == "close":
        slicer.mrmlScene.Clear()
    else:
        slicer.mrmlScene.RemoveNode(panel.state.node)
    assert panel.ui.statusLabel.text == "" and panel.results.table.keys() == [] and panel.state.node is None
    assert not panel.ui.saveButton.enabled and not panel.ui.show3DButton.enabled


def test_structures_that_are_edited_elsewhere_are_listed_anew_and_ticks_are_kept(panel):
    node = add_result()
    panel.state.parameters.segmentation = node
    table, segmentation = panel.results.table, node.GetSegmentation()
    table.tick({"Segment_3", "Segment_4"})
    segmentation.GetSegment("Segment_3").SetName("heart")
    segmentation.RemoveSegment("Segment_4")
    assert len(table.keys()) == 120
    settle()
    assert len(table.keys()) == 119 and table.ticked() == ["Segment_3"]
    assert table.model.item(table.keys().index("Segment_3"), 0).text() == "heart"
    application.leave()
    segmentation.RemoveSegment("Segment_5")
    settle()
    assert len(table.keys()) == 119  # not while another module is at work
    application.enter()
    assert len(table.keys()) == 118


def test_a_result_that_is_put_under_a_transform_is_listed_as_one_that_is_chosen_there(panel):
    panel.state.parameters.segmentation = node = add_result()
    linear = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    bent.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    for above, count in ((linear.GetID(), 120), (bent.GetID(), 0), (None, 120)):
        node.SetAndObserveTransformNodeID(above)
        settle()
        assert len(panel.results.table.keys()) == count


def test_names_are_shown_as_they_are_written(panel, answers, monkeypatch, write_model):
    name, boxes = "<b>bold</b> & <i>more</i>", []
    for kind in ("errorDisplay", "infoDisplay", "confirmOkCancelDisplay"):
        monkeypatch.setattr(slicer.util, kind, lambda text, **more: boxes.append((text, more)))
    dataset = small_dataset()
    dataset["labels"] = {"background": 0, **{f"{name} {value}": value for value in range(1, 20)}}
    dataset["channel_names"] = {"0": name}
    entry = Catalog().add(write_model(small_plans(), dataset), name)
    panel.models.reload()
    panel.store(model=entry.id)
    panel.models.remove()
    panel.ui.inputSelector.setCurrentNode(volume := small_volume(name))
    volume.SetAndObserveImageData(None)
    panel.render()
    panel.ui.inputSelector.setCurrentNode(small_volume())
    panel.state.parameters.segmentation = node = add_result(name)
    panel.ui.applyButton.click()
    assert [name in text for text, _more in boxes] == [True, True] and panel.state.run is None
    assert all(more["textFormat"] == qt.Qt.PlainText for _text, more in boxes)
    for label in (panel.ui.needLabel, panel.ui.statusLabel, panel.ui.inputLabel, panel.ui.channelLabel2):
        assert label.textFormat == qt.Qt.PlainText
    item = panel.class_list.table.model.item(0, 0)
    assert item.text() == f"{name} 1" and "&lt;b&gt;bold" in item.toolTip()
    panel.class_list.save_preset(name)
    panel.class_list.preset_menu.aboutToShow.emit()
    assert panel.class_list.preset_menu.actions()[0].text == name.replace("&", "&&")
    assert node.GetName() == name


def test_no_text_makes_the_panel_wider(panel, show_in_window, write_model):
    dataset = small_dataset(channels=2) | {"channel_names": {"0": LONG + "1", "1": LONG + "2"}}
    dataset["labels"] = {"background": 0, **{f"{LONG} {value}": value for value in range(1, 20)}}
    entry = Catalog().add(write_model(small_plans(channels=2), dataset), LONG)
    panel.models.reload()
    window = show_in_window(panel, 350)
    assert window.minimumSizeHint().width() <= 350
    volume = small_volume(LONG)
    panel.ui.inputSelector.setCurrentNode(volume)
    for kind in ("vtkMRMLMarkupsROINode", "vtkMRMLSegmentationNode", "vtkMRMLTableNode"):
        slicer.mrmlScene.AddNewNodeByClass(kind, LONG)
    panel.state.status = LONG * 3
    panel.ui.advancedCollapsibleButton.collapsed = False
    panel.ui.resultCollapsibleButton.collapsed = False
    widths = set()
    for model in ("toy-120", entry.id, "totalsegmentator-3mm"):  # the last with the button Download
        panel.store(model=model, channel2=volume, folds=LONG)
        for spacing in (1, 9):
            volume.SetSpacing(1, 1, spacing)
            panel.class_list.save_preset(LONG)
            let_live()
            widths.add(window.minimumSizeHint().width())
    assert max(widths) <= 350, widths
    application.leave()
    other = application.make_widget(module).panel  # opened on a scene that has such names already
    try:
        assert show_in_window(other, 350).minimumSizeHint().width() <= 350
    finally:
        application.widget.cleanup()


@pytest.mark.parametrize("width", [350, 371, 426])
def test_no_widget_covers_another_however_little_room_there_is(panel, show_in_window, width):
    volume = small_volume()
    panel.ui.inputSelector.setCurrentNode(volume)
    volume.SetSpacing(1, 1, 9)
    panel.state.parameters.segmentation = add_result(volume=volume)
    panel.ui.resultCollapsibleButton.collapsed = False
    panel.state.status = LONG
    panel.render()
    show_in_window(panel, width, 300)
    assert covered(application.widget.parent) == []
    panel.state.status = LONG * 3
    panel.render()
    let_live()
    assert covered(application.widget.parent) == []


def covered(widget):
    """Texts that are cut off, and pairs of widgets of a layout that overlap."""
    children = [child for child in widget.children() if isinstance(child, qt.QWidget) and child.isVisible()]
    labels = [child for child in children if isinstance(child, qt.QLabel) and child.wordWrap and child.text]
    found = [(label.text, label.height) for label in labels if label.height < label.heightForWidth(label.width)]
    if widget.layout() is not None:
        pairs = [(a, b) for i, a in enumerate(children) for b in children[:i] if a.geometry.intersects(b.geometry)]
        found += [(a.objectName, b.objectName) for a, b in pairs]
    return sum((covered(child) for child in children), found)


def test_hidden_rows_leave_no_gap(panel, show_in_window):
    show_in_window(panel, 420)
    ui = panel.ui
    rows = [ui.inputSelector, ui.regionSelector, ui.deviceComboBox, ui.modelSearchBox, ui.modelComboBox]
    distances = {below.y - above.y - above.height for above, below in zip(rows, rows[1:], strict=False)}
    assert not panel.ui.channelSelector2.visible and max(distances) - min(distances) <= 3, distances


# --- replacing a result


def test_replaced_segments_are_those_of_the_new_result_alone(panel):
    node = add_result()
    display, segmentation = node.GetDisplayNode(), node.GetSegmentation()
    display.SetSegmentVisibility("Segment_3", False)
    segmentation.GetSegment("Segment_3").SetTag("Segmentation.Status", "completed")
    panel.logic.show3D(node, ["Segment_3"])
    told = []
    node.AddObserver(slicer.vtkSegmentation.ContainedRepresentationNamesModified, lambda *_: told.append("surfaces"))
    truth = Segmentation.from_image(SAMPLE.with_name("toy-120-labels.nrrd"))
    names = {value: name for value, name in truth.table.names.items() if value not in (7, 8)}
    names[4] = "another"
    labels = np.where(np.isin(truth.labels, (7, 8)), 0, truth.labels)
    second = Segmentation(labels, LabelTable.from_names(names), truth.geometry)
    fill_segmentation_node(node, second, replace=True)
    ids = list(segmentation.GetSegmentIDs())
    assert ids == [f"Segment_{value}" for value in range(1, 121) if value not in (7, 8)]
    assert segmentation.GetSegment("Segment_4").GetName() == "another" and segmentation.GetNumberOfLayers() == 1
    assert not segmentation.ContainsRepresentation(SURFACE) and told
    assert not segmentation.GetSegment("Segment_3").HasTag("Segmentation.Status")  # it was of other voxels
    assert not display.GetSegmentVisibility("Segment_3") and display.GetSegmentVisibility("Segment_4")
    assert {segmentation.GetSegment(i).GetTerminology() for i in ids} == {slicer.vtkSegment().GetTerminology()}
    fill_segmentation_node(node, truth, replace=True)
    assert list(segmentation.GetSegmentIDs()) == [f"Segment_{value}" for value in range(1, 121)]
    for value in (3, 7):
        voxels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, f"Segment_{value}") == value
        assert voxels.sum() == (truth.labels == value).sum()


def test_segments_that_are_replaced_do_not_get_voxels_of_their_own_first(panel):
    node = add_result()
    segmentation = node.GetSegmentation()
    kept = [segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()]
    truth = Segmentation.from_image(SAMPLE.with_name("toy-120-labels.nrrd"))
    other = LabelTable.from_names({0: "background", **{value: f"other {value}" for value in range(1, 121)}})
    fill_segmentation_node(node, Segmentation(truth.labels, other, truth.geometry), replace=True)
    assert all(segment.GetRepresentation("Binary labelmap") is None for segment in kept)


def test_the_catalogue_counts_structures_as_the_models_do():
    from ClassScaleSegLib.models.summary import summarize
    from ClassScaleSegLib.resources import resource

    entries = json.loads(resource("Catalog", "models.json").read_text(encoding="utf-8"))["models"]
    for entry in entries:
        for number in (int(word) for word in entry["name"].replace(",", " ").split() if word.isdigit()):
            bundled = resource("Models") / f"{entry['id']}.zip"
            if bundled.is_file():
                assert number == len(summarize(bundled).table.foreground), entry["name"]
