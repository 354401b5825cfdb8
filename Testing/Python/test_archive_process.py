"""Archives asked in a child process, as the panel does: results, progress, faults, secrets, and what is cancelled."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import os
import threading

import psutil
import pytest
from archive_fixtures import no_credentials, series, server, shelf  # noqa: F401  (fixtures)
from archive_server import make_certificate
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.process import Access, ArchiveProcess
from fetching_fixtures import STUDY, fetched, given, of_series, uid  # noqa: F401  (fixtures)
from reading_server import reading_server, run

pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

from dicom_phantom import planes, write_series  # noqa: E402


def waited(process: ArchiveProcess) -> list:
    events: list = []
    with process:
        process.start()
        process.wait(events.append)
    return events


def test_what_is_found_is_told_study_by_study_and_what_is_searched_for_is_not_on_the_command_line(shelf, series):
    shelf.add(series)
    wanted = {"name": "phantom", "modality": "CT"}
    process, seen = ArchiveProcess("find", Access(shelf.address, "me", "pass-word"), criteria=wanted), []
    # the archive answers, so the child is there
    shelf.answer = lambda *_: seen.append(psutil.Process(process.pid).cmdline())
    waited(process)
    assert process.state == "finished" and [study["uid"] for study in process.results] == [STUDY]
    assert [one["modality"] for one in process.results[0]["series"]] == ["CT"]
    assert ("PatientName", "*phantom*") in shelf.requests[0][1]
    assert shelf.requests[0][2]["Authorization"] == "Basic bWU6cGFzcy13b3Jk"
    words = " ".join(seen[0])
    assert "find" in words and "phantom" not in words and "pass-word" not in words + str(process) + process.log


def test_nothing_found_is_no_fault(shelf):
    process = ArchiveProcess("find", Access(shelf.address), criteria={})
    waited(process)
    assert (process.state, process.results, process.error) == ("finished", [], None)


def test_a_token_and_a_certificate(series, tmp_path, monkeypatch):
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv("CLASSSCALESEG_DICOM_PASSWORD", "of another archive")
    with reading_server(certificate, key) as shelf:
        shelf.add(series)
        process = ArchiveProcess("find", Access(shelf.address, secret="abc"), criteria={})
        waited(process)
        assert process.state == "failed" and "no trusted encrypted connection" in process.error
        process = ArchiveProcess("find", Access(shelf.address, secret="abc", certificate=str(certificate)), criteria={})
        waited(process)
        assert process.state == "finished" and len(process.results) == 1
        assert {headers["Authorization"] for _, _, headers in shelf.requests} == {"Bearer abc"}


def test_no_secret_of_the_environment_reaches_another_archive(shelf, monkeypatch):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "not-for-this-one")
    monkeypatch.setenv("CLASSSCALESEG_DICOM_PASSWORD", "nor-this")
    waited(ArchiveProcess("find", Access(shelf.address), criteria={}))
    waited(ArchiveProcess("find", Access(shelf.address, "me"), criteria={}))
    told = [headers.get("Authorization") for _, _, headers in shelf.requests]
    assert told[0] is None and told[-1] == "Basic bWU6"


def test_what_others_could_read_is_sent_only_if_it_may(monkeypatch):
    process = ArchiveProcess("find", Access("http://pacs.invalid/dicom-web", secret="abc"), criteria={})
    waited(process)
    assert process.state == "failed" and "is not encrypted" in process.error and process.kind == "ArchiveError"
    process = ArchiveProcess("find", Access("http://127.0.0.1:1/dicom-web", insecure=True), criteria={})
    waited(process)
    assert process.state == "failed" and "cannot be reached" in process.error


def test_series_are_fetched_with_progress_and_a_series_that_is_not_whole_is_told(shelf, given, uid, tmp_path):
    shelf.add(write_series(tmp_path / "more", planes(3), "1.2.5", SeriesNumber=9))
    shelf.answer = lambda path, *_: (404, {}, b"") if path.count("/") >= 4 and "1.2.5" in path else None
    words = ["--series", uid, "1.2.5", "--study", STUDY, "-o", str(tmp_path / "got")]
    process = ArchiveProcess("fetch", Access(shelf.address), words)
    events = waited(process)
    assert process.state == "finished"
    assert [(one["series"], one["state"]) for one in process.results] == [(uid, "whole"), ("1.2.5", "incomplete")]
    assert "answers with status 404" in process.results[1]["faults"][0]
    assert fetched(tmp_path / "got" / uid) == given and not (tmp_path / "got" / "1.2.5").exists()
    begun = [(event.facts["case"], event.facts["index"], event.facts["count"]) for event in events
             if event.kind == "begin"]  # fmt: skip
    assert begun == [(uid, 1, 2), ("1.2.5", 2, 2)]
    told = [(event.facts["case"], event.done, event.total) for event in events if event.stage == "fetch"]
    assert (uid, 4, 4) in told and told[-1] == ("1.2.5", 0, 3)


def test_hundreds_of_series_are_not_on_the_command_line(shelf, given, uid, tmp_path):
    others = [f"1.2.826.0.1.3680043.8.498.1{number:037}" for number in range(600)]
    wanted = {"study": [STUDY], "series": [uid, *others]}
    process, seen = ArchiveProcess("fetch", Access(shelf.address), ["-o", str(tmp_path)], wanted), []
    shelf.answer = lambda *_: seen.append(psutil.Process(process.pid).cmdline())
    waited(process)
    assert f"has no series {others[0]} in what" in process.error, "it has heard of them"
    assert len(" ".join(seen[0])) < 2000 and uid not in seen[0]
    process = ArchiveProcess("fetch", Access(shelf.address), ["-o", str(tmp_path)], wanted | {"series": [uid]})
    waited(process)
    assert process.state == "finished" and fetched(tmp_path / uid) == given


def test_a_lost_archive_is_an_error_with_what_has_come(shelf, given, uid, tmp_path):
    shelf.add(write_series(tmp_path / "more", planes(3), "1.2.5", SeriesNumber=9))
    shelf.answer = lambda path, *_: (401, {}, b"") if path.endswith("/1.2.5/instances") else None
    words = ["--series", uid, "1.2.5", "--study", STUDY, "-o", str(tmp_path / "got")]
    process = ArchiveProcess("fetch", Access(shelf.address), words)
    waited(process)
    assert process.state == "failed" and "asks who you are" in process.error
    assert [one["state"] for one in process.results] == ["whole", "incomplete"]


def test_a_fetch_that_is_cancelled_keeps_whole_files_and_goes_on(shelf, given, uid, tmp_path):
    got, ended, asked = tmp_path / "got" / uid, threading.Event(), []

    def answer(path, *_):
        if of_series(path):
            return 404, {}, b""  # so that images are fetched one by one
        if "/instances/" in path:
            asked.append(path)
            if len(asked) == 3:
                ended.wait(30)
        return None

    shelf.answer = answer
    words = ["--series", uid, "--study", STUDY, "-o", str(tmp_path / "got")]
    process = ArchiveProcess("fetch", Access(shelf.address), words)
    process.start()
    while process.state == "running" and len(asked) < 3:
        process.poll()
    child = psutil.Process(process.pid)
    process.cancel()
    ended.set()
    assert process.state == "cancelled" and not child.is_running() and not process.work_folder.exists()
    there = os.listdir(got)
    assert len(there) == 2 and set(there) < {f"{instance}.dcm" for instance in given}
    shelf.answer = None
    process = ArchiveProcess("fetch", Access(shelf.address), words)
    waited(process)
    assert process.results[0]["there_already"] == 2 and process.results[0]["state"] == "whole"
    assert fetched(got) == given


def test_each_file_that_is_sent_has_its_answer(server, series):
    pytest.importorskip("dicomweb_client")
    files = sorted(series.glob("*.dcm"))
    import pydicom

    refused = str(pydicom.dcmread(files[1]).SOPInstanceUID)
    server.verdicts[refused] = ("FailedSOPSequence", 0x0122)
    process = ArchiveProcess("send", Access(server.address), [str(series)])
    events = waited(process)
    assert process.state == "finished"
    assert [one["state"] for one in process.results] == ["stored", "refused", "stored", "stored"]
    assert "it does not store this kind of object" in process.results[1]["reason"]
    assert [event.done for event in events if event.stage == "send"] == [1, 2, 3, 4]


# --- criteria in a file


def find(shelf, *words) -> int:
    return run("find", "--from", shelf.address, *words)


def test_criteria_from_a_file_are_those_of_the_options(shelf, series, tmp_path, capsys):
    shelf.add(series)
    file = tmp_path / "criteria.json"
    file.write_text(json.dumps({"name": "phantom", "date": "19000101-"}))
    assert find(shelf, "--name", "phantom", "--date", "19000101-") == 0
    asked, told = shelf.requests[0][1], capsys.readouterr().out
    shelf.requests.clear()
    assert find(shelf, "--criteria", file) == 0
    assert shelf.requests[0][1] == asked and capsys.readouterr().out == told


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        ("{", (), "cannot be read as JSON"),
        ("[]", (), "must be a JSON object of texts, each with one of these names: patient, name, date"),
        ('{"name": 3}', (), "must be a JSON object of texts"),
        ('{"nme": "Smith"}', (), "must be a JSON object of texts"),
        ('{"name": "Smith"}', ("--name", "Jones"), "says what --name says, too. Give it once."),
        ('{"date": "yesterday"}', (), "is neither a day nor a range of days"),
        (None, (), "cannot be read as JSON"),
    ],
)
def test_criteria_that_are_none(shelf, tmp_path, capsys, text, words, sentence):
    file = tmp_path / "criteria.json"
    if text is not None:
        file.write_text(text)
    assert find(shelf, "--criteria", file, *words) == 2
    assert sentence in capsys.readouterr().err and not shelf.requests


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        (
            '{"series": "1.2.3"}',
            (),
            "must be a JSON object of lists of texts, each with one of these names: series, st",
        ),
        ('{"series": [1]}', (), "must be a JSON object of lists of texts"),
        ('{"name": ["Smith"]}', (), "must be a JSON object of lists of texts"),
        ('{"series": ["1.2.3"]}', ("--series", "1.2.4"), "says what --series says, too. Give it once."),
        ('{"series": ["1.2.x"]}', (), "is not a unique identifier"),
        ("{}", (), "Name what to fetch"),
    ],
)
def test_series_from_a_file_that_are_none(shelf, tmp_path, capsys, text, words, sentence):
    file = tmp_path / "wanted.json"
    file.write_text(text)
    assert run("fetch", "--from", shelf.address, "-o", tmp_path / "got", "--criteria", file, *words) == 2
    assert sentence in capsys.readouterr().err and not shelf.requests


def test_json_lines_of_a_command_in_a_terminal(shelf, series, capsys):
    shelf.add(series)
    assert main(["dicom", "find", "--from", shelf.address, "--json-progress"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "result" and json.loads(line)["uid"] == STUDY
