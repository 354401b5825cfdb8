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


def test_a_time_without_quotes_which_yaml_makes_a_number_is_refused(tmp_path):
    (tmp_path / "q.yaml").write_text("queue: slurm\noptions: {walltime: 12:00:00}\n")  # 43200, for SLURM minutes
    with pytest.raises(ClassScaleError, match='the walltime must be in quotes, such as "12:00:00"'):
        read_queue(tmp_path / "q.yaml")
    assert seconds_of("3600", "sge") == 3600
