"""Fetching series from a DICOM archive: every file as it is stored, what is missing, and what goes on after a fault."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from archive_fixtures import no_credentials, series, shelf  # noqa: F401  (fixtures)
from archive_server import make_certificate
from ClassScaleSegLib.archive import fetching
from ClassScaleSegLib.archive.received import cannot_be_read, look_at
from ClassScaleSegLib.errors import ArchiveError
from ClassScaleSegLib.images.reading import read_image
from reading_server import AS_STORED, BOUNDARY, MULTIPART, multipart, reading_server, run

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

STUDY = "1.2.826.0.1.3680043.8.498.1"  # as dicom_phantom writes it


@pytest.fixture
def given(shelf, series):
    """The content of each file that the archive has, by its SOPInstanceUID."""
    shelf.add(series)
    return {data.SOPInstanceUID: content for content, data in shelf.files}


@pytest.fixture
def uid(given, shelf) -> str:
    return shelf.files[0][1].SeriesInstanceUID


def fetch(shelf, folder, *words) -> int:
    return run("fetch", "--from", shelf.address, "-o", folder, *words)


def fetched(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder, also of hidden ones, by its name without suffix."""
    return {file.stem: file.read_bytes() for file in folder.iterdir()}


def test_every_file_comes_as_it_is_stored(shelf, given, uid, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "dicomweb_client.api", None)  # which only sending needs
    assert fetch(shelf, tmp_path / "got", "--series", uid) == 0
    assert fetched(tmp_path / "got" / uid) == given
    assert shelf.asked(files=True) == [f"/studies/{STUDY}/series/{uid}"]  # all at once
    assert shelf.requests[-1][2]["Accept"] == AS_STORED
    assert shelf.requests[-1][2]["Accept-Encoding"] == "identity"
    out, err = capsys.readouterr()
    assert out == f"CT: 4 images fetched -> {tmp_path}/got/{uid}\n" and not err
    compare(read_image(tmp_path / "got" / uid, 1), planes(4))


def test_an_encrypted_archive_whose_certificate_is_named(series, tmp_path, capsys, monkeypatch):
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv("CLASSSCALESEG_DICOM_PASSWORD", "secret")
    with reading_server(certificate, key) as shelf:
        shelf.add(series)
        uid = shelf.files[0][1].SeriesInstanceUID
        assert fetch(shelf, tmp_path / "got", "--series", uid) == 5
        assert "no trusted encrypted connection" in capsys.readouterr().err and not shelf.requests
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert fetch(shelf, tmp_path / "got", "--series", uid, "--user", "me") == 0
        assert {headers["Authorization"] for _, _, headers in shelf.requests} == {"Basic bWU6c2VjcmV0"}
    assert len(fetched(tmp_path / "got" / uid)) == 4


def test_what_is_there_is_not_fetched_again(shelf, given, uid, tmp_path, capsys):
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / uid).iterdir()}
    shelf.requests.clear()
    capsys.readouterr()
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    assert not shelf.asked(files=True)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / uid).iterdir()} == before
    assert capsys.readouterr().out == f"CT: 0 images fetched, 4 there already -> {tmp_path}/{uid}\n"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def other(file: Path) -> None:
    data = pydicom.dcmread(file)
    data.SeriesInstanceUID = "1.2.3"
    data.save_as(file)


@pytest.mark.parametrize("damage", [cut, empty, other, Path.unlink])
def test_a_file_that_is_missing_or_damaged_is_fetched_alone(shelf, given, uid, tmp_path, damage):
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    first = min(given)
    damage(tmp_path / uid / f"{first}.dcm")
    shelf.requests.clear()
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    assert fetched(tmp_path / uid) == given
    assert shelf.asked(files=True) == [f"/studies/{STUDY}/series/{uid}/instances/{first}"]


@pytest.mark.filterwarnings("ignore:Found unknown escape sequence")
def test_several_series_of_a_study_and_their_sum(shelf, given, uid, tmp_path, capsys):
    mr, another = (shelf.add(write_series(tmp_path / f"{name}", planes(2), f"1.2.{number}", Modality=name,
                   SeriesDescription="\x1b[2J", StudyInstanceUID=STUDY if name == "MR" else "1.9"))
                   for number, name in enumerate(("MR", "PT"), 5))  # fmt: skip
    got = tmp_path / "got"
    assert fetch(shelf, got, "--study", STUDY, "1.9") == 0
    assert sorted(os.listdir(got)) == sorted([uid, "1.2.5", "1.2.6"])
    out, err = capsys.readouterr()
    assert not err and "\x1b" not in out and out.splitlines()[-1] == f"{got}: 3 of 3 series whole, 8 images fetched"
    assert "[2/3] MR \\x1b[2J: 2 images fetched" in out
    assert fetch(shelf, got / "mr", "--study", STUDY, "--modality", "mr") == 0 and os.listdir(got / "mr") == ["1.2.5"]
    assert fetch(shelf, got / "pt", "--series", "1.2.6", "--study", "1.9") == 0 and os.listdir(got / "pt") == ["1.2.6"]
    shelf.ignores = {"filters"}
    assert fetch(shelf, got / "one", "--series", "1.2.6", "1.2.6") == 0 and os.listdir(got / "one") == ["1.2.6"]
    capsys.readouterr()
    for words, sentence in (
        (("--series", "1.2.6", "--study", STUDY), "has no series 1.2.6 in what --study names"),
        (("--study", STUDY, "--modality", "US"), f"The archive has no series of modality US in the study {STUDY}."),
        (("--series", uid, "1.2.5", "--modality", "CT"), "The series 1.2.5 is of modality MR, not CT."),
        (("--series", "1.2.7"), "The archive has no series 1.2.7, or does not find series without their study"),
        (("--study", STUDY, "1.2.7"), "The archive has no series in the study 1.2.7. Correct the UID"),
    ):
        assert fetch(shelf, got / "none", *words) == 5
        assert sentence in capsys.readouterr().err and not (got / "none").exists()
    assert fetch(shelf, got / "ct", "--study", STUDY, "1.9", "--modality", "CT") == 0
    assert os.listdir(got / "ct") == [uid]
    assert "The archive has no series of modality CT in the study 1.9." in capsys.readouterr().err
    shelf.untold = {"StudyInstanceUID"}
    assert fetch(shelf, got / "none", "--series", uid) == 5
    assert f"does not say to which study {uid} belongs. Give --study too." in capsys.readouterr().err
    assert fetch(shelf, got / "two", "--series", uid, "--study", STUDY) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Name what to fetch: --series UID, or --study UID."),
        (("--series", "../../etc"), "'../../etc' is not a unique identifier (UID)"),
        (("--study", "1.2/../.."), "is not a unique identifier (UID)"),
        (("--series", "1.2", "--modality", "C/T"), "is not a modality"),
    ],
)
def test_a_wrong_command_asks_nothing(shelf, tmp_path, capsys, words, sentence):
    assert fetch(shelf, tmp_path / "got", *words) == 2
    assert sentence in capsys.readouterr().err and not shelf.requests and not (tmp_path / "got").exists()


# --- answers that are cut, refused or of another form


def files(path: str) -> bool:
    """Whether a path is that of files, not of a search."""
    return path.count("/") in (4, 6)


def of_series(path: str) -> bool:
    return path.count("/") == 4


def answering(shelf, which, answer):
    """Give this answer to requests of which the path is such."""
    shelf.answer = lambda path, *_: answer if which(path) else None


@pytest.mark.parametrize("lengths", [False, True])
def test_after_a_cut_answer_the_rest_comes_one_by_one(shelf, given, uid, tmp_path, capsys, monkeypatch, lengths):
    monkeypatch.setattr(fetching, "_PIECE", 100)
    whole = multipart(given.values())
    length = {"Content-Length": str(len(whole))} if lengths else {}
    answering(shelf, of_series, (200, MULTIPART | length, iter([whole[: len(whole) * 2 // 3]])))
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    assert fetched(tmp_path / uid) == given
    assert len(shelf.asked(files=True)) == 3  # of four images, two came whole
    said = capsys.readouterr().err
    assert ("the connection was lost" if lengths else "The end of the archive's answer is missing.") in said


def test_of_an_archive_that_lists_no_images_the_rest_comes_with_the_next_run(shelf, given, uid, tmp_path, capsys):
    whole = multipart(given.values())
    shelf.answer = lambda path, *_: (
        (200, MULTIPART, iter([whole[: len(whole) * 2 // 3]])) if of_series(path) else
        (501, {}, b"") if path.endswith("/instances") else None
    )  # fmt: skip
    assert fetch(shelf, tmp_path, "--series", uid) == 1
    assert len(fetched(tmp_path / uid)) == 2
    said = capsys.readouterr()
    assert "end of the archive's answer is missing" in said.err and "2 of 4 images are there" in said.err
    assert "2 images fetched" in said.out
    answering(shelf, lambda path: path.endswith("/instances"), (501, {}, b""))
    assert fetch(shelf, tmp_path, "--series", uid) == 0 and fetched(tmp_path / uid) == given
    assert "2 images fetched, 2 there already" in capsys.readouterr().out


@pytest.mark.parametrize("status", [400, 404, 405, 406, 413, 500, 501, 503])
def test_if_a_series_is_refused_its_images_come_one_by_one(shelf, given, uid, tmp_path, status):
    answering(shelf, of_series, (status, {}, b""))
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    assert fetched(tmp_path / uid) == given


@pytest.mark.parametrize("status", [400, 406, 415])
def test_an_archive_that_does_not_give_files_as_stored_decompresses_them(shelf, given, uid, tmp_path, capsys, status):
    shelf.answer = lambda path, _, headers: (status, {}, b"") if "transfer-syntax" in headers["Accept"] else None
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    assert fetched(tmp_path / uid) == given
    assert "does not give files as they are stored, and decompresses them" in capsys.readouterr().err


def test_images_one_by_one_may_come_without_parts(shelf, given, uid, tmp_path):
    def answer(path, *_):
        if path.count("/") == 6:
            return 200, {"Content-Type": "application/dicom"}, given[path.rpartition("/")[2]]
        return (501, {}, b"") if of_series(path) else None

    shelf.answer = answer
    assert fetch(shelf, tmp_path, "--series", uid) == 0 and fetched(tmp_path / uid) == given


WRONG = [
    ((200, {"Content-Type": "text/html"}, b"<html>log in</html>"), "something else than a DICOM archive would"),
    ((200, {"Content-Type": "multipart/related"}, b"--x"), "does not say by what it separates the files"),
    ((200, MULTIPART | {"Content-Type": "multipart/related; boundary=x"}, b"--y\r\n\r\n" * 20_000), "not separate the"),
    ((200, MULTIPART, b""), "The end of the archive's answer is missing."),
    ((200, MULTIPART, multipart([])), "0 of 4 images are there."),
    ((200, MULTIPART, multipart([b"<html>"])), "left out: it is damaged, or not DICOM"),
    ((200, MULTIPART, multipart([b""])), "left out: it is damaged, or not DICOM"),
    ((204, {}, b""), "something else than a DICOM archive would"),
    ((302, {"Location": "https://elsewhere/"}, b""), "leads to https://elsewhere/, where nothing was asked"),
    ((500, {"Content-Type": "text/plain"}, b"\x1b[2Jbroken"), "It says: [2Jbroken"),
    ((403, {}, b""), "status 403: this user may not see this"),
    ((200, MULTIPART | {"Content-Encoding": "gzip"}, b"no gzip"), "cannot be decompressed"),
]


@pytest.mark.parametrize(("answer", "sentence"), WRONG)
def test_an_archive_that_gives_nothing_is_a_sentence_and_leaves_nothing(
    shelf, given, uid, tmp_path, capsys, answer, sentence
):
    answering(shelf, files, answer)
    assert fetch(shelf, tmp_path / "got", "--series", uid) == 5
    said = capsys.readouterr()
    assert sentence in said.err and "\x1b" not in said.err and "0 images fetched" in said.out
    assert not list((tmp_path / "got").iterdir())
    assert len(shelf.asked(files=True)) <= 5  # not all of many images


def test_after_three_images_that_do_not_come_the_others_are_not_tried(shelf, tmp_path, capsys):
    shelf.add(write_series(tmp_path / "series", planes(9), "1.2.5"))
    answering(shelf, files, (500, {}, b""))
    assert fetch(shelf, tmp_path / "got", "--series", "1.2.5", "--study", STUDY) == 5
    assert len(shelf.asked(files=True)) == 4 and "The other images were not tried: 6." in capsys.readouterr().err


def test_who_is_not_let_in_is_told_once(shelf, given, uid, tmp_path, capsys):
    answering(shelf, files, (401, {}, b""))
    assert fetch(shelf, tmp_path, "--study", STUDY) == 5
    assert capsys.readouterr().err.count("asks who you are") == 1 and len(shelf.asked(files=True)) == 1


def test_an_archive_that_is_gone_ends_the_command(shelf, given, uid, tmp_path, capsys):
    shelf.add(write_series(tmp_path / "more", planes(2), "1.2.5"))
    import requests

    get, left = requests.Session.get, [5]

    def fails(self, *arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            return get(self, "http://127.0.0.1:9/", **options)
        return get(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "get", fails)
        assert fetch(shelf, tmp_path / "got", "--study", STUDY, "--json") == 1
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert "cannot be reached" in err and {row["state"] for row in rows} == {"whole", "incomplete"}


def test_images_that_the_archive_promises_and_does_not_give_are_named(shelf, given, uid, tmp_path, capsys):
    lost = sorted(given)[1]
    usual = shelf.usual

    def answer(path, query, headers):
        if of_series(path):
            return 200, MULTIPART, multipart(content for name, content in given.items() if name != lost)
        return (404, {}, b"") if path.endswith(lost) else usual(path, query, headers)

    shelf.answer = answer
    assert fetch(shelf, tmp_path, "--series", uid, "--json") == 1
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    assert row["missing"] == [lost] and row["state"] == "incomplete" and row["expected"] == 4 and row["fetched"] == 3
    assert "3 of 4 images are there." in err and "status 404" in err
    assert lost not in fetched(tmp_path / uid)


def test_fewer_images_than_the_archive_counts(shelf, given, uid, tmp_path, capsys):
    def answer(path, query, headers):
        status, kind, content = shelf.usual(path, query, headers)
        if path.endswith("/series") and content:
            rows = json.loads(content)
            rows[0]["00201209"] = {"vr": "IS", "Value": ["7"]}
            content = json.dumps(rows).encode()
        return status, kind, content

    shelf.answer = answer
    assert fetch(shelf, tmp_path, "--series", uid) == 1
    assert "4 of 7 images are there." in capsys.readouterr().err and fetched(tmp_path / uid) == given


def test_an_archive_that_counts_more_images_than_it_lists_gives_all_at_once(shelf, given, uid, tmp_path, capsys):
    usual = shelf.usual

    def answer(path, query, headers):
        if not path.endswith("/instances"):
            return None
        status, kind, content = usual(path, query, headers)
        return (status, kind, json.dumps(json.loads(content)[:1]).encode()) if content else (204, {}, b"")

    shelf.answer = answer
    for there in ("4 images fetched", "0 images fetched, 4 there already"):
        assert fetch(shelf, tmp_path, "--series", uid) == 0 and fetched(tmp_path / uid) == given
        assert there in capsys.readouterr().out
    assert len(shelf.asked(files=True)) == 1


# --- files that are hostile


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


# --- interrupted


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_after_ctrl_c_what_is_whole_is_kept_and_the_next_run_goes_on(shelf, given, uid, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetching, "_PIECE", 100)
    shelf.add(write_series(tmp_path / "more", planes(2), "1.2.5", SeriesNumber=2))
    whole, ended = multipart(given.values()), threading.Event()

    def content():
        yield whole[: len(whole) * 2 // 3]
        for _ in range(2000):
            if len(list((tmp_path / "got" / uid).glob("[0-9]*.dcm"))) == 2 or ended.wait(0.01):
                break
        os.kill(os.getpid(), signal.SIGINT)
        ended.wait(20)

    answering(shelf, of_series, (200, MULTIPART, content()))
    assert fetch(shelf, tmp_path / "got", "--study", STUDY, "--json") == 130
    ended.set()
    out, err = capsys.readouterr()
    assert "Cancelled. What is whole is kept; the same command fetches the rest." in err
    first, second = json.loads(out)
    assert first["state"] == "incomplete" and first["fetched"] == len(first["missing"]) == 2
    assert second == {"series": "1.2.5", "study": STUDY, "state": "not fetched"}
    assert not [name for name in os.listdir(tmp_path / "got" / uid) if name.startswith(".")]
    shelf.answer = None
    assert fetch(shelf, tmp_path / "got", "--study", STUDY) == 0
    assert fetched(tmp_path / "got" / uid) == given and len(fetched(tmp_path / "got" / "1.2.5")) == 2


# --- transfer syntaxes


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
