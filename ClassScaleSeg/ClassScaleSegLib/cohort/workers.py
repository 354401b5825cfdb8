"""Find or start workers for the cases of a cohort, by Dask: here, in a queue, or those of a running scheduler."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError, innermost
from ..process.allocator import ONE_HEAP
from .cluster import ONE_CASE, Cluster
from .dask_log import logging_to
from .local_workers import RETRIES_OF_DASK, SECONDS_TO_CLOSE, SECONDS_TO_CONNECT, local_workers, own_certificate
from .queue_file import Queue, read_queue
from .queue_jobs import QueueJobs
from .records import FOLDER

_LOCAL, _ADDRESS = re.compile(r"local:([1-9]\d{0,3})"), re.compile(r"(tcp|tls)://[^/\s]+:\d+")
# What differs from Dask's defaults. Its limits of memory are off: they spill, pause and kill by what a process has
# taken, while a segmentation plans its memory beforehand.
_CONFIG: dict[str, Any] = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "1 hour",  # a busy machine is no fault to tell of
    "distributed.comm.timeouts.connect": "20s",
    # workers on this machine would write to the terminal
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "error",
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in ONE_HEAP.items()},
}


def check_where(where: str) -> None:
    """Check the place of a cluster before anything else is done.

    :param where: as of :func:`open_cluster`.
    :raises ClassScaleError: if it cannot be understood, or a YAML file cannot be used.
    """
    if where.lower().endswith((".yaml", ".yml")):
        read_queue(Path(where))
    elif not _LOCAL.fullmatch(where) and not _ADDRESS.fullmatch(where):
        raise ClassScaleError(
            f"--cluster {where} is not understood. Give local:4 for four workers on this machine, tcp://HOST:8786 for "
            "a scheduler that runs already, or a YAML file for a queue."
        )


@contextmanager
def open_cluster(
    where: str, folder: Path, gpus: Sequence[str | None] | None = None, threads: int | None = None
) -> Iterator[Cluster]:
    """Start or find workers, and leave none of one's own behind.

    :param where: ``local:N``, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``, or the path of a YAML file of a queue.
    :param folder: of the results, where the logs of Dask and of a queue's jobs go.
    :param gpus: for each GPU that workers on this machine may use, what ``CUDA_VISIBLE_DEVICES`` should be there, or
        ``None`` to leave it. No list: they compute on the CPU.
    :param threads: CPU threads of each worker on this machine; by default they share the cores.
    :raises ClassScaleError: if Dask is not installed, ``where`` cannot be understood, or nothing answers there.
    """
    try:
        import dask
        import distributed  # noqa: F401, its defaults must be there before they are changed for a while
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_CONFIG))
        stack.enter_context(logging_to(folder / FOLDER / "dask.log"))
        try:
            check_where(where)
            if match := _LOCAL.fullmatch(where):
                yield stack.enter_context(local_workers(int(match[1]), gpus, threads))
            elif _ADDRESS.fullmatch(where):
                yield stack.enter_context(_found(where))
            else:
                yield stack.enter_context(_queue(read_queue(Path(where)), folder))
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in ("cryptography", "distributed", "dask_jobqueue"):
                raise _missing(error) from error
            raise


def _missing(error: ModuleNotFoundError) -> ClassScaleError:
    return ClassScaleError(
        f"A cluster needs the package {error.name}. Install it: pip install 'classscaleseg[cluster]'."
    )


@contextmanager
def _found(address: str) -> Iterator[Cluster]:
    """Connect to a scheduler that runs already. Its workers go on when this command ends."""
    from distributed import Client

    try:
        client = Client(address, timeout=SECONDS_TO_CONNECT)
    except (OSError, ValueError, TypeError) as error:  # TypeError: there are no certificates for tls://
        raise ClassScaleError(
            f"No Dask scheduler answers at {address} ({innermost(error)}). Start one (dask scheduler), or give another "
            "address (--cluster). For tls://, Dask's configuration names the certificates."
        ) from error
    with client:
        yield Cluster(client, f"the scheduler {address}", None)


@contextmanager
def _queue(queue: Queue, folder: Path) -> Iterator[Cluster]:
    """Start a scheduler here, and workers as jobs of a queue, as many as there are cases, within limits."""
    import dask
    from distributed import Client

    settings = {
        "distributed.scheduler.allowed-failures": RETRIES_OF_DASK,
        "distributed.deploy.lost-worker-timeout": "5s",  # then a new job
    }
    with dask.config.set(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the port of the dashboard, which may be in use
        jobs = QueueJobs(queue, folder / FOLDER / "jobs", ONE_CASE, own_certificate())
        try:
            jobs.start()
            with Client(jobs.cluster, timeout=SECONDS_TO_CONNECT) as client:
                what = f"up to {queue.maximum} job{'s' * (queue.maximum != 1)} of {queue.kind}"
                yield Cluster(client, what, queue.maximum * jobs.processes, jobs, jobs.seconds)
        finally:
            with suppress(Exception):
                jobs.cluster.close(timeout=SECONDS_TO_CLOSE)
            jobs.tidy()
