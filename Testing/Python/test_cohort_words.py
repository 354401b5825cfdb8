"""What the command says of many cases, and what it refuses before it begins."""

import numpy as np
import pytest
from ClassScaleSegLib.cohort.ledger import open_ledger, read_ledger
from ClassScaleSegLib.commands import case_runner
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.process.job import Job

sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "cases").mkdir()
    for number, name in enumerate("ab"):
        voxels = np.random.default_rng(number).normal(50, 30, (20, 18, 24)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "cases" / f"{name}.nii.gz"))
    return tmp_path / "cases"


def segment(*arguments):
    return main(["segment", *map(str, arguments), "--device", "cpu", "--no-mirroring"])


def test_what_is_done_is_said_in_one_line(cases, write_model, tmp_path, capsys):
    command = [cases, "-m", write_model(), "-o", tmp_path / "out"]
    assert segment(*command) == ExitCode.OK
    assert segment(*command) == ExitCode.OK
    assert capsys.readouterr().out.endswith("All 2 cases are done already\n")
    with (tmp_path / "out" / "a.seg.nrrd").open("ab") as file:
        file.write(b"by hand")
    assert segment(*command, "--step", "0.9") == ExitCode.OK
    told = capsys.readouterr().out
    assert "[2/2] b: segmented again, made with other options (--step)" in told
    assert told.endswith("1 of 2 cases segmented, 1 kept as it is, though made otherwise\n")


def test_formats_that_would_share_a_table_are_refused_before_anything_is_done(cases, write_model, tmp_path, capsys):
    formats = ["--format", ".nii.gz", "--format", ".mha"]
    assert segment(cases, "-m", write_model(), "-o", tmp_path / "out", *formats) == ExitCode.OUTPUT
    assert ".nii.gz and .mha would both write NAME.labels.csv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [["--transfer"], ["--transfer", "--report", "r", "--cluster", "local:1"]])
def test_what_contradicts_itself_is_refused(cases, write_model, tmp_path, more):
    assert segment(cases, "-m", write_model(), "-o", tmp_path / "out", *more) == ExitCode.USAGE
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_by_a_cluster_is_refused(cases, write_model, tmp_path, capsys):
    with open_ledger(tmp_path / "out"):
        assert segment(cases, "-m", write_model(), "-o", tmp_path / "out") == ExitCode.FAULT
    assert "is being segmented by another process" in capsys.readouterr().err


def test_a_case_that_another_command_has_segmented_meanwhile_is_skipped(
    cases, write_model, tmp_path, capsys, monkeypatch
):
    command, original = [cases, "-m", write_model(), "-o", tmp_path / "out"], case_runner.Measured

    def measured(*arguments):
        monkeypatch.setattr(case_runner, "Measured", original)
        assert segment(*command) == ExitCode.OK
        return original(*arguments)

    monkeypatch.setattr(case_runner, "Measured", measured)
    assert segment(*command) == ExitCode.OK
    assert "[1/2] a: skipped, another command has segmented it meanwhile" in capsys.readouterr().out


def test_failed_cases_without_image_are_told_and_forgotten(cases, write_model, tmp_path, capsys):
    out = tmp_path / "out"
    job = Job((cases,), write_model(), out).facts()
    with open_ledger(out) as ledger:
        ledger.add("begin", cases=3, cluster="local:1", formats=[".seg.nrrd"], job=job)
        ledger.add("failed", case="removed", error="It was broken.")
    assert main(["cohort", "retry", str(out)]) == ExitCode.OK
    assert "1 case that had failed is no longer among the images: removed" in capsys.readouterr().err
    assert read_ledger(out).failed() == []
