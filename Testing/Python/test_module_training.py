# ruff: noqa: F811  fixtures
"""Corrected segmentations saved for training: files on the grid of the volume, one case per volume."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import ImageError, OutputError, Segmentation
from ClassScaleSegLib.errors import OutputExistsError
from ClassScaleSegLib.images.dicom.seg import UsedModel
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.paired_cases import find_segmentations
from ClassScaleSegLib.images.seg_nrrd import read_segments
from ClassScaleSegLib.scene import training
from ClassScaleSegLib.scene.corrected import corrected_structures, note_corrected
from ClassScaleSegLib.scene.dicom import remember_origin
from ClassScaleSegLib.scene.results import show_result
from ClassScaleSegLib.scene.segmentation_reader import open_structures
from ClassScaleSegLib.scene.source_volumes import remember_volumes, source_volumes
from ClassScaleSegLib.scene.training_folder import count_cases, saved_cases
from logic_fixtures import add_segment
from slicer_application import (
    TURNED,
    add_volume,
    import_scene,
    qt,
    saved_scene,
    slicer,
    transform,
    vtk_matrix,
)
from test_module_compare import NAMES, SHAPE, labels, panel, scene, segmentation, select, told  # noqa: F401

NEXT = "To train a model further on the cases, press Train..."


def voxels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, SHAPE, np.int16)


@pytest.fixture
def found(scene, panel):
    """A result with three structures, and its volume."""
    volume = add_volume(voxels(), "CT 1")
    return result(scene, volume), volume


def result(scene, volume, name="Result"):
    node = segmentation(scene, name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return node


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def in_world(geometry: Geometry, index) -> np.ndarray:
    return np.array(geometry.origin) + geometry.axes @ index


def read(folder: Path, name: str = "CT_1"):
    """The image as SimpleITK reads it, and the segmentation."""
    return sitk.ReadImage(str(folder / f"images/{name}_0000.nii.gz")), Segmentation.from_image(
        folder / f"segmentations/{name}.seg.nrrd"
    )


def choose(monkeypatch, folder):
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *given: str(folder or "")))


def test_a_case_has_the_image_and_all_structures_on_its_grid(panel, found, tmp_path):
    node, volume = found
    transform(volume, TURNED)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    inside = node.GetSegmentation()
    inside.GetNthSegment(0).SetColor(0.2, 0.4, 0.6)
    inside.AddEmptySegment("Empty", "gallbladder")
    entry = "A~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~B~^^~^^"
    inside.GetNthSegment(0).SetTerminology(entry)
    assert panel.logic.saveForTraining(node, tmp_path / "new") == "CT_1"
    assert files(tmp_path / "new") == ["images/CT_1_0000.nii.gz", "segmentations/CT_1.seg.nrrd"]
    image, saved = read(tmp_path / "new")
    assert (
        sitk.GetArrayFromImage(image) == voxels()
    ).all() and image.GetPixelIDTypeAsString() == "16-bit signed integer"
    assert (saved.labels == labels()).all()
    assert list(saved.table.names.values())[-4:] == ["liver", "spleen", "kidney_left", "gallbladder"]
    liver = saved.table.by_name("liver")
    assert liver.color == (51, 102, 153) and liver.type.value == "10200004"
    index = (3.0, 4.0, 5.0)
    ras = (np.array(TURNED) @ (*index, 1))[:3]
    for geometry in (Geometry.from_image(image), saved.geometry):
        assert in_world(geometry, index) == pytest.approx(ras * (-1, -1, 1), abs=1e-4)


def test_slicer_itself_reads_the_case_with_its_empty_and_overlapping_segments(scene, panel, tmp_path):
    volume = add_volume(voxels(), "CT 1")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    for first, name in (((0, 0, 0), "a"), ((1, 1, 1), "b")):
        add_segment(node, np.ones((3, 4, 5), np.uint8), 1, first, name=name)
    node.GetSegmentation().AddEmptySegment("Empty", "c")
    panel.logic.saveForTraining(node, tmp_path, volume=volume)
    again = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Again")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "segmentations/CT_1.seg.nrrd"))
    assert storage.ReadData(again)
    both = again.GetSegmentation()
    assert {both.GetNthSegment(i).GetName() for i in range(both.GetNumberOfSegments())} == {"a", "b", "c"}
    image = sitk.ReadImage(str(tmp_path / "segmentations/CT_1.seg.nrrd"))
    layers = {segment.label.name: segment.layer for segment in read_segments(image)}
    assert image.GetSize() == SHAPE[::-1] and layers["a"] != layers["b"]
    saved = read(tmp_path)[1]
    counts = {row.name: row.voxels for row in saved.statistics()}
    assert counts == {"a": 60, "b": 60, "c": 0}


def test_a_segmentation_whose_voxels_were_all_erased_is_a_case_without_structures(panel, found, tmp_path):
    node, _volume = found
    for identifier in node.GetSegmentation().GetSegmentIDs():
        array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, identifier)
        array[:] = 0
    panel.logic.saveForTraining(node, tmp_path)
    saved = read(tmp_path)[1]
    assert not saved.labels.any() and [label.name for label in saved.table.foreground] == list(NAMES.values())[1:]


def test_channels_are_those_of_the_run_in_its_order(scene, panel, tmp_path):
    flair, t1 = add_volume(voxels(1), "case_0001"), add_volume(voxels(0), "case_0000")
    node = result(scene, t1)
    remember_volumes(node, [t1, flair])
    assert panel.logic.saveForTraining(node, tmp_path) == "case"
    assert files(tmp_path) == ["images/case_0000.nii.gz", "images/case_0001.nii.gz", "segmentations/case.seg.nrrd"]
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "images/case_0001.nii.gz"))) == voxels(1)).all()
    remember_volumes(node, [t1])  # of a later run
    panel.logic.saveForTraining(node, tmp_path, volume=t1, replace=False)
    remember_volumes(node, [t1, flair])
    scene.RemoveNode(flair)
    with pytest.raises(ImageError, match="made from 2 volumes, and 1 of them"):
        panel.logic.saveForTraining(node, tmp_path)
    remember_volumes(node, [t1])
    assert source_volumes(node) == (t1,)


def test_volumes_are_remembered_with_the_scene(scene, panel):
    t1, flair = (add_volume(voxels(), name) for name in ("T1", "FLAIR"))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    remember_volumes(node, [t1, flair])
    text = saved_scene()
    slicer.mrmlScene.Clear()
    import_scene(text)
    names = [volume.GetName() for volume in source_volumes(slicer.util.getNode("Result"))]
    assert names == ["T1", "FLAIR"]


def test_the_same_volume_replaces_its_case_and_another_one_gets_a_number(scene, panel, found, tmp_path):
    node, volume = found
    save = panel.logic.saveForTraining
    assert save(node, tmp_path) == "CT_1"
    with pytest.raises(OutputExistsError, match="has the case CT_1 of this volume"):
        save(node, tmp_path)
    another = add_volume(voxels(7), "ct 1")
    assert save(result(scene, another), tmp_path) == "ct_1_2"
    assert save(result(scene, another), tmp_path, replace=True) == "ct_1_2"
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(0))
    transform(volume, TURNED)  # moved, but the same image
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    assert save(node, tmp_path, replace=True) == "CT_1"
    image, saved = read(tmp_path)
    assert [label.name for label in saved.table.foreground] == ["spleen", "kidney_left"]
    assert abs(image.GetDirection()[0]) == pytest.approx(0.8)
    assert len(files(tmp_path)) == 4


def test_a_volume_with_voxels_that_are_no_numbers_replaces_its_case(scene, panel, tmp_path):
    array = voxels().astype(np.float32)
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    node = result(scene, add_volume(array, "T1"))
    assert panel.logic.saveForTraining(node, tmp_path) == "T1"
    assert panel.logic.saveForTraining(node, tmp_path, replace=True) == "T1"


def test_channels_that_a_replaced_case_had_more_are_removed(scene, panel, found, tmp_path):
    node, volume = found
    remember_volumes(node, [volume, add_volume(voxels(1), "FLAIR")])
    panel.logic.saveForTraining(node, tmp_path)
    panel.logic.saveForTraining(node, tmp_path, volume=volume, replace=True)
    assert files(tmp_path) == ["images/CT_1_0000.nii.gz", "segmentations/CT_1.seg.nrrd"]


def test_a_segmentation_of_another_grid_is_brought_onto_that_of_the_volume(scene, panel, tmp_path):
    volume, said = add_volume(voxels(), "CT 1"), []
    fine = np.repeat(np.repeat(np.repeat(labels(), 2, 0), 2, 1), 2, 2)
    node = segmentation(scene, "Fine", fine, spacing=0.5)
    shift = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Half")
    shift.SetMatrixTransformToParent(vtk_matrix([[1, 0, 0, -0.25], [0, 1, 0, -0.25], [0, 0, 1, -0.25], [0, 0, 0, 1]]))
    node.SetAndObserveTransformNodeID(shift.GetID())
    panel.logic.saveForTraining(node, tmp_path, volume=volume, tell=said.append)
    assert (read(tmp_path)[1].labels == labels()).all()
    assert said == ["Fine is on another grid than CT 1, so its nearest voxels were taken."]


def test_what_lies_outside_of_the_volume_is_told(scene, panel, tmp_path):
    volume, said = add_volume(voxels()[:7], "CT 1"), []
    node = segmentation(scene, "Long")
    panel.logic.saveForTraining(node, tmp_path, volume=volume, tell=said.append)
    assert (read(tmp_path)[1].labels == labels()[:7]).all()
    assert said == ["What of Long is outside of CT 1 was left out."]
    short = add_volume(voxels()[:5], "CT 2")
    panel.logic.saveForTraining(node, tmp_path, volume=short, tell=said.append)
    assert "No voxel of CT 2 is in spleen, kidney_left, so the case says that it has none of them." in said
    far = segmentation(scene, "Far")
    transform(far, [[1, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(ImageError, match="Far has no voxel in CT 1"):
        panel.logic.saveForTraining(far, tmp_path, volume=volume)


def test_a_result_of_a_region_tells_that_nothing_was_looked_for_outside(panel, found, tmp_path):
    node, volume = found
    told: list[str] = []
    for of_region in (True, False):  # the second run was of the whole volume
        remember_volumes(node, [volume], of_region)
        panel.logic.saveForTraining(node, tmp_path, replace=True, tell=told.append)
    (sentence,) = told
    assert sentence.startswith("Result was made in a region of CT 1. Outside of it nothing was looked for")


def test_nothing_is_left_if_a_file_cannot_be_written(panel, found, tmp_path, monkeypatch):
    node, _volume = found

    def full(*given, **more):
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_seg_nrrd", full)
        with pytest.raises(OutputError, match="disk is full"):
            panel.logic.saveForTraining(node, tmp_path)
    assert files(tmp_path) == []
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError):
        panel.logic.saveForTraining(node, tmp_path / "file")


@pytest.mark.parametrize("what", ["label map", "tilted", "grids", "nothing", "unknown"])
def test_what_cannot_be_a_case_is_an_error_sentence(scene, panel, found, tmp_path, what):
    node, volume = found
    if what == "label map":
        chosen, why = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Map"), "Map is a label map"
    elif what == "tilted":
        transform(volume, [[1, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        chosen, why = volume, "The slices of CT 1 are tilted"
    elif what == "grids":
        other = add_volume(voxels(), "FLAIR")
        other.SetSpacing(2, 2, 2)
        chosen, why = [volume, other], "FLAIR is on another grid than CT 1"
    elif what == "nothing":
        node, why = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Bare"), "no structure in Bare"
        chosen = volume
    else:
        node, chosen, why = segmentation(scene, "Loaded"), None, "not known from which volume Loaded was made"
    with pytest.raises(ImageError, match=why):
        panel.logic.saveForTraining(node, tmp_path / "new", volume=chosen)
    assert not (tmp_path / "new").exists()


def test_volumes_that_were_loaded_again_are_proposed(scene, panel, found, tmp_path, monkeypatch, told):
    node, t1 = found
    flair = add_volume(voxels(1), "FLAIR")
    remember_volumes(node, [t1, flair])
    scene.RemoveNode(flair)
    select(panel.ui.resultSelector, node)
    choose(monkeypatch, tmp_path / "cases")
    monkeypatch.setattr(type(panel.state), "channels", ("T1", "FLAIR"))
    panel.store(inputVolume=t1)
    panel.ui.trainingButton.click()
    assert told.pop().startswith("Result was made from 2 volumes, and 1 of them are not in the scene any more.")
    panel.store(channel2=add_volume(voxels(1), "FLAIR"))
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: asked.append(text) or True)
    panel.ui.trainingButton.click()
    assert "Save it with CT 1, FLAIR, selected under Inputs?" in asked[0] and len(files(tmp_path / "cases")) == 3


def test_the_button_saves_and_says_how_to_go_on(panel, found, tmp_path, monkeypatch, told):
    node, _volume = found
    assert not panel.ui.trainingButton.enabled
    select(panel.ui.resultSelector, node)
    choose(monkeypatch, tmp_path)
    panel.ui.trainingButton.click()
    assert panel.results.text == f"CT_1 is saved. Cases in the folder: 1. {NEXT}"
    assert told == []
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(0))
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: asked.append(text) or False)
    panel.ui.trainingButton.click()
    assert asked == [
        f"{tmp_path} has these cases: CT_1 ({saved_at(tmp_path)}).\n\n"
        "This volume is the case CT_1 there. Replace its image and its segmentation?"
    ]
    assert len(read(tmp_path)[1].table.foreground) == 3, "the user has declined"
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: True)
    panel.ui.trainingButton.click()
    assert len(read(tmp_path)[1].table.foreground) == 2


def saved_at(folder: Path, name: str = "CT_1") -> str:
    saved = (folder / f"segmentations/{name}.seg.nrrd").stat().st_mtime
    return datetime.fromtimestamp(saved).strftime("%Y-%m-%d %H:%M")


def test_the_cases_of_the_folder_are_shown_before_another_one_is_saved(scene, panel, found, tmp_path, monkeypatch):
    for number in range(2, 6):
        note_corrected(node := result(scene, add_volume(voxels(number), f"CT {number}")), "Segment_1")
        panel.logic.saveForTraining(node, tmp_path)
        os.utime(tmp_path / f"segmentations/CT_{number}.seg.nrrd", (number * 10**8, number * 10**8))
    (tmp_path / "segmentations/.hidden.seg.nrrd").write_text("none")
    (tmp_path / "segmentations/CT_4.seg.nrrd").write_bytes(b"NRRD0004\nClassScaleSeg_Corrected:=[[\n")
    os.utime(tmp_path / "segmentations/CT_4.seg.nrrd", (4 * 10**8, 4 * 10**8))
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *given, **more: asked.append((*given, more)))
    choose(monkeypatch, tmp_path)
    select(panel.ui.resultSelector, found[0])
    panel.ui.trainingButton.click()
    ((question, more),) = asked
    when = [saved_at(tmp_path, f"CT_{number}") for number in range(2, 6)]
    assert question == (
        f"{tmp_path} has 4 cases, the latest of which are CT_5 ({when[3]}, corrected: liver); CT_4 ({when[2]}); "
        f"CT_3 ({when[1]}, corrected: liver).\n\nSave this volume as the new case CT_1?"
    )
    assert more["detailedText"].splitlines()[-1] == f"CT_2 ({when[0]}, corrected: liver)"
    assert len(more["detailedText"].splitlines()) == 4 and not (tmp_path / "images/CT_1_0000.nii.gz").exists()


def test_which_structures_were_corrected_is_forgotten_when_a_run_makes_them_anew(panel, found, tmp_path):
    node, volume = found
    note_corrected(node, "Segment_2")
    note_corrected(node, "Segment_2")
    note_corrected(node, "Segment_1")
    assert corrected_structures(node) == ("spleen", "liver")
    panel.logic.saveForTraining(node, tmp_path)
    (case,) = saved_cases(tmp_path)
    assert case.name == "CT_1" and case.corrected == ("spleen", "liver")
    opened = open_structures(node)
    show_result(node, opened[:2], volume, False, True)
    panel.logic.saveForTraining(node, tmp_path, replace=True)
    assert saved_cases(tmp_path)[0].corrected == ()
    for noted in ("[[", '"Segment_1"', "[1, null]"):
        node.SetAttribute("ClassScaleSeg.Corrected", noted)
        assert corrected_structures(node) == (), "a scene from elsewhere"
    assert saved_cases(tmp_path / "none") == []


def test_cases_that_come_from_elsewhere_count_too(panel, tmp_path):
    from dicom_phantom import planes, write_series, write_structure_set

    folder = tmp_path / "segmentations"
    folder.mkdir()
    for name in ("a.seg.nrrd", "a.nii.gz", "b.seg.dcm", "d.nii.gz", "d.labels.csv", ".f.nrrd", "notes.txt"):
        (folder / name).write_bytes(b"")
    write_structure_set(folder / "c.dcm")
    write_series(tmp_path / "series", planes())
    shutil.copy(next((tmp_path / "series").iterdir()), folder / "slice.dcm")
    found = saved_cases(tmp_path)
    assert {case.name for case in found} == set(find_segmentations(folder)) == {"a", "b", "c", "d"}
    assert count_cases(tmp_path) == 4
    (folder / "d.mha").write_bytes(b"")
    assert count_cases(tmp_path) == 4, "which of two files counts is asked when the cases are collected"


def test_a_result_that_nobody_corrected_is_told(panel, found, tmp_path, monkeypatch):
    node, _volume = found
    remember_origin(node, [UsedModel("Brain")], open_structures(node).statistics)
    select(panel.ui.resultSelector, node)
    choose(monkeypatch, tmp_path / "my cases")
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: True)
    panel.ui.trainingButton.click()
    assert panel.results.text.endswith(f"Nobody has corrected or checked it since Brain found it. {NEXT}")
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0))
    array[np.nonzero(array)[0][0]] = 0
    node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap").Modified()
    panel.ui.trainingButton.click()
    assert "Nobody" not in panel.results.text and panel.results.text.endswith(NEXT)


def test_the_folder_is_proposed_again(panel, found, tmp_path, monkeypatch):
    select(panel.ui.resultSelector, found[0])
    proposed = []
    monkeypatch.setattr(
        qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *given: proposed.append(given[2]) or str(tmp_path))
    )
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: True)
    panel.ui.trainingButton.click()
    panel.ui.trainingButton.click()
    assert proposed[1] == str(tmp_path)


def test_the_selected_volume_is_proposed_for_a_segmentation_of_unknown_origin(
    scene, panel, tmp_path, monkeypatch, told
):
    volume, node = add_volume(voxels(), "CT 1"), segmentation(scene, "Loaded")
    choose(monkeypatch, tmp_path)
    select(panel.ui.resultSelector, node)
    panel.ui.inputSelector.setCurrentNode(None)
    panel.ui.trainingButton.click()
    assert told.pop().startswith("It is not known from which volume Loaded was made. Select the volume under Inputs")
    panel.ui.inputSelector.setCurrentNode(volume)
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: asked.append(text) or False)
    panel.ui.trainingButton.click()
    assert "Save it with CT 1, selected under Inputs?" in asked[0] and files(tmp_path) == []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: True)
    panel.ui.trainingButton.click()
    assert len(files(tmp_path)) == 2 and told == []
    other = add_volume(voxels()[:5], "Short")
    panel.ui.inputSelector.setCurrentNode(other)
    panel.ui.trainingButton.click()
    assert "it must have the grid of the segmentation" in told.pop()
