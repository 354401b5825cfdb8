"""Watching a DICOM archive when something fails: what is tried again and when, and what is left or never sent."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from archive_fixtures import no_credentials, series, server, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.commands import dicom_watch, watch_loop
from ClassScaleSegLib.commands.main import ExitCode
from ClassScaleSegLib.commands.watch_record import Records
from ClassScaleSegLib.errors import LargeImageError, OutputError
from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.process import child as child_process
from fetching_fixtures import given, uid  # noqa: F401  (fixtures)

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from dicom_phantom import planes, write_series  # noqa: E402
from watch_fixtures import Child, child, dated, looks, no_waiting, nothing, record, watch  # noqa: E402, F401  (fixtures)


def test_what_fails_is_tried_again_after_longer_and_longer(shelf, server, given, uid, child, looks, tmp_path, capsys):
    Child.error = "Memory has run out."
    looks += [nothing] * 12
    assert watch(shelf, server, tmp_path, "--every", 10) == ExitCode.CANCELLED
    assert len(child) == 3  # after 10, 30 and 70 s
    output = capsys.readouterr().out
    assert "failed. Memory has run out. It is tried again in 20 s." in output and "in 80 s." in output
    assert record(tmp_path, uid) | {"study": ""} == {
        **{"series": uid, "study": "", "images": 4, "state": "failed", "structures": 0},
        **{"reason": "Memory has run out.", "instances": "", "time": record(tmp_path, uid)["time"]},
    }
    assert (tmp_path / "images" / uid).is_dir(), "they are not fetched again"
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.SOME_FAILED
    Child.error = ""
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and len(server.instances) == 1


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for the interpreter")
def test_a_segmentation_that_hangs_is_ended_and_the_other_series_go_on(shelf, server, tmp_path, capsys, monkeypatch):
    for number in range(2):
        shelf.add(write_series(tmp_path / f"in {number}", planes(4), f"1.2.{number}", SeriesNumber=number))
    hangs = tmp_path / "python"
    hangs.write_text("#!/bin/sh\nexec sleep 100\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(dicom_watch, "_LEAST_PATIENCE", 0)
    monkeypatch.setattr(child_process, "default_python", lambda: str(hangs))
    assert watch(shelf, server, tmp_path / "out", "--once", "--patience", "0.01") == ExitCode.SOME_FAILED
    reasons = [record(tmp_path / "out", f"1.2.{number}")["reason"] for number in range(2)]
    assert reasons == ["It made no progress in the stage start for 0.6 seconds, and was ended."] * 2
    assert capsys.readouterr().out.count("failed. It made no progress") == 2


def test_a_series_that_is_no_volume_is_left_out_for_good(shelf, server, given, uid, child, tmp_path, capsys):
    Child.error, Child.kind = "It is a localizer.", "ImageError"
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK
    assert "left out. It is a localizer." in capsys.readouterr().out
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and len(child) == 1
    assert not (tmp_path / "images" / uid).exists() and not server.instances


def test_a_series_for_which_memory_was_short_is_tried_again(shelf, server, given, uid, child, tmp_path):
    Child.error = "It has 512x512x9 voxels, 9 GiB; 1 GiB of memory are free."
    Child.kind = LargeImageError.__name__
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.SOME_FAILED
    assert record(tmp_path, uid)["state"] == "failed"
    Child.error = ""
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and record(tmp_path, uid)["state"] == "done"


def test_a_series_with_a_damaged_image_is_fetched_and_tried_again(shelf, server, given, uid, child, looks, tmp_path):
    Child.error, Child.kind = "Its pixels cannot be read.", "DamagedImageError"
    damaged, there = shelf.files[0], []
    shelf.files[0] = (damaged[0][:-2] + b"??", damaged[1])  # whole by its outline

    def mended():
        assert record(tmp_path, uid)["state"] == "failed" and not (tmp_path / "images" / uid).exists()
        shelf.files[0], Child.error = damaged, ""
        Child.seen = lambda: there.extend(file.read_bytes() for file in (tmp_path / "images" / uid).iterdir())

    looks += [nothing, mended, nothing, nothing]
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert record(tmp_path, uid)["state"] == "done" and len(server.instances) == 1 and damaged[0] in there


def test_a_result_that_was_not_stored_is_sent_again_and_not_segmented_again(
    shelf, server, given, uid, child, tmp_path, capsys
):
    server.answer = lambda instances: (503, {"Content-Type": "text/plain"}, b"busy")
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.SOME_FAILED
    assert record(tmp_path, uid)["state"] == "segmented" and "failed. " in capsys.readouterr().out
    server.answer = None
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK
    assert len(child) == 1 and record(tmp_path, uid)["state"] == "done" and record(tmp_path, uid)["reason"] == ""


def test_images_that_the_archive_has_no_more_are_not_segmented_in_a_second_attempt(
    shelf, server, given, uid, child, tmp_path
):
    Child.error = "Memory has run out."
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.SOME_FAILED
    folder = tmp_path / "images" / uid
    del shelf.files[0]  # it was of another patient
    (folder / "1.2.3.dcm").write_bytes(b"half a file")
    assert len(list(folder.iterdir())) == 5
    there = []
    Child.seen = lambda: there.extend(file.stem for file in folder.iterdir())
    Child.error = ""
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK
    assert sorted(there) == sorted(data.SOPInstanceUID for _, data in shelf.files)


def test_an_archive_that_is_away_is_waited_for(shelf, server, given, uid, child, looks, tmp_path, capsys):
    shelf.answer = lambda *_: (503, {"Content-Type": "text/plain"}, b"maintenance")

    def back():
        shelf.answer = None

    looks += [nothing, back, nothing]
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    error = capsys.readouterr().err
    assert len(re.findall(r"\b503\b", error)) == 1 and "The next look is in 60 s." in error
    assert len(server.instances) == 1


def test_images_that_do_not_come_are_asked_for_until_they_come(
    shelf, server, given, uid, child, looks, tmp_path, monkeypatch
):
    monkeypatch.setattr(watch_loop, "_MOST_ATTEMPTS", 2)
    shelf.answer = lambda path, *_: (500, {}, b"") if path.count("/") in (4, 6) else None
    looks += [nothing] * 20 + [lambda: setattr(shelf, "answer", None)] + [nothing] * 5
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert len(child) == len(server.instances) == 1


def test_a_damaged_record_is_named_once_and_the_others_go_on(shelf, server, given, uid, child, looks, tmp_path, capsys):
    (tmp_path / "out" / "records").mkdir(parents=True)
    record = tmp_path / "out" / "records" / f"{uid}.json"
    record.write_bytes(b"")  # as after the power has failed
    shelf.add(write_series(tmp_path / "other", planes(4)))
    looks += [nothing] * 3
    assert watch(shelf, server, tmp_path / "out") == ExitCode.CANCELLED
    assert capsys.readouterr().err.count(f"{uid}.json cannot be read") == 1 and len(child) == len(server.instances) == 1
    assert watch(shelf, server, tmp_path / "out", "--once") == ExitCode.SOME_FAILED
    record.unlink()
    looks += [nothing]
    assert watch(shelf, server, tmp_path / "out", "--once") == ExitCode.OK and len(child) == 2


def test_records_that_cannot_be_read_are_told_in_few_sentences(shelf, server, tmp_path, capsys, monkeypatch):
    (tmp_path / "records").mkdir()
    for number in range(9):
        (tmp_path / "records" / f"1.{number}.json").write_bytes(b"")
    assert watch(shelf, server, tmp_path, "--once", "--json-progress") == ExitCode.OK
    told = [json.loads(line)["faults"] for line in capsys.readouterr().out.splitlines()]
    assert [len(faults) for faults in told] == [5] * len(told) and "1.0.json cannot be read" in told[0][0]

    def away(folder, pattern):
        raise OSError(errno.EIO, "Host is down")

    monkeypatch.setattr(Path, "glob", away)
    found, (fault,) = Records(tmp_path).read_all()
    assert not found and "Host is down). Connect its drive" in fault


def test_a_result_that_was_cut_is_made_again(shelf, server, given, uid, child, tmp_path):
    server.answer = lambda instances: (503, {"Content-Type": "text/plain"}, b"busy")
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.SOME_FAILED
    server.answer = None
    for content in (b"", Child.content[:-100]):
        (tmp_path / "results" / f"{uid}.seg.dcm").write_bytes(content)
        (file,) = (tmp_path / "records").glob("*.json")
        file.write_text(json.dumps(record(tmp_path, uid) | {"state": "segmented"}))
        assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK
        assert record(tmp_path, uid)["state"] == "done"
        assert (tmp_path / "results" / f"{uid}.seg.dcm").read_bytes() == Child.content
    assert len(child) == 3 and len(server.instances) == 3


def test_what_a_killed_process_has_left_is_deleted_and_not_segmented(shelf, server, given, uid, child, tmp_path):
    left = [f"images/{uid}/.0123456789ab.dcm", "images/1.2.3/.0123456789ab.dcm"]
    with suppress(KeyboardInterrupt), replacing(tmp_path / "look.json") as look:
        with (
            replacing(tmp_path / "records" / f"{uid}.json") as one,
            replacing(tmp_path / "results" / "1.seg.dcm") as two,
        ):
            left += [file.relative_to(tmp_path) for file in (look, one, two)]
            raise KeyboardInterrupt
    own = tmp_path / ".settings.json"  # of another program, as in a home folder
    own.write_text("{}")
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half a file")
    there = []
    Child.seen = lambda: there.extend(file.name for file in child[-1].iterdir())
    assert watch(shelf, server, tmp_path, "--once", "--keep-images") == ExitCode.OK
    assert len(there) == 4 and not any((tmp_path / name).exists() for name in left) and own.exists()
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and len(child) == 1


def test_a_full_disk_is_waited_for(shelf, server, given, uid, child, looks, tmp_path, capsys, monkeypatch):
    write, full = Records.write, [True]

    def writing(records, record):
        if full:
            raise OutputError("records cannot be written (No space left on device).")
        write(records, record)

    monkeypatch.setattr(Records, "write", writing)
    looks += [nothing] * 6 + [full.clear] + [nothing] * 8
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert len(child) == 3, "it is not segmented at every look"
    assert len(server.instances) == 1 and record(tmp_path, uid)["state"] == "done"
    assert "No space left on device). The next look is in 60 s." in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows renames no folder with an open file")
def test_a_folder_that_is_gone_is_waited_for_and_nothing_is_sent_twice(
    shelf, server, given, uid, child, looks, tmp_path, capsys
):
    folder, away = tmp_path / "out", tmp_path / "away"

    def lost():  # a network drive: its empty mount point stays
        folder.rename(away)
        folder.mkdir()

    def back():
        assert not list(folder.iterdir())
        folder.rmdir()
        away.rename(folder)

    looks += [nothing, lost, nothing, nothing, nothing, back, nothing, nothing]
    assert watch(shelf, server, folder) == ExitCode.CANCELLED
    assert len(child) == len(server.instances) == 1 and record(folder, uid)["state"] == "done"
    error = capsys.readouterr().err
    assert error.count("out is gone, perhaps because a network drive is not connected.") == 1 and "It goes on." in error


@pytest.mark.skipif(os.name == "nt", reason="Windows renames no folder with an open file")
def test_a_result_is_not_sent_if_the_folder_is_lost_while_it_is_made(
    shelf, server, given, uid, child, tmp_path, monkeypatch
):
    folder, away = tmp_path / "out", tmp_path / "away"
    made = Child.wait

    def lost(child, patience):
        folder.rename(away)
        return made(child, patience)

    monkeypatch.setattr(Child, "wait", lost)
    assert watch(shelf, server, folder, "--once") == ExitCode.SOME_FAILED and not server.instances
    shutil.rmtree(folder)
    away.rename(folder)
    monkeypatch.setattr(Child, "wait", made)
    assert watch(shelf, server, folder, "--once") == ExitCode.OK and len(server.instances) == 1


def test_a_result_of_images_that_the_archive_has_deleted_meanwhile_is_not_sent(
    shelf, server, given, uid, child, tmp_path
):
    server.answer = lambda instances: (503, {"Content-Type": "text/plain"}, b"busy")
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.SOME_FAILED
    server.answer = None
    del shelf.files[0]
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK
    assert len(child) == 2 and record(tmp_path, uid)["images"] == 3


def test_a_result_of_another_patient_than_the_archive_names_is_not_sent(
    shelf, server, given, uid, child, tmp_path, capsys
):
    names = {data.PatientID for _, data in shelf.files}
    for _, data in shelf.files:  # it was corrected while the result waited
        data.PatientID = "corrected"
    for _ in range(2):
        assert watch(shelf, server, tmp_path, "--once") == ExitCode.SOME_FAILED
    output = capsys.readouterr().out
    assert "name another patient (PatientID) than the archive does" in output and "corrected" not in output
    assert not server.instances and not list((tmp_path / "results").iterdir()) and len(child) == 2
    assert not (tmp_path / "images" / uid).exists() and record(tmp_path, uid)["state"] == "failed"
    for _, data in shelf.files:
        (data.PatientID,) = names
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and len(server.instances) == 1


def test_a_result_is_sent_also_after_many_attempts(
    shelf, server, given, uid, child, looks, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(watch_loop, "_MOST_ATTEMPTS", 2)
    server.answer = lambda instances: (503, {"Content-Type": "text/plain"}, b"busy")
    looks += [nothing] * 20
    looks.append(lambda: setattr(server, "answer", None))
    looks += [nothing] * 5
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert len(child) == 1 and record(tmp_path, uid)["state"] == "done"
    assert capsys.readouterr().out.count("It is tried again in 240 s.") > 2


def test_segmenting_goes_on_while_the_archive_of_the_results_is_away(
    shelf, server, given, uid, child, looks, tmp_path, capsys
):
    shelf.add(write_series(tmp_path / "more", planes(4), "1.2.5", SeriesNumber=9))
    away = ["--to", "http://127.0.0.1:9/dicom-web"]
    looks += [nothing] * 2
    assert watch(shelf, server, tmp_path / "out", *away) == ExitCode.CANCELLED
    assert (
        len(child) == 2 and capsys.readouterr().out.count("failed. http://127.0.0.1:9/dicom-web cannot be reached") == 2
    )
    assert {record(tmp_path / "out", each)["state"] for each in (uid, "1.2.5")} == {"segmented"}
    assert watch(shelf, server, tmp_path / "out", "--once") == ExitCode.OK
    assert len(server.instances) == len(child) == 2


def test_a_fault_that_nobody_foresaw_fails_one_series_alone(
    shelf, server, given, uid, child, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shelf.add(write_series(tmp_path / "more", planes(4), "1.2.5", SeriesNumber=9))
    monkeypatch.setattr(Child, "seen", staticmethod(lambda: 1 / 0 if child[-1].name == uid else None))
    assert watch(shelf, server, tmp_path / "out", "--once") == ExitCode.SOME_FAILED
    assert record(tmp_path / "out", uid)["state"] == "failed" and record(tmp_path / "out", "1.2.5")["state"] == "done"
    assert "failed unexpectedly (ZeroDivisionError: division by zero). The details are in" in capsys.readouterr().out
