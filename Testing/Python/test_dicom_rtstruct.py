"""RT Structure Sets: filling the contours gives back every voxel, in this test's own way and as rt-utils reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import OutputError, OutputExistsError, Segmentation
from ClassScaleSegLib.images.contours import Outlines
from ClassScaleSegLib.images.dicom.source import read_source

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("contourpy")

from dicom_phantom import ENHANCED_MR, Plane, planes, write_frames  # noqa: E402
from dicom_results import (  # noqa: E402
    OBLIQUE,
    REFERENCE,
    SAGITTAL,
    TABLE,
    TABLES,
    VOLUMES,
    labelled,
    segmented,
    series,
    written,
)

NAME = "result.rtstruct.dcm"


def inside(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return by the even-odd rule which pixels have their centre in a polygon of columns and rows, ``(n, 2)``."""
    rows, columns = np.indices(shape)
    found = np.zeros(shape, bool)
    for (x, y), (next_x, next_y) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if y != next_y:
            crossed = (y <= rows) != (next_y <= rows)
            found ^= crossed & (columns < x + (rows - y) * (next_x - x) / (next_y - y))
    return found


def pixels(points: np.ndarray, plane: Plane) -> np.ndarray:
    """Return columns and rows of points in space, ``(n, 3)``, which must lie in the plane."""
    row, column = np.reshape(np.array(plane.directions, float), (2, 3))
    position = np.array(plane.written_position(), float)
    assert np.abs((points - position) @ np.cross(row, column)).max() < 2e-3
    return np.stack([(points - position) @ row / plane.spacing[1], (points - position) @ column / plane.spacing[0]], 1)


def filled(found, volume: list[Plane], planes_of: dict) -> list[np.ndarray]:
    """Return the label map of a structure set, plane by plane; ``planes_of`` has their indices by the references."""
    labels = [np.zeros(plane.stored.shape, np.uint16) for plane in volume]
    for structure in found.ROIContourSequence:
        for contour in structure.get("ContourSequence", []):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            (reference,) = contour.ContourImageSequence
            index = planes_of[reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")]
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            assert len(points) == contour.NumberOfContourPoints >= 3
            mask = inside(pixels(points, volume[index]), volume[index].stored.shape)
            assert not labels[index][mask].any(), "islands of one structure, or two structures, overlap"
            labels[index][mask] = structure.ReferencedROINumber
    return labels


def planes_of_files(source: Path) -> dict:
    files = sorted(source.iterdir())
    return {(pydicom.dcmread(file).SOPInstanceUID, None): index for index, file in enumerate(files)}


@pytest.mark.parametrize("name", VOLUMES)
def test_filling_the_contours_gives_back_every_voxel(tmp_path, name):
    volume = VOLUMES[name]
    source = series(tmp_path, volume)
    segmented(source, TABLES["16 bit"]).write(tmp_path / NAME, source=source)
    found = pydicom.dcmread(tmp_path / NAME)
    assert found.SOPClassUID == "1.2.840.10008.5.1.4.1.1.481.3" and found.Modality == "RTSTRUCT"
    (frame,) = found.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == found.FrameOfReferenceUID == REFERENCE["FrameOfReferenceUID"]
    (study,) = frame.RTReferencedStudySequence
    (images,) = study.RTReferencedSeriesSequence
    of_files = planes_of_files(source)
    assert {(item.ReferencedSOPInstanceUID, None) for item in images.ContourImageSequence} == set(of_files)
    for labels, plane in zip(filled(found, volume, of_files), volume, strict=True):
        assert np.array_equal(labels, labelled(plane.stored, 13000))


def shapes() -> list[np.ndarray]:
    """Return slices with all that is hard to outline, each of 14 x 14 pixels."""
    full, ring, corners, nested, two_holes = (np.ones((14, 14), np.uint16) for _ in range(5))
    ring[3:9, 4:10] = 0
    corners[:] = np.indices((14, 14)).sum(0) % 2  # a chessboard
    nested[2:10, 2:12], nested[4:8, 4:10], nested[5:7, 6:8] = 0, 1, 0
    two_holes[2:4, 2:4], two_holes[4:6, 4:6], two_holes[8, 3:11], two_holes[10, 5] = 0, 0, 0, 0
    one, line = np.zeros((14, 14), np.uint16), np.zeros((14, 14), np.uint16)
    one[13, 13] = line[:, 0] = line[4, 3:9] = 1
    random = np.random.default_rng(5)
    noise = [(random.random((14, 14)) < part).astype(np.uint16) for part in (0.1, 0.3, 0.5, 0.7, 0.9)]
    return [full, ring, corners, nested, two_holes, one, line, np.zeros_like(one), *noise]


def shaped(folder: Path, **tags) -> tuple[Path, list[Plane], Segmentation]:
    stored = shapes()
    volume = planes(len(stored), (14, 14), **({"spacing": (0.7, 0.9)} | tags))
    source = series(folder, volume)
    return source, volume, Segmentation(np.stack(stored), TABLE, read_source(source).geometry)


def test_holes_islands_corners_and_edges(tmp_path):
    source, volume, ours = shaped(tmp_path, directions=OBLIQUE, step=(0, 0, 5))
    ours.write(tmp_path / NAME, source=source)
    found = pydicom.dcmread(tmp_path / NAME)
    assert np.array_equal(filled(found, volume, planes_of_files(source)), ours.labels)
    (structure,) = found.ROIContourSequence
    per_slice = [0] * len(volume)
    for contour in structure.ContourSequence:
        per_slice[planes_of_files(source)[contour.ContourImageSequence[0].ReferencedSOPInstanceUID, None]] += 1
    assert per_slice[:8] == [1, 1, 98, 2, 1, 1, 2, 0]
    assert [contour.ContourNumber for contour in structure.ContourSequence] == list(range(1, sum(per_slice) + 1))


def test_outlines_have_the_area_of_their_voxels():
    labels = np.stack(shapes())
    for outline_row, expected in ((0, 196), (1, 160), (5, 1)):
        found = [outline.points for outline in Outlines(labels, [1]).of(1) if outline.row == outline_row]
        area = sum(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2 for x, y in (part.T for part in found))
        assert area == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("library", ["matplotlib", "skimage"])
def test_other_libraries_fill_the_same_voxels(library):
    """matplotlib counts windings, skimage crossings."""
    if library == "matplotlib":
        from matplotlib.path import Path as Polygon

        centres = np.indices((14, 14))[::-1].reshape(2, -1).T

        def fill(points):
            return Polygon(points, closed=False).contains_points(centres).reshape(14, 14)
    else:
        draw = pytest.importorskip("skimage.draw")

        def fill(points):
            return draw.polygon2mask((14, 14), points[:, ::-1])

    labels = np.stack(shapes())
    found = np.zeros_like(labels)
    for outline in Outlines(labels, [1]).of(1):
        found[outline.row] += fill(outline.points)
    assert np.array_equal(found, labels)


@pytest.mark.skipif(find_spec("rt_utils") is None, reason="needs rt-utils")
def test_rt_utils_finds_each_voxel_at_its_place(tmp_path):
    """rt-utils rounds the points to pixels and fills up to the line, unlike this test's own way."""
    from rt_utils import RTStructBuilder

    for name, tags in {
        "axial": {},
        "negated": {"directions": (-1, 0, 0, 0, 1, 0)},
        "sagittal": {"directions": SAGITTAL, "step": (-1.5, 0, 0)},
    }.items():
        (tmp_path / name).mkdir()
        source, _, ours = shaped(tmp_path / name, spacing=(0.7, 0.7), **tags)  # rt-utils confuses the two spacings
        ours.labels[ours.labels == 0] = 2
        ours.write(tmp_path / name / NAME, source=source)
        theirs = RTStructBuilder.create_from(str(source), str(tmp_path / name / NAME))
        assert theirs.get_roi_names() == ["liver", "kidney_left"]
        rows = {piece.instance: row for row, piece in enumerate(read_source(source).slices)}
        expected = np.stack([ours.labels[rows[image.SOPInstanceUID]] for image in theirs.series_data], -1)
        for value, structure in ((1, "liver"), (2, "kidney_left")):
            assert np.array_equal(theirs.get_roi_mask_by_name(structure), expected == value), (name, structure)


@pytest.mark.parametrize("shared", [(), ("orientation", "measures")])
def test_contours_refer_to_the_frames_of_a_multiframe_object(tmp_path, shared):
    volume = [planes()[index] for index in (3, 0, 5, 1, 4, 2)]
    source = write_frames(tmp_path / "mr.dcm", volume, ENHANCED_MR, shared, **REFERENCE)
    segmented(source).write(tmp_path / NAME, source=source)
    instance = pydicom.dcmread(source).SOPInstanceUID
    found = pydicom.dcmread(tmp_path / NAME)
    labels = filled(found, volume, {(instance, index + 1): index for index in range(6)})
    assert all(np.array_equal(label, labelled(plane.stored)) for label, plane in zip(labels, volume, strict=True))
    (images,) = found.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in images.ContourImageSequence] == [instance]


def test_contours_longer_than_64_kib_are_whole(tmp_path):
    """One class with thousands of holes is one contour, which Explicit VR could not hold."""
    plane = Plane(np.zeros((100, 100), np.int16), (0.0, 0.0, 0.0), tags={"SliceThickness": "1"})
    source = series(tmp_path, [plane])
    labels = np.ones((1, 100, 100), np.uint16)
    labels[0, 1:-1:3, 1:-1:3] = 0
    Segmentation(labels, TABLE, read_source(source).geometry).write(tmp_path / NAME, source=source)
    found = pydicom.dcmread(tmp_path / NAME)
    (contour,) = found.ROIContourSequence[0].ContourSequence
    assert contour.NumberOfContourPoints * 3 == len(contour.ContourData) > 20_000
    points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
    assert np.array_equal(inside(pixels(points, plane), (100, 100)), labels[0] == 1)


def test_coordinates_with_more_digits_than_dicom_has_are_refused(tmp_path):
    source = series(tmp_path, planes(origin=(0, 0, 1e9), spacing=(1e-4, 1e-4)))
    known = read_source(source)
    ours = Segmentation(np.ones(known.geometry.size[::-1], np.uint16), TABLE, known.geometry)
    with pytest.raises(OutputError, match="DICOM has too few digits for contours there"):
        ours.write(tmp_path / NAME, source=source)


def test_too_many_contours_are_refused(tmp_path, monkeypatch):
    source = series(tmp_path)
    monkeypatch.setattr("ClassScaleSegLib.images.dicom.contours._MOST_BYTES", 1000)
    with pytest.raises(OutputError, match="too much for a structure set. Smooth them, choose fewer classes"):
        segmented(source).write(tmp_path / NAME, source=source)
    assert os.listdir(tmp_path) == ["series"]


def test_images_without_a_series_are_refused(tmp_path):
    import SimpleITK as sitk

    ours = segmented(series(tmp_path))
    with pytest.raises(OutputError, match="a structure set needs the DICOM series that was segmented"):
        ours.write(tmp_path / NAME)
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkInt16), str(tmp_path / "ct.nii.gz"))
    with pytest.raises(OutputError, match="ct.nii.gz is no DICOM series, so .* no patient"):
        ours.write(tmp_path / NAME, source=tmp_path / "ct.nii.gz")
    other = series(tmp_path / "other", planes(origin=(-40.0, 15.0, 7.0)))
    with pytest.raises(OutputError, match="not on the grid of .*: it has voxels up to 3 mm away"):
        ours.write(tmp_path / NAME, source=other)


def test_highdicom_is_not_needed_and_contourpy_is(tmp_path, monkeypatch):
    source = series(tmp_path)
    ours = segmented(source)
    monkeypatch.setitem(sys.modules, "highdicom", None)  # importing it fails
    ours.write(tmp_path / NAME, source=source)
    monkeypatch.setitem(sys.modules, "contourpy", None)
    with pytest.raises(OutputError, match="python -m pip install contourpy$"):
        ours.write(tmp_path / NAME, source=source, overwrite=True)


def test_an_existing_file_is_kept_unless_overwritten(tmp_path):
    ours, file, _ = written(tmp_path, NAME)
    before = file.read_bytes()
    with pytest.raises(OutputExistsError, match="already exists"):
        ours.write(file, source=tmp_path / "series")
    assert file.read_bytes() == before
    ours.write(file, overwrite=True, source=tmp_path / "series")
    assert pydicom.dcmread(file).SOPInstanceUID not in str(before)


FULL_DISK = """
import resource, signal, sys, numpy as np
from ClassScaleSegLib import LabelTable, OutputError, Segmentation
from ClassScaleSegLib.images.dicom.source import read_source
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
source = read_source(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 30, source.geometry.size[::-1]).astype(np.uint16)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    names = {value: f"class {value}" for value in range(30)}
    Segmentation(noise, LabelTable.from_names(names), source.geometry).write(sys.argv[2], source=sys.argv[1])
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes in place of filling a disk")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(series(tmp_path)), str(tmp_path / NAME)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{NAME} cannot be written (" in said and "make room" in said
    assert os.listdir(tmp_path) == ["series"]
