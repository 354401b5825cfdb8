"""Trying failed cases again, by a ledger that others may have written."""

import json

import numpy as np
import pytest
from ClassScaleSegLib import ClassScaleError
from ClassScaleSegLib.cohort.ledger import NAME, open_ledger, read_ledger
from ClassScaleSegLib.cohort.records import FOLDER
from ClassScaleSegLib.commands import cohort_run
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.process.job import Job

distributed = pytest.importorskip("distributed")
sitk = pytest.importorskip("SimpleITK")


@pytest.mark.parametrize("where", ["tcp://192.0.2.1:8786", "/share/others.yaml"])
def test_a_ledger_does_not_choose_where_programs_run(tmp_path, capsys, where):
    job = Job((tmp_path,), "toy-120", tmp_path).facts()
    with open_ledger(tmp_path) as ledger:
        ledger.add("begin", cases=1, cluster=where, formats=[".seg.nrrd"], job=job)
        ledger.add("failed", case="a", kind="ImageError", error="It is broken.")
    assert main(["cohort", "retry", str(tmp_path)]) == ExitCode.OUTPUT
    assert f"add --cluster {where}" in capsys.readouterr().err


def test_what_failed_while_all_was_made_anew_is_made_anew(write_model, tmp_path, capsys):
    cases, out = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    out.mkdir()
    for number, name in enumerate("ab"):
        voxels = np.random.default_rng(number).normal(50, 30, (10, 12, 14)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(cases / f"{name}.nii.gz"))
    image = (cases / "b.nii.gz").read_bytes()
    (cases / "b.nii.gz").write_bytes(b"broken")
    (out / "b.seg.nrrd").write_bytes(b"of another model")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        where = ["--cluster", cluster.scheduler_address]
        command = ["segment", str(cases), "-m", str(write_model()), "-o", str(out), "--device", "cpu", *where]
        table = tmp_path / "all.csv"
        assert main([*command, "--overwrite", "--statistics", str(table)]) == ExitCode.SOME_FAILED
        assert {line.split(",")[0] for line in table.read_text().splitlines()} == {"Case", "a"}
        (cases / "b.nii.gz").write_bytes(image)
        assert main(["cohort", "retry", str(out), *where]) == ExitCode.OK
        assert {line.split(",")[0] for line in table.read_text().splitlines()} == {"Case", "a", "b"}
    assert read_ledger(out).counts["done"] == 2
    assert (out / "b.seg.nrrd").read_bytes() != b"of another model"


def test_a_queue_is_noted_with_its_folder(write_model, tmp_path, capsys, monkeypatch):
    (tmp_path / "cases").mkdir()
    for name in "ab":
        (tmp_path / "cases" / f"{name}.nii.gz").write_bytes(b"")
    (tmp_path / "queue.yaml").write_text("queue: slurm")
    monkeypatch.chdir(tmp_path)

    def refuse(*_):
        raise ClassScaleError("There is no queue here.")

    monkeypatch.setattr(cohort_run, "open_cluster", refuse)
    command = ["segment", "cases", "-m", str(write_model()), "-o", "out", "--device", "cpu", "--cluster", "queue.yaml"]
    assert main(command) == ExitCode.FAULT
    begin = json.loads((tmp_path / "out" / FOLDER / NAME).read_text(encoding="utf-8").splitlines()[0])
    assert begin["cluster"] == str(tmp_path / "queue.yaml") and begin["overwrite"] is False
