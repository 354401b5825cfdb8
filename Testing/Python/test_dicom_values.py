"""The values of a DICOM series: slopes, bits and photometric interpretations of each slice."""

import numpy as np
import pytest
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.errors import DamagedImageError
from ClassScaleSegLib.images.dicom.headers import read_slices
from ClassScaleSegLib.images.reading import read_image

pytest.importorskip("SimpleITK")
pydicom = pytest.importorskip("pydicom")

from dicom_phantom import PET, but, compare, planes, write_series  # noqa: E402


def test_a_slope_of_its_own_in_every_slice(tmp_path):
    for first in (1.0, 0.37):  # ITK takes the type from the first slice
        volume = [but([plane], 0, slope=first if k == 0 else 0.01 * k)[0] for k, plane in enumerate(planes())]
        read = read_image(write_series(tmp_path / f"pet{first}", volume, Modality="PT", SOPClassUID=PET), 1)
        assert compare(read, volume, 1e-3) < 1e-9 and read.voxels.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"intercept": -1024.0}, np.int32),
        ({"slope": 2.0, "intercept": 7.0}, np.int32),
        ({"stored": np.full((5, 4), 60000, np.uint16), "intercept": -1024.0}, np.int32),
        ({"intercept": 0.5}, np.float32),
        ({"slope": -0.25}, np.float32),
    ],
)
@pytest.mark.parametrize("index", [0, 4])
def test_other_values_in_one_slice(tmp_path, changes, dtype, index):
    volume = but(planes(), index, **changes)
    read = read_image(write_series(tmp_path / "ct", volume), 1)
    assert compare(read, volume, 1e-3) < 1e-9 and read.voxels.dtype == dtype


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_monochrome_1_shows_inverted_but_means_the_same(tmp_path, dtype):
    volume = planes(dtype=dtype, intercept=-10.0)
    tags = {"PhotometricInterpretation": "MONOCHROME1"}
    assert compare(read_image(write_series(tmp_path / "ct", volume, **tags), 1), volume) < 1e-9
    one = but(volume, 2, tags=tags)
    assert compare(read_image(write_series(tmp_path / "one", one), 1), one) < 1e-9


def test_twelve_bits(tmp_path):
    volume = planes(dtype=np.uint16, intercept=-1024.0)
    read = read_image(write_series(tmp_path / "ct", volume, BitsStored=12, HighBit=11), 1)
    assert compare(read, volume) < 1e-9 and read.voxels.dtype == np.int16


def test_a_palette_is_colour(tmp_path):
    with pytest.raises(ImageError, match="has colours"):
        folder = write_series(tmp_path / "p", planes(dtype=np.uint8), PhotometricInterpretation="PALETTE COLOR")
        read_image(folder, 1)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("kept", [0, 20, 32])
def test_missing_pixels_are_refused_and_not_taken_for_zeros(tmp_path, kept, declared):
    write_series(tmp_path, planes(4))
    file = sorted(tmp_path.glob("*.dcm"))[1]
    data = pydicom.dcmread(file)
    assert len(data.PixelData) == 40
    if declared:
        data.PixelData = data.PixelData[:kept]
        data.save_as(file)
    else:
        file.write_bytes(file.read_bytes()[: kept - 40])
    with pytest.raises(DamagedImageError, match=f"{file.name} is damaged: .* bytes of its pixels are missing"):
        read_image(tmp_path, 1)


def test_compressed_pixels_whose_length_is_told_are_not_taken_for_missing_ones(tmp_path):
    file = next(write_series(tmp_path, planes(1)).glob("*.dcm"))
    data = pydicom.dcmread(file)
    data.PixelData = data.PixelData[:20]
    data.save_as(file)
    assert [piece.missing for piece in read_slices(file)] == [20]
    content = file.read_bytes()
    assert content.count(plain := b"1.2.840.10008.1.2.1\0") == 1
    file.write_bytes(content.replace(plain, b"1.2.840.10008.1.2.5\0"))  # now they are said to be compressed (RLE)
    assert [piece.missing for piece in read_slices(file)] == [0]
