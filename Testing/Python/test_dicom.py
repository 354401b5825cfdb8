"""DICOM: a volume has the values and the places that its headers state, or a sentence says why there is none."""

import os

import numpy as np
import pytest
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images.reading import read_image

pytest.importorskip("SimpleITK")
pydicom = pytest.importorskip("pydicom")

from dicom_phantom import (  # noqa: E402
    MR,
    SECONDARY_CAPTURE,
    but,
    compare,
    localizer,
    planes,
    tilted,
    without,
    write_frames,
    write_series,
    write_structure_set,
)

SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.9393727128, 0.3428978075, 0.0, -0.3360623883, 0.9206473254, -0.1986693308)


def test_a_plain_series(tmp_path):
    volume = planes()
    read = read_image(write_series(tmp_path / "ct", volume), 1)
    assert compare(read, volume) < 1e-9 and read.voxels.dtype == np.int16 and read.notices == ()
    assert read.spacing == pytest.approx((5, 3, 2))


@pytest.mark.parametrize(
    "volume",
    [
        planes(step=(0, 0, -5)),
        planes(step=(0, 0, 5), directions=(-1, 0, 0, 0, 1, 0)),
        planes(step=(-1.5, 0, 0), directions=SAGITTAL),
        planes(step=np.multiply(5, np.cross(OBLIQUE[:3], OBLIQUE[3:])).tolist(), directions=OBLIQUE),
        planes(step=np.multiply(-0.7, np.cross(OBLIQUE[:3], OBLIQUE[3:])).tolist(), directions=OBLIQUE),
    ],
    ids=["descending", "mirrored rows", "sagittal", "oblique", "oblique descending"],
)
def test_any_orientation(tmp_path, volume):
    read = read_image(write_series(tmp_path / "series", volume), 1)
    assert compare(read, volume) < 1e-5  # ten digits were written
    assert read.geometry.shear < 1e-5


@pytest.mark.parametrize("spacing", ["-5", "1", "7.5", None])
def test_the_positions_tell_the_distance_not_the_header(tmp_path, spacing):
    volume = planes()
    tags = {"SpacingBetweenSlices": spacing, "SliceThickness": "2", "Modality": "MR", "SOPClassUID": MR}
    assert compare(read_image(write_series(tmp_path / "mr", volume, **tags), 1), volume) < 1e-9


def test_a_distance_of_0_that_itk_refuses_is_a_sentence(tmp_path):
    with pytest.raises(ImageError, match="pixels cannot be read .*spacing"):
        read_image(write_series(tmp_path / "mr", planes(), SpacingBetweenSlices="0", Modality="MR", SOPClassUID=MR), 1)


# --- gantry tilt: steps that are not perpendicular to the slices


@pytest.mark.parametrize("degrees", [0.5, 1, -7.5, 15, 30])
def test_the_geometry_of_a_tilted_gantry_is_kept(tmp_path, degrees):
    volume = planes(20, directions=tilted(degrees))
    read = read_image(write_series(tmp_path / "tilt", volume, GantryDetectorTilt=str(degrees)), 1)
    assert compare(read, volume) < 1e-6
    assert read.geometry.shear > 0.1 and f"tilted by {abs(degrees)} degrees" in read.notices[0].replace(".0 ", " ")


def test_a_shear_that_only_the_positions_tell(tmp_path):
    volume = planes(step=(0.8, 0, 5))
    assert compare(read_image(write_series(tmp_path / "shear", volume), 1), volume) < 1e-9
    volume = planes(step=(20, 0, 5))
    with pytest.raises(ImageError, match="76 degrees from their normal"):
        read_image(write_series(tmp_path / "steep", volume), 1)


def test_a_tilted_gantry_goes_through_orientation_and_output(tmp_path):
    import SimpleITK as sitk
    from ClassScaleSegLib import LabelTable, OutputError, Segmentation

    volume = planes(20, directions=tilted(15))
    read = read_image(write_series(tmp_path / "tilt", volume), 1, "RAS")
    labels = read.restore(np.ascontiguousarray((read.voxels[0] > 500).astype(np.uint16)))
    result = Segmentation(labels, LabelTable.from_names({1: "bright"}), read.geometry)
    for name in ("out.seg.nrrd", "out.nrrd", "out.mha"):
        result.write(tmp_path / name, overwrite=True)  # the colour table of images has one name
        again = Segmentation.from_image(sitk.ReadImage(str(tmp_path / name)))
        assert again.geometry.distance(read.geometry) < 1e-3 and np.array_equal(again.labels, labels)
    with pytest.raises(OutputError, match="tilted .gantry tilt., which NIfTI.*Write .seg.nrrd"):
        result.write(tmp_path / "out.nii.gz", overwrite=True)
    assert not list(tmp_path.glob("out.nii*"))


# --- distances


@pytest.mark.parametrize(
    ("volume", "where"), [(without(planes(20), 10), "IM0009.dcm"), (without(planes(4), 1), "IM0000")]
)
def test_a_missing_slice_is_named(tmp_path, volume, where):
    with pytest.raises(ImageError, match=f"5.00 to 10.00 mm apart: some are missing, such as between {where}"):
        read_image(write_series(tmp_path / "ct", volume), 1)


@pytest.mark.parametrize("zeros", [0, 5])
@pytest.mark.parametrize(("distance", "decimals"), [(0.625, 1), (0.3125, 1), (0.3125, 2), (1.25, 1), (0.9765625, 3)])
def test_positions_that_are_rounded(tmp_path, distance, decimals, zeros):
    volume = planes(40, step=(0, 0, distance), decimals=decimals)
    folder = write_series(tmp_path / "ct", volume)
    for file in folder.iterdir() if zeros else ():
        found = pydicom.dcmread(file)
        found.ImagePositionPatient = [f"{text.original_string}{'0' * zeros}" for text in found.ImagePositionPatient]
        found.save_as(file)
    read = read_image(folder, 1)
    assert compare(read, volume) <= 0.5 * 10.0**-decimals
    assert ("The places of the slices are rounded" in " ".join(read.notices)) == (decimals == 1)
    assert read.spacing[0] == pytest.approx(distance, abs=0.002)


@pytest.mark.parametrize("moved", [(0, 0, 0.5), (0.5, 0, 0), (0, -3, 0), (0, 0, 2.4)])
def test_one_slice_out_of_its_place_is_refused(tmp_path, moved):
    volume = planes(10)
    volume = but(volume, 4, position=np.add(volume[4].position, moved).tolist())
    with pytest.raises(ImageError, match="mm away from equal steps"):
        read_image(write_series(tmp_path / "ct", volume), 1)


def test_several_volumes_in_one_series(tmp_path):
    folder = write_series(tmp_path / "mr", planes(), "1.2.3", EchoNumbers="1")
    write_series(folder, planes(seed=1), "1.2.3", "second{:04}.dcm", EchoNumbers="2")
    with pytest.raises(ImageError, match="IM0000.dcm and second0000.dcm are at the same place.*differ in EchoNumbers"):
        read_image(folder, 1)


def test_the_same_objects_twice_count_once(tmp_path):
    volume = planes()
    folder = write_series(tmp_path / "ct", volume)
    for file in list(folder.iterdir())[:2]:
        (folder / f"copy of {file.name}").write_bytes(file.read_bytes())
    read = read_image(folder, 1)
    assert compare(read, volume) < 1e-9 and "left out: the same slices are there twice" in read.notices[0]


def test_several_frames_of_reference_get_a_word(tmp_path):
    volume = planes()
    folder = write_series(tmp_path / "ct", volume[:4], "1.2.3", FrameOfReferenceUID="1.2.4")
    write_series(folder, volume[4:], "1.2.3", "later {}.dcm", FrameOfReferenceUID="1.2.5")
    read = read_image(folder, 1)
    assert compare(read, volume) < 1e-9 and len(read.notices) == 1
    assert "Its slices have 2 frames of reference (FrameOfReferenceUID)" in read.notices[0]


# --- what is missing, or not alike


@pytest.mark.parametrize("index", [0, 3, None])
@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_slices_without_a_place_are_refused(tmp_path, keyword, index):
    volume = planes(tags={keyword: None}) if index is None else but(planes(), index, tags={keyword: None})
    tags = {"SOPClassUID": SECONDARY_CAPTURE, "SliceThickness": "5", "SpacingBetweenSlices": "5"}
    count = 6 if index is None else 1
    with pytest.raises(ImageError, match=rf"{count} of 6 slices have no .*{keyword}.*IM000{index or 0}.dcm"):
        read_image(write_series(tmp_path / "ct", volume, **tags, SliceLocation="5"), 1)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"stored": np.zeros((5, 6), np.int16)}, "size"),
        ({"directions": tilted(0.1)}, "orientation"),
        ({"directions": SAGITTAL}, "orientation"),
        ({"spacing": (3, 2.01)}, "pixel spacing"),
    ],
)
@pytest.mark.parametrize("index", [0, 4])
def test_an_odd_slice_is_named(tmp_path, changes, what, index):
    with pytest.raises(ImageError, match=rf"1 of 6 slices .IM000{index}.dcm. have another {what} than the others"):
        read_image(write_series(tmp_path / "ct", but(planes(), index, **changes)), 1)


def test_slices_around_an_axis_are_no_volume(tmp_path):
    radial = [
        but(planes(1), 0, directions=(np.cos(a), np.sin(a), 0, 0, 0, -1), position=(-9 * np.cos(a), -9 * np.sin(a), 0))[
            0
        ]
        for a in np.deg2rad([0, 15, 30, 45])
    ]
    with pytest.raises(ImageError, match="have another orientation"):
        read_image(write_series(tmp_path / "mr", radial), 1)


@pytest.mark.parametrize(
    "scout", [localizer(), localizer((9, 7)), localizer(directions=(1, 0, 0, 0, 1, 0))], ids=["across", "size", "alike"]
)
def test_a_localizer_in_the_series_is_left_out_with_a_word(tmp_path, scout):
    folder = write_series(tmp_path / "ct", planes(), "1.2.3")
    write_series(folder, [scout], "1.2.3", "a scout.dcm")
    read = read_image(folder, 1)
    assert compare(read, planes()) < 1e-9
    assert read.notices == (f"{folder}: a scout.dcm left out: the header calls it a localizer.",)


def test_a_folder_of_localizers_alone_is_refused(tmp_path, capsys):
    folder, out = tmp_path / "scouts", tmp_path / "o.seg.nrrd"
    write_series(folder, planes(tags=localizer().tags), SeriesDescription="Scout")  # parallel, at equal steps
    said = r"scouts has no volume to segment, only series 'Scout' .* \(.*, 6 images\): it is a localizer\."
    with pytest.raises(ImageError, match=said):
        read_image(folder, 1)
    write_series(folder, [localizer()], name="other.dcm", SeriesDescription="Topogram")
    assert main(["segment", str(folder), "-m", "toy-120", "-o", str(out)]) == ExitCode.IMAGE
    error = capsys.readouterr().err
    assert "'Scout'" in error and "'Topogram'" in error and "localizer. Give the folder with the slices" in error
    assert not out.exists()


def test_a_localizer_that_is_named_by_itself_is_told(tmp_path):
    folder = write_series(tmp_path / "scouts", [localizer()])
    volume = planes(tags=localizer().tags)
    frames = write_frames(tmp_path / "frames.dcm", volume, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (file,) = folder.iterdir()
    said = "The header calls it a localizer, of which a folder would be refused. It is segmented as named."
    assert read_image(file, 1, flat=True).notices == (f"{file}: {said}",)
    assert (read := read_image(frames, 1)).notices == (f"{frames}: {said}",) and compare(read, volume) < 1e-9
    with pytest.raises(ImageError, match="is one slice .* calls it a localizer, which is no volume: name the folder"):
        read_image(file, 1)


@pytest.mark.parametrize("flat", [True, False])
def test_what_accompanies_images_is_refused_also_by_itself(tmp_path, flat):
    write_series(tmp_path / "dose", planes(1), Modality="RTDOSE")
    for file in (tmp_path / "dose" / "IM0000.dcm", write_frames(tmp_path / "a.dcm", planes(), Modality="RTDOSE")):
        with pytest.raises(ImageError, match=r"dcm accompanies images and is none \(Modality RTDOSE\)"):
            read_image(file, 1, flat=flat)
    write_structure_set(tmp_path / "RS.dcm")
    with pytest.raises(ImageError, match="is a DICOM file without an image"):
        read_image(tmp_path / "RS.dcm", 1, flat=flat)


def test_what_accompanies_a_series_is_left_out(tmp_path):
    folder = write_series(tmp_path / "ct", planes())
    write_structure_set(folder / "RS.dcm")
    (folder / "notes.txt").write_text("no image")
    (folder / "empty").touch()
    assert read_image(folder, 1).notices == ()
    write_series(folder, [localizer()], name="scout.dcm", SeriesDescription="Scout")
    write_series(folder, planes(1), name="seg.dcm", Modality="SEG")
    read = read_image(folder, 1)
    assert compare(read, planes()) < 1e-9
    assert [text.split("(")[1][:2] for text in read.notices] == ["SE", "CT"] and "'Scout'" in read.notices[1]


def test_hidden_files_which_a_killed_process_left_are_passed_over(tmp_path):
    series = write_series(tmp_path / "series", volume := planes())
    first = min(series.iterdir()).read_bytes()
    (series / ".0123456789ab.dcm").write_bytes(first)
    (series / ".ba9876543210.dcm").write_bytes(first[:-30])
    assert compare(read := read_image(series, 1), volume) < 1e-9 and read.notices == ()


def test_two_series_are_refused_and_a_folder_above_is_told_where(tmp_path):
    folder = write_series(tmp_path / "cd" / "DICOM" / "SE0", planes(), name="IM{}", SeriesDescription="Thorax")
    with pytest.raises(ImageError, match="has no DICOM series. Give the folder with the slices, such as .*SE0"):
        read_image(tmp_path / "cd", 1)
    write_series(folder, planes(3), name="other{}")
    with pytest.raises(ImageError, match="has 2 DICOM series: series 'Thorax' .* .CT, 6 images.; series .* 3 images"):
        read_image(folder, 1)


def test_one_slice_of_a_series_is_recognised(tmp_path):
    folder = write_series(tmp_path / "ct", planes())
    for files in (folder / "IM0003.dcm", [folder / "IM0003.dcm"]):
        with pytest.raises(ImageError, match="one slice of a DICOM series. Name the folder"):
            read_image(files, 1)
    assert read_image(folder / "IM0003.dcm", 1, flat=True).voxels.shape == (1, 1, 5, 4)  # a 2D model wants it
    write_structure_set(tmp_path / "RS.dcm")
    with pytest.raises(ImageError, match="is a DICOM file without an image"):
        read_image(tmp_path / "RS.dcm", 1)


def test_a_folder_with_a_single_slice(tmp_path):
    folder = write_series(tmp_path / "ct", planes(1), SliceThickness="2.5")
    read = read_image(folder, 1)
    assert read.spacing == (2.5, 3, 2) and "only one slice" in read.notices[0]
    with pytest.raises(ImageError, match="single slice without a thickness"):
        read_image(write_series(tmp_path / "thin", planes(1)), 1)


# --- damaged headers and files


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"RescaleSlope": "0"}, "RescaleSlope is 0"),
        ({"ModalityLUTSequence": ["LUT"]}, "lookup table"),
        ({"ImagePositionPatient": ["1", "2"]}, r"ImagePositionPatient must be 3 number\(s\), not '1 2'"),
        ({"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, "is not two perpendicular directions"),
        ({"PixelSpacing": ["0", "2"]}, "not positive along every axis"),
        ({"PixelSpacing": ["1e30", "2"]}, r"has spacing .*1e\+30.* mm; from 1e-07 to 100000 mm are possible"),
        ({"PixelSpacing": ["1e-300", "2"]}, "has spacing .*; from 1e-07 to 100000 mm are possible"),
    ],
)
def test_a_damaged_header_is_a_sentence(tmp_path, tags, message):
    if "ModalityLUTSequence" in tags:
        from pydicom.dataset import Dataset

        tags = {"ModalityLUTSequence": [Dataset()]}
    with pytest.raises(ImageError, match=message):
        read_image(write_series(tmp_path / "ct", planes(), **tags), 1)


def test_damaged_files_are_a_sentence(tmp_path):
    folder = write_series(tmp_path / "ct", planes(shape=(64, 64)))
    whole = (folder / "IM0002.dcm").read_bytes()
    for length in (len(whole) - 1000, 600, 300, 140):
        (folder / "IM0002.dcm").write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"cannot be read|damaged|missing|without"):
            read_image(folder, 1)


def test_colours_and_files_without_a_preamble(tmp_path):
    folder = write_series(tmp_path / "rgb", planes(shape=(5, 12)), SamplesPerPixel=3)
    with pytest.raises(ImageError, match="has colours"):
        read_image(folder, 1)
    folder = write_series(tmp_path / "bare", planes())
    for file in folder.iterdir():
        content = file.read_bytes()
        meta = 132 + 12 + int.from_bytes(content[140:144], "little")
        file.write_bytes(content[meta:])
    try:
        read = read_image(folder, 1)
    except ImageError as error:  # ITK needs the preamble; then it is a sentence
        assert "cannot be read" in str(error) or "no DICOM series" in str(error)
    else:
        assert compare(read, planes()) < 1e-9


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all files"
)
def test_a_file_that_may_not_be_read(tmp_path):
    folder = write_series(tmp_path / "ct", planes())
    (folder / "IM0002.dcm").chmod(0)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(folder, 1)


def test_a_link_without_a_target_is_not_a_missing_slice(tmp_path):
    folder = write_series(tmp_path / "ct", planes())
    (folder / "IM0005.dcm").unlink()
    (folder / "IM0005.dcm").symlink_to(tmp_path / "not fetched")
    with pytest.raises(ImageError, match="IM0005.dcm is a link whose target is missing"):
        read_image(folder, 1)


def test_a_tilted_image_is_refused_for_nifti_before_the_computation(tmp_path, write_model, capsys):
    from ClassScaleSegLib.commands.main import main

    folder = write_series(tmp_path / "tilt", planes(20, (12, 14), directions=tilted(15)))
    options = ["-m", str(write_model()), "--device", "cpu", "--no-mirroring", "--json-progress"]
    assert main(["segment", str(folder), "-o", str(tmp_path / "out.nii.gz"), *options]) == 5
    said = capsys.readouterr().out
    assert "which NIfTI files" in said and '"preprocess"' not in said and not (tmp_path / "out.nii.gz").exists()
    assert main(["segment", str(folder), "-o", str(tmp_path / "out.seg.nrrd"), *options]) == 0
    assert "tilted by 15.0 degrees" in capsys.readouterr().out


# --- found by reading the code again


def test_slices_that_share_one_identifier_are_not_copies(tmp_path):
    volume = planes()
    read = read_image(write_series(tmp_path / "anonymised", volume, SOPInstanceUID="1.2.3.4.5"), 1)
    assert compare(read, volume) < 1e-9 and read.notices == ()


def test_a_report_and_an_x_ray_beside_a_series_do_not_matter(tmp_path):
    from pydicom.dataset import Dataset

    folder = write_series(tmp_path / "ct", planes())
    place = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    write_series(folder, planes(1), name="dose.dcm", SOPClassUID=SECONDARY_CAPTURE, **place)
    write_series(folder, planes(1), name="cr.dcm", Modality="CR", ModalityLUTSequence=[Dataset()], **place)
    write_series(folder, planes(1), name="clip.dcm", Modality="US", NumberOfFrames=200_000)
    read = read_image(folder, 1)
    assert compare(read, planes()) < 1e-9 and len(read.notices) == 3


def test_a_mosaic_is_refused(tmp_path):
    folder = write_series(
        tmp_path / "mr", planes(1), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], SliceThickness="3"
    )
    with pytest.raises(ImageError, match="is a mosaic"):
        read_image(folder, 1)


def test_a_folder_with_a_series_and_an_image_file_is_not_guessed_at(tmp_path):
    from ClassScaleSegLib.commands.cases import find_cases

    folder = write_series(tmp_path / "ct", planes())
    (folder / "old.nii.gz").write_bytes(b"x")
    with pytest.raises(ImageError, match="holds image files and DICOM files"):
        find_cases([folder], 1, tmp_path, ".seg.nrrd")


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_slices_of_one_row_or_column(tmp_path, shape, slope):
    """ITK stacks slices of one row along another axis."""
    volume = planes(6, shape=shape, slope=slope)
    assert compare(read_image(write_series(tmp_path / "series", volume), 1), volume) < 1e-6
    descending = planes(6, shape=shape, step=(0, 0, -5), slope=slope)
    assert compare(read_image(write_series(tmp_path / "descending", descending), 1), descending) < 1e-6
