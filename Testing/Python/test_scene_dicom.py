"""Segmentations in Slicer's scene, saved as DICOM for the series that their volume was loaded from."""

import types
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import LabelTable, OutputError, Segmentation
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.catalog.entries import LocateWith
from ClassScaleSegLib.images.dicom.seg import UsedModel
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.scene.dicom import frame_of_reference, is_from_dicom, origin_of, remember_origin
from ClassScaleSegLib.scene.loading import load_image
from ClassScaleSegLib.scene.results import save_segmentation, show_result
from dicom_phantom import planes, write_frames, write_series
from slicer_application import add_volume, module, slicer

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
TABLE = LabelTable.from_names({0: "background", 1: "liver", 300: "spleen"})
STANDING = (1, 0, 0, 0, 0, -1)
SERIES = {
    "axial": dict(step=(0.0, 0.0, 5.0)),
    "descending": dict(step=(0.0, 0.0, -5.0)),
    "coronal": dict(directions=STANDING, step=(0.0, 5.0, 0.0)),
    "negated columns": dict(directions=(-1, 0, 0, 0, 1, 0), step=(0.0, 0.0, 5.0)),
}


class Database:
    """``slicer.dicomDatabase``: where the file of each image is."""

    isOpen = True

    def __init__(self, folder):
        files = [folder] if folder.is_file() else sorted(folder.iterdir())
        self.files = {str(pydicom.dcmread(file).SOPInstanceUID): str(file) for file in files}

    def fileForInstance(self, instance):
        return self.files.get(instance, "")


@pytest.fixture
def scene():
    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


def load(monkeypatch, folder, axes=(0, 1, 2), flips=(False, False, False)):
    """A volume node as Slicer loads the series, with its axes i, j, k in another order or direction."""
    database = Database(folder)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    read = read_image(folder, 1)
    own = read.geometry
    step = own.axes[:, list(axes)] * np.where(flips, -1, 1)
    ends = [(own.size[axis] - 1) * flip for axis, flip in zip(axes, flips, strict=True)]
    origin = np.array(own.origin) + own.axes[:, list(axes)] @ ends
    voxels = read.voxels[0].copy().transpose([2 - axis for axis in axes[::-1]])
    voxels = voxels[tuple(slice(None, None, -1 if flip else 1) for flip in flips[::-1])]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = step, origin
    matrix[:2] *= -1  # from LPS to RAS
    volume = add_volume(np.ascontiguousarray(voxels))
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(database.files))
    return volume, voxels


def segmented(volume, voxels):
    """A segmentation node whose label map follows from the voxels, so that it can be told where each voxel went."""
    from ClassScaleSegLib.scene.volume import geometry_of

    labels = np.where(voxels > 1000, 300, np.where(voxels > 0, 1, 0)).astype(np.uint16)
    result = Segmentation(labels, TABLE, geometry_of(volume))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
    show_result(node, (result, result.statistics()), volume, False, False)
    remember_origin(node, [UsedModel("Organs of all", "CC0-1.0")], result.statistics())
    return node


@pytest.mark.parametrize(
    "order", [((0, 1, 2), (False,) * 3), ((0, 1, 2), (False, True, True)), ((2, 0, 1), (True,) * 3)]
)
@pytest.mark.parametrize("kind", SERIES)
def test_every_voxel_is_saved_where_it_is_in_the_series(scene, monkeypatch, tmp_path, kind, order):
    folder = write_series(
        tmp_path / "series", planes(6, (7, 9), **SERIES[kind]), Modality="CT", PatientName="Dent^Arthur"
    )
    node = segmented(*load(monkeypatch, folder, *order))
    assert is_from_dicom(node)
    assert module.ClassScaleSegLogic().saveSegmentation(node, tmp_path / "organs.seg.dcm")
    found, series = Segmentation.from_image(tmp_path / "organs.seg.dcm"), read_image(folder, 1)
    assert found.geometry.distance(series.geometry) < 1e-6
    expected = np.where(series.voxels[0] > 1000, 300, np.where(series.voxels[0] > 0, 1, 0))
    assert np.array_equal(found.labels, expected)
    header = pydicom.dcmread(tmp_path / "organs.seg.dcm", stop_before_pixels=True)
    assert str(header.PatientName) == "Dent^Arthur" and "Organs of all" in header.SeriesDescription
    assert {item.SegmentAlgorithmType for item in header.SegmentSequence} == {"AUTOMATIC"}


def test_a_series_in_one_file_is_saved(scene, monkeypatch, tmp_path):
    file = write_frames(tmp_path / "series.dcm", planes(5, (7, 9)))
    node = segmented(*load(monkeypatch, file))
    save_segmentation(node, tmp_path / "organs.seg.dcm")
    assert Segmentation.from_image(tmp_path / "organs.seg.dcm").labels.any()


def test_a_series_that_was_loaded_from_a_folder_is_saved_for_its_patient_alone(scene, tmp_path):
    folder = write_series(
        tmp_path / "series", planes(4, (7, 9)), PatientName="Dent^Arthur", FrameOfReferenceUID="1.2.3"
    )
    volume = load_image(scene, folder, "CT")
    node = segmented(volume, slicer.util.arrayFromVolume(volume))
    assert is_from_dicom(node) and frame_of_reference(volume) == "1.2.3"
    save_segmentation(node, tmp_path / "organs.seg.dcm")
    header = pydicom.dcmread(tmp_path / "organs.seg.dcm", stop_before_pixels=True)
    assert str(header.PatientName) == "Dent^Arthur"
    found, series = Segmentation.from_image(tmp_path / "organs.seg.dcm"), read_image(folder, 1)
    assert np.array_equal(found.labels > 0, series.voxels[0] > 0)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="from which CT was loaded, is gone"):
        save_segmentation(node, tmp_path / "again.seg.dcm")
    assert frame_of_reference(volume) == ""
    write_series(tmp_path / "series", planes(4), PatientName="Prefect^Ford")
    assert frame_of_reference(load_image(scene, folder, "CT without one")) == ""
    with pytest.raises(OutputError, match="would get the patient of these"):
        save_segmentation(node, tmp_path / "again.seg.dcm")
    assert not (tmp_path / "again.seg.dcm").exists()


def test_what_cannot_be_saved_as_dicom_is_told_and_leaves_the_file_that_was_there(scene, monkeypatch, tmp_path):
    out = tmp_path / "out" / "organs.seg.dcm"
    out.parent.mkdir()
    out.write_text("precious")
    folder = write_series(tmp_path / "series", planes(4, (7, 9)))
    volume, voxels = load(monkeypatch, folder)
    node = segmented(volume, voxels)

    def refused(text):
        with pytest.raises(OutputError, match=text):
            save_segmentation(node, out)
        assert out.read_text() == "precious" and list(out.parent.iterdir()) == [out]

    (tmp_path / "series" / "IM0002.dcm").rename(tmp_path / "IM0002.dcm")
    refused("are not in Slicer's DICOM database any more")
    (tmp_path / "IM0002.dcm").rename(tmp_path / "series" / "IM0002.dcm")
    monkeypatch.setattr(slicer, "dicomDatabase", types.SimpleNamespace(isOpen=False), raising=False)
    refused("are not in Slicer's DICOM database any more")
    volume.RemoveAttribute("DICOM.instanceUIDs")
    assert not is_from_dicom(node) and not is_from_dicom(None)
    refused("was not loaded from DICOM, so.*no patient and study.*or save .seg.nrrd")
    node.SetAndObserveTransformNodeID(scene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    refused("is under a transform")


def test_a_volume_that_was_resampled_has_no_dicom_segmentation(scene, monkeypatch, tmp_path):
    volume, voxels = load(monkeypatch, write_series(tmp_path / "series", planes(4, (7, 9))))
    volume.SetSpacing(np.array(volume.GetSpacing()) * 2)
    with pytest.raises(OutputError, match="not on the grid"):
        save_segmentation(segmented(volume, voxels), tmp_path / "organs.seg.dcm")
    assert not (tmp_path / "organs.seg.dcm").exists()


@pytest.mark.parametrize(
    "noted", ["", "no json", "[1]", "3", '{"models": 1}', '{"models": [{"name": 3}]}', "[" * 100000]
)
def test_what_a_scene_notes_wrongly_is_not_known(scene, noted):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetAttribute("ClassScaleSeg.Origin", noted)
    assert origin_of(node)[0] == ()
    remember_origin(node, [UsedModel("a\nb", None, "0" * 64)], [])
    assert origin_of(node)[0] == (UsedModel("a b", None, "0" * 64),)


def test_edited_structures_are_semiautomatic_and_those_of_others_are_not_saved(scene, monkeypatch, tmp_path):
    volume, voxels = load(monkeypatch, write_series(tmp_path / "series", planes(4, (7, 9))))
    node = segmented(volume, voxels)
    edited = np.where(voxels > 500, 300, np.where(voxels > 0, 1, 0)).astype(np.uint16)
    from ClassScaleSegLib.scene.volume import geometry_of

    result = Segmentation(edited, TABLE, geometry_of(volume))
    show_result(node, (result, result.statistics()), volume, False, True)
    save_segmentation(node, tmp_path / "organs.seg.dcm")
    header = pydicom.dcmread(tmp_path / "organs.seg.dcm", stop_before_pixels=True)
    assert {item.SegmentAlgorithmType for item in header.SegmentSequence} == {"SEMIAUTOMATIC"}
    node.RemoveAttribute("ClassScaleSeg.Origin")
    with pytest.raises(OutputError, match="not known which model found the structures of Organs"):
        save_segmentation(node, tmp_path / "others.seg.dcm")
    scene.RemoveNode(volume)
    with pytest.raises(OutputError, match="The volume of Organs was removed"):
        save_segmentation(node, tmp_path / "others.seg.dcm")
    node.GetSegmentation().RemoveAllSegments()
    with pytest.raises(OutputError, match="Organs has no structure"):
        save_segmentation(node, tmp_path / "others.seg.dcm")
    assert not (tmp_path / "others.seg.dcm").exists()


def test_a_run_notes_its_models_and_the_one_that_located(scene, monkeypatch, tmp_path):
    from slicer_application import load_sample

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    more = {"classes": ["cell 5"], "device": "cpu", "locate_with": "toy-1000"}
    node = module.ClassScaleSegLogic().segment(load_sample(), "toy-120", **more)
    assert [model.name for model in origin_of(node)[0]] == ["Toy atlas, 120 classes", "Toy atlas, 1000 classes"]
    catalog = Catalog()
    need = LocateWith("toy-1000", ("cell 5",), 5.0)
    fine = replace(catalog.find("toy-120"), id="fine", name="Fine", locate_with=need)
    monkeypatch.setattr(Catalog, "_known", (fine, catalog.find("toy-1000")))
    node = module.ClassScaleSegLogic().segment(load_sample(), "fine", classes=["cell 5"], device="cpu")
    assert [model.name for model in origin_of(node)[0]] == ["Toy atlas, 120 classes", "Toy atlas, 1000 classes"]
    node = module.ClassScaleSegLogic().segment(load_sample(), "fine", device="cpu", locate_with="none")
    assert [model.name for model in origin_of(node)[0]] == ["Toy atlas, 120 classes"]


@pytest.mark.parametrize("seed", range(20))
def test_a_grid_is_turned_like_another(seed):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    own = Geometry((4, 5, 6), (1.0, 2.0, 3.0), (5.0, -3.0, 2.0), tuple(turn.ravel().tolist()))
    order, flips = rng.permutation(3).tolist(), rng.random(3) < 0.5
    other, _turn = own._in_order(order, flips.tolist())
    again, back = other.turned_like(own)
    assert again.size == own.size and again.distance(own) < 1e-9
    array = rng.normal(size=own.size[::-1])
    assert np.array_equal(back.apply(own.turned_like(other)[1].apply(array)), array)


def test_the_panel_offers_dicom_where_the_volume_comes_from_dicom(panel, answers, monkeypatch, tmp_path):
    from ClassScaleSegPanel.install import packages
    from ClassScaleSegPanel.widgets import saving

    offered, installed = [], []
    volume, voxels = load(monkeypatch, write_series(tmp_path / "series", planes(4, (7, 9)), FrameOfReferenceUID=None))
    node = segmented(volume, voxels)
    monkeypatch.setattr(
        saving, "show", lambda title, *given: offered.append(given) or (str(tmp_path / "organs"), given[1][0])
    )
    panel.state.parameters.segmentation = node
    save, menu = panel.ui.saveButton, panel.results.save_menu
    assert save.menu() is menu
    seg_nrrd, seg_dcm, rtstruct, send = (action for action in menu.actions() if action.text)
    assert send.text == "Send to an archive..."
    assert (seg_nrrd.text, seg_dcm.text) == ("Segmentation (*.seg.nrrd)...", "DICOM segmentation (*.seg.dcm)...")
    seg_dcm.trigger()
    assert len(answers) == 1 and "has no frame of reference" in answers.pop()
    assert offered[0][0].endswith("Organs.seg.dcm") and offered[0][1] == ["DICOM segmentation (*.seg.dcm)"]
    assert Segmentation.from_image(tmp_path / "organs.seg.dcm").table.names == {1: "liver", 300: "spleen"}
    seg_nrrd.trigger()
    assert answers == [] and Segmentation.from_image(tmp_path / "organs.seg.nrrd").labels.any()
    rtstruct.trigger()
    assert "has no frame of reference" in answers.pop()
    names = [item.ROIName for item in pydicom.dcmread(tmp_path / "organs.rtstruct.dcm").StructureSetROISequence]
    assert names == ["liver", "spleen"]

    monkeypatch.setattr(packages, "HIGHDICOM", "highdicom-that-is-missing")
    monkeypatch.setattr(packages, "_install", lambda missing, purpose: installed.append((missing, purpose.undo)))
    monkeypatch.setattr(saving, "show", lambda title, proposed, filters: (str(tmp_path / "other.seg.dcm"), filters[0]))
    seg_dcm.trigger()
    assert installed == [(["highdicom-that-is-missing"], "highdicom")]
    assert len(answers) == 1 and "cannot be imported after the installation" in answers[0]
    assert not (tmp_path / "other.seg.dcm").exists()
    volume.RemoveAttribute("DICOM.instanceUIDs")
    panel.results.render()
    assert save.menu() is None
    assert saving.with_suffix("a.dcm", [".seg.nrrd"]) == "a.seg.nrrd"
