"""Segmenting a folder on the workers of Dask: the same results as without, whatever dies."""

import json
import os
import shutil
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from ClassScaleSegLib import ClassScaleError
from ClassScaleSegLib.cohort.dispatch import LEAVES
from ClassScaleSegLib.cohort.ledger import NAME, read_ledger
from ClassScaleSegLib.cohort.queue_file import read_queue, seconds_of
from ClassScaleSegLib.cohort.queue_jobs import QueueJobs
from ClassScaleSegLib.cohort.records import FOLDER
from ClassScaleSegLib.commands.main import ExitCode, main

distributed = pytest.importorskip("distributed")
sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "cases").mkdir()
    for number, name in enumerate("abcdef"):
        voxels = np.random.default_rng(number).normal(50, 30, (20, 18, 24)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "cases" / f"{name}.nii.gz"))
    (tmp_path / "cases" / "broken.nii.gz").write_bytes(b"broken")
    return tmp_path / "cases"


def segment(*arguments):
    return main(["segment", *map(str, arguments), "--device", "cpu", "--no-mirroring"])


def lines(folder):
    text = (folder / FOLDER / NAME).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def same(one, other, suffix=".seg.nrrd"):
    names = {file.name for file in one.glob(f"[!.]*{suffix}")}
    assert names == {file.name for file in other.glob(f"[!.]*{suffix}")} and names
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def kill_first_worker(ledger):
    """Kill the worker of the first case, as soon as the ledger names it, and return its process."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []:
            if '"running"' in line and line.endswith("}"):
                pid = int(json.loads(line)["worker"].rpartition("process ")[2].rstrip(")"))
                os.kill(pid, signal.SIGKILL)
                return
        time.sleep(0.005)


def test_workers_on_this_machine_give_the_same_results_though_one_is_killed(cases, write_model, tmp_path, capsys):
    model, alone, out = write_model(), tmp_path / "alone", tmp_path / "out"
    assert segment(cases, "-m", model, "-o", alone) == ExitCode.SOME_FAILED
    killer = threading.Thread(target=kill_first_worker, args=(out / FOLDER / NAME,))
    killer.start()
    capsys.readouterr()
    command = [cases, "-m", model, "-o", out, "--cluster", "local:2", "--statistics", out, "--report", out / "report"]
    assert segment(*command) == ExitCode.SOME_FAILED
    killer.join()
    told = capsys.readouterr()
    assert same(alone, out) and len(list(out.glob("*.csv"))) == 6
    assert "6 of 7 cases segmented, 1 failed: broken" in told.out and "6 of 7" in told.out
    assert "is not an image that SimpleITK can read" in told.err and "is tried again on another worker" in told.err
    events = [line["event"] for line in lines(out)]
    assert events.count("died") == 1 and events.count("done") == 6 and events.count("failed") == 1
    assert events[0] == "begin" and events[-1] == "end"
    assert not [
        child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ]
    report = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
    assert sorted(case["name"] for case in report["cases"]) == ["a", "b", "broken", "c", "d", "e", "f"]

    assert main(["cohort", "status", str(out)]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("6 of 7 cases done, 1 failed\n")
    assert main(["cohort", "failed", str(out)]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("broken: ")
    shutil.copy(cases / "a.nii.gz", cases / "broken.nii.gz")
    assert main(["cohort", "retry", str(out), "--cluster", "local:1"]) == ExitCode.OK
    assert main(["cohort", "failed", str(out)]) == ExitCode.OK
    assert capsys.readouterr().out.endswith("No case has failed.\n")
    assert main(["cohort", "status", str(out), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["counts"]["done"] == 7


@pytest.fixture
def scheduler():
    """A scheduler that runs already, with workers in threads of this process."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


def test_results_of_another_model_or_with_other_options_are_made_again(cases, write_model, tmp_path, scheduler, capsys):
    one, two = write_model(seeds=(1,)), write_model(seeds=(2,), root=tmp_path / "two")
    out = tmp_path / "out"
    (cases / "broken.nii.gz").unlink()
    on = ["-o", out, "--cluster", scheduler, "--json-progress"]

    def events(*arguments):
        assert segment(cases, *arguments, *on) == ExitCode.OK
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return told[-1], [line["message"] for line in told if line["event"] == "message" and "again" in line["message"]]

    assert events("-m", one)[0]["done"] == 6
    assert events("-m", one)[0] == {"event": "end", "case": "", "done": 0, "skipped": 6, "failed": []}
    before = {file.name: file.read_bytes() for file in out.glob("*.seg.nrrd")}
    edited = out / "a.seg.nrrd"
    edited.write_bytes(edited.read_bytes() + b"edited by hand")
    end, again = events("-m", two)
    assert end["kept"] == 1 and read_ledger(out).counts["kept"] == 1
    assert end["done"] == 5 and "5 cases will be segmented again" in again[0]
    assert edited.read_bytes().endswith(b"edited by hand")
    assert all((out / f"{name}.seg.nrrd").read_bytes() != before[f"{name}.seg.nrrd"] for name in "abcdef")
    end, again = events("-m", two, "--step", 0.9)
    assert end["done"] == 5 and "with other options (--step)" in again[0]


def test_images_models_and_results_are_sent_where_folders_are_not_shared(
    cases, write_model, tmp_path, scheduler, capsys, monkeypatch
):
    bundle, alone, out = tmp_path / "model.zip", tmp_path / "alone", tmp_path / "out"
    assert main(["pack", str(write_model()), "-o", str(bundle)]) == ExitCode.OK
    kinds = ["-m", bundle, "--format", ".nii.gz", "--format", ".seg.nrrd"]
    assert segment(cases, *kinds, "-o", alone) == ExitCode.SOME_FAILED
    monkeypatch.setattr("ClassScaleSegLib.commands.case_worker.is_latest", lambda *_: None)  # as on another host
    capsys.readouterr()
    assert segment(cases, *kinds, "-o", out, "--cluster", scheduler) == ExitCode.FAULT
    assert "does not see" in capsys.readouterr().err and not list(out.glob("[!.]*"))
    sent = [*kinds, "-o", out, "--cluster", scheduler, "--transfer", "--statistics", out]
    sent += ["--statistics", tmp_path / "all.csv"]
    assert segment(cases, *sent) == ExitCode.SOME_FAILED
    assert all(same(alone, out, suffix) for suffix in (".nii.gz", ".seg.nrrd", ".labels.csv"))
    assert len({line.split(",")[0] for line in (tmp_path / "all.csv").read_text().splitlines()}) == 1 + 6
    told = capsys.readouterr().err
    assert f"{cases}{os.sep}broken.nii.gz" in told and "classscaleseg-" not in told
    assert segment(cases, *sent, "--json-progress") == ExitCode.SOME_FAILED
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["skipped"] == 6
    assert read_ledger(out).counts["done"] == 6
    assert segment(cases, "-m", write_model(), "-o", out, "--cluster", scheduler, "--transfer") == ExitCode.MODEL
    assert "Pack the model first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "where, sentence",
    [
        ("local:0", "is not understood"),
        ("local", "is not understood"),
        ("http://host:8786", "is not understood"),
        ("tcp://127.0.0.1:9", "No Dask scheduler answers at tcp://127.0.0.1:9"),
        ("missing.yaml", "missing.yaml cannot be read as YAML"),
    ],
)
def test_a_cluster_that_is_none_is_a_sentence(cases, write_model, tmp_path, capsys, monkeypatch, where, sentence):
    monkeypatch.setattr("ClassScaleSegLib.cohort.workers.SECONDS_TO_CONNECT", 1)
    code = segment(cases, "-m", write_model(), "-o", tmp_path / "out", "--cluster", where)
    assert code == (ExitCode.FAULT if where.startswith("tcp") else ExitCode.USAGE)
    assert sentence in capsys.readouterr().err
    assert where.startswith("tcp") or not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("queue: [", "cannot be read as YAML"),
        ("- 1", "must have the entries queue, jobs, options, and no others"),
        ("queue: slurm\nwalltime: 1", "and no others"),
        ("queue: cloud", "the queue is 'cloud'; it must be one of slurm, pbs"),
        ("queue: slurm\njobs: many", "jobs must be a number, or minimum and maximum"),
        ("queue: slurm\njobs: {minimum: 3, maximum: 2}", "jobs must be a number"),
        ("queue: slurm\njobs: {maximum: true}", "jobs must be a number"),
        ("queue: slurm\noptions: [cores]", "options must be names and values"),
        ("queue: slurm\noptions: {job_script_prologue: module load x}", "job_script_prologue must be a list"),
        ("queue: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
    ],
)
def test_a_queue_that_is_none_is_a_sentence(tmp_path, text, sentence):
    file = tmp_path / "queue.yaml"
    file.write_text(text)
    with pytest.raises(ClassScaleError, match=f"queue.yaml.*{sentence}"):
        read_queue(file)


@pytest.mark.parametrize("kind", ["slurm", "pbs", "lsf", "sge"])
def test_the_jobs_of_a_queue_take_one_case_at_a_time(tmp_path, kind):
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "queue.yaml"
    file.write_text(
        f"queue: {kind}\njobs: 20\noptions:\n  cores: 4\n  memory: 16 GB\n  walltime: '01:00'\n"
        "  worker_extra_args: [--death-timeout, '90']\n  job_script_prologue: [module load x]\n"
    )
    jobs = QueueJobs(read_queue(file), tmp_path / "logs", "case")
    with jobs.cluster as cluster:
        script = cluster.job_script()
        assert jobs.seconds in (60, 3600)
    assert "--resources case=1 --death-timeout 90" in script and "--nthreads 4" in script
    assert "MALLOC_ARENA_MAX=1" in script and "MEMORY__TERMINATE=False" in script
    assert "module load x" in script and str(tmp_path / "logs") in script
    file.write_text(f"queue: {kind}\noptions: {{cores: 4, memory: 16 GB, colour: red}}\n")
    with pytest.raises(ClassScaleError, match=f"cannot use these options for {kind}"):
        QueueJobs(read_queue(file), tmp_path / "logs", "case")


@pytest.mark.parametrize(
    "kind, walltime, seconds",
    [
        ("slurm", "01:30:00", 5400),
        ("slurm", "2-00", 172_800),
        ("slurm", "90", 5400),
        ("slurm", "10:30", 630),
        ("lsf", "10:30", 37_800),
        ("pbs", "3600", 3600),
        ("slurm", "soon", None),
        ("htcondor", "", None),
    ],
)
def test_the_time_of_a_job_is_understood(kind, walltime, seconds):
    assert seconds_of(walltime, kind) == seconds


def test_a_queue_that_takes_no_jobs_is_a_sentence(cases, write_model, tmp_path, capsys, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    sbatch = programs / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: nosuch' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "q.yaml").write_text("queue: slurm\noptions: {queue: nosuch, cores: 1, memory: 1 GB}\n")
    command = [cases, "-m", write_model(), "-o", tmp_path / "out", "--cluster", tmp_path / "q.yaml"]
    assert segment(*command) == ExitCode.FAULT
    assert "The queue does not take the jobs of" in (told := capsys.readouterr().err)
    assert "invalid partition specified: nosuch" in told


def test_a_worker_keeps_its_age_when_the_clock_is_set(monkeypatch):
    import time

    from ClassScaleSegLib.commands import case_worker

    monkeypatch.setattr(case_worker, "_begun", None)
    age = case_worker._seconds_since_start()
    assert age >= 0
    now = time.time()
    for hours in (-5, 5):
        monkeypatch.setattr(case_worker.time, "time", lambda hours=hours: now + 3600 * hours)
        assert age <= case_worker._seconds_since_start() < age + 1800


def test_a_worker_leaves_before_the_queue_ends_it(monkeypatch):
    from ClassScaleSegLib.commands import case_worker

    monkeypatch.setattr(case_worker, "_seconds_since_start", lambda: 50)
    monkeypatch.setattr(case_worker, "_longest", 10)
    monkeypatch.setattr(case_worker, "own_address", lambda: "tcp://w7")
    setup = case_worker.Setup(None, None, "run", seconds=61)
    assert case_worker._segment_case(setup, None, False) == {LEAVES: "tcp://w7"}
