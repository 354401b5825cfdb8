"""Images of the file system in the list of several volumes: found below a folder, loaded when it is their turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.scene.loading import load_image, loaded_from
from ClassScaleSegLib.scene.volume import geometry_of
from dicom_phantom import localizer, planes, tilted, write_series
from slicer_application import SAMPLE, application, qt, slicer, wait_until
from test_module_channels import add_model
from test_module_queue import add, segmentations, states

from ClassScaleSegPanel.inputs import image_files, queued_case  # isort: skip  needs the stand-ins


def image(file: Path) -> Path:
    """Write a part of the sample, which takes a moment only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.ReadImage(str(SAMPLE))[16:40, 16:40, 16:40], str(file))
    return file


@pytest.fixture
def study(tmp_path):
    """Files, a DICOM series, and what is no image."""
    folder = tmp_path / "study"
    image(folder / "b" / "CT.nii.gz")
    image(folder / "a.nrrd")
    image(folder / "b" / "CT_labels.nii.gz")
    write_series(folder / "patient 1" / "CT", planes(20, (22, 21)))
    (folder / "damaged.nii.gz").write_bytes(b"nothing")
    for nothing in ("b/CT.seg.nrrd", ".hidden.nii.gz", ".cache/c.nii.gz", "patient 1/notes.txt", "DICOMDIR"):
        (folder / nothing).parent.mkdir(exist_ok=True)
        (folder / nothing).write_bytes(b"\0" * 128 + b"DICM" if nothing == "DICOMDIR" else b"text")
    return folder


def choose(monkeypatch, folder):
    proposed = []
    monkeypatch.setattr(
        qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *given: proposed.append(given[2]) or str(folder))
    )
    return proposed


def volumes():
    return [node.GetName() for node in slicer.mrmlScene.GetNodes() if node.GetClassName() == "vtkMRMLScalarVolumeNode"]


def test_all_images_below_a_folder_are_segmented_one_after_the_other(panel, study, monkeypatch):
    choose(monkeypatch, study)
    add(panel, "Folder of images...")
    assert [name for _key, name in panel.state.queued] == ["a", "damaged", "b/CT", "patient 1/CT"]
    assert volumes() == [] and panel.ui.applyButton.enabled
    panel.ui.applyButton.click()
    assert volumes() == ["a"], "the others are not loaded yet"
    wait_until(lambda: panel.state.run is None, 120)
    assert set(segmentations()) == {"a segmentation", "b/CT segmentation", "patient 1/CT segmentation"}
    assert volumes() == ["a", "b/CT", "patient 1/CT"]
    assert states(panel)["damaged"].startswith(f"failed: {study / 'damaged.nii.gz'} could not be loaded as a volume")
    assert "damaged.nii.gz" in application.vtk_messages[-1], "in Slicer's error log"
    application.vtk_messages.clear()
    shown = segmentations()["patient 1/CT segmentation"]
    assert shown.GetNodeReference(shown.GetReferenceImageGeometryReferenceRole()).GetName() == "patient 1/CT"


def test_a_folder_without_an_image_is_told_and_the_folder_is_remembered(panel, tmp_path, answers, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "infoDisplay", lambda text, **more: told.append(text))
    proposed = choose(monkeypatch, tmp_path / "temporary")
    add(panel, "Folder of images...")
    add(panel, "Folder of images...")
    assert proposed[1] == str(tmp_path / "temporary") and not panel.state.queued
    assert told[0].startswith(f"{tmp_path / 'temporary'} has no image")
    choose(monkeypatch, "")
    add(panel, "Folder of images...")
    assert len(told) == 2
    for name in "abc":
        image(tmp_path / "three" / f"{name}.nii.gz")
    monkeypatch.setattr(image_files, "MOST_IMAGES", 2)
    choose(monkeypatch, tmp_path / "three")
    add(panel, "Folder of images...")
    assert [name for _key, name in panel.state.queued] == ["a", "b"]
    assert told[2].startswith(f"{tmp_path / 'three'} has more than 2 images, of which the first are added.")


def test_a_model_of_several_channels_gets_cases(panel, tmp_path, write_model, monkeypatch):
    folder = tmp_path / "study"
    for name in ("Anna/t1.nii.gz", "Anna/flair.nii.gz", "all/x_0000.nii.gz", "all/x_0001.nii.gz", "all/y_0000.nii.gz"):
        image(folder / name)
    write_series(folder / "Otto" / "SE1", planes(20, (22, 21)), SeriesDescription="t2_tirm_dark-fluid")
    write_series(folder / "Otto" / "SE2", planes(20, (22, 21)), SeriesDescription="t1_mprage")
    add_model(write_model, panel, "T1", "FLAIR")
    choose(monkeypatch, folder)
    add(panel, "Folder of images...")
    cases = {name: key for key, name in panel.state.queued}
    assert list(cases) == ["Anna", "Otto", "all/x", "all/y"]
    found = {}
    for name in ("Anna", "Otto", "all/x"):
        made = queued_case.volumes_of_case(cases[name], name, ("T1", "FLAIR"))
        found[name] = [volume.GetName() for volume in made]
    assert found == {
        "Anna": ["t1", "flair"],
        "Otto": ["SE2 t1_mprage", "SE1 t2_tirm_dark-fluid"],
        "all/x": ["x_0000", "x_0001"],
    }
    with pytest.raises(ImageError):
        queued_case.volumes_of_case(cases["all/y"], "all/y", ("T1", "FLAIR"))


def test_series_whose_folders_end_with_their_number_and_folders_called_alike(panel, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    for name in ("AX_T1_0003", "AX_FLAIR_0005"):
        write_series(folder / "p1" / name, planes(3))
    for name in ("t1.nii.gz", "flair.nii.gz", "data/t1.nii.gz", "data/flair.nii.gz"):
        image(folder / name)
    choose(monkeypatch, folder)
    place = f"file:{folder}/"
    found = {tuple(member.removeprefix(place) for member in members) for members, _name in image_files.choose_cases()}
    assert found == {
        ("flair.nii.gz", "t1.nii.gz"),
        ("data/flair.nii.gz", "data/t1.nii.gz"),
        ("p1/AX_FLAIR_0005", "p1/AX_T1_0003"),
    }


def test_a_series_beside_a_result_or_an_image_is_listed_and_results_in_dicom_are_no_series(panel, tmp_path):
    ones = [write_series(tmp_path / name, planes(3)) for name in ("a", "b")]
    (ones[0] / "CT.seg.nrrd").write_bytes(b"text")
    converted, other = image(ones[1] / "CT.nii.gz"), image(tmp_path / "c" / "CT.nii.gz")
    for name in ("CT.seg.dcm", "CT.rtstruct.dcm"):
        (other.parent / name).write_bytes(bytes(128) + b"DICM")
    assert list(image_files.find_images(tmp_path)) == [ones[0], converted, ones[1], other]


def test_what_is_left_out_of_a_series_is_in_the_log(panel, tmp_path, caplog):
    load_image(slicer.mrmlScene, write_series(tmp_path / "CT", [*planes(3), localizer()]), "CT")
    assert "left out" in caplog.text


def test_one_dicom_series_can_be_chosen_itself(panel, tmp_path, write_model, monkeypatch):
    choose(monkeypatch, write_series(tmp_path / "CT", planes(20, (22, 21))))
    add(panel, "Folder of images...")
    assert [name for _key, name in panel.state.queued] == ["CT"]
    assert image_files.choose_cases() == [((f"file:{tmp_path / 'CT'}",), "CT")]


@pytest.mark.parametrize("degrees", [0, 20])
def test_a_series_lies_where_the_command_reads_it(panel, tmp_path, degrees):
    series = write_series(tmp_path / "CT", planes(20, (22, 21), directions=tilted(degrees)))
    node, read = load_image(slicer.mrmlScene, series, "CT"), read_image(series, 1)
    assert (slicer.util.arrayFromVolume(node) == read.voxels[0]).all()
    assert geometry_of(node).distance(read.geometry) < 1e-6
    with pytest.raises(ImageError, match="does not exist"):
        load_image(slicer.mrmlScene, tmp_path / "missing", "CT")
    assert volumes() == ["CT"]


def test_a_file_is_loaded_once_unless_it_was_changed(panel, tmp_path):
    file = image(tmp_path / "a.nii.gz")
    node = load_image(slicer.mrmlScene, file, "A")
    assert loaded_from(slicer.mrmlScene, file) is node and node.GetDisplayNode() is not None
    assert geometry_of(node).distance(read_image(file, 1).geometry) < 1e-4
    slicer.util.updateVolumeFromArray(node, np.zeros((24, 24, 24), np.int16))
    assert loaded_from(slicer.mrmlScene, file) is None


def test_the_slice_views_show_what_was_loaded(panel, tmp_path):
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    (node,) = queued_case.volumes_of_case(f"file:{image(tmp_path / 'a.nii.gz')}", "a", ("CT",))
    assert view.GetBackgroundVolumeID() == node.GetID()


def test_a_volume_that_was_loaded_for_a_run_that_fails_goes_again(panel, tmp_path, write_model):
    from ClassScaleSegPanel.runs.request import queue_item

    key = f"file:{image(tmp_path / 'a.nii.gz')}"
    item = queue_item(panel.state.parameters, key, "a")
    item.request()
    assert volumes() == ["a"]
    item.end("failed", "x")
    assert volumes() == []
    there = load_image(slicer.mrmlScene, tmp_path / "a.nii.gz", "mine")
    assert item.request().volumes == (there,)
    item.end("cancelled")
    assert volumes() == ["mine"]
    add_model(write_model, panel, "T1", "FLAIR")
    image(tmp_path / "T1.nii.gz")
    (tmp_path / "FLAIR.nii.gz").write_bytes(b"damaged")
    case = queued_case.case_key(f"file:{tmp_path / name}.nii.gz" for name in ("T1", "FLAIR"))
    item = queue_item(panel.state.parameters, case, "case")
    with pytest.raises(ImageError, match="FLAIR.nii.gz could not be loaded"):
        item.request()
    application.vtk_messages.clear()
    assert volumes() == ["mine", "T1"]
    item.end("failed", "x")
    assert volumes() == ["mine"]
