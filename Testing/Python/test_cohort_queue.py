"""What a queue does to the command that asks it for jobs."""

import importlib.util
import os
import subprocess
import sys

import pytest
from ClassScaleSegLib import ClassScaleError
from ClassScaleSegLib.cohort import queue_jobs
from ClassScaleSegLib.cohort.queue_file import read_queue, seconds_of
from ClassScaleSegLib.cohort.queue_jobs import QueueJobs

distributed = pytest.importorskip("distributed")
if importlib.util.find_spec("dask_jobqueue") is None:
    pytest.skip("dask-jobqueue is not installed", allow_module_level=True)
REFUSED = RuntimeError("Exit code: 1\nstderr:\nsbatch: error: Socket timed out on send/recv operation")


@pytest.fixture
def jobs(tmp_path):
    (tmp_path / "q.yaml").write_text(
        "queue: slurm\noptions: {cores: 1, memory: 1 GB, scheduler_options: {dashboard_address: ':0'}}\n"
    )
    jobs = QueueJobs(read_queue(tmp_path / "q.yaml"), tmp_path / "logs", "case")
    with jobs.cluster:
        yield jobs


def test_ctrl_c_stays_as_it_was():
    """dask-jobqueue makes it sys.exit(), and the exit code 0."""
    code = (
        "import signal; from ClassScaleSegLib.cohort.queue_jobs import _dask_jobqueue; _dask_jobqueue(); "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_queue_that_is_busy_for_a_moment_does_not_end_the_run(jobs, monkeypatch):
    monkeypatch.setattr(queue_jobs, "_SECONDS_TO_ASK_AGAIN", 3600)
    jobs.asks()
    jobs.asks()
    jobs.asked(REFUSED)
    jobs.check()  # the other one may be taken
    jobs.asked(None)
    jobs.asks()
    jobs.asked(REFUSED)
    jobs.check()
    assert jobs.refusal == "sbatch: error: Socket timed out on send/recv operation"
    failed = type("Job", (), {"status": distributed.core.Status.failed, "job_id": None})()
    jobs.cluster.workers["refused"] = failed
    jobs._forget_refused()
    assert not jobs.cluster.workers  # so it is submitted again


def test_a_queue_that_takes_no_job_ends_the_run(jobs, monkeypatch):
    monkeypatch.setattr(queue_jobs, "_SECONDS_TO_ASK_AGAIN", 3600)
    jobs.asks()
    jobs.asked(REFUSED)
    with pytest.raises(ClassScaleError, match=r"does not take the jobs of .*\(sbatch: error: Socket timed out"):
        jobs.check()


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A squeue that says what a test writes."""
    answer, program = tmp_path / "answer", tmp_path / "programs/squeue"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/asked"\ncat "{answer}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(queue_jobs, "_SECONDS_BETWEEN_LOOKS", 0)
    return answer


def _submitted(jobs, **ids):
    for name, job_id in ids.items():
        jobs.cluster.workers[name] = type("Job", (), {"job_id": job_id, "status": distributed.core.Status.running})()


@pytest.mark.skipif(os.name == "nt", reason="SLURM is not there on Windows")
def test_a_job_that_ended_before_its_worker_came_is_submitted_again(jobs, squeue, tmp_path):
    squeue.write_text("15 TIMEOUT\n16 PENDING\n17 RUNNING\n18 COMPLETING\n")
    _submitted(jobs, a="15", b="16", c="17", d="18", e="19")
    jobs.cluster.sync(jobs.look)
    assert set(jobs.cluster.workers) == {"b", "c", "d", "e"}  # so Dask finds that one is missing
    assert (tmp_path / "asked").read_text().split()[-1] == "--jobs=15,16,17,18,19"
    squeue.write_text("")  # no answer
    jobs.cluster.sync(jobs.look)
    assert len(jobs.cluster.workers) == 4
    jobs.check()
    jobs.cluster.workers.clear()


@pytest.mark.skipif(os.name == "nt", reason="SLURM is not there on Windows")
def test_jobs_that_all_end_before_their_workers_come_end_the_run(jobs, squeue):
    for number in range(10):
        squeue.write_text(f"{number} FAILED\n")
        _submitted(jobs, a=str(number))
        jobs.check()
        jobs.cluster.sync(jobs.look)
    with pytest.raises(ClassScaleError, match=r"10 jobs of .* have ended before their worker came \(.*9: FAILED\)"):
        jobs.check()


def test_a_time_without_quotes_which_yaml_makes_a_number_is_refused(tmp_path):
    (tmp_path / "q.yaml").write_text("queue: slurm\noptions: {walltime: 12:00:00}\n")  # 43200, for SLURM minutes
    with pytest.raises(ClassScaleError, match='the walltime must be in quotes, such as "12:00:00"'):
        read_queue(tmp_path / "q.yaml")
    assert seconds_of("3600", "sge") == 3600
