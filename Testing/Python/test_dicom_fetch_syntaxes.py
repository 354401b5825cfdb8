"""Fetching files in any transfer syntax: they come as they are, and it is said if they cannot be read."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from archive_fixtures import no_credentials, series, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.archive.received import cannot_be_read, look_at
from ClassScaleSegLib.errors import ArchiveError
from ClassScaleSegLib.images.reading import read_image
from fetching_fixtures import answering, fetch, fetched, given, of_series, uid  # noqa: F401  (fixtures)
from reading_server import MULTIPART, multipart

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

from dicom_phantom import compare, planes, write_series  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    RLELossless,
)


def compressed(folder: Path, syntax) -> Path:
    """Give each file another transfer syntax; if pydicom cannot compress in it, its name alone."""
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        if syntax == RLELossless:
            data.compress(syntax, generate_instance_uid=False)
        elif not syntax.is_encapsulated:
            data.file_meta.TransferSyntaxUID = syntax
        else:
            data.file_meta.TransferSyntaxUID = syntax
            data.PixelData = pydicom.encaps.encapsulate([bytes(20_000)])
            data["PixelData"].is_undefined_length = True
        data.save_as(file)
    return folder


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_compressed_files_come_as_they_are_and_are_read(shelf, tmp_path, capsys, syntax):
    volume = planes(3, shape=(30, 32))
    shelf.add(compressed(write_series(tmp_path / "series", volume), syntax))
    uid = shelf.files[0][1].SeriesInstanceUID
    assert fetch(shelf, tmp_path / "got", "--series", uid) == 0
    assert fetched(tmp_path / "got" / uid) == {data.SOPInstanceUID: content for content, data in shelf.files}
    assert not capsys.readouterr().err
    compare(read_image(tmp_path / "got" / uid, 1), volume)


def test_pixels_that_cannot_be_read_are_told_and_the_archive_can_decompress_them(shelf, series, tmp_path, capsys):
    plain = {file.name: file.read_bytes() for file in series.iterdir()}
    shelf.add(compressed(series, HTJ2KLossless))
    uid = shelf.files[0][1].SeriesInstanceUID
    assert fetch(shelf, tmp_path / "got", "--series", uid) == 0
    said = capsys.readouterr().err
    assert "cannot be read here (High-Throughput JPEG 2000" in said and "Fetch them with --decompress." in said
    assert fetch(shelf, tmp_path / "got", "--series", uid, "--decompress") == 0
    assert "The archive does not decompress them." in capsys.readouterr().err
    for name, content in plain.items():
        (series / name).write_bytes(content)
    shelf.files.clear()
    shelf.add(series)
    assert fetch(shelf, tmp_path / "got", "--series", uid, "--decompress") == 0
    assert "transfer-syntax" not in shelf.requests[-1][2]["Accept"] and not capsys.readouterr().err
    compare(read_image(tmp_path / "got" / uid, 1), planes(4))


def test_the_syntaxes_that_count_as_read_are_read():
    import SimpleITK as sitk

    files = Path(pydicom.__file__).parent / "data" / "test_files"
    read = set()
    names = "MR_small_RLE MR_small_bigendian MR_small_jp2klossless JPEG2000 JPGExtended SC_rgb_jpeg_gdcm"
    for name in f"{names} MR_small_jpeg_ls_lossless JPEGLSNearLossless_16 SC_jpeg_no_color_transform".split():
        if (files / f"{name}.dcm").exists():
            found = look_at(files / f"{name}.dcm")
            assert cannot_be_read(found.syntax) is None
            assert np.ptp(sitk.GetArrayFromImage(sitk.ReadImage(str(files / f"{name}.dcm")))) > 0
            read.add(found.syntax)
    if not read:
        pytest.skip("pydicom came without its test files")
    for syntax in (ExplicitVRLittleEndian, JPEG2000Lossless):
        assert cannot_be_read(syntax) is None
    assert cannot_be_read("1.2.840.10008.1.2.4.102") and cannot_be_read("1.2.3") and cannot_be_read("")


@pytest.mark.filterwarnings("error")
def test_a_transfer_syntax_that_is_none_is_not_shown(shelf, given, uid, tmp_path, capsys):
    evil = [content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.\x1b[2J08.1.2.1") for content in given.values()]
    answering(shelf, of_series, (200, MULTIPART, multipart(evil)))
    assert fetch(shelf, tmp_path, "--series", uid) == 0 and len(fetched(tmp_path / uid)) == 4
    said = capsys.readouterr().err
    assert "(an unknown transfer syntax)" in said and "\x1b" not in said


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian])
def test_of_a_file_that_is_cut_anywhere_it_is_said(series, tmp_path, syntax):
    file = min(compressed(series, syntax).iterdir())
    content = file.read_bytes()
    assert look_at(file).instance == pydicom.dcmread(file).SOPInstanceUID
    whole = 0
    for size in range(0, len(content) - 1, 7):
        (tmp_path / "cut.dcm").write_bytes(content[:size])
        try:
            look_at(tmp_path / "cut.dcm")
            whole += 1
        except ArchiveError as error:
            assert str(error).startswith("it ")
    assert whole <= 30  # it may end between two elements, and a compressed one is read as far as its pixels


def test_a_file_of_any_size_takes_no_memory(tmp_path):
    import tracemalloc

    (file,) = write_series(tmp_path, planes(1, shape=(4000, 4000))).glob("*.dcm")
    tracemalloc.start()
    try:
        look_at(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.stat().st_size > 30 << 20 and peak < 1 << 20
