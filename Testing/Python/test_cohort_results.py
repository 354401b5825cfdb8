"""Results of many cases: work of others is never replaced, and what is done is not called failed or forgotten."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
from ClassScaleSegLib import OutputError, Segmentation
from ClassScaleSegLib.cohort.ledger import read_ledger
from ClassScaleSegLib.commands import case_runner, case_worker, sent_files
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.commands.results import CaseResults
from ClassScaleSegLib.images.case_notes import read_notes
from ClassScaleSegLib.models.summary import summarize
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.process.job import Job
from ClassScaleSegLib.report.report import Report
from ClassScaleSegLib.resources import resource

sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "cases").mkdir()
    for number, name in enumerate("ab"):
        voxels = np.random.default_rng(number).normal(50, 30, (16, 16, 16)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "cases" / f"{name}.nii.gz"))
    return tmp_path / "cases"


def segment(*arguments):
    cheap = ["--device", "cpu", "--no-mirroring", "--threads", "1"]
    return main(["segment", *map(str, arguments), "-m", str(resource("Models", "toy-120.zip")), *cheap])


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_result_names_the_model_that_nobody_has_looked_after(cases, tmp_path):
    assert segment(cases / "a.nii.gz", "-o", tmp_path / "a.seg.nrrd") == ExitCode.OK
    (model,) = read_notes(tmp_path / "a.seg.nrrd").unchecked
    assert model == summarize(resource("Models", "toy-120.zip")).name


def test_a_file_that_comes_while_its_case_is_segmented_is_kept_now_and_later(cases, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    own = tmp_path / "out" / "a.seg.nrrd"

    class Measured(case_runner.Measured):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            own.write_bytes(b"by hand")

    with monkeypatch.context() as patched:
        patched.setattr(case_runner, "Measured", Measured)
        assert segment(cases, "-o", tmp_path / "out") == ExitCode.SOME_FAILED
        assert "already exists" in capsys.readouterr().err
    assert segment(cases, "-o", tmp_path / "out") == ExitCode.OK
    assert own.read_bytes() == b"by hand"
    own.unlink()
    (cases / "b.nii.gz").unlink()
    assert segment(cases, "-o", tmp_path / "out") == ExitCode.OK
    made = own.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(case_runner, "Measured", Measured)
        assert segment(cases, "-o", tmp_path / "out", "--step", 1) == ExitCode.SOME_FAILED
        assert "was changed since it was made" in capsys.readouterr().err and own.read_bytes() == b"by hand"
        assert segment(cases, "-o", tmp_path / "out", "--overwrite") == ExitCode.OK
    assert own.read_bytes() == made


def test_a_segmentation_by_hand_of_a_case_that_could_not_be_written_is_kept(cases, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(CaseResults, "write", fail)
        assert segment(cases, "-o", tmp_path / "out") == ExitCode.SOME_FAILED
    (tmp_path / "out" / "a.seg.nrrd").write_bytes(b"by hand")
    assert segment(cases, "-o", tmp_path / "out") == ExitCode.OK
    assert (tmp_path / "out" / "a.seg.nrrd").read_bytes() == b"by hand"


def test_what_is_done_elsewhere_is_not_put_aside_and_its_report_is_completed(cases, tmp_path, capsys):
    pytest.importorskip("distributed")
    out, report = tmp_path / "out", tmp_path / "report"
    assert segment(cases, "-o", out) == ExitCode.OK
    ledger = out / ".classscaleseg" / "cohort.jsonl"
    died = {"at": "2026-01-01T00:00:00+00:00", "event": "failed", "case": "a", "kind": "WorkerDied", "error": "died"}
    ledger.write_text(json.dumps(died) + "\n", encoding="utf-8")
    assert [case.name for case in read_ledger(out).failed()] == ["a"]
    assert segment(cases, "-o", out, "--cluster", "local:1", "--report", report) == ExitCode.OK
    assert not read_ledger(out).failed()
    facts = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert [case["name"] for case in facts["cases"]] == ["a", "b"] and (report / "index.html").exists()


def test_a_report_has_what_the_result_is_now(cases, tmp_path, capsys):
    (cases / "b.nii.gz").unlink()
    out, report = tmp_path / "out", ["--report", tmp_path / "report"]
    assert segment(cases, "-o", out, *report) == ExitCode.OK
    for more in ([], report):
        assert segment(cases, "-o", out, "--smooth", 4, *more) == ExitCode.OK  # leaves nothing
    facts = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert facts["cases"][0]["structures"] == []


def test_a_report_has_a_result_that_was_replaced_by_an_older_file(cases, tmp_path, capsys, monkeypatch):
    """As by one that a colleague has edited, copied with its time; or after the clock was set back."""
    (cases / "b.nii.gz").unlink()
    out, report, page = tmp_path / "out", ["--report", tmp_path / "report"], tmp_path / "report" / "report.json"
    assert segment(cases, "-o", out, *report) == ExitCode.OK

    def structures():
        return json.loads(page.read_text(encoding="utf-8"))["cases"][0]["structures"]

    assert structures()
    result = out / "a.seg.nrrd"
    whole = Segmentation.from_image(result)
    Segmentation(whole.labels * 0, whole.table, whole.geometry).write(result, overwrite=True)
    os.utime(result, (10**9, 10**9))
    assert segment(cases, "-o", out, *report) == ExitCode.OK
    assert structures() == []
    # a copy of the same content has another time, and is not read again
    os.utime(result, (2 * 10**9, 2 * 10**9))
    monkeypatch.setattr("ClassScaleSegLib.commands.job_report.read_finished", None)
    assert segment(cases, "-o", out, *report) == ExitCode.OK


def test_a_job_is_not_given_beside_a_dataset(tmp_path, capsys):
    assert main(["segment", "--job", str(tmp_path / "job.json"), "--bids", str(tmp_path)]) == ExitCode.USAGE
    assert "bids cannot be given beside --job" in capsys.readouterr().err


def test_a_class_that_does_not_exist_is_told_once(cases, tmp_path, capsys):
    for cluster in ([], ["--cluster", "local:1"]):
        command = [cases, "-o", tmp_path / "out", "--classes", "nosuch", *cluster]
        assert segment(*command) == ExitCode.LABELS
        assert capsys.readouterr().err.count("120 classes: No label is called nosuch") == 1


def test_a_worker_of_another_version_segments_nothing(cases, tmp_path):
    setup = case_worker.Setup(None, None, "run", version="0.0.1")
    with pytest.raises(case_worker.WorkerError, match="and 0.0.1 where the command runs"):
        case_worker._refuse_other_version(setup)
    case_worker._refuse_other_version(case_worker.Setup(None, None, "run"))


def test_a_model_that_is_sent_keeps_the_name_of_its_file(tmp_path):
    job = Job(("ct.nii.gz",), ("/a/one.zip", "/b/one.zip"), tmp_path, options=Options(locate_with="/b/one.zip"))
    received = case_worker._received_job(tmp_path, job, {"/a/one.zip": b"1", "/b/one.zip": b"2"})
    assert [(file.name, file.read_bytes()) for file in received.models] == [("one.zip", b"1"), ("one.zip", b"2")]
    assert received.options.locate_with == str(received.models[1])


def test_what_was_sent_is_recorded_and_not_what_the_image_is_later(cases, tmp_path, capsys, monkeypatch):
    distributed = pytest.importorskip("distributed")
    (cases / "c.mhd").touch()
    send = sent_files._contents

    def and_replace(case):
        files = send(case)
        if case.name == "a":
            shutil.copy(cases / "b.nii.gz", case.files[0])
        return files

    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        sent = [cases, "-o", tmp_path / "out", "--cluster", cluster.scheduler_address, "--transfer", "--json-progress"]
        with monkeypatch.context() as patched:
            patched.setattr(sent_files, "_contents", and_replace)
            assert segment(*sent) == ExitCode.SOME_FAILED
        lines = told(capsys)
        assert [(line["case"], line["kind"]) for line in lines if line["event"] == "error"] == [("c", "ImageError")]
        (cases / "c.mhd").unlink()
        assert segment(*sent) == ExitCode.OK
    lines = told(capsys)
    assert lines[-1]["done"] == 1 and any("from another image" in line.get("message", "") for line in lines)


def test_statistics_of_many_cases_have_the_formats_that_one_case_can_have(cases, tmp_path, capsys):
    openpyxl = pytest.importorskip("openpyxl")
    out, tables = tmp_path / "out", tmp_path / "tables"
    command = [cases, "-o", out, "--statistics", tables]
    formats = ["--statistics-format", ".xlsx", "--statistics-format", ".csv"]
    assert segment(*command, *formats[:2]) == ExitCode.OK
    names = sorted(file.name.split(".")[0] for file in out.glob("*.seg.nrrd"))
    assert sorted(file.name for file in tables.iterdir()) == [f"{name}.xlsx" for name in names]
    rows = openpyxl.load_workbook(tables / f"{names[0]}.xlsx").active
    assert rows.max_row == 121 and rows["B2"].value == "cell 1"
    capsys.readouterr()
    assert segment(*command, *formats) == ExitCode.OK  # what is missing is made
    assert len(list(tables.iterdir())) == 2 * len(names)
    assert "segmented again" in capsys.readouterr().out
    assert segment(*command, *formats) == ExitCode.OK
    assert "done already" in capsys.readouterr().out


def test_no_table_of_all_cases_is_left_when_no_case_has_a_result(cases, tmp_path, capsys):
    (cases / "b.nii.gz").unlink()
    out, table = tmp_path / "out", tmp_path / "all.csv"
    command = [cases, "-o", out, "--statistics", table, "--json-progress"]
    whole = (cases / "a.nii.gz").read_bytes()
    (cases / "a.nii.gz").write_text("no image")
    assert segment(*command) != ExitCode.OK
    assert not table.exists() and told(capsys)[-1]["statistics"] == []
    (cases / "a.nii.gz").write_bytes(whole)
    assert segment(*command) == ExitCode.OK and table.exists()
    (cases / "a.nii.gz").write_text("no image")  # and the table would say what is not known any more
    assert segment(*command) != ExitCode.OK
    assert not table.exists()


def test_the_statistics_of_all_cases_are_one_table(cases, tmp_path, capsys, monkeypatch):
    openpyxl = pytest.importorskip("openpyxl")
    out, table, book, folder = (tmp_path / name for name in ("out", "all.csv", "all.xlsx", "each"))
    (cases / "broken.nii.gz").write_text("no image")
    command = [cases, "-o", out, "--statistics", table]
    assert segment(*command, "--statistics", folder, "--statistics", book, "--json-progress") == ExitCode.SOME_FAILED
    end = told(capsys)[-1]
    assert end["failed"] == ["broken"] and end["statistics"] == [str(table), str(book)]
    title, *rows = table.read_text().splitlines()
    each = {name: (folder / f"{name}.csv").read_text().splitlines() for name in "ab"}
    assert title == f"Case,{each['a'][0]}" and len(rows) > 2
    assert rows == [f"{name},{row}" for name in "ab" for row in each[name][1:]]
    sheet = openpyxl.load_workbook(book).active
    assert [sheet["A1"].value, sheet["A2"].value, sheet["C2"].value] == ["Case", "a", "cell 1"]
    assert sheet.max_row == 1 + len(rows) and isinstance(sheet["D2"].value, int)

    # a later run has the rows of what is finished; it counts again what was changed, and what no run has counted
    (cases / "broken.nii.gz").unlink()
    shutil.rmtree(out / ".classscaleseg" / "statistics")
    table.unlink()
    assert segment(*command) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[-1] == f"All 2 cases are done already -> {table}"
    assert table.read_text().splitlines() == [title, *rows]
    edited = sitk.ReadImage(str(out / "a.seg.nrrd"))
    value = int(sitk.GetArrayViewFromImage(edited).max())
    edited[:, :, :] = value
    sitk.WriteImage(edited, str(out / "a.seg.nrrd"))
    assert segment(*command) == ExitCode.OK
    lines = table.read_text().splitlines()
    assert [line for line in lines if line.startswith("b,")] == rows[len(rows) // 2 :]
    assert sum(int(line.split(",")[3]) for line in lines if line.startswith(f"a,{value},")) == 16**3

    # a run that is killed just before a table gets its name leaves the old one, which the next run replaces
    (cases / "b.nii.gz").rename(tmp_path / "b.nii.gz")
    rename = os.replace

    def killed(old, new):
        if new == table:
            raise KeyboardInterrupt
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        assert segment(*command) == ExitCode.CANCELLED
    assert any(line.startswith("b,") for line in table.read_text().splitlines())
    assert segment(*command) == ExitCode.OK and "\nb," not in table.read_text()

    # a table that somebody has changed, or that came from elsewhere, is not replaced
    table.write_text("mine")
    capsys.readouterr()
    assert segment(*command) == ExitCode.OUTPUT and "all.csv already exists" in capsys.readouterr().err
    assert table.read_text() == "mine"
    assert segment(*command, "--overwrite") == ExitCode.OK and table.read_text().startswith(title)


def test_after_ctrl_c_it_says_what_is_done(cases, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Report, "add", interrupted)
    out = tmp_path / "out"
    assert segment(cases, "-o", out, "--report", tmp_path / "report") == ExitCode.CANCELLED
    assert capsys.readouterr().err.endswith("Cancelled: 1 of 2 cases are done. Run the command again to go on.\n")
    assert (out / "a.seg.nrrd").exists() and not (out / "b.seg.nrrd").exists()
    one = tmp_path / "one.seg.nrrd"
    assert segment(cases / "a.nii.gz", "-o", one, "--report", tmp_path / "report") == ExitCode.CANCELLED
    assert f"Cancelled. {one} is written, but the report does not have it." in capsys.readouterr().err and one.exists()
    monkeypatch.undo()
    assert segment(cases, "-o", out, "--report", tmp_path / "report", "--json-progress") == ExitCode.OK
    assert told(capsys)[-1]["report"] == str(tmp_path / "report" / "index.html")


def test_statistics_that_cannot_be_are_refused_before_a_case_is_segmented(cases, tmp_path, capsys):
    image = next(cases.iterdir())
    for words, sentence in (
        ([cases, "--statistics", tmp_path / "all.sr.dcm"], "all.sr.dcm looks like a file"),
        ([cases, "--statistics", tmp_path / "a", "--statistics", tmp_path / "b"], "give one folder for the statistics"),
        (
            [cases, "--statistics", tmp_path / "s.csv", "--statistics-format", ".csv"],
            "Leave it out, or name that folder",
        ),
        ([cases, "--confidence", tmp_path / "all.nrrd"], "all.nrrd looks like a file"),
        ([cases, "--statistics-format", ".xlsx"], "Leave it out, or name that folder"),
        ([cases, "--statistics", tmp_path / "s", "--statistics-format", ".sr.dcm"], "Add --format .seg.dcm"),
    ):
        assert segment(*words, "-o", tmp_path / "out") == ExitCode.OUTPUT, words
        assert sentence in capsys.readouterr().err
    one = [image, "-o", tmp_path / "o.seg.nrrd", "--statistics", tmp_path / "s.xlsx", "--statistics-format", ".xlsx"]
    assert segment(*one) == ExitCode.OUTPUT and "statistics of several images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_result_replaces_the_image_from_which_it_is_made(cases, tmp_path, capsys):
    before = {file: file.read_bytes() for file in cases.iterdir()}
    image = cases / "a.nii.gz"
    (tmp_path / "link").symlink_to(cases)
    for words, code in (
        ([cases, "-o", cases, "--format", ".nii.gz"], ExitCode.SOME_FAILED),
        ([cases, "-o", tmp_path / "link", "--format", ".nii.gz"], ExitCode.SOME_FAILED),
        ([image, "-o", tmp_path / "link" / "a.nii.gz"], ExitCode.OUTPUT),
        ([image, "-o", tmp_path / "o.seg.nrrd", "--confidence", image], ExitCode.OUTPUT),
    ):
        assert segment(*words, "--overwrite") == code
        assert "from which it is made" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in before} and not (tmp_path / "o.seg.nrrd").exists()


def test_a_case_that_another_command_is_finishing_is_not_called_failed(cases, tmp_path, capsys, monkeypatch):
    """Results of several formats get their names one after the other; meanwhile the case looks unfinished."""
    formats = ["--format", ".nii.gz", "--format", ".seg.nrrd"]
    out, other = tmp_path / "out", tmp_path / "other"
    assert segment(cases, "-o", other, *formats) == ExitCode.OK
    capsys.readouterr()
    real, files = case_runner.Measured, sorted(file for file in other.glob("a.*"))

    def measured(*arguments):  # as if the other command had segmented the same case in the meantime
        record = json.loads((other / ".classscaleseg" / "cases" / "a.json").read_text())
        place = out / ".classscaleseg" / "cases"
        place.mkdir(parents=True, exist_ok=True)
        (place / "a.json").write_text(json.dumps({**record, "state": "writing"}))
        shutil.copy2(other / "a.seg.nrrd", out)

        def finish():
            for file in files:
                shutil.copy2(file, out)
            (place / "a.json").write_text(json.dumps(record))

        threading.Timer(0.5, finish).start()
        return real(*arguments)

    monkeypatch.setattr(case_runner, "Measured", measured)
    (cases / "b.nii.gz").unlink()
    assert segment(cases, "-o", out, *formats) == ExitCode.OK
    assert "skipped, another command has segmented it meanwhile" in capsys.readouterr().out
