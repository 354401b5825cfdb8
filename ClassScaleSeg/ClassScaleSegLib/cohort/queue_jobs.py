"""The jobs of a queue: as many as there are cases left, renewed when the queue ends them, and their faults told."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError, reason
from ..process.allocator import ONE_HEAP
from .queue_file import KINDS, Queue, seconds_of
from .queue_states import ended_jobs

_CERTIFICATES = ".dask-jobqueue.worker.*"
# A process that has taken much memory is not to be paused or killed by Dask; the queue has its own limit.
_NO_LIMITS = {
    f"DASK_DISTRIBUTED__WORKER__MEMORY__{limit}": "False" for limit in ("TARGET", "SPILL", "PAUSE", "TERMINATE")
}
_ENVIRONMENT = tuple(f"export {name}={value}" for name, value in {**ONE_HEAP, **_NO_LIMITS}.items())
_SECONDS_TO_ASK_AGAIN = 60  # after the queue has refused a job
_SECONDS_BETWEEN_LOOKS = 60
_MOST_IN_VAIN = 10  # jobs that may end before their worker comes, while there is no other


class QueueJobs:
    """Workers that are jobs of a queue; see :class:`~ClassScaleSegLib.cohort.queue_file.Queue`.

    :ivar cases: how many cases are left, for which jobs are wanted.
    :param logs: folder for what the jobs print, unless the options name one.
    :param resource: of which each worker has one.
    :param security: of Dask, unless the options name another one or a protocol. Jobs read its files beside the logs.
    :raises ClassScaleError: if dask-jobqueue does not understand the options.
    """

    def __init__(self, queue: Queue, logs: Path, resource: str, security: Any = None) -> None:
        kind, self.cases = getattr(_dask_jobqueue(), KINDS[queue.kind]), 0
        self._fault, self._taken, self._asked = "", False, 0
        self._looked, self._in_vain = time.monotonic(), 0
        self._why = ""
        self._certificates = logs
        options = {"log_directory": str(logs), "processes": 1, **queue.options}
        if security is not None and not {"security", "protocol"} & set(options):
            logs.mkdir(parents=True, exist_ok=True)
            options = {"security": security, "shared_temp_directory": str(logs), **options}
        options["worker_extra_args"] = ["--resources", f"{resource}=1", *options.get("worker_extra_args", [])]
        options["job_script_prologue"] = [*_ENVIRONMENT, *options.get("job_script_prologue", [])]
        self._queue, self.logs, self.processes = queue, options["log_directory"], int(options["processes"])
        try:
            self.cluster = kind(job_cls=_telling(kind.job_cls, self), **options)
        except (TypeError, ValueError) as error:
            raise ClassScaleError(
                f"{queue.file}: dask-jobqueue cannot use these options for {queue.kind} ({reason(error)}). Its "
                f"documentation of {KINDS[queue.kind]} lists them."
            ) from error

    def asks(self) -> None:
        """Note that a job is being submitted."""
        self._asked += 1

    def asked(self, fault: Exception | None) -> None:
        """Note that the queue has taken a job, or why it has not; then it is submitted again some time later."""
        self._asked -= 1
        self._taken = self._taken or fault is None
        self._fault = "" if fault is None else str(fault)
        if fault is not None:
            self.cluster.loop.call_later(_SECONDS_TO_ASK_AGAIN, self._forget_refused)

    def _forget_refused(self) -> None:
        """Forget the jobs that the queue has refused, so that Dask finds that they are missing."""
        from distributed.core import Status

        for name, job in list(self.cluster.workers.items()):
            if job.status == Status.failed:
                del self.cluster.workers[name]

    async def look(self) -> None:
        """Look now and then whether jobs have ended before their worker came; Dask then finds that they are missing."""
        from distributed.core import Status

        here = [str(name) for name in self.cluster.observed]
        if here:
            self._in_vain = 0
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        jobs = {
            str(job.job_id): name
            for name, job in self.cluster.workers.items()
            if getattr(job, "job_id", None) and not any(f"{one}-".startswith(f"{name}-") for one in here)
        }
        ended = await ended_jobs(self._queue.kind, jobs) if jobs else {}
        for job_id, state in ended.items():
            if (job := self.cluster.workers.pop(jobs[job_id], None)) is not None:
                job.status = Status.closed
                self._in_vain, self._why = self._in_vain + 1, f"{job_id}: {state}"
        self._looked = time.monotonic()

    def start(self) -> None:
        """Ask the queue for jobs, and for new ones when it ends them, as long as cases are left."""
        self.cluster.adapt(
            Adaptive=_by_cases(self),
            minimum_jobs=self._queue.minimum,
            maximum_jobs=self._queue.maximum,
            interval="2s",
            wait_count=5,
        )

    def tidy(self) -> None:
        """Remove certificates, also those of commands that were killed: no worker needs them any more."""
        for file in vars(self.cluster).values():
            if isinstance(file, tempfile._TemporaryFileWrapper):  # it would complain that its file is gone
                file.close()
        for file in self._certificates.glob(_CERTIFICATES):
            with suppress(OSError):
                file.unlink()

    def check(self) -> None:
        """Look whether the queue takes the jobs. One that has taken some may be busy, or have enough for now.

        :raises ClassScaleError: if it has refused all, or many have ended before their worker came.
        """
        if self._in_vain >= _MOST_IN_VAIN:
            raise ClassScaleError(
                f"{self._in_vain} jobs of {self._queue.file} have ended before their worker came (the last one, "
                f"{self._why}). What they print is in {self.logs}. Correct the options, such as python or walltime, "
                "and run the command again."
            )
        if self.refusal and not self._taken and not self._asked:
            raise ClassScaleError(
                f"The queue does not take the jobs of {self._queue.file} ({self.refusal}). Correct its options and run "
                "the command again."
            )

    @property
    def refusal(self) -> str:
        """Why the queue has refused the last job; empty if it has taken it."""
        lines = [line.strip() for line in self._fault.splitlines() if line.strip()]
        said = (line for line in lines if re.search(r"(?i)error|fail|invalid|denied", line))
        return next(said, lines[-1] if lines else "")

    @property
    def seconds(self) -> float | None:
        """The time that a job may take, if it is known: that of the options, or dask-jobqueue's own default."""
        import dask

        default = dask.config.get(f"jobqueue.{self._queue.kind}.walltime", None)
        return seconds_of(str(self._queue.options.get("walltime") or default or ""), self._queue.kind)

    @property
    def ids(self) -> list[str]:
        """The ids of the jobs, as the queue calls them."""
        return sorted({str(job.job_id) for job in self.cluster.workers.values() if getattr(job, "job_id", None)})


def _dask_jobqueue() -> Any:
    """Import dask-jobqueue, which makes Ctrl-C end the process with exit code 0, as if all were done; undo that."""
    import signal

    before = signal.getsignal(signal.SIGINT)
    import dask_jobqueue

    if signal.getsignal(signal.SIGINT) is not before:
        signal.signal(signal.SIGINT, before)
    return dask_jobqueue


def _telling(job: Any, jobs: QueueJobs) -> Any:
    """Return a class of jobs that tell when they cannot be submitted; dask-jobqueue would wait for them for ever."""
    from distributed.core import Status

    class Telling(job):
        async def start(self) -> None:
            jobs.asks()
            try:
                await super().start()
            except Exception as error:  # of the command that submits, which may do anything
                self.status = Status.failed
                jobs.asked(error)
            else:
                jobs.asked(None)

    return Telling


def _by_cases(jobs: QueueJobs) -> Any:
    """Return a class that wants as many workers as there are cases; Dask's own goes by the time that tasks take."""
    from distributed.deploy.adaptive import Adaptive

    class ByCases(Adaptive):
        async def target(self) -> int:
            await jobs.look()
            return jobs.cases

    return ByCases
