"""Watching a DICOM archive: series are segmented as they arrive, each once, and the results are sent."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import io
import json
import threading

import pytest
from archive_fixtures import no_credentials, series, server, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.commands import watch_loop
from ClassScaleSegLib.commands.main import ExitCode, main
from fetching_fixtures import given, uid  # noqa: F401  (fixtures)
from reading_server import MULTIPART, multipart

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from dicom_phantom import planes, write_series  # noqa: E402
from watch_fixtures import Child, child, dated, looks, no_waiting, nothing, record, watch  # noqa: E402, F401  (fixtures)


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
    for words in ([], ["--days", "1", "--date", "20261101-"], ["--days", "1", "--criteria", "x.json"]):
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


def test_a_program_can_follow_what_is_done(shelf, server, given, uid, child, tmp_path, capsys):
    server.answer = lambda instances: (503, {"Content-Type": "text/plain"}, b"busy")
    assert watch(shelf, server, tmp_path, "--once", "--json-progress") == ExitCode.SOME_FAILED
    first, *told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["event"] for one in told} == {"result"} and first["look"] is None and first["states"] == {}
    assert [one["look"]["series"] for one in told if one["look"]["series"]] == [uid]
    assert told[-1]["states"] == {"segmented": 1} and told[-1]["failed"][0]["series"] == uid
    assert "503" in told[-1]["failed"][0]["reason"]


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
