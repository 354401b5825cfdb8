"""Fetching series from a DICOM archive: every file as it is stored, and what is missing or was interrupted."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from archive_fixtures import no_credentials, series, shelf  # noqa: F401  (fixtures)
from archive_server import make_certificate
from ClassScaleSegLib.archive import fetching
from ClassScaleSegLib.images.reading import read_image
from fetching_fixtures import STUDY, answering, fetch, fetched, given, of_series, uid  # noqa: F401  (fixtures)
from reading_server import AS_STORED, MULTIPART, multipart, reading_server

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

from dicom_phantom import compare, planes, write_series  # noqa: E402


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
