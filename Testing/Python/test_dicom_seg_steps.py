"""DICOM segmentations that leave out slices, and do not say how far apart slices are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import DicomSeg, Geometry, ImageError, LabelTable, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images.paired_reading import read_segmentation

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")

from dicom_phantom import planes  # noqa: E402
from dicom_results import series  # noqa: E402

COUNT, TABLE = 16, LabelTable.from_names({1: "liver"})


def sparse(folder: Path, rows: list[int], thickness: str | None, images: int | None = None, step: float = 1.0):
    """Write a segmentation of some rows of a series, without SpacingBetweenSlices; return it, its file and the series.

    :param images: how many images of the series it refers to; all by default.
    """
    source = series(folder, planes(COUNT, step=(0, 0, step)))
    labels = np.zeros((COUNT, 5, 4), np.uint16)
    labels[rows, 1:4, 1:3] = 1
    ours = Segmentation(labels, TABLE, Geometry((4, 5, COUNT), (2.0, 3.0, step), (-40.0, 12.0, 7.0)))
    ours.write(folder / "a.seg.dcm", overwrite=True, source=DicomSeg(source, "binary"))
    found = pydicom.dcmread(folder / "a.seg.dcm")
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    del measures.SpacingBetweenSlices
    measures.SliceThickness = thickness
    referred = found.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    found.ReferencedSeriesSequence[0].ReferencedInstanceSequence = list(referred)[:images]
    found.save_as(folder / "a.seg.dcm")
    return ours, folder / "a.seg.dcm", source


def compared(capsys, *arguments) -> tuple[float, float, list[str]]:
    """Return the Dice of the liver, its volume in the first file, mL, and what is said."""
    assert main(["compare", *map(str, arguments), "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    ((row,),) = facts["cases"].values()
    return row["dice"], row["volume_ml"], [text for said in facts["notices"].values() for text in said]


@pytest.mark.parametrize("thickness", ["3", "1"])
@pytest.mark.parametrize("rows", [[1, 4, 7, 10, 13], [1, 4, 10, 13], [0, 15]])
def test_other_segmentations_and_images_tell_the_distance_of_slices(tmp_path, capsys, rows, thickness):
    ours, file, source = sparse(tmp_path, rows, thickness, images=len(rows))
    ours.write(tmp_path / "same.seg.nrrd")
    ours.write(tmp_path / "same.seg.dcm", source=source)
    volume = 36 * len(rows) / 1000
    unknown, said, beside = "It does not say how far apart its slices are (SpacingBetweenSlices).", [], []
    if rows != [0, 15] and thickness == "3":  # frames of 3 mm that are 3 mm apart may be those of another series
        said = [
            f"{file}: Its frames are 3 mm apart, or a multiple of it, and as thick, so they may touch. As they lie in "
            f"slices that are 1 mm apart in the image, it is taken to have empty slices between. {unknown}"
        ]
    if thickness == "3":
        beside = [
            f"{file}: Its frames are 3 mm thick, and as far apart or a multiple of it, so they are taken to touch, "
            f"although slices are 1 mm apart in the other segmentation. {unknown} Name the image on which it was drawn "
            "(--grid)."
        ]
    for other in ("same.seg.nrrd", "same.seg.dcm"):
        if beside:
            assert compared(capsys, file, tmp_path / other)[1:] == (pytest.approx(3 * volume), beside)
            assert compared(capsys, tmp_path / other, file)[1:] == (pytest.approx(volume), beside)
        else:
            assert compared(capsys, file, tmp_path / other) == (1, pytest.approx(volume), [])
            assert compared(capsys, tmp_path / other, file) == (1, pytest.approx(volume), [])
    assert compared(capsys, file, file, "--grid", source) == (1, pytest.approx(volume), said)
    assert compared(capsys, file, tmp_path / "same.seg.nrrd", "--grid", source) == (1, pytest.approx(volume), said)
    read, notices = read_segmentation(file, source)
    assert list(notices) == said and read.geometry.spacing == (2, 3, 1) and (read.labels > 0).sum() == 6 * len(rows)


def test_thick_slices_are_compared_with_a_finer_drawing_of_the_same(tmp_path, capsys):
    ours, file, _ = sparse(tmp_path, [2, 3, 4, 5, 6], thickness="5", step=5)
    fine = np.zeros((5 * COUNT, 5, 4), np.uint16)
    fine[10:35, 1:4, 1:3] = 1  # the slices of 1 mm in those of 5 mm
    place = replace(ours.geometry, size=(4, 5, 5 * COUNT), spacing=(2.0, 3.0, 1.0), origin=(-40.0, 12.0, 5.0))
    Segmentation(fine, TABLE, place).write(tmp_path / "fine.seg.nrrd")
    dice, volume, (said,) = compared(capsys, file, tmp_path / "fine.seg.nrrd")
    assert (dice, volume) == pytest.approx((1, 25 * 36 / 1000))
    assert "Its frames are 5 mm thick, and as far apart" in said


def test_gaps_that_slices_of_the_thickness_fill_are_of_slices_without_a_segment(tmp_path, capsys):
    ours, file, _ = sparse(tmp_path, [1, 3, 6, 12], thickness="1")
    found = Segmentation.from_image(file)
    assert np.array_equal(found.labels, ours.labels[1:13]) and found.geometry.spacing == (2, 3, 1)
    assert compared(capsys, file, file)[2] == []


def test_a_guess_is_told(tmp_path, capsys):
    ours, file, _ = sparse(tmp_path, [1, 4, 7, 13], thickness="1")
    _, volume, (first,) = compared(capsys, file, file)
    assert volume == pytest.approx(0.144)  # the series has as many images as touch
    assert first == (
        f"{file}: Its frames are 3 mm apart, or a multiple of it, and 1 mm thick. As it refers to 16 images, it is "
        "taken to have empty slices between. It does not say how far apart its slices are (SpacingBetweenSlices). Name "
        "the image on which it was drawn (--grid)."
    )
    _, file, _ = sparse(tmp_path, [1, 4, 7, 13], thickness="1", images=6)
    _, volume, (first,) = compared(capsys, file, file)
    assert volume == pytest.approx(3 * 0.144)
    assert "3 mm apart, or a multiple of it, and 1 mm thick. It is taken to have no slices between." in first
    for rows, thickness, distance in (([1, 4, 7], None, "3 mm"), ([1, 3, 6], "0.7", "1 mm"), ([1, 6, 11], "2", "5 mm")):
        _, file, _ = sparse(tmp_path, rows, thickness)
        notice = compared(capsys, file, file)[2][0]
        assert f"Its frames are {distance} apart, or a multiple of it. It is taken to have no slices between." in notice


def test_slices_that_nearly_touch_or_overlap_are_no_guess(tmp_path, capsys):
    for thickness in ("4", "5", "8"):
        ours, file, _ = sparse(tmp_path, [1, 2, 3, 5], thickness, step=5)
        assert compared(capsys, file, file)[2] == []
        assert Segmentation.from_image(file).geometry.spacing == (2, 3, 5)


def test_the_image_counts_only_if_the_frames_lie_in_its_slices(tmp_path, capsys):
    ours, file, _ = sparse(tmp_path, [1, 4, 7], thickness="3")
    shifted = replace(ours.geometry, origin=(-40.0, 12.0, 7.5))
    Segmentation(ours.labels, TABLE, shifted).write(tmp_path / "shifted.seg.nrrd")
    assert compared(capsys, file, tmp_path / "shifted.seg.nrrd")[1] == pytest.approx(3 * 0.108)
    sagittal = replace(ours.geometry, direction=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    Segmentation(ours.labels, TABLE, sagittal).write(tmp_path / "sagittal.seg.nrrd")
    assert compared(capsys, file, tmp_path / "sagittal.seg.nrrd")[1] == pytest.approx(3 * 0.108)


def test_gaps_that_nothing_explains_are_refused(tmp_path):
    _, file, _ = sparse(tmp_path, [1, 2, 3, 4], thickness="0.35")
    found = pydicom.dcmread(file)
    place = found.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    place.ImagePositionPatient = [-40, 12, 11.618]
    found.save_as(file)
    with pytest.raises(ImageError, match=r"a.seg.dcm.*1.00 to 1.62 mm apart: some are missing"):
        Segmentation.from_image(file)


@pytest.mark.parametrize("says_distance", [True, False])
@pytest.mark.parametrize("rows", [[*range(1, 15)], [1, 2, 3, 8, 9, 10, 13, 14]])
@pytest.mark.parametrize("step", [0.3125, 0.625, 0.9765625, 1.25])
@pytest.mark.parametrize("digits", ["{:.1f}", "{:.1f}00000"])
def test_places_that_are_rounded_to_a_tenth_of_a_millimetre_are_read(tmp_path, step, rows, says_distance, digits):
    ours, file, _ = sparse(tmp_path, rows, None, step=step)
    found = pydicom.dcmread(file)
    for group in found.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [digits.format(x) for x in place.ImagePositionPatient]
    if says_distance:
        found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = step
    found.save_as(file)
    read = Segmentation.from_image(file)
    assert np.array_equal(read.labels, ours.labels[1:15])
    assert abs(read.geometry.spacing[2] - step) * 13 < 0.1 and read.geometry.origin[2] == pytest.approx(
        7 + step, abs=0.1
    )
    assert read.notices[-1].startswith(f"{file}: The places of the slices are rounded: up to 0.0")
    assert len(read.notices) == 1 if says_distance else "apart, or a multiple of it" in read.notices[0]


def test_places_that_are_rounded_to_more_than_that_are_refused(tmp_path):
    _, file, _ = sparse(tmp_path, [*range(1, 15)], "2.5", step=2.5)
    found = pydicom.dcmread(file)
    for group in found.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [f"{x:.0f}" for x in place.ImagePositionPatient]
    found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 2.5
    found.save_as(file)
    with pytest.raises(ImageError, match="a.seg.dcm.*They are up to 0.54 mm away from equal steps"):
        Segmentation.from_image(file)
