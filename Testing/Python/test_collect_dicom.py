"""Collecting images and segmentations in DICOM: series, structure sets, segmentations."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import LabelTable, Segmentation
from ClassScaleSegLib.errors import ClassScaleError, ImageError, LabelTableError
from ClassScaleSegLib.images.reading import read_volume
from collect_cases import training  # noqa: F401

pytest.importorskip("pydicom")

from dicom_phantom import planes, tilted, write_series  # noqa: E402
from structure_sets import FRAME, Drawn, rectangle, write_structures  # noqa: E402


def series(training, case: str = "p1", modality: str = "CT", **more):
    return write_series(
        training.images / case, planes(shape=(12, 14), **more), Modality=modality, FrameOfReferenceUID=FRAME
    )


def liver(rows: int = 3):
    """Return the contours of a box in the series: 4 x 3 voxels in each of some planes."""
    return [rectangle(12 + 5 * row, (-35, -27), (17, 26)) for row in range(rows)]


def labels(training, case: str = "p1") -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(training.dataset / "labelsTr" / f"{case}.nii.gz")))


def test_contours_are_filled_on_the_grid_of_the_series(training):
    series(training)
    write_structures(training.segmentations / "p1.dcm", [Drawn("Kidney_L", liver()), Drawn("PTV", [])])
    assert training.collect(channels="") == 0
    assert training.json["channel_names"] == {"0": "CT"}  # as the series says
    assert training.json["labels"] == {"background": 0, "Kidney_L": 1}
    kidney = LabelTable.from_csv(training.dataset / "labels.csv")[1]
    assert (kidney.type.meaning, kidney.type_modifier.meaning, kidney.color) == ("Kidney", "Left", (255, 0, 1))
    expected = np.zeros((6, 12, 14), np.uint8)
    expected[1:4, 2:5, 3:7] = 1
    assert np.array_equal(labels(training), expected)
    volume = read_volume(training.images / "p1")
    image = sitk.ReadImage(str(training.dataset / "imagesTr" / "p1_0000.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.voxels)
    assert np.allclose(image.GetOrigin(), volume.geometry.origin) and np.allclose(image.GetSpacing(), (2, 3, 5))


def test_a_structure_of_a_template_that_nobody_drew_is_missing(training):
    for case, drawn in {"p1": [Drawn("PTV", liver()), Drawn("Liver", [])], "p2": [Drawn("Liver", liver())]}.items():
        series(training, case)
        write_structures(training.segmentations / f"{case}.dcm", drawn)
    with pytest.raises(LabelTableError, match=r"2 of 2 segmentations lack structures: PTV \(p2\), Liver \(p1\)"):
        training.collect()


def test_a_segmentation_of_the_series_and_one_of_another_frame_of_reference(training, capsys):
    pytest.importorskip("highdicom")
    folder = series(training)
    found = np.zeros((6, 12, 14), np.uint16)
    found[2, 3:5, 6:9] = 2
    table = LabelTable.from_names({1: "spleen", 2: "liver"})
    result = Segmentation(found, table, read_volume(folder).geometry)
    result.write(training.segmentations / "p1.seg.dcm", source=folder, keep_empty=True)
    assert training.collect("--missing", "unlabelled") == 0
    assert np.array_equal(labels(training), found > 0) and training.json["labels"] == {"background": 0, "liver": 1}
    assert capsys.readouterr().err == "Warning: No segmentation has a voxel of spleen: no label for what is nowhere.\n"
    for file in folder.iterdir():
        file.unlink()
    write_series(folder, planes(shape=(12, 14)), Modality="CT", FrameOfReferenceUID="1.2.3")
    assert training.collect() == 0
    assert "have different frames of reference (FrameOfReferenceUID). They are taken as if" in capsys.readouterr().err
    series(training, "p2")
    spleen = Drawn("spleen", [rectangle(12, (-23, -19), (17, 26))])
    write_structures(training.segmentations / "p2.dcm", [Drawn("liver", liver()), spleen])
    assert training.collect() == 0  # the first one lists the spleen as empty, so nothing is missing
    assert training.json["labels"] == {"background": 0, "liver": 1, "spleen": 2}


def test_modalities(training, capsys):
    series(training, modality="MR")
    write_structures(training.segmentations / "p1.dcm", [Drawn("Liver", liver())])
    assert training.collect(channels="CT") == 0
    said = capsys.readouterr().err
    assert "The DICOM series are MR, but the channel is called CT: they will be normalised like CT." in said
    assert "Say what they are, such as --channels MR. A training that begins with a model normalises as that" in said
    series(training, "p2")
    write_structures(training.segmentations / "p2.dcm", [Drawn("Liver", liver())])
    with pytest.raises(LabelTableError, match="The DICOM series are CT and MR. Say what the images are, such as --c"):
        training.collect("--overwrite", channels="")
    series(training, "p1")
    assert training.collect("--overwrite", channels="toy") == 0
    said = capsys.readouterr().err
    assert "The DICOM series are CT, but the channel is called toy: they will not be normalised like CT." in said
    assert "If they are to be, add --channels CT." in said


def test_a_tilted_gantry_is_refused(training):
    series(training, directions=tilted(20))
    write_structures(training.segmentations / "p1.dcm", [Drawn("Liver", liver())])
    with pytest.raises(ImageError, match="has axes that are not perpendicular, as after a gantry tilt"):
        training.collect()


def test_an_incomplete_series_is_one_fault_among_others(training):
    series(training)
    (training.images / "p1" / "IM0002.dcm").unlink()
    for case in ("p1", "p2"):
        write_structures(training.segmentations / f"{case}.dcm", [Drawn("Liver", liver())])
    with pytest.raises(ClassScaleError, match="has 2 faults"):
        training.collect()
