"""NIfTI: what a header says is what is read; where it is ambiguous, the model's own reader decides, and is named."""

import gzip
import struct

import numpy as np
import pytest
from ClassScaleSegLib import ImageError, Segmentation
from ClassScaleSegLib.images.reading import read_image

nib = pytest.importorskip("nibabel")
sitk = pytest.importorskip("SimpleITK")

AFFINE = np.diag([2.0, 3.0, 5.0, 1.0])
AFFINE[:3, 3] = (-40, 12, 7)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def voxels(shape=(6, 5, 4)):
    """``(x, y, z)``, without symmetry."""
    return np.random.default_rng(0).integers(-1000, 2000, shape).astype(np.int16)


def save(file, data=None, affine=AFFINE, qform=None, codes=(1, 1), kind=nib.Nifti1Image):
    image = kind(voxels() if data is None else data, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(affine if qform is None else qform, codes[0], strip_shears=True)
    image.header.set_sform(affine, codes[1])
    content = bytearray(image.to_bytes())
    content[252:256] = struct.pack("<2h", *codes) if kind is nib.Nifti1Image else content[252:256]
    file.write_bytes(gzip.compress(bytes(content)) if file.name.lower().endswith(".gz") else bytes(content))
    return file


def edited(file, offset, form, *values):
    """Replace bytes of the header."""
    packed = file.name.endswith(".gz")
    content = bytearray(gzip.decompress(file.read_bytes()) if packed else file.read_bytes())
    struct.pack_into(form, content, offset, *values)
    file.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return file


def matrix(geometry):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = geometry.axes, geometry.origin
    return result


def check(read, image, atol=1e-4):
    """Compare with an image of nibabel."""
    data = np.asarray(image.dataobj, float)
    assert np.allclose(read.voxels[0], data.reshape(data.shape[:3]).T)
    assert np.allclose(matrix(read.geometry), LPS @ image.affine, atol=atol)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "CT.NII", "CT.NII.GZ", "ct.Nii.Gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_versions_and_capital_letters(tmp_path, name, kind):
    file = save(tmp_path / name, kind=kind)
    for nibabel in (False, True):
        read = read_image(file, 1, nibabel=nibabel)
        assert np.array_equal(read.voxels[0], voxels().T) and read.notices == ()
        assert np.allclose(matrix(read.geometry), LPS @ AFFINE)


def test_400_random_orientations_are_turned_as_nibabel_turns_them(tmp_path):
    random = np.random.default_rng(0)
    for _ in range(400):
        affine = np.eye(4)
        affine[:3, :3] = np.linalg.qr(random.normal(size=(3, 3)))[0] * random.uniform(0.3, 6, 3)
        affine[:3, 3] = random.uniform(-500, 500, 3)
        file = save(tmp_path / "turned.nii", affine=affine)
        expected = nib.as_closest_canonical(nib.load(file))
        for nibabel in (False, True):
            read = read_image(file, 1, "RAS", nibabel=nibabel)
            assert np.array_equal(read.voxels[0], np.asarray(expected.dataobj).T)
            assert np.allclose(read.spacing[::-1], nib.affines.voxel_sizes(expected.affine), rtol=1e-5)
            assert np.array_equal(read.restore(np.ascontiguousarray(read.voxels[0])), voxels().T)


# --- the check of a file does not contradict its reader


@pytest.mark.parametrize("rest", [b"garbage at the end", bytes(512), b"\x1f\x8b"])
def test_what_follows_the_compressed_data_counts_for_nothing(tmp_path, rest):
    file = save(tmp_path / "ct.nii.gz")
    file.write_bytes(file.read_bytes() + rest)
    check(read_image(file, 1), nib.load(save(tmp_path / "good.nii")))


def test_several_gzip_members_are_one_file(tmp_path):
    content = save(tmp_path / "good.nii").read_bytes()
    file = tmp_path / "ct.nii.gz"
    file.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]) + b"garbage")
    check(read_image(file, 1), nib.load(tmp_path / "good.nii"))


def test_pieces_without_end_are_not_waited_for(tmp_path, monkeypatch):
    """Each takes time and has nothing in it; a gigabyte of them took half an hour."""
    from ClassScaleSegLib.images import nifti

    monkeypatch.setattr(nifti, "_MOST_PIECES", 1000)
    content, nothing = save(tmp_path / "good.nii").read_bytes(), gzip.compress(b"")
    file = tmp_path / "ct.nii.gz"
    file.write_bytes(gzip.compress(content[:400]) + nothing * 998 + gzip.compress(content[400:]))
    check(read_image(file, 1), nib.load(tmp_path / "good.nii"))
    file.write_bytes(gzip.compress(content[:400]) + nothing * 1000 + gzip.compress(content[400:]))
    with pytest.raises(ImageError, match="ct.nii.gz consists of more than 1,000 pieces. Compress it as a whole"):
        read_image(file, 1)


def test_a_name_that_is_wrong_about_compression(tmp_path):
    file = save(tmp_path / "ct.nii")
    file.rename(tmp_path / "plain.nii.gz")
    read = read_image(tmp_path / "plain.nii.gz", 1)
    assert np.array_equal(read.voxels[0], voxels().T)
    (tmp_path / "packed.nii").write_bytes(save(tmp_path / "ct.nii.gz").read_bytes())
    with pytest.raises(ImageError, match="packed.nii is compressed in spite of its name. Rename it to .nii.gz"):
        read_image(tmp_path / "packed.nii", 1)


@pytest.mark.parametrize("name", ["CT.NII.GZ", "ct.nii.gz", "CT.NII"])
def test_a_truncated_file_is_named_whatever_the_letters(tmp_path, name):
    file = save(tmp_path / name)
    content = gzip.decompress(file.read_bytes()) if name.lower().endswith("gz") else file.read_bytes()
    short = content[:-50]
    file.write_bytes(gzip.compress(short) if name.lower().endswith("gz") else short)
    with pytest.raises(ImageError, match="is truncated: its header declares 6x5x4 voxels in 592 bytes"):
        read_image(file, 1)


def test_the_same_name_without_gz_beside_a_file_does_not_lend_its_voxels(tmp_path):
    """ITK would read the header of the one and the voxels of the other."""
    save(tmp_path / "ct.nii", np.zeros_like(voxels()))
    file = save(tmp_path / "ct.nii.gz")
    read = read_image(file, 1)
    assert np.array_equal(read.voxels[0], voxels().T)


@pytest.mark.parametrize("place", [0.05, 0.5, 0.9])
def test_damaged_compression_is_a_sentence(tmp_path, place):
    file = save(tmp_path / "ct.nii.gz", np.tile(voxels(), (5, 5, 5)))
    content = bytearray(file.read_bytes())
    start = int(len(content) * place)
    content[start : start + 60] = bytes(60)
    file.write_bytes(content)
    with pytest.raises(ImageError, match="ct.nii.gz"):
        read_image(file, 1)


# --- headers that are ambiguous


@pytest.mark.parametrize(
    ("codes", "turn"), [((0, 0), 0), ((1, 1), 0.3), ((1, 2), 0.3), ((2, 1), -0.1), ((0, 1), 0.3), ((1, 0), 0.3)]
)
def test_the_models_own_reader_decides_and_is_named(tmp_path, codes, turn):
    qform = AFFINE.copy()
    qform[:2, :2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ AFFINE[:2, :2]
    file = save(tmp_path / "ct.nii.gz", qform=qform, codes=codes)
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

    expected, _ = NibabelIOWithReorient().read_images([str(file)])
    read = read_image(file, 1, "RAS", nibabel=True)
    assert np.array_equal(read.voxels, expected)
    assert np.allclose(matrix(read.geometry), LPS @ nib.load(file).affine, atol=1e-4)
    expected, _ = SimpleITKIOWithReorient().read_images([str(file)])
    as_itk = read_image(file, 1, "RAS")
    assert np.array_equal(as_itk.voxels, expected)
    if 0 in codes and codes != (0, 0):
        assert read.notices == as_itk.notices == ()  # only one of the two is given
    else:
        assert "read as nibabel does" in read.notices[0] and "read as ITK does" in as_itk.notices[0]


@pytest.mark.parametrize(("slope", "intercept"), [(0, 100), (float("nan"), 5), (float("inf"), 5), (1e-30, 5)])
def test_an_intercept_without_a_slope(tmp_path, slope, intercept):
    file = edited(save(tmp_path / "ct.nii"), 112, "<2f", slope, intercept)
    read = read_image(file, 1, nibabel=True)
    assert np.allclose(read.voxels[0], np.asarray(nib.load(file).dataobj, float).T) and "nibabel" in read.notices[0]
    assert "an intercept without a valid slope" in read_image(file, 1).notices[0]


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -512), (1, -1024), (2, 0), (0, 0), (float("nan"),) * 2])
def test_scaling_that_all_read_alike(tmp_path, slope, intercept):
    file = edited(save(tmp_path / "ct.nii"), 112, "<2f", slope, intercept)
    for nibabel in (False, True):
        read = read_image(file, 1, nibabel=nibabel)
        check(read, nib.load(file))
        assert read.notices == ()


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("mm", 1), ("micron", 1e3), ("unknown", 1)])
def test_units(tmp_path, unit, factor):
    affine = np.diag([factor, factor, factor, 1]) @ AFFINE
    file = save(tmp_path / "ct.nii", affine=affine)
    file = edited(file, 123, "<B", {"unknown": 0, "meter": 1, "mm": 2, "micron": 3}[unit])
    for nibabel in (False, True):
        assert np.allclose(matrix(read_image(file, 1, nibabel=nibabel).geometry), LPS @ AFFINE, atol=1e-3)


def sheared(by):
    affine = AFFINE.copy()
    affine[0, 1] = 3 * by
    return affine


@pytest.mark.parametrize("by", [2e-4, 2e-3, 1e-6])
def test_a_shear_by_rounding_is_read_by_all(tmp_path, by):
    file = save(tmp_path / "ct.nii.gz", affine=sheared(by), codes=(0, 1))
    for nibabel in (False, True):
        check(read_image(file, 1, nibabel=nibabel), nib.load(file), atol=0.05)


@pytest.mark.parametrize("by", [0.09, -0.3])
def test_a_real_shear_is_read_as_by_the_models_reader(tmp_path, by):
    file = save(tmp_path / "ct.nii.gz", affine=sheared(by), codes=(0, 1))
    check(read_image(file, 1, nibabel=True), nib.load(file))
    with pytest.raises(ImageError, match="not perpendicular, which ITK, the reader of this model, refuses. Resample"):
        read_image(file, 1)


# --- headers that are wrong


@pytest.mark.parametrize(
    ("offset", "form", "values", "message"),
    [
        (108, "<f", (0,), "voxels begin at byte 0; they cannot begin before byte 348"),
        (108, "<f", (float("nan"),), "voxels begin at byte nan"),
        (108, "<f", (-8,), "voxels begin at byte -8"),
        (70, "<h", (77,), "voxels of type 77 with 16 bits"),
        (72, "<h", (32,), "voxels of type 4 with 32 bits"),
        (40, "<h", (9,), "dimensions of"),
        (42, "<h", (-6,), "declares 3 dimensions of"),
        (116, "<f", (float("nan"),), "header is damaged .*intercept"),
    ],
)
def test_headers_that_contradict_themselves(tmp_path, offset, form, values, message):
    file = edited(save(tmp_path / "ct.nii"), offset, form, *values)
    if offset == 116:
        file = edited(file, 112, "<f", 2.0)
    for nibabel in (False, True):
        with pytest.raises(ImageError, match=message):
            read_image(file, 1, nibabel=nibabel)


def test_an_sform_that_spans_nothing(tmp_path):
    file = edited(save(tmp_path / "ct.nii"), 280, "<12f", *[0.0] * 12)
    with pytest.raises(ImageError, match="axes that do not span a volume. Correct the sform or qform"):
        read_image(file, 1, nibabel=True)
    read = read_image(file, 1)  # ITK takes the qform
    assert np.allclose(matrix(read.geometry), LPS @ AFFINE) and "can be understood in two ways" in read.notices[0]
    assert read.notices[0].endswith(". It is read as ITK does, as in the training of this model.")
    (said,) = Segmentation.from_image(
        edited(save(tmp_path / "labels.nii", np.abs(voxels())), 280, "<12f", *[0.0] * 12)
    ).notices
    assert said.endswith(". It is read as ITK does.")


def test_many_dimensions(tmp_path):
    for shape in ((6, 5, 4, 1), (6, 5, 4, 1, 1)):
        file = save(tmp_path / "ct.nii", voxels().reshape(shape))
        for nibabel in (False, True):
            read = read_image(file, 1, nibabel=nibabel)  # it owns the voxels
            assert np.array_equal(read.voxels[0], voxels().T)
    file = save(tmp_path / "two.nii", np.stack([voxels(), voxels() + 1], -1), codes=(0, 0))
    for nibabel in (False, True):
        read = read_image(file, 2, nibabel=nibabel)
        assert np.array_equal(read.voxels[1], voxels().T + 1)
        with pytest.raises(ImageError, match="is a 4D image"):
            read_image(file, 1, nibabel=nibabel)


def test_types_that_are_no_numbers(tmp_path):
    colours = np.zeros((6, 5, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for nibabel in (False, True):
        with pytest.raises(ImageError, match="3 channel|type"):
            read_image(save(tmp_path / "rgb.nii", colours), 1, nibabel=nibabel)
        with pytest.raises(ImageError):
            read_image(save(tmp_path / "complex.nii", voxels().astype(np.complex64)), 1, nibabel=nibabel)


def test_label_maps_are_checked_too(tmp_path):
    from ClassScaleSegLib import Segmentation

    file = save(tmp_path / "labels.nii.gz", np.tile(np.abs(voxels()).astype(np.uint16), (5, 5, 5)))
    assert Segmentation.from_image(file).labels.shape == (20, 25, 30)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 60] = bytes(60)
    file.write_bytes(content)
    with pytest.raises(ImageError, match="labels.nii.gz"):
        Segmentation.from_image(file)


@pytest.mark.parametrize("short", [0, 1, 2])
def test_members_that_end_where_a_part_is_read(tmp_path, monkeypatch, short):
    from ClassScaleSegLib.images import nifti

    content = save(tmp_path / "good.nii").read_bytes()
    first = gzip.compress(content[:400])
    monkeypatch.setattr(nifti, "_CHUNK", len(first) + short)
    file = tmp_path / "ct.nii.gz"
    file.write_bytes(first + gzip.compress(content[400:]))
    check(read_image(file, 1), nib.load(tmp_path / "good.nii"))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["labels.nii", "labels.nii.gz"])
def test_extensions_are_passed_over(tmp_path, name, kind):
    """TotalSegmentator writes the names of its classes into one of thirteen thousand bytes."""
    image = kind(voxels().astype(np.uint8) % 7, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"liver " * 2000))
    nib.save(image, tmp_path / name)
    check(read_image(tmp_path / name, 1), image)
    assert np.array_equal(Segmentation.from_image(tmp_path / name).labels, np.asarray(image.dataobj).T)
