"""Watching a DICOM archive: series are segmented as they arrive, each once, and the results are sent."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import threading
from pathlib import Path

import pytest
from archive_fixtures import no_credentials, series, server, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.commands import dicom_watch, watch_loop, watch_work
from ClassScaleSegLib.commands.archive_options import archive_of
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.errors import ArchiveError, OutputError
from ClassScaleSegLib.process import child as child_process
from fetching_fixtures import given, uid  # noqa: F401  (fixtures)
from reading_server import MULTIPART, Shelf, multipart

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from dicom_phantom import planes, write_series  # noqa: E402
from dicom_results import written  # noqa: E402


class Child:
    """Stands in for the child process: its result is a small segmentation of the series."""

    made: list[Path] = []
    error, kind = "", ""
    seen = staticmethod(lambda: None)

    def __init__(self):
        self.job, self.result, self.error, self.kind = None, {"structures": 2}, Child.error, Child.kind

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def work_folder(self) -> Path:
        return Child.folder

    def start(self):
        Child.made.append(Path(self.job.images[0]))
        Child.seen()
        assert all(file.suffix == ".dcm" for file in Child.made[-1].iterdir())

    def wait(self, patience):
        if self.error:
            return "failed"
        self.job.output.write_bytes(Child.content)
        return "finished"


@pytest.fixture
def child(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("child")
    _, path, _ = written(folder, volume=planes())
    Child.folder, Child.content, Child.made, Child.error, Child.kind = folder, path.read_bytes(), [], "", ""
    monkeypatch.setattr(Child, "seen", staticmethod(lambda: None))
    monkeypatch.setattr(watch_work, "SegmentationProcess", Child)
    return Child.made


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(watch_loop.time, "sleep", lambda seconds: None)


@pytest.fixture
def looks(monkeypatch):
    """Lets time pass at once, and ends the command by Ctrl-C when nothing is to happen any more."""
    then = []

    def sleep(seconds):
        clock[0] += seconds
        if not then:
            raise KeyboardInterrupt
        then.pop(0)()

    clock = [0.0]
    monkeypatch.setattr(watch_loop.time, "sleep", sleep)
    monkeypatch.setattr(watch_loop.time, "monotonic", lambda: clock[0])
    return then


def watch(shelf, server, folder, *words) -> int:
    to = [] if server is None else ["--to", server.address]
    common = ["--from", shelf.address, *to, "--modality", "CT", "--date", "19000101-", "--least-images", "2"]
    return main(["dicom", "watch", *map(str, [*common, "-m", "toy-120", "-o", folder, *words])])


@pytest.fixture(autouse=True)
def dated(monkeypatch):
    """The archive tells a date of every study."""
    add = Shelf.add

    def dated(self, folder):
        add(self, folder)
        for _, data in self.files:
            data.StudyDate = "20261130"
        return folder

    monkeypatch.setattr(Shelf, "add", dated)


def record(folder, uid) -> dict:
    return json.loads((folder / "records" / f"{uid}.json").read_text())


def nothing() -> None:
    pass


def test_what_is_there_is_segmented_once_and_sent(shelf, server, given, uid, child, tmp_path, capsys):
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK
    ((sent,),) = server.instances
    result = tmp_path / "results" / f"{uid}.seg.dcm"
    assert pydicom.dcmread(result).SOPInstanceUID == sent.SOPInstanceUID and sent.Modality == "SEG"
    assert [folder.name for folder in child] == [uid] and not list((tmp_path / "images").iterdir())
    output = capsys.readouterr().out
    assert f"{uid} (CT, 4 images): 2 structures in " in output and output.endswith("sent\n")
    assert record(tmp_path, uid)["state"] == "done"
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK
    assert len(child) == 1 and len(server.instances) == 1 and capsys.readouterr().out == ""


def test_a_series_is_begun_when_no_more_images_come_and_again_if_more_come_later(
    shelf, server, given, uid, child, looks, tmp_path, capsys
):
    files = list(shelf.files)
    del shelf.files[2:]

    def arrive():
        assert not child, "two images at the first look, of which more may come"
        shelf.files[:] = files[:3]

    def wait():
        assert not child, "more have come"

    def more():
        assert len(child) == 1 and record(tmp_path, uid)["images"] == 3
        shelf.files[:] = files

    looks += [arrive, wait, more, nothing]
    assert watch(shelf, server, tmp_path, "--every", 60) == ExitCode.CANCELLED
    assert len(child) == 2 and len(server.instances) == 2 and record(tmp_path, uid)["images"] == 4


def test_once_waits_for_series_that_arrive_and_not_for_those_that_begin_later(
    shelf, server, given, uid, child, looks, tmp_path, capsys
):
    files = list(shelf.files)
    del shelf.files[2:]

    def more():
        assert not child
        shelf.files[:] = files
        shelf.add(write_series(tmp_path / "later", planes(4)))

    looks += [more, nothing]
    assert watch(shelf, server, tmp_path / "out", "--once") == ExitCode.OK
    assert [folder.name for folder in child] == [uid] and record(tmp_path / "out", uid)["images"] == 4
    assert capsys.readouterr().err.count("A look in 60 s shows whether more images come: 1 series.") == 2
    assert watch(shelf, server, tmp_path / "out", "--once") == ExitCode.CANCELLED, "it waits to see the later one again"


def test_a_series_is_segmented_again_without_images_that_were_deleted(
    shelf, server, given, uid, child, looks, tmp_path
):
    looks += [nothing, shelf.files.pop, nothing, nothing, nothing]
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert len(child) == len(server.instances) == 2 and record(tmp_path, uid)["images"] == 3


def test_a_series_of_which_an_image_was_replaced_is_segmented_again_within_the_hour(
    shelf, server, given, uid, child, looks, tmp_path
):
    content, data = shelf.files[0]
    other = pydicom.dcmread(io.BytesIO(content))
    other.StudyDate = data.StudyDate
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    other.save_as(changed := io.BytesIO())

    def replace():
        shelf.files[0] = changed.getvalue(), other

    looks += [nothing, replace] + [nothing] * 61
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert len(child) == len(server.instances) == 2
    asked = [path for path in shelf.asked(files=False) if path.endswith("/instances")]
    assert len(asked) < 10, "it is not asked at every look"
    shelf.files[0] = content, data
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and len(child) == 3, "and at once at the start"


def test_a_series_is_not_segmented_again_because_the_archive_counts_its_images_wrongly(
    shelf, server, given, uid, child, looks, tmp_path
):
    wrong = [0]

    def answer(path, query, headers):
        status, kind, content = shelf.usual(path, query, headers)
        if not path.endswith("/series") or not content:
            return None
        rows = json.loads(content)
        for row in rows:
            row["00201209"]["Value"] = [4 + wrong[0]]
        return status, kind, json.dumps(rows).encode()

    def miscount(by):
        wrong[0] = by

    shelf.answer = answer
    looks += [nothing, nothing, lambda: miscount(1), nothing, nothing, lambda: miscount(-1), nothing, nothing]
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert len(child) == 1


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
    assert error.count("503") == 1 and "The next look is in 60 s." in error and len(server.instances) == 1


def test_each_archive_gets_its_own_credentials_and_never_those_of_the_other(
    shelf, server, given, child, tmp_path, capsys, monkeypatch
):
    def told() -> tuple[set, set]:
        asked, sent = [headers for _, _, headers in shelf.requests], list(server.headers)
        shelf.requests.clear(), server.headers.clear()
        return tuple({headers.get("Authorization") for headers in side} for side in (asked, sent))

    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "of-the-first")
    assert watch(shelf, server, tmp_path / "1", "--once") == ExitCode.OK
    assert told() == ({"Bearer of-the-first"}, {None})
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TO_TOKEN", "of-the-second")
    assert watch(shelf, server, tmp_path / "2", "--once") == ExitCode.OK
    assert told() == ({"Bearer of-the-first"}, {"Bearer of-the-second"})
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TO_PASSWORD", "b")
    assert watch(shelf, server, tmp_path / "3", "--once", "--to-user", "a") == ExitCode.OK
    assert told() == ({"Bearer of-the-first"}, {"Basic YTpi"})
    monkeypatch.delenv("CLASSSCALESEG_DICOM_TO_PASSWORD")
    assert watch(shelf, server, tmp_path / "4", "--once", "--to-user", "a") == ExitCode.USAGE
    assert "CLASSSCALESEG_DICOM_TO_PASSWORD" in capsys.readouterr().err and not shelf.requests
    server.answer = lambda instances: (401, {"Content-Type": "text/plain"}, b"")
    assert watch(shelf, server, tmp_path / "5", "--once") == ExitCode.SOME_FAILED
    assert "Give --to-user and the password, or a token" in (said := capsys.readouterr().out)
    assert "CLASSSCALESEG_DICOM_TO_TOKEN" in said and "of-the" not in said


def test_the_archive_that_is_watched_keeps_its_credentials_if_it_is_named_twice(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "abc")
    options = argparse.Namespace(archive=shelf.address, user=None, insecure=False, no_send=False)
    archive = archive_of(options)
    for to in (None, shelf.address, f"{shelf.address}/"):
        options.to, options.to_user = to, None
        assert dicom_watch._target(options, archive) is archive
    options.to = shelf.address + "/of-others"
    assert dicom_watch._target(options, archive).token is None
    options.to, options.to_user = None, "me"
    with pytest.raises(ArchiveError, match="Give --to"):
        dicom_watch._target(options, archive)


def test_a_wrong_password_is_tried_less_and_less_often(shelf, given, looks, tmp_path, capsys):
    shelf.answer = lambda *_: (401, {}, b"")
    looks += [nothing] * 7 + [lambda: setattr(shelf, "answer", None), nothing]
    assert watch(shelf, None, tmp_path, "--no-send", "--least-images", "99") == ExitCode.CANCELLED
    said = [line.rpartition(" The next look is ")[2] for line in capsys.readouterr().err.splitlines()]
    assert said[:-2] == [f"in {seconds} s." for seconds in (120, 240, 480, 960, 1920, 3600, 3600, 3600)]
    assert said[-2].endswith("It goes on.")


def test_a_password_that_is_not_valid_any_more_is_not_tried_for_each_series(
    shelf, server, given, child, looks, tmp_path
):
    for number in range(3):
        shelf.add(write_series(tmp_path / f"{number}", planes(4), f"1.2.{number}", SeriesNumber=number + 5))
    asked = []
    shelf.answer = lambda path, *_: asked.append(path) or (401, {}, b"") if path.endswith("/instances") else None
    looks += [nothing]
    assert watch(shelf, server, tmp_path / "out") == ExitCode.CANCELLED
    assert len(asked) == 1 and not list((tmp_path / "out").glob("records/*"))


def test_images_that_do_not_come_are_asked_for_until_they_come(
    shelf, server, given, uid, child, looks, tmp_path, monkeypatch
):
    monkeypatch.setattr(watch_loop, "_MOST_ATTEMPTS", 2)
    shelf.answer = lambda path, *_: (500, {}, b"") if path.count("/") in (4, 6) else None
    looks += [nothing] * 20 + [lambda: setattr(shelf, "answer", None)] + [nothing] * 5
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert len(child) == len(server.instances) == 1


def test_a_series_that_is_in_two_studies_is_segmented_in_the_first_and_the_other_is_named(
    shelf, server, uid, child, tmp_path, capsys
):
    shelf.add(write_series(tmp_path / "other", planes(6), uid, StudyInstanceUID="1.2.3.4"))
    for _ in range(2):
        assert watch(shelf, server, tmp_path / "out", "--once") == ExitCode.SOME_FAILED
        assert f"The series {uid} of the study 1.2.3.4 is passed over: it was in the study" in capsys.readouterr().err
    assert len(child) == 1 and len(server.instances) == 1
    del shelf.files[:4]
    (tmp_path / "out" / "records" / f"{uid}.json").unlink()
    assert watch(shelf, server, tmp_path / "out", "--once") == ExitCode.OK
    assert record(tmp_path / "out", uid)["study"] == "1.2.3.4" and len(child) == 2


def test_only_wanted_series_are_fetched(shelf, server, given, uid, child, tmp_path):
    for words in (["--least-images", "5"], ["--series-description", "venous"], ["--date", "20991231-"]):
        assert watch(shelf, server, tmp_path, "--once", *words) == ExitCode.OK
    assert not child and not shelf.asked(files=True)


def test_the_last_days_are_counted_anew_at_each_look(shelf, server, given, child, looks, tmp_path, monkeypatch):
    class Today(watch_loop.date):
        day_now = 30

        @classmethod
        def today(cls):
            return cls(2026, 11, cls.day_now)

    monkeypatch.setattr(watch_loop, "date", Today)
    looks += [lambda: setattr(Today, "day_now", 29)]
    common = ["--from", shelf.address, "--modality", "CT", "--no-send", "-m", "toy-120", "-o", str(tmp_path)]
    assert main(["dicom", "watch", *common, "--days", "2"]) == ExitCode.CANCELLED
    asked = [dict(query)["StudyDate"] for path, query, _ in shelf.requests if path == "/studies"]
    assert list(dict.fromkeys(asked)) == ["20261129-", "20261128-"]
    for days in ("0", "-1", "9999999999"):
        assert main(["dicom", "watch", *common, "--days", days]) == ExitCode.USAGE
    for words in ([], ["--days", "1", "--date", "20261101-"], ["--days", "1", "--json-progress"]):
        with pytest.raises(SystemExit):
            main(["dicom", "watch", *common, *words])


def test_results_can_stay_here_and_images_too(shelf, server, given, uid, child, tmp_path, capsys):
    assert watch(shelf, None, tmp_path, "--once", "--no-send", "--keep-images", "--json") == ExitCode.OK
    assert not server.instances and len(list((tmp_path / "images" / uid).iterdir())) == 4
    line = json.loads(capsys.readouterr().out)
    assert (line["series"], line["state"], line["structures"], line["images"]) == (uid, "done", 2, 4)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--every", "1"], ExitCode.USAGE, "--every 1 is too often"),
        (["--every", "inf"], ExitCode.USAGE, "Give 5 to 86400 seconds"),
        (["--patience", "0"], ExitCode.USAGE, "Give 1 to 1440 minutes"),
        (["--patience", "nan"], ExitCode.USAGE, "Give 1 to 1440 minutes"),
        (["--date", "yesterday"], ExitCode.USAGE, "neither a day nor a range"),
        (["--no-send"], ExitCode.USAGE, "Leave one of them out"),
        (["--to", "https://me:abc@pacs/"], ExitCode.USAGE, "Use --to-user, and the environment variable"),
        (["-m", "no-model"], ExitCode.MODEL, "no-model"),
        (["--classes", "no class"], ExitCode.LABELS, "no class"),
    ],
)
def test_what_cannot_work_is_said_at_once(shelf, server, child, tmp_path, capsys, words, code, said):
    assert watch(shelf, server, tmp_path, "--once", *words) == code
    assert said in capsys.readouterr().err and not shelf.requests


def test_two_do_not_work_in_one_folder(shelf, server, given, child, tmp_path, capsys, monkeypatch):
    inside, go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        inside.set()
        go_on.wait(60)

    shelf.answer = slow
    first = threading.Thread(target=watch, args=(shelf, server, tmp_path, "--once"))
    first.start()
    assert inside.wait(60)
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.FAULT
    assert "is being used by another process" in capsys.readouterr().err
    go_on.set()
    first.join()
    assert len(server.instances) == 1


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
    left = ["records/.0a.json", "results/.0a.seg.dcm", f"images/{uid}/.0a.dcm", "images/1.2.3/.0a.dcm", ".0a.json"]
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half a file")
    there = []
    Child.seen = lambda: there.extend(file.name for file in child[-1].iterdir())
    assert watch(shelf, server, tmp_path, "--once", "--keep-images") == ExitCode.OK
    assert len(there) == 4 and not any((tmp_path / name).exists() for name in left)
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and len(child) == 1


def test_a_full_disk_is_waited_for(shelf, server, given, uid, child, looks, tmp_path, capsys, monkeypatch):
    from ClassScaleSegLib.commands.watch_record import Records

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


def test_what_is_said_of_a_search_is_said_once(shelf, server, given, uid, child, looks, tmp_path, capsys):
    shelf.untold.add("Modality")
    looks += [nothing] * 5
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert capsys.readouterr().err.count("does not tell the modality") == 1


def test_images_that_come_between_the_look_and_the_fetch_are_not_segmented_twice(
    shelf, server, given, uid, child, looks, tmp_path
):
    last = shelf.files.pop()

    def late(path, query, headers):
        if path.endswith("/instances") and last not in shelf.files:
            shelf.files.append(last)

    shelf.answer = late
    looks += [nothing] * 4
    assert watch(shelf, server, tmp_path) == ExitCode.CANCELLED
    assert len(child) == 1 and record(tmp_path, uid)["images"] == 4


def test_what_cannot_be_read_as_it_is_compressed_is_decompressed_by_the_archive_if_it_does(
    shelf, server, given, uid, child, tmp_path, capsys
):
    plain = dict(given)
    for number, (content, data) in enumerate(shelf.files):
        file = pydicom.dcmread(io.BytesIO(content))
        file.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
        file.PixelData = pydicom.encaps.encapsulate([bytes(2000)])
        file["PixelData"].is_undefined_length = True
        file.save_as(changed := io.BytesIO())
        shelf.files[number] = changed.getvalue(), data
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.SOME_FAILED
    assert "cannot be read here (High-Throughput JPEG 2000" in capsys.readouterr().out
    assert not child and record(tmp_path, uid)["state"] == "failed"

    def decompress(path, query, headers):
        if path.count("/") == 4 and headers["Accept"] == 'multipart/related; type="application/dicom"':
            return 200, MULTIPART, multipart(plain.values())
        return None

    shelf.answer = decompress
    there = {}
    Child.seen = lambda: there.update({file.stem: file.read_bytes() for file in child[-1].iterdir()})
    assert watch(shelf, server, tmp_path, "--once") == ExitCode.OK and there == plain


def test_the_whole_way_with_a_model(shelf, server, tmp_path, capsys):
    shelf.add(write_series(tmp_path / "in", planes(12)))
    assert watch(shelf, server, tmp_path / "out", "--once", "--device", "cpu", "--dicom-seg", "binary") == ExitCode.OK
    ((sent,),) = server.instances
    assert sent.Modality == "SEG" and sent.SegmentationType == "BINARY"
    assert "structures in " in capsys.readouterr().out
