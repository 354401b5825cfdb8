"""Workers for the cases of a cohort, by Dask: on this machine, in a queue, or those of a running scheduler."""

from __future__ import annotations

import atexit
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError, innermost
from ..process.process_tree import descendants, kill_all
from .queue_file import Queue, read_queue
from .queue_jobs import QueueJobs
from .records import FOLDER

ONE_CASE = "case"  # the resource of which every worker that is started here has one, and a case needs one
_LOCAL, _ADDRESS = re.compile(r"local:([1-9]\d{0,3})"), re.compile(r"(tcp|tls)://[^/\s]+:\d+")
_SECONDS_TO_CONNECT = 20
_SECONDS_TO_CLOSE = 2
_RETRIES_OF_DASK = 0  # a case whose worker died comes back to `dispatch`, which counts
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
}
# All that Dask gives handlers of their own, and what it uses.
_LOGGERS = (
    "distributed",
    "distributed.client",
    "distributed.nanny",
    "distributed.scheduler",
    "distributed.worker",
    "asyncio",
    "tornado",
    "tornado.application",
    "bokeh",
    "dask_jobqueue",
)


class Cluster:
    """A connection to workers; see :func:`open_cluster`.

    :ivar client: of Dask.
    :ivar what: the cluster in words.
    :ivar unfit: addresses of workers that can do no case.
    :ivar seconds: after which a queue ends a worker; ``None`` if nothing does, or it is not known.
    :param most: workers that may be there at once; ``None`` if that is for others to decide.
    :param jobs: of a queue.
    :param renew: called while fewer workers than ``most`` are there.
    """

    def __init__(
        self,
        client: Any,
        what: str,
        most: int | None,
        jobs: QueueJobs | None = None,
        seconds: float | None = None,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        self.client, self.what, self.seconds = client, what, seconds
        self._most, self._jobs, self._renew = most, jobs, renew
        self.workers, self._addresses = 0, frozenset[str]()
        self.unfit: set[str] = set()
        self.resources: dict[str, float] | None = None
        self.refresh()

    @property
    def dashboard(self) -> str | None:
        """The address of Dask's dashboard; ``None`` if it shows no pages."""
        try:
            import bokeh  # noqa: F401
        except ImportError:
            return None
        with suppress(Exception):  # a scheduler without pages
            return self.client.dashboard_link
        return None

    @property
    def own(self) -> bool:
        """Whether the workers were started here, and end with this command."""
        return self._most is not None

    def want(self, cases: int) -> None:
        """Tell a queue how many cases are left.

        :raises ClassScaleError: if it does not take the jobs.
        """
        if self._jobs is not None:
            self._jobs.cases = cases
            self._jobs.check()

    def retire(self, worker: str) -> None:
        """End a worker that has no time left for another case; a queue gets a new job in its place."""
        self.client.retire_workers([worker], close_workers=True)

    @property
    def hint(self) -> str:
        """Where to look if no workers come; empty if there is nothing to say."""
        if self._jobs is None:
            return "" if self.own else "start some (dask worker)"
        ids = self._jobs.ids
        listed = ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
        refused = f"; it does not take more ({self._jobs.refusal})" if self._jobs.refusal else ""
        return f"{len(ids)} jobs are with the queue ({listed}){refused}; what they print is in {self._jobs.logs}"

    def refresh(self) -> None:
        """Ask which workers there are."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        self._addresses, workers = frozenset(found), found.values()
        self.workers = len(workers)
        offered = {name for worker in workers for name in worker["resources"]}
        wanted = next((name for name in ("GPU", ONE_CASE) if name in offered), ONE_CASE if self.own else None)
        self.resources = None if wanted is None else {wanted: 1}
        if self._most is not None and self.workers < self._most:
            self._renew()

    @property
    def window(self) -> int:
        """How many cases may be with the workers at once: one at work and one waiting for each.

        None without workers: it is not known yet which resources they have, and nobody could be sent an image.
        """
        return 2 * len(self._addresses - self.unfit)

    @property
    def fit(self) -> list[str] | None:
        """The workers that may get cases; ``None`` if all may."""
        return sorted(self._addresses - self.unfit) if self.unfit & self._addresses else None

    def set_aside(self, worker: str) -> None:
        """Give no more cases to a worker. A queue gets another job in its place."""
        self.unfit.add(worker)
        if self._jobs is not None:
            self.retire(worker)


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
        stack.enter_context(_logging_to(folder / FOLDER / "dask.log"))
        try:
            check_where(where)
            if match := _LOCAL.fullmatch(where):
                yield stack.enter_context(_local(int(match[1]), gpus, threads))
            elif _ADDRESS.fullmatch(where):
                yield stack.enter_context(_found(where))
            else:
                yield stack.enter_context(_queue(read_queue(Path(where)), folder))
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in ("distributed", "dask_jobqueue"):
                raise _missing(error) from error
            raise


def _missing(error: ModuleNotFoundError) -> ClassScaleError:
    return ClassScaleError(
        f"A cluster needs the package {error.name}. Install it: pip install 'classscaleseg[cluster]'."
    )


@contextmanager
def _local(count: int, gpus: Sequence[str | None] | None, threads: int | None) -> Iterator[Cluster]:
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
    security = _own_certificate()
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
        "allowed_failures": _RETRIES_OF_DASK,
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
        with Client(cluster, timeout=_SECONDS_TO_CONNECT) as client:
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
                cluster.close(timeout=_SECONDS_TO_CLOSE)
        _kill_since(before)


def _own_certificate() -> Any:
    """Return what only those have who are told: whoever can connect to a scheduler or worker can run programs."""
    from distributed import Security

    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise _missing(error) from error
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
    psutil.wait_procs(workers, timeout=_SECONDS_TO_CLOSE)  # the next run is not to find one still at work


@contextmanager
def _found(address: str) -> Iterator[Cluster]:
    """Connect to a scheduler that runs already. Its workers go on when this command ends."""
    from distributed import Client

    try:
        client = Client(address, timeout=_SECONDS_TO_CONNECT)
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
        "distributed.scheduler.allowed-failures": _RETRIES_OF_DASK,
        "distributed.deploy.lost-worker-timeout": "5s",  # then a new job
    }
    with dask.config.set(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the port of the dashboard, which may be in use
        jobs = QueueJobs(queue, folder / FOLDER / "jobs", ONE_CASE, _own_certificate())
        try:
            jobs.start()
            with Client(jobs.cluster, timeout=_SECONDS_TO_CONNECT) as client:
                what = f"up to {queue.maximum} job{'s' * (queue.maximum != 1)} of {queue.kind}"
                yield Cluster(client, what, queue.maximum * jobs.processes, jobs, jobs.seconds)
        finally:
            with suppress(Exception):
                jobs.cluster.close(timeout=_SECONDS_TO_CLOSE)
            jobs.tidy()


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Write what Dask logs into a file instead of the terminal, where it would disturb the progress."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler: logging.Handler = logging.FileHandler(file, encoding="utf-8")
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [handler], False
    try:
        yield
    except BaseException:
        before = [(logger, [logging.NullHandler()], False) for logger in loggers]  # Dask ends later, and complains
        raise
    finally:
        for logger, handlers, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
        handler.close()
