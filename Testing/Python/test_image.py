"""Reading images: channels, DICOM, orientation, and everything that can be wrong with a file."""

import gzip
import os
import struct

import numpy as np
import pytest
from ClassScaleSegLib import ImageError, Segmentation
from ClassScaleSegLib.images.image_file import read_grid
from ClassScaleSegLib.images.nifti import check_nifti
from ClassScaleSegLib.images.reading import read_image

sitk = pytest.importorskip("SimpleITK")


def volume(dtype=np.int16, size=(20, 30, 40), **geometry):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 3000, size).astype(dtype))
    image.SetSpacing(geometry.get("spacing", (1.0, 2.0, 3.0)))
    image.SetOrigin(geometry.get("origin", (-7.0, 5.0, 11.0)))
    image.SetDirection(geometry.get("direction", (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    return image


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_file_is_read_as_nnunet_reads_it(tmp_path, suffix):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    file = tmp_path / f"ct{suffix}"
    sitk.WriteImage(volume(), str(file))
    read, (expected, properties) = read_image(file, 1), SimpleITKIO().read_images([str(file)])
    assert np.array_equal(read.voxels, expected) and read.voxels.dtype == np.int16  # no copy in float32 yet
    assert read.spacing == pytest.approx(properties["spacing"])
    assert read.geometry.size == (40, 30, 20)


def test_channels_come_from_files_or_components(tmp_path):
    for channel in range(2):
        sitk.WriteImage(volume(np.float32) + channel, str(tmp_path / f"mr_{channel:04}.nrrd"))
    files = [tmp_path / "mr_0000.nrrd", tmp_path / "mr_0001.nrrd"]
    read = read_image(files, 2)
    assert read.voxels.shape == (2, 20, 30, 40) and np.allclose(read.voxels[1] - read.voxels[0], 1)
    together = sitk.Compose([sitk.ReadImage(str(file)) for file in files])
    assert np.array_equal(read_image(together, 2).voxels, read.voxels)
    with pytest.raises(ImageError, match="the model needs 1 channel.s.. Give one file for each channel"):
        read_image(files, 1)
    series = sitk.JoinSeries([sitk.ReadImage(str(file)) for file in files])
    assert np.array_equal(read_image(series, 2).voxels, read.voxels)  # 4D, as nnU-Net's reader takes it
    sitk.WriteImage(volume(np.float32, origin=(0, 0, 0)), str(files[1]))
    with pytest.raises(ImageError, match="the channels have different grids"):
        read_image(files, 2)


@pytest.fixture
def series(tmp_path):
    def write(folder="dicom", gaps=None, uid="1.2.3.4"):
        (tmp_path / folder).mkdir(exist_ok=True)
        image = volume(size=(6, 16, 12), spacing=(0.7, 0.7, 2.5))
        for z in range(image.GetDepth()):
            slice_ = image[:, :, z]
            place = (-7, 5, 11 + (gaps[z] if gaps else 2.5 * z))
            tags = {"0020|000e": uid, "0020|000d": "1.2.3", "0008|0060": "CT", "0020|0013": str(z)}
            tags |= {"0020|0032": "\\".join(map(str, place)), "0020|0037": "1\\0\\0\\0\\1\\0"}
            for tag, value in tags.items():
                slice_.SetMetaData(tag, value)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(tmp_path / folder / f"{uid}-{z}.dcm"))
            writer.Execute(slice_)
        return tmp_path / folder, image

    return write


def test_a_dicom_folder_is_one_image(series):
    folder, image = series()
    read = read_image(folder, 1)
    assert np.array_equal(read.voxels[0], sitk.GetArrayFromImage(image))
    assert read.spacing == pytest.approx((2.5, 0.7, 0.7))


def test_dicom_with_missing_slices_or_two_series_is_refused(series, tmp_path):
    folder, _ = series("gap", gaps=[0, 2.5, 5, 10, 12.5, 15])
    with pytest.raises(ImageError, match="2.50 to 5.00 mm apart: some are missing"):
        read_image(folder, 1)
    series("two", uid="1.2.3.4")
    folder, _ = series("two", uid="1.2.3.5")
    with pytest.raises(ImageError, match="has 2 DICOM series: .*1.2.3.4 .CT, 6 images."):
        read_image(folder, 1)
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageError, match="has no DICOM series"):
        read_image(tmp_path / "none", 1)


OBLIQUE = (0.8, 0.6, 0, -0.6, 0.8, 0, 0, 0, -1)


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, -1, 1, 0, 0, 0, 1, 0), OBLIQUE])
def test_turned_for_the_model_and_back(direction):
    image = volume(direction=direction)
    read = read_image(image, 1, "RAS")
    assert np.array_equal(read.restore(np.ascontiguousarray(read.voxels[0])), sitk.GetArrayFromImage(image))
    turned = sitk.DICOMOrient(image, "RAS")
    assert np.array_equal(read.voxels[0], sitk.GetArrayFromImage(turned))
    assert read.spacing == turned.GetSpacing()[::-1]


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, -1, 1, 0, 0, 0, 1, 0)])
def test_a_turned_image_shares_the_memory_of_the_stored_one(direction):
    image = volume(direction=direction)
    read = read_image(image, 1, "RAS")
    assert np.shares_memory(read.voxels, sitk.GetArrayViewFromImage(image))
    assert not read.voxels.flags.writeable


def test_each_channel_is_freed_before_the_next_is_read(tmp_path, monkeypatch):
    import weakref

    from ClassScaleSegLib.images import reading

    volumes, alive, read_file = [], [], reading.read_file

    def reading_one(*given):
        found = read_file(*given)
        volumes.append(weakref.ref(found))
        alive.append(sum(volume() is not None for volume in volumes))
        return found

    monkeypatch.setattr(reading, "read_file", reading_one)
    files = [tmp_path / f"mr_{channel:04}.nrrd" for channel in range(3)]
    for file, kind in zip(files, (sitk.sitkInt16, sitk.sitkFloat32, sitk.sitkUInt8), strict=True):
        sitk.WriteImage(sitk.Cast(volume() / 20, kind), str(file))
    read = read_image(files, 3, "RAS")
    assert alive == [1, 1, 1] and read.voxels.dtype == np.float32  # what holds the voxels of all files
    expected = [sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), "RAS")) for file in files]
    assert np.array_equal(read.voxels, np.stack(expected))


def test_several_files_must_be_one_channel_each(tmp_path):
    image = volume(np.float32)
    for file, picture in (("a.nrrd", image), ("b.nrrd", sitk.Compose([image, image]))):
        sitk.WriteImage(picture, str(tmp_path / file))
    for files in (["a.nrrd", "b.nrrd"], ["b.nrrd", "a.nrrd"]):
        with pytest.raises(ImageError, match=r"2 file\(s\), one with 2 channels were given, but the model needs 2"):
            read_image([tmp_path / file for file in files], 2)


def test_a_2d_image_is_one_slice_for_a_2d_model_only():
    flat = volume()[:, :, 3]
    read = read_image(flat, 1, flat=True)
    assert read.voxels.shape == (1, 1, 30, 40) and read.spacing == (999 * 2.0, 2.0, 1.0)
    with pytest.raises(ImageError, match="is a 2D image; the model segments 3D images"):
        read_image(flat, 1)
    with pytest.raises(ImageError, match="is a 4D image.*Extract one of its frames"):
        read_image(sitk.JoinSeries([volume(), volume()]), 1)


def nifti_with(tmp_path, offset, form, *values):
    """A NIfTI file with some bytes of its header replaced."""
    sitk.WriteImage(volume(), str(tmp_path / "good.nii"))
    content = bytearray((tmp_path / "good.nii").read_bytes())
    struct.pack_into(form, content, offset, *values)
    (tmp_path / "bad.nii").write_bytes(content)
    return tmp_path / "bad.nii"


def test_a_truncated_file_without_the_magic_word_is_named(tmp_path):
    file = nifti_with(tmp_path, 344, "<4s", bytes(4))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ImageError, match="is truncated: its header declares"):
        check_nifti(file)


@pytest.mark.parametrize("spacing", [(0, 2, 3), (-1, 2, 3), (float("nan"), 2, 3), (1, float("inf"), 3)])
def test_spacing_that_is_not_positive_is_refused(tmp_path, spacing):
    with pytest.raises(ImageError, match="bad.nii has spacing .*; every spacing must be positive"):
        read_image(nifti_with(tmp_path, 80, "<fff", *spacing), 1)


def test_spacing_in_other_formats(tmp_path):
    sitk.WriteImage(volume(), str(tmp_path / "good.mha"))
    text = (tmp_path / "good.mha").read_bytes()
    for spacing in (b"0 2 3", b"-1 2 3"):
        (tmp_path / "bad.mha").write_bytes(text.replace(b"ElementSpacing = 1 2 3", b"ElementSpacing = " + spacing))
        with pytest.raises(ImageError, match="bad.mha has spacing"):
            read_image(tmp_path / "bad.mha", 1)
    rotated = b"TransformMatrix = 1 0 0 1 0 0 0 0 1"
    (tmp_path / "bad.mha").write_bytes(text.replace(b"TransformMatrix = 1 0 0 0 1 0 0 0 1", rotated))
    with pytest.raises(ImageError, match="direction matrix that is not a rotation"):
        read_image(tmp_path / "bad.mha", 1)


@pytest.mark.parametrize("spacing", ["1e30 2 3", "1 1e-30 3", "1 2 1e-320"])
@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_a_finite_but_absurd_spacing_is_no_tilted_gantry(tmp_path, suffix, spacing):
    sitk.WriteImage(volume(), str(tmp_path / f"good.{suffix}"))
    text = (tmp_path / f"good.{suffix}").read_bytes()
    x, y, z = spacing.split()
    text = text.replace(b"ElementSpacing = 1 2 3", f"ElementSpacing = {spacing}".encode())
    text = text.replace(b"(1,0,0) (0,2,0) (0,0,3)", f"({x},0,0) (0,{y},0) (0,0,{z})".encode())
    (tmp_path / f"bad.{suffix}").write_bytes(text)
    with pytest.raises(ImageError, match=rf"bad.{suffix} has spacing .*(possible|must be positive)"):
        read_image(tmp_path / f"bad.{suffix}", 1)


def test_what_else_is_absurd_names_the_file(tmp_path):
    far = volume()
    far.SetOrigin((1e30, 0, 0))
    sitk.WriteImage(far, str(tmp_path / "far.mha"))
    with pytest.raises(ImageError, match=r"far.mha has the origin \(1e\+30, 0.0, 0.0\) mm"):
        read_image(tmp_path / "far.mha", 1)
    with pytest.raises(ImageError, match="The image has the origin"):
        read_image(far, 1)
    longer = volume()
    longer.SetDirection((2, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(longer, str(tmp_path / "longer.mha"))
    with pytest.raises(ImageError, match="longer.mha has a direction matrix that is not a rotation"):
        read_image(tmp_path / "longer.mha", 1)
    file = nifti_with(tmp_path, 292, "<f", float("nan"))  # the origin of the sform
    with pytest.raises(ImageError, match="bad.nii"):
        read_image(file, 1)


@pytest.mark.parametrize(
    ("suffix", "before", "after", "said"),
    [
        ("mha", b"Offset = -7 5 11", b"Offset = nan 5 11", "offset = nan 5 11, which are no numbers"),
        ("mha", b"Offset = -7 5 11", b"Offset = a 5 11", "offset = a 5 11, which are no numbers"),
        ("nrrd", b"(1,0,0) (0,2,0)", b"none (0,2,0)", "does not say how far its voxels are apart"),
        (
            "nrrd",
            b"space directions: (1,0,0) (0,2,0) (0,0,3)\nkinds: domain domain domain",
            b"spacings: nan 2 3",
            "does not say how far its voxels are apart",
        ),
        *(
            (
                "nrrd",
                b"kinds: domain",
                f'space units: "mm" "{unit}" "mm"\nkinds: domain'.encode(code),
                "only mm are read",
            )
            for unit, code in (("um", "utf-8"), ("\u00b5m", "utf-8"), ("\u00b5m", "latin-1"), ("CM", "utf-8"))
        ),
    ],
)
def test_what_itk_would_take_for_0_or_1_is_refused(tmp_path, suffix, before, after, said):
    file = tmp_path / f"ct.{suffix}"
    sitk.WriteImage(volume(), str(file))
    text = file.read_bytes()
    assert before in text
    text = text.replace(before, after)
    if after.startswith(b"spacings"):
        text = text.replace(b"space: left-posterior-superior\n", b"").replace(b"space origin: (-7,5,11)\n", b"")
    file.write_bytes(text)
    with pytest.raises(ImageError, match=f"ct.{suffix} .*{said}"):
        read_image(file, 1)
    for read in (Segmentation.from_image, read_grid):
        with pytest.raises(ImageError, match=said):
            read(file)


def test_nrrd_in_millimetres_or_without_a_unit(tmp_path):
    for units in ('"mm" "mm" "mm"', '"" "" ""'):
        sitk.WriteImage(volume(), str(file := tmp_path / "ct.nrrd"))
        file.write_bytes(file.read_bytes().replace(b"kinds: domain", f"space units: {units}\nkinds: domain".encode()))
        assert read_image(file, 1).spacing == (3, 2, 1)


@pytest.mark.parametrize(
    ("suffix", "spacing"),
    [
        ("mha", b"ElementSpacing = 1 2 3\n"),
        ("nrrd", b"space directions: (1,0,0) (0,2,0) (0,0,3)\n"),
    ],
)
def test_a_spacing_that_is_missing_is_told(tmp_path, suffix, spacing):
    sitk.WriteImage(volume(), str(file := tmp_path / f"ct.{suffix}"))
    assert read_image(file, 1).notices == ()
    text = file.read_bytes()
    assert spacing in text
    for line in (b"space: left-posterior-superior\n", b"space origin: (-7,5,11)\n", spacing):
        text = text.replace(line, b"")
    file.write_bytes(text)
    read = read_image(file, 1)
    said = f"{file} does not say how far its voxels are apart: 1 mm is assumed. Add the spacing to its header."
    assert read.notices == (said,) and read.spacing == (1, 1, 1)
    file.write_bytes(text.replace(b"ElementDataFile", b"ElementSize = 1 2 3\nElementDataFile"))
    if suffix == "mha":
        assert read_image(file, 1).notices == () and read_image(file, 1).spacing == (3, 2, 1)


def test_voxels_in_a_file_that_is_missing_or_too_short_are_told(tmp_path):
    sitk.WriteImage(volume(), str(file := tmp_path / "ct.mhd"))
    assert read_image(file, 1).notices == ()
    (tmp_path / "ct.raw").write_bytes((tmp_path / "ct.raw").read_bytes()[:-5])
    with pytest.raises(ImageError, match="ct.mhd cannot be read; it may be truncated .File cannot be read"):
        read_image(file, 1)
    (tmp_path / "ct.raw").unlink()
    for read in (lambda file: read_image(file, 1), Segmentation.from_image, read_grid):
        with pytest.raises(ImageError, match="ct.mhd has its voxels in ct.raw, which is missing. Copy it there too."):
            read(file)


def test_headers_may_have_colons_and_letters_of_every_language(tmp_path):
    sitk.WriteImage(volume(), str(file := tmp_path / "Köpfe.mhd"))
    file.write_bytes(file.read_bytes().replace(b" = ", b" : "))
    read = read_image(file, 1)
    assert read.notices == () and read.spacing == (3, 2, 1)
    (tmp_path / "Köpfe.raw").unlink()
    with pytest.raises(ImageError, match="Köpfe.mhd has its voxels in Köpfe.raw, which is missing"):
        read_image(file, 1)


def test_an_image_of_freesurfer_is_known(tmp_path):
    (tmp_path / "T1.mgz").write_bytes(b"\x1f\x8b")
    with pytest.raises(
        ImageError, match="T1.mgz is an image of FreeSurfer, which is not read. Convert it: mri_convert"
    ):
        read_image(tmp_path / "T1.mgz", 1)


def test_a_vector_image_has_an_axis_without_a_direction(tmp_path):
    two = sitk.Compose(volume(), volume())
    sitk.WriteImage(two, str(tmp_path / "two.nrrd"))
    assert b"none" in (tmp_path / "two.nrrd").read_bytes()[:500]
    assert read_image(tmp_path / "two.nrrd", 2).voxels.shape[0] == 2


def test_a_header_with_entries_without_end_is_refused(tmp_path, monkeypatch):
    """ITK compares each with all: a header of some megabytes would take hours."""
    from ClassScaleSegLib.images import text_headers

    monkeypatch.setattr(text_headers, "_MOST_ENTRIES", 1000)
    for count, file in ((900, tmp_path / "few.seg.nrrd"), (1100, tmp_path / "many.seg.nrrd")):
        header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1 1 1\nencoding: raw\n"
        entries = "".join(f"Key{number}:=1\n" for number in range(count))
        file.write_bytes(f"{header}{entries}\n".encode() + b"\1")
    assert Segmentation.from_image(tmp_path / "few.seg.nrrd").labels.sum() == 1
    for read in (lambda file: read_image(file, 1), Segmentation.from_image, read_grid):
        with pytest.raises(ImageError, match="many.seg.nrrd has more than 1,000 entries in its header"):
            read(tmp_path / "many.seg.nrrd")


def test_a_fourth_axis_may_have_no_spacing(tmp_path):
    header = (
        "NRRD0004\ntype: short\ndimension: 4\nsizes: 5 6 7 2\nspacings: 1 1 1 nan\n"
        "kinds: domain domain domain time\nendian: little\nencoding: raw\n\n"
    )
    (tmp_path / "two.nrrd").write_bytes(header.encode() + np.arange(420, dtype="<i2").tobytes())
    assert read_image(tmp_path / "two.nrrd", 2).voxels.shape == (2, 7, 6, 5)


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int64, np.uint64])
def test_whole_numbers_that_float32_rounds_are_told(tmp_path, kind):
    voxels = np.full((4, 5, 6), 2**30, kind)
    voxels[0, 0, :2] += np.array([1, 2], kind)
    read = read_image(sitk.GetImageFromArray(voxels), 1)
    [notice] = read.notices
    assert notice.startswith("The image has 2 voxels that are rounded, by up to 64: ") and "subtract it" in notice
    assert read_image(sitk.GetImageFromArray(voxels - kind(2**30)), 1).notices == ()


def test_large_numbers_that_float32_holds_are_none_of_these(tmp_path):
    exact = np.full((4, 5, 6), 2**30, np.int32)
    exact[0] = -(2**24)
    assert read_image(sitk.GetImageFromArray(exact), 1).notices == ()
    assert read_image(sitk.GetImageFromArray(exact.astype(np.float32)), 1).notices == ()


def test_a_gigantic_header_is_refused_before_anything_is_allocated(tmp_path):
    with pytest.raises(ImageError, match="truncated: its header declares 32000x32000x32000 voxels"):
        read_image(nifti_with(tmp_path, 40, "<hhhh", 3, 32000, 32000, 32000), 1)
    for suffix, before, after in (
        ("mha", b"DimSize = 40 30 20", b"DimSize = 40000 30000 20000"),
        ("nrrd", b"sizes: 40 30 20", b"sizes: 40000 30000 20000"),
    ):
        file = tmp_path / f"huge.{suffix}"
        sitk.WriteImage(volume(), str(file))
        file.write_bytes(file.read_bytes().replace(before, after))
        with pytest.raises(ImageError, match="declares 40000x30000x20000 voxels, more than .* can hold"):
            read_image(file, 1)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    file = tmp_path / f"ct{suffix}"
    sitk.WriteImage(volume(), str(file))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match="truncated"):
        read_image(file, 1)


def test_a_gzip_of_several_members_is_whole(tmp_path):
    sitk.WriteImage(volume(), str(tmp_path / "ct.nii"))
    content = (tmp_path / "ct.nii").read_bytes()
    halves = content[: len(content) // 2], content[len(content) // 2 :]
    (tmp_path / "ct.nii.gz").write_bytes(b"".join(gzip.compress(half) for half in halves))
    assert np.array_equal(read_image(tmp_path / "ct.nii.gz", 1).voxels, read_image(tmp_path / "ct.nii", 1).voxels)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    with pytest.raises(ImageError, match="is empty .0 bytes."):
        read_image(tmp_path / "empty.nii.gz", 1)
    for name in ("text.nii.gz", "text.nii", "text.mha", "text.nrrd"):
        (tmp_path / name).write_text("no image at all " * 100)
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name, 1)
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "absent.nii.gz", 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_not_finite_in_single_precision_are_counted(value):
    image = sitk.Cast(volume(), sitk.sitkFloat64)
    image[3, 4, 5] = value
    image[3, 4, 6] = value
    with pytest.raises(ImageError, match="has 2 voxels that are NaN or infinite"):
        read_image(image, 1)


@pytest.mark.parametrize("orientation", [None, "LPS", "RAS"])
def test_voxels_outlive_the_image_that_they_are_a_view_of(tmp_path, orientation):
    """Turned or not, they are not copied."""
    sitk.WriteImage(volume(), str(tmp_path / "ct.nrrd"))
    read = read_image(tmp_path / "ct.nrrd", 1, orientation)
    for _ in range(20):  # memory that was freed would be used again
        sitk.Image([40, 30, 20], sitk.sitkInt16) + 7
    expected = sitk.GetArrayFromImage(volume() if orientation is None else sitk.DICOMOrient(volume(), orientation))
    assert np.array_equal(read.voxels[0], expected)


# --- pictures, and paths of Windows


def test_a_tiff_has_no_distance_of_slices(tmp_path):
    sitk.WriteImage(volume(), str(file := tmp_path / "ct.tif"))
    (said,) = read_image(file, 1).notices
    assert said.startswith(
        f"{file} is a TIFF file, which does not say how far its slices are apart: voxels of 1 x 2 x 1"
    )
    assert Segmentation.from_image(file).notices == (said,)
    sitk.WriteImage(volume()[:, :, 0], str(flat := tmp_path / "flat.tif"))
    assert read_image(flat, 1, flat=True).notices == ()


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "tif"])
def test_a_colour_image_is_called_so(tmp_path, suffix):
    grey = sitk.Cast(volume(), sitk.sitkUInt8)
    sitk.WriteImage(sitk.Compose([grey] * 3), str(file := tmp_path / f"picture.{suffix}"))
    with pytest.raises(ImageError, match="is a colour image: each voxel has 3 values.*needs grey values: convert it"):
        read_image(file, 1)
    assert read_image(file, 3).voxels.shape[0] == 3
    with pytest.raises(ImageError, match="has 3 values.* as a colour image has.* Export the label map"):
        Segmentation.from_image(file)
    sitk.WriteImage(sitk.Compose([volume()] * 3), str(file := tmp_path / "three.nrrd"))
    with pytest.raises(ImageError, match="with 3 channels were given, but the model needs 1"):
        read_image(file, 1)


def test_a_colour_image_in_nifti_is_called_so(tmp_path):
    nib = pytest.importorskip("nibabel")
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), kind), np.eye(4)), tmp_path / "picture.nii.gz")
    with pytest.raises(ImageError, match="picture.nii.gz is a colour image: each voxel has 3 values"):
        read_image(tmp_path / "picture.nii.gz", 1)


@pytest.mark.skipif(os.name == "nt", reason="Windows finds them by itself")
@pytest.mark.parametrize(("suffix", "field"), [("mhd", b"ElementDataFile = "), ("nhdr", b"data file: ")])
def test_voxels_that_the_header_names_as_on_windows_are_found(tmp_path, suffix, field):
    folder = tmp_path / "Köpfe und mehr"
    (folder / "sub").mkdir(parents=True)
    sitk.WriteImage(volume(), str(file := folder / f"ct.{suffix}"))
    (folder / "ct.raw").rename(folder / "sub" / "ct.raw")
    text = file.read_bytes()
    file.write_bytes(text.replace(field + b"ct.raw", field + b"sub\\ct.raw"))
    read = read_image(file, 1)
    assert np.array_equal(read.voxels[0], sitk.GetArrayFromImage(volume())) and read.spacing == (3, 2, 1)
    assert read_grid(file) == read.geometry and read.notices == ()
    for name in (b"..\\Outside\\ct.raw", b"C:\\sub\\ct.raw", b"\\sub\\ct.raw", b"sub\\none.raw"):
        (tmp_path / "Outside").mkdir(exist_ok=True)
        (tmp_path / "Outside" / "ct.raw").write_bytes((folder / "sub" / "ct.raw").read_bytes())
        file.write_bytes(text.replace(field + b"ct.raw", field + name))
        said = "a path of Windows, which is not found here" if suffix == "mhd" else "is not an image that SimpleITK can"
        with pytest.raises(ImageError, match=said):
            read_image(file, 1)
