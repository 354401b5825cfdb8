"""Models of several channels in the panel: rows, volumes found by name, hints, cases of a queue."""

import sys
import types

import numpy as np
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.scene.source_volumes import source_volumes
from conftest import small_dataset, small_plans
from slicer_application import add_volume, import_scene, saved_scene, slicer, wait_until
from test_module_queue import Database, add, segmentations, states

from ClassScaleSegPanel.inputs import dicom_series  # isort: skip  needs the stand-ins

SIX = ("T1", "T1ce", "T2", "FLAIR", "ADC", "DWI")


def volume(name):
    return add_volume(np.random.default_rng(1).integers(0, 99, (20, 20, 20)).astype(np.int16), name)


def add_model(write_model, panel, *channels):
    """Add a model with these channels to the catalogue, and select it."""
    names = {str(number): name for number, name in enumerate(channels)}
    plans, dataset = small_plans(channels=len(channels)), small_dataset(channels=len(channels))
    identifier = Catalog().add(write_model(plans, dataset | {"channel_names": names}), "Brain").id
    panel.models.reload()
    panel.store(model=identifier)
    return identifier


def let_live():
    from slicer_application import application

    for _round in range(3):
        application.processEvents()


def rows(panel):
    """Label and name of the volume of each visible row."""
    shown = [(label, selector) for label, selector in panel.channels._rows if not selector.isHidden()]
    nodes = [selector.currentNode() for _label, selector in shown]
    return {label.text: node and node.GetName() for (label, _selector), node in zip(shown, nodes, strict=True)}


def put_into_folder(nodes, *path):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetSceneItemID()
    for name in path:
        inner = hierarchy.GetItemChildWithName(item, name)
        item = inner or hierarchy.CreateFolderItem(item, name)
    for node in nodes:
        hierarchy.CreateItem(item, node)


def test_volumes_that_are_there_are_found_when_the_model_is_selected_and_others_when_they_come(panel, write_model):
    for name in ("BraTS_001_flair", "BraTS_001_t1", "BraTS_001_t1ce"):
        volume(name)
    panel.select_volume()
    assert panel.state.parameters.inputVolume.GetName() == "BraTS_001_flair"
    add_model(write_model, panel, *SIX)
    assert rows(panel) == {"T1:": "BraTS_001_t1", "T1ce:": "BraTS_001_t1ce", "T2:": None, "FLAIR:": "BraTS_001_flair",
                           "ADC:": None, "DWI:": None}  # fmt: skip
    hint = panel.ui.channelHintLabel
    assert hint.text == "No volume is called T2. No volume is called ADC. No volume is called DWI."
    assert panel.ui.needLabel.text == "Select the volume of the channel T2." and not panel.ui.applyButton.enabled
    for name in ("BraTS_001_t2", "BraTS_001_dwi", "BraTS_001_adc"):
        volume(name)
    let_live()
    assert list(rows(panel).values()) == [f"BraTS_001_{end}" for end in ("t1", "t1ce", "t2", "flair", "adc", "dwi")]
    assert hint.isHidden() and panel.ui.applyButton.enabled
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None)
    assert panel.ui.statusLabel.text.startswith("Done"), panel.ui.statusLabel.text
    used = [each.GetName().removeprefix("BraTS_001_") for each in source_volumes(panel.state.node)]
    assert used == ["t1", "t1ce", "t2", "flair", "adc", "dwi"], "in the order of the channels"


def test_what_the_user_has_chosen_stays_and_a_wrong_choice_is_told(panel, write_model):
    first, t1, t2 = volume("Anna"), volume("T1"), volume("T2")
    panel.select_volume()
    add_model(write_model, panel, "T1", "T2", "FLAIR")
    assert rows(panel) == {"T1:": "Anna", "T2:": "T2", "FLAIR:": None}
    ui = panel.ui
    ui.channelSelector3.setCurrentNode(t1)
    volume("FLAIR")
    let_live()
    assert rows(panel)["FLAIR:"] == "T1"  # the user's
    assert ui.channelHintLabel.text == "T1 is called like T1, but it is selected for FLAIR."
    ui.channelSelector3.setCurrentNode(None)
    assert rows(panel)["FLAIR:"] is None  # not filled against the user's will
    t1.SetName("Old")
    let_live()
    assert rows(panel)["FLAIR:"] == "FLAIR"
    slicer.mrmlScene.RemoveNode(t2)
    assert rows(panel)["T2:"] is None
    let_live()
    assert ui.channelHintLabel.text == "No volume is called T2." and first.GetScene() is not None


def test_two_that_fit_are_told_and_another_patient_brings_its_volumes(panel, write_model):
    for patient in ("sub-01", "sub-02"):
        for kind in ("T1w", "FLAIR"):
            volume(f"{patient}_{kind}")
    panel.select_volume()
    add_model(write_model, panel, "T1", "FLAIR")
    assert list(rows(panel).values()) == ["sub-01_T1w", "sub-01_FLAIR"]
    panel.ui.inputSelector.setCurrentNode(slicer.util.getNode("sub-02_T1w"))
    assert list(rows(panel).values()) == ["sub-02_T1w", "sub-02_FLAIR"]
    volume("sub-02_T2w")
    panel.ui.inputSelector.setCurrentNode(slicer.util.getNode("sub-02_T2w"))
    assert rows(panel)["T1:"] == "sub-02_T2w"
    slicer.mrmlScene.Clear()
    for name in ("T1", "5: FLAIR", "6: FLAIR <b>"):
        volume(name)
    panel.select_volume()
    panel.store(model="toy-120")
    panel.store(model=next(key for key in panel.models.installed() if key.startswith("own")))
    assert rows(panel) == {"T1:": "T1", "FLAIR:": None}
    assert panel.ui.channelHintLabel.text == "Two volumes could be FLAIR: 5: FLAIR and 6: FLAIR <b>. Choose one."


def test_volumes_are_looked_for_in_the_folder_of_the_first(panel, write_model):
    anna, otto = [volume("T1"), volume("FLAIR")], [volume("T1"), volume("FLAIR")]
    put_into_folder(anna, "Anna", "2026")
    put_into_folder(otto, "Otto", "2026")
    panel.ui.inputSelector.setCurrentNode(otto[0])
    add_model(write_model, panel, "T1", "FLAIR")
    assert panel.state.parameters.channel2 is otto[1] and panel.ui.channelHintLabel.text == ""


def test_further_rows_are_saved_with_the_scene_and_forget_removed_volumes(panel, write_model):
    add_model(write_model, panel, *SIX)
    nodes = [volume(name) for name in SIX]
    panel.select_volume()
    panel.channels.selector(6).setCurrentNode(nodes[0])
    saved = saved_scene()
    slicer.mrmlScene.Clear()
    let_live()
    assert set(rows(panel).values()) <= {None}
    import_scene(saved)
    let_live()
    assert list(rows(panel).values()) == ["T1", "T1ce", "T2", "FLAIR", "ADC", "T1"]
    assert "T1 is called like T1, but it is selected for DWI." in panel.ui.channelHintLabel.text
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("ADC"))
    assert rows(panel)["ADC:"] is None
    panel.store(model="toy-120")
    assert list(rows(panel)) == ["V&olume:"] and panel.ui.channelHintLabel.isHidden()


def test_models_with_the_same_channels_in_another_order_do_not_go_together(panel, write_model, tmp_path):
    add_model(write_model, panel, "T1", "FLAIR")
    names = {"0": "flair", "1": "T1w"}
    folder = write_model(
        small_plans(channels=2), small_dataset(channels=2) | {"channel_names": names}, root=tmp_path / "b"
    )
    other = Catalog().add(folder, "Other").id
    panel.models.reload()
    panel.store(moreModels=other)
    assert panel.ui.needLabel.text.startswith("Brain and Other need the channel T1 at different places.")


def test_each_folder_is_a_case_and_one_that_lacks_a_channel_does_not_stop_the_rest(panel, write_model):
    put_into_folder([volume("t1"), volume("flair"), volume("T2")], "Anna", "2025")
    put_into_folder([volume("t1"), volume("t2")], "Anna", "2026")
    put_into_folder([volume("x FLAIR"), volume("x T1")], "Otto")
    panel.select_volume()
    alone = volume("alone")
    panel.queue.add([(alone.GetID(), "alone")])
    add_model(write_model, panel, "T1", "FLAIR")
    assert panel.ui.needLabel.text.startswith("The model needs 2 volumes, and alone is one.")
    panel.queue.empty_button.click()
    add(panel, "All folders, patients and studies of the scene")
    assert list(states(panel)) == ["Anna / 2025", "Anna / 2026", "Otto"]
    assert panel.ui.needLabel.text.startswith("3 cases are segmented one after the other (Anna / 2025, Anna / 2026, ")
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None, 120)
    assert states(panel)["Anna / 2026"] == "failed: No volume is called FLAIR."
    assert set(segmentations()) == {"t1 segmentation", "x T1 segmentation"}
    assert panel.ui.statusLabel.text == "Done: 2 of 3 volumes segmented. Anna / 2026: No volume is called FLAIR."
    panel.store(model="toy-120")
    assert "Anna / 2026 has several volumes, and the model needs one." in panel.ui.needLabel.text


def test_a_folder_of_a_patient_has_its_studies_and_a_case_goes_with_its_last_volume(panel, write_model):
    first, second = [volume("T1"), volume("FLAIR")], [volume("T1")]
    put_into_folder(first, "Anna", "2025")
    put_into_folder(second, "Anna", "2026")
    put_into_folder([volume("T1")], "Anna 2")
    add_model(write_model, panel, "T1", "FLAIR")
    menu = panel.queue.add_menu
    menu.aboutToShow.emit()
    inner = next(action.menu() for action in menu.actions() if action.menu())
    assert [action.text for action in inner.actions()] == [
        "Anna (2)", "Anna / 2025 (1)", "Anna / 2026 (1)", "Anna 2 (1)"
    ]  # fmt: skip
    inner.actions()[0].trigger()
    assert list(states(panel)) == ["Anna / 2025", "Anna / 2026"]
    slicer.mrmlScene.RemoveNode(second[0])
    assert list(states(panel)) == ["Anna / 2025"]
    slicer.mrmlScene.RemoveNode(first[0])
    assert list(states(panel)) == ["Anna / 2025"]
    slicer.mrmlScene.RemoveNode(first[1])
    assert list(states(panel)) == []


def test_series_of_a_study_are_a_case_and_only_what_is_needed_is_loaded(panel, write_model, monkeypatch):
    loaded = []

    def load(uids):
        loaded.extend(uids)
        return [volume(uids[0]).GetID()]

    library = types.ModuleType("DICOMLib")
    library.DICOMUtils = types.SimpleNamespace(loadSeriesByUID=load)
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    series = {"1": ("MR", "t2_tirm_dark-fluid"), "2": ("MR", "t1_mprage"), "3": ("MR", "t2_tse")}
    database = Database(**series)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    dialog = dicom_series.SeriesDialog(database)
    dialog.table.tick(["1", "2", "3"])
    monkeypatch.setattr(dicom_series, "choose_studies", lambda database: dialog.ticked_of_studies())
    add_model(write_model, panel, "T1", "FLAIR")
    add(panel, "Series of the DICOM database...")
    assert [name for _key, name in panel.state.queued] == ["Doe Jane / 20260102 Chest"]
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None)
    assert loaded == ["2", "1"] and set(segmentations()) == {"2 segmentation"}


def test_there_is_an_end_to_the_rows(panel, write_model, monkeypatch):
    from ClassScaleSegPanel.inputs import channel_rows, channels
    from ClassScaleSegPanel.runs import apply_line

    for module in (apply_line, channel_rows, channels):
        monkeypatch.setattr(module, "CHANNELS", 5)
    add_model(write_model, panel, *SIX)
    volume("T1")
    panel.select_volume()
    assert panel.ui.needLabel.text.startswith("This model needs 6 volumes, and the panel has rows for 5.")
    assert len(rows(panel)) == 5
