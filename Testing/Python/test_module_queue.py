"""Several volumes, one after the other: the list in the panel, results, failures, cancelling, DICOM series."""

import sys
import types

import numpy as np
import pytest
from ClassScaleSegLib import Cancelled, ClassScaleError, ImageError
from ClassScaleSegLib.scene.queue import QueueItem, SceneQueue
from slicer_application import add_volume, load_sample, module, qt, slicer, wait_until

from ClassScaleSegPanel.inputs import dicom_series  # isort: skip  needs the stand-ins


def broken(name):
    """A volume whose segmentation fails in the child process, because a voxel is not a number."""
    return add_volume(np.full((20, 20, 20), np.nan, np.float32), name)


def small(name):
    """A part of the sample, which takes a moment only."""
    whole = load_sample("Whole")
    part = slicer.util.arrayFromVolume(whole)[16:40, 16:40, 16:40].copy()
    slicer.mrmlScene.RemoveNode(whole)
    return add_volume(part, name)


def add(panel, text):
    menu = panel.queue.add_menu
    menu.aboutToShow.emit()
    next(action for action in menu.actions() if action.text == text).trigger()


def states(panel):
    table = panel.queue.table
    return {table.model.item(row, 0).text(): table.model.item(row, 1).text() for row in range(table.model.rowCount())}


def segmentations():
    nodes = slicer.mrmlScene.GetNodes()
    return {node.GetName(): node for node in nodes if node.GetClassName() == "vtkMRMLSegmentationNode"}


def test_five_volumes_of_which_the_third_is_broken_make_four_results_and_a_sentence(panel):
    for number in (1, 2, 3, 4, 5):
        broken("CT 3") if number == 3 else small(f"CT {number}")
    panel.select_volume()
    add(panel, "All volumes of the scene")
    assert panel.ui.needLabel.text.startswith("5 volumes are segmented one after the other (CT 1, CT 2, CT 3, ...).")
    panel.store(statistics=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Table"))
    panel.ui.applyButton.click()
    assert panel.ui.cancelButton.enabled and states(panel)["CT 1"] == "running" and states(panel)["CT 5"] == "waiting"
    seen = set()
    wait_until(lambda: (seen.add(panel.ui.statusLabel.text), panel.state.run is None)[1], 120)
    assert any("(volume 2 of 5)" in text for text in seen)
    found = segmentations()
    assert set(found) == {f"CT {number} segmentation" for number in (1, 2, 4, 5)}
    assert all(node.GetSegmentation().GetNumberOfSegments() > 5 for node in found.values())
    tables = [node.GetName() for node in slicer.mrmlScene.GetNodes() if node.GetClassName() == "vtkMRMLTableNode"]
    assert sorted(tables) == ["CT 1 statistics", "CT 2 statistics", "CT 4 statistics", "CT 5 statistics", "Table"]
    status = panel.ui.statusLabel.text
    assert status.startswith("Done: 4 of 5 volumes segmented. CT 3 has 8,000 voxels that are NaN")
    assert "image_0000" not in status
    told = states(panel)
    assert panel.ui.needLabel.text.startswith("CT 3 is segmented, as ticked in the list of volumes.")
    assert told["CT 3"].startswith("failed: ") and told["CT 1"].endswith(" structures")
    assert [name for _key, name in panel.queue.chosen()] == ["CT 3"]  # the next Apply tries it again
    assert panel.state.node is found["CT 5 segmentation"] and panel.state.parameters.segmentation is None


def test_cancelling_keeps_what_is_finished_and_starts_no_other(panel):
    for number in (1, 2, 3):
        small(f"CT {number}")
    panel.select_volume()
    add(panel, "All volumes of the scene")
    panel.ui.applyButton.click()
    wait_until(lambda: states(panel)["CT 2"] == "running")
    panel.ui.cancelButton.click()
    assert panel.state.run is None and not slicer.modules.ClassScaleSegInstance.running
    assert states(panel)["CT 1"].endswith("structures") and states(panel)["CT 3"] == "cancelled"
    assert set(segmentations()) == {"CT 1 segmentation"}
    assert [name for _key, name in panel.queue.chosen()] == ["CT 2", "CT 3"]


def test_a_folder_of_the_scene_is_added_and_a_removed_volume_goes(panel):
    first, second, alone = (load_sample(name) for name in ("T1", "FLAIR", "Other"))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Anna & <b>Otto</b>")
    study = hierarchy.CreateStudyItem(patient, "2026")
    for node in (first, second):
        hierarchy.CreateItem(study, node)  # as the application does by itself
    menu = panel.queue.add_menu
    menu.aboutToShow.emit()
    folders = next(action.menu() for action in menu.actions() if action.menu())
    assert [action.text for action in folders.actions()] == [
        "Anna && <b>Otto</b> (2)", "Anna && <b>Otto</b> / 2026 (2)"
    ]  # fmt: skip
    folders.actions()[1].trigger()
    assert sorted(states(panel)) == ["FLAIR", "T1"] and len(panel.state.queued) == 2
    slicer.mrmlScene.RemoveNode(first)
    assert list(states(panel)) == ["FLAIR"] and [name for _key, name in panel.state.queued] == ["FLAIR"]
    panel.queue.empty_button.click()
    assert not states(panel) and not panel.state.queued and alone.GetScene() is not None


def test_a_region_is_of_one_volume(panel):
    panel.ui.inputSelector.setCurrentNode(load_sample("CT"))
    add(panel, "All volumes of the scene")
    panel.store(region=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region"))
    assert not panel.ui.applyButton.enabled and "A region is of one volume" in panel.ui.needLabel.text


class Database:
    """Stands in for ctkDICOMDatabase, with one patient."""

    isOpen = True
    fields = {"PatientsName": "Doe^Jane", "StudyDate": "20260102", "StudyDescription": "Chest"}

    def __init__(self, **series):
        self.series = series

    def patients(self):
        return ["1"]

    def studiesForPatient(self, patient):
        return ["1.2"]

    def seriesForStudy(self, study):
        return list(self.series)

    def fieldForPatient(self, name, patient):
        return self.fields[name]

    fieldForStudy = fieldForPatient

    def fieldForSeries(self, name, series):
        return self.series[series][name == "SeriesDescription"]

    def instancesForSeries(self, series):
        return ["x"] * 7


def test_series_of_the_database_are_chosen_and_loaded_when_it_is_their_turn(panel, monkeypatch):
    loaded = []

    def load(uids):
        loaded.append(uids)
        return [small("Loaded CT").GetID()] if uids == ["1.2.3"] else []

    library = types.ModuleType("DICOMLib")
    library.DICOMUtils = types.SimpleNamespace(loadSeriesByUID=load)
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    database = Database(**{"1.2.3": ("CT", "Lung"), "1.2.4": ("SEG", "Old"), "1.2.5": ("MR", "")})
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    dialog = dicom_series.SeriesDialog(database)
    assert dialog.table.keys() == ["1.2.3", "1.2.5"] and dialog.series["1.2.5"][2] == "MR: without description"
    dialog.table.tick(["1.2.3", "1.2.5"])
    monkeypatch.setattr(dicom_series, "choose_series", lambda database: dialog.ticked())
    add(panel, "Series of the DICOM database...")
    assert [name for _key, name in panel.state.queued] == ["Doe Jane - CT: Lung", "Doe Jane - MR: without description"]
    assert not loaded and panel.ui.applyButton.enabled
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None)
    assert loaded == [["1.2.3"], ["1.2.5"]] and set(segmentations()) == {"Loaded CT segmentation"}
    assert "could not be loaded as a volume" in panel.ui.statusLabel.text


def test_the_console_segments_all_and_returns_what_failed():
    volumes = [small("A"), broken("B"), small("C")]
    begun = []

    def on_event(event):
        if event.kind == "begin":
            begun.append((event.facts["index"], event.facts["count"]))

    items = module.ClassScaleSegLogic().segmentAll(volumes, "toy-120", device="cpu", progress=on_event)
    assert [item.state for item in items] == ["finished", "failed", "finished"] and items[1].error
    assert [item.run.node.GetName() for item in items if item.found] == ["A segmentation", "C segmentation"]
    assert begun == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ClassScaleError, match="There is no volume to segment"):
        module.ClassScaleSegLogic().segmentAll([], "toy-120")


def test_a_fault_of_one_item_is_a_sentence_and_what_it_made_is_discarded():
    discarded = []

    def impossible():
        raise ImageError("The volume is gone.")

    def wrong():
        raise KeyError("x")

    items = [QueueItem(str(n), f"CT {n}", make, discard=lambda n=n: discarded.append(n)) for n, make in
             enumerate((impossible, wrong))]  # fmt: skip
    queue = SceneQueue(items)
    queue.start()
    assert queue.state == "finished" and discarded == [0, 1] and queue.latest is None and queue.poll() == []
    assert items[0].error == "The volume is gone." and "CT 1 could not be segmented (KeyError" in items[1].error
    assert "The volume is gone." in queue.log and queue.failed == tuple(items)
    request = module.ClassScaleSegLogic().request(load_sample("CT"), "toy-120", device="cpu")
    queue = SceneQueue([QueueItem("0", "CT", lambda: request)])
    queue.start()
    with pytest.raises(KeyboardInterrupt):
        queue.wait(lambda event: (_ for _ in ()).throw(KeyboardInterrupt))
    assert queue.state == "cancelled" and queue.items[0].state == "cancelled"
    with pytest.raises(Cancelled):
        queue.wait()


def test_cancelling_while_a_volume_is_loaded_starts_no_run():
    made, running = [], []
    request = module.ClassScaleSegLogic().request(load_sample("CT"), "toy-120", device="cpu")

    def load(fault=None):
        queue.cancel()  # as a user can while the DICOM module shows its progress
        made.append("node")
        if fault is not None:
            raise fault
        return request

    for fault in (None, ImageError("The series is damaged.")):
        item = QueueItem("0", "CT", lambda fault=fault: load(fault), discard=made.clear)
        queue = SceneQueue([item, QueueItem("1", "Other", lambda: request)], running)
        queue.start()
        assert (queue.state, [one.state for one in queue.items]) == ("cancelled", ["cancelled"] * 2)
        assert not made and not running and queue.poll() == []


def test_a_node_that_was_made_for_a_result_is_removed_once(panel):
    from ClassScaleSegPanel.runs.request import queue_item

    scene, removed = slicer.mrmlScene, []
    panel.store(inputVolume=small("CT"), statistics=scene.AddNewNodeByClass("vtkMRMLTableNode", "Table"))
    item = queue_item(panel.state.parameters, panel.state.parameters.inputVolume.GetID(), "CT")
    observer = scene.AddObserver(scene.NodeRemovedEvent, lambda caller, event: removed.append(event))
    scene.RemoveNode(item.request().statistics)  # by the user
    item.end("failed", "x")
    item.request()
    item.end("failed", "x")
    item.end("cancelled")
    scene.RemoveObserver(observer)
    assert len(removed) == 2


def test_texts_of_dicom_are_lines_and_names_of_nodes_no_markup(panel):
    database = Database(**{"1.2.3": ("CT", "Lung\r\n\x07kernel"), "1.2.4": ("CT", "\n")})
    database.fields = {**Database.fields, "PatientsName": "Doe\n^Jane", "StudyDate": ""}
    series = dicom_series.image_series(database)
    assert series["1.2.3"] == ("Doe Jane", "Chest", "CT: Lung kernel", 7)
    assert series["1.2.4"][2] == "CT: without description"
    for summary in (panel.results._line, panel.comparing._line):
        assert summary.textFormat == qt.Qt.PlainText
