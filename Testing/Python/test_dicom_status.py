"""What a folder of a watched archive tells the person who looks at it once a week."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json

import pytest
from archive_fixtures import no_credentials, series, server, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.commands.main import ExitCode
from fetching_fixtures import given, uid  # noqa: F401  (fixtures)
from reading_server import run
from watch_fixtures import Child, child, dated, looks, no_waiting, nothing, watch  # noqa: F401  (fixtures)

pytest.importorskip("pydicom")

from dicom_phantom import planes, write_series  # noqa: E402


def status(folder, *words) -> int:
    return run("status", folder, *words)


def test_it_says_what_is_done_and_what_has_failed_and_why(shelf, server, given, uid, child, tmp_path, capsys):
    folder = tmp_path / "out"
    assert watch(shelf, server, folder, "--once") == ExitCode.OK
    capsys.readouterr()
    assert status(folder) == ExitCode.OK
    first, counts = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{folder}: does not run, last look 20")
    assert counts == "1 done (1 in the last 7 days), 0 left out, 0 not sent, 0 failed"
    shelf.add(write_series(tmp_path / "1", planes(4), "1.2.1", SeriesNumber=1))
    server.answer = lambda instances: (503, {"Content-Type": "text/plain"}, b"busy")
    assert watch(shelf, server, folder, "--once") == ExitCode.SOME_FAILED
    shelf.add(write_series(tmp_path / "2", planes(4), "1.2.2", SeriesNumber=2))
    Child.error = "Memory has run out."
    assert watch(shelf, server, folder, "--once") == ExitCode.SOME_FAILED
    shelf.add(write_series(tmp_path / "3", planes(4), "1.2.3", SeriesNumber=3))
    Child.error, Child.kind = "It is a localizer.", "ImageError"
    del shelf.files[4:12]
    assert watch(shelf, server, folder, "--once") == ExitCode.OK
    (folder / "records" / "1.2.4.json").write_text("{")
    record = folder / "records" / f"{uid}.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"time": "2026-01-02 03:04:05"}))
    capsys.readouterr()
    assert status(folder) == ExitCode.SOME_FAILED
    _, counts, *failed, damaged = capsys.readouterr().out.splitlines()
    assert counts == "1 done (0 in the last 7 days), 1 left out, 1 not sent, 1 failed"
    failed.sort(key=lambda line: line.split()[-1])  # both may be of the same second
    assert "  not sent  1.2.1 (4 images): " in failed[0] and "503" in failed[0]
    assert failed[1].endswith("  failed  1.2.2 (4 images): Memory has run out.") and len(failed) == 2
    assert "1.2.4.json cannot be read" in damaged
    assert status(folder, "--json") == ExitCode.SOME_FAILED
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"] is False and len(facts["faults"]) == 1 and facts["look"]["fault"] == ""
    assert [(one["series"], one["state"]) for one in facts["series"]] == [
        ("1.2.1", "segmented"), ("1.2.2", "failed"), ("1.2.3", "left out"), (uid, "done")
    ]  # fmt: skip


def test_it_says_what_is_at_work(shelf, server, given, uid, child, tmp_path, capsys, monkeypatch):
    codes = []
    monkeypatch.setattr(Child, "seen", staticmethod(lambda: codes.append(status(tmp_path))))
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and codes == [ExitCode.OK]
    first, work, counts = capsys.readouterr().out.splitlines()[:3]
    assert first.startswith(f"{tmp_path}: runs, last look 20")
    assert work.startswith(f"1 series to do, 0 arriving; at work on {uid} since 20") and counts.startswith("0 done (0 ")


def test_an_archive_that_does_not_answer_is_said(shelf, server, given, child, looks, tmp_path, capsys):
    shelf.answer = lambda *_: (503, {"Content-Type": "text/plain"}, b"maintenance")
    looks += [nothing]
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    capsys.readouterr()
    assert status(tmp_path) == ExitCode.SOME_FAILED
    assert "answers with status 503" in capsys.readouterr().out.splitlines()[1]
    shelf.answer = None
    looks += [nothing]
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED and status(tmp_path) == ExitCode.OK


def test_folders_of_others_and_what_was_damaged(tmp_path, capsys):
    assert status(tmp_path) == ExitCode.USAGE
    assert f"{tmp_path} is no folder of classscaleseg dicom watch" in capsys.readouterr().err
    (tmp_path / "records").mkdir()
    for text in ("{", "[]", "3", '{"time": 3}', '{"time": "x", "due": "y"}', '{"other": ""}'):
        (tmp_path / "look.json").write_text(text)
        assert status(tmp_path) == ExitCode.OK
        assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path}: does not run"


def test_hundreds_that_have_failed_do_not_fill_the_screen(tmp_path, capsys):
    (tmp_path / "records").mkdir()
    facts = {"study": "1.2", "images": 1, "state": "failed", "reason": "It\nfailed."}
    for number in range(60):
        facts |= {"series": f"1.2.{number}", "time": f"2026-01-01 00:00:{number:02}"}
        (tmp_path / "records" / f"1.2.{number}.json").write_text(json.dumps(facts))
    assert status(tmp_path) == ExitCode.SOME_FAILED
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 53 and lines[2] == "2026-01-01 00:00:59  failed  1.2.59 (1 image): It\\nfailed."
    assert lines[-1] == "10 more are listed with --json."
