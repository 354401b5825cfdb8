"""Nobody but the command can give programs to its workers."""

import gc
import stat
import sys
from pathlib import Path

import pytest
from ClassScaleSegLib.cohort.local_workers import own_certificate
from ClassScaleSegLib.cohort.queue_file import read_queue
from ClassScaleSegLib.cohort.queue_jobs import QueueJobs
from ClassScaleSegLib.cohort.workers import open_cluster

distributed = pytest.importorskip("distributed")


def test_workers_on_this_machine_obey_only_who_started_them(tmp_path):
    with open_cluster("local:1", tmp_path, threads=1) as cluster:
        address = cluster.client.cluster.scheduler_address
        worker = next(iter(cluster.client.scheduler_info(n_workers=-1)["workers"]))
        if sys.platform == "linux":  # the allocator reads this when a process begins, not later
            began = cluster.client.run(Path("/proc/self/environ").read_bytes)[worker]
            assert b"MALLOC_ARENA_MAX=1" in began.split(b"\0")
        assert address.startswith("tls://127.0.0.1:") and worker.startswith("tls://127.0.0.1:")
        for other in (address.replace("tls", "tcp"), address):
            security = None if other.startswith("tcp") else own_certificate()
            with pytest.raises(OSError), distributed.Client(other, timeout=1, security=security):
                pass


@pytest.mark.parametrize("more, own", [("", True), (", protocol: 'tcp://'", False), (", security: null", False)])
def test_the_jobs_of_a_queue_have_a_certificate_that_only_their_user_can_read(tmp_path, more, own, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    options = f"{{cores: 1, memory: 1 GB, scheduler_options: {{dashboard_address: ':0'}}{more}}}"
    (tmp_path / "q.yaml").write_text(f"queue: slurm\noptions: {options}\n")
    jobs = QueueJobs(read_queue(tmp_path / "q.yaml"), tmp_path / "logs", "case", own_certificate())
    with jobs.cluster as cluster:
        words = cluster.job_script().split()
        assert cluster.scheduler_address.startswith("tls://" if own else "tcp://")
        files = [Path(words[index + 1]) for index, word in enumerate(words) if word.startswith("--tls-")]
        assert len(files) == (3 if own else 0)
        assert all(file.parent == tmp_path / "logs" and not stat.S_IMODE(file.stat().st_mode) & 0o77 for file in files)
    jobs.tidy()
    assert not any(file.exists() for file in files)
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    del jobs, cluster
    gc.collect()
    assert not complaints  # such as that files are gone, which a user would see
