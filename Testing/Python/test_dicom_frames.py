"""DICOM objects with many frames: each has its place and its values, in whatever order."""

import pytest
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.images.reading import read_image

pytest.importorskip("SimpleITK")
pytest.importorskip("pydicom")

from dicom_phantom import ENHANCED_MR, but, compare, planes, tilted, without, write_frames  # noqa: E402


@pytest.mark.parametrize("sop", ["1.2.840.10008.5.1.4.1.1.2.1", ENHANCED_MR, "1.2.840.10008.5.1.4.1.1.2.2"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5]])
@pytest.mark.parametrize("shared", [["orientation", "measures", "rescale"], []])
def test_frames_are_sorted_by_position(tmp_path, sop, order, shared):
    volume = planes(slope=2.0, intercept=-3.0)
    file = write_frames(tmp_path / "ct" / "frames.dcm", [volume[k] for k in order], sop, shared)
    for source in (file, file.parent):
        assert compare(read_image(source, 1), volume) < 1e-9


def test_frames_with_values_of_their_own(tmp_path):
    volume = [but([plane], 0, slope=1.0 + k, intercept=float(-k))[0] for k, plane in enumerate(planes())]
    read = read_image(write_frames(tmp_path / "frames.dcm", volume, shared=["orientation", "measures"]), 1)
    assert compare(read, volume) < 1e-9
    read = read_image(write_frames(tmp_path / "odd.dcm", volume, "1.2.840.10008.5.1.4.1.1.7.2"), 1)
    assert compare(read, volume) < 1e-9


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (without(planes(20), 8, 9, 10), "some are missing, such as between frame 8 of"),
        (planes(3) + planes(3, seed=1), "frame 1 of .* and frame 4 of .* are at the same place"),
        (but(planes(), 2, directions=tilted(3)), "frame 3 of f.dcm. have another orientation"),
        (but(planes(), 2, tags={"ImagePositionPatient": None}), "1 of 6 slices have no position"),
        (planes(directions=tilted(10)), None),
    ],
    ids=["gap", "twice", "turned", "no position", "tilt"],
)
def test_frames_are_checked_like_slices(tmp_path, volume, message):
    file = write_frames(tmp_path / "f.dcm", volume)
    if message is None:
        assert compare(read_image(file, 1), volume) < 1e-6
        return
    with pytest.raises(ImageError, match=message):
        read_image(file, 1)


def test_an_object_that_describes_fewer_frames_than_it_has(tmp_path):
    file = write_frames(tmp_path / "f.dcm", planes(), NumberOfFrames=5)
    with pytest.raises(ImageError, match="declares 5 frames and describes 6"):
        read_image(file, 1)


@pytest.mark.parametrize("sop", ["1.2.840.10008.5.1.4.1.1.2.1", ENHANCED_MR])
@pytest.mark.parametrize("shared", [["orientation", "measures", "rescale"], []])
def test_enhanced_objects_of_one_frame_each(tmp_path, sop, shared):
    volume = planes(slope=2.0, intercept=-1024.0)
    for number, plane in enumerate(volume):
        write_frames(tmp_path / "ct" / f"{number}.dcm", [plane], sop, shared, SeriesInstanceUID="1.2.3")
    assert compare(read_image(tmp_path / "ct", 1), volume) < 1e-9
