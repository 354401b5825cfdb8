"""Fetching from an archive whose files are hostile, endless or too many: nothing else is touched."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import pytest
from archive_fixtures import no_credentials, series, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.archive import fetching
from fetching_fixtures import answering, fetch, fetched, files, given, of_series, uid  # noqa: F401  (fixtures)
from reading_server import BOUNDARY, MULTIPART, multipart

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

from dicom_phantom import planes, write_series  # noqa: E402


def changed(content: bytes, **elements: str) -> bytes:
    import io

    data = pydicom.dcmread(io.BytesIO(content))
    for keyword, value in elements.items():
        data[keyword]._value = value
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ({"SOPInstanceUID": "../../evil"}, "it has no valid identifier (SOPInstanceUID)"),
        ({"SOPInstanceUID": "/etc/x"}, "it has no valid identifier"),
        ({"SOPInstanceUID": "1" * 65}, "it has no valid identifier"),
        ({"SOPInstanceUID": ""}, "it has no valid identifier"),
        ({"SeriesInstanceUID": "1.2.3"}, "it belongs to another series"),
        ({"StudyInstanceUID": "1.2.3"}, "it belongs to another series"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_files_that_do_not_belong_to_the_series_are_left_out(shelf, given, uid, tmp_path, capsys, elements, sentence):
    first, *others = given.values()
    answering(shelf, files, (200, MULTIPART, multipart([*others, changed(first, **elements)])))
    got = tmp_path / "a" / "b"
    assert fetch(shelf, got, "--series", uid) == 1
    assert sentence in capsys.readouterr().err
    assert fetched(got / uid) == dict(list(given.items())[1:])
    assert [path for path in (tmp_path / "a").rglob("*") if path.is_file() and path.parent != got / uid] == []


def test_a_file_that_comes_twice_is_kept_once(shelf, given, uid, tmp_path, capsys):
    first = next(iter(given.values()))
    twice = changed(first, PatientID="Q")
    answering(shelf, of_series, (200, MULTIPART, multipart([*given.values(), first])))
    assert fetch(shelf, tmp_path / "a", "--series", uid) == 0
    assert fetched(tmp_path / "a" / uid) == given and not capsys.readouterr().err
    answering(shelf, of_series, (200, MULTIPART, multipart([*given.values(), twice])))
    assert fetch(shelf, tmp_path / "b", "--series", uid) == 0
    assert fetched(tmp_path / "b" / uid) == given
    assert "is kept, though the archive gives another file with its identifier" in capsys.readouterr().err


def test_what_is_in_the_folder_besides_does_not_stand_for_what_is_missing(shelf, given, uid, tmp_path, capsys):
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    gone = [data.SOPInstanceUID for _, data in shelf.files[2:]]
    del shelf.files[2:]
    shelf.add(write_series(tmp_path / "more", planes(2), uid))
    answering(shelf, files, (500, {}, b""))
    assert fetch(shelf, tmp_path, "--series", uid) == 1
    assert "2 of 4 images are there." in capsys.readouterr().err and set(gone) < set(fetched(tmp_path / uid))


def test_what_the_archive_no_longer_lists_and_what_is_damaged_in_the_folder_is_said(
    shelf, given, uid, tmp_path, capsys
):
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    shelf.files.pop()
    (tmp_path / uid / "1.2.3.dcm").write_bytes(b"no DICOM")
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    said = capsys.readouterr().err
    assert "The folder has images that the archive does not list: 1." in said
    assert "The folder has files that are damaged, or not of this series: 1." in said


def endless(shelf):
    """Let the archive give a file without an end."""

    def content():
        yield b"--" + BOUNDARY.encode() + b"\r\n\r\n"
        while True:
            yield bytes(1 << 20)

    answering(shelf, files, (200, MULTIPART, content()))


def test_a_file_without_an_end_is_given_up(shelf, given, uid, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetching, "LARGEST_IMAGE", 4 << 20)
    endless(shelf)
    assert fetch(shelf, tmp_path / "got", "--series", uid) == 5
    assert "gives a file of more than" in capsys.readouterr().err and not list((tmp_path / "got").iterdir())


def test_the_disk_is_not_filled(shelf, given, uid, tmp_path, capsys, monkeypatch):
    import shutil

    left = [10 << 30]

    def usage(folder):
        left[0] -= 3 << 30
        return shutil._ntuple_diskusage(0, 0, left[0])

    monkeypatch.setattr(fetching.shutil, "disk_usage", usage)
    monkeypatch.setattr(fetching, "_BYTES_BETWEEN_LOOKS", 1 << 20)
    endless(shelf)
    assert fetch(shelf, tmp_path / "got", "--series", uid) == 5
    said = capsys.readouterr().err
    assert "less than 1 GiB is free on the disk" in said and not list((tmp_path / "got").iterdir())
    assert len(shelf.asked(files=True)) == 1  # nothing more is tried


def test_files_without_number_are_given_up(shelf, given, uid, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetching, "MOST_IMAGES", 50)
    content = next(iter(given.values()))

    def parts():
        while True:
            yield b"\r\n--" + BOUNDARY.encode() + b"\r\n\r\n" + content

    answering(shelf, of_series, (200, MULTIPART, parts()))
    assert fetch(shelf, tmp_path, "--series", uid) == 0  # the other ones come one by one
    assert "The archive gives more than 50 files where 50 would do." in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_a_sentence(shelf, given, uid, tmp_path, capsys):
    (tmp_path / "got").write_text("a file")
    assert fetch(shelf, tmp_path / "got", "--series", uid) == 5
    assert "cannot be written (" in capsys.readouterr().err
