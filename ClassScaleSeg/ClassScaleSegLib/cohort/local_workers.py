"""Workers on this machine, which end with the command."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from ..errors import ClassScaleError
from ..process.process_tree import descendants, kill_all
from .cluster import ONE_CASE, Cluster

SECONDS_TO_CONNECT, SECONDS_TO_CLOSE = 20, 2
RETRIES_OF_DASK = 0  # a case whose worker died comes back to `dispatch`, which counts


@contextmanager
def local_workers(count: int, gpus: Sequence[str | None] | None, threads: int | None) -> Iterator[Cluster]:
    """Start workers, which share the GPUs, or the cores and the memory, of this machine.

    No other machine can reach them, and by a certificate of their own no other user of this one.
    """
    import psutil
    from distributed import Client, Nanny, Scheduler, SpecCluster

    if gpus is not None and count > len(gpus):
        number = f"{len(gpus)} GPU{'s' * (len(gpus) != 1)}"
        raise ClassScaleError(
            f"local:{count} starts {count} workers, and there {'is' if len(gpus) == 1 else 'are'} {number}, each for "
            f"one case at a time. Give local:{len(gpus)}, or --device cpu."
        )
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1
    security = own_certificate()
    options = {
        "host": "127.0.0.1",
        "protocol": "tls",
        "security": security,
        "nthreads": threads or max(1, cores // count),
        "memory_limit": psutil.virtual_memory().available // count,
        "resources": {ONE_CASE: 1},
        "dashboard": False,
    }
    workers = {}
    for index in range(count):
        environment = {"OMP_NUM_THREADS": str(options["nthreads"])}
        if gpus is not None and (visible := gpus[index]) is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        workers[index] = {"cls": Nanny, "options": {**options, "env": environment}}
    scheduler = {
        "host": "127.0.0.1",
        "protocol": "tls",
        "security": security,
        "port": 0,
        "dashboard": True,
        "dashboard_address": "127.0.0.1:0",
        "allowed_failures": RETRIES_OF_DASK,
    }
    before = {child.pid for child in descendants(os.getpid())}
    cluster = None
    try:
        cluster = SpecCluster(
            workers=workers,
            scheduler={"cls": Scheduler, "options": scheduler},
            security=security,
            silence_logs=logging.CRITICAL,
        )
        with Client(cluster, timeout=SECONDS_TO_CONNECT) as client:
            what = f"{count} worker{'s' * (count != 1)} on this machine"
            yield Cluster(client, what, count, renew=partial(_renew, cluster, count))
    except BaseException:
        for nanny in [] if cluster is None else cluster.workers.values():
            nanny.auto_restart = False
        if cluster is None:  # Dask would close it when the process ends, and complain that it was not started
            with suppress(ImportError):
                from distributed.deploy.spec import close_clusters

                atexit.unregister(close_clusters)
        _kill_since(before)  # at once: a worker in the middle of a case would take long to close
        raise
    finally:
        if cluster is not None:
            with suppress(Exception):  # nothing of it is of interest any more
                cluster.close(timeout=SECONDS_TO_CLOSE)
        _kill_since(before)


def own_certificate() -> Any:
    """Return what only those have who are told: whoever can connect to a scheduler or worker can run programs."""
    import cryptography  # noqa: F401, which Dask needs for them
    from distributed import Security

    return Security.temporary()


def _renew(cluster: Any, count: int) -> None:
    """Start workers anew that ended for good, as Dask ends those that were silent for minutes or slow to come again."""
    from distributed.core import Status

    def look() -> None:
        for name, nanny in list(cluster.workers.items()):
            if nanny.status in (Status.closed, Status.failed):
                del cluster.workers[name]
        cluster.scale(count)  # starts those that are missing

    cluster.loop.add_callback(look)


def _kill_since(before: set[int]) -> None:
    """Kill all processes that this one has started since, but not multiprocessing's own, which ends by itself."""
    import psutil

    workers = []
    for child in descendants(os.getpid()):
        with suppress(psutil.Error):  # it has ended
            if child.pid not in before and not any("resource_tracker" in part for part in child.cmdline()):
                workers.append(child)
    kill_all(workers)
    psutil.wait_procs(workers, timeout=SECONDS_TO_CLOSE)  # the next run is not to find one still at work
