"""Give the cases of a cohort to the workers of a cluster, and to other workers when one dies.

Dask runs a case at least once: a worker may die before or after it has written the result. A case must therefore be
one that can be repeated. How often a case was really at work is known from the workers, which tell when they begin; a
worker that dies takes the blame for no case that was only waiting for it.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ClassScaleError, innermost, reason
from .cluster import Cluster
from .ledger import PUT_ASIDE

RETRIES = 3  # after the first attempt
_LOST_WHILE_WAITING = 20  # times that the worker of a case may die before the case began
_DEATHS_AT_FIRST = 20  # of workers, or two of each, before the first case is done: it is the fault of no case
_DIED = "its worker died"
_SECONDS_BETWEEN = 0.5  # between looks at the workers
_SECONDS_WITHOUT_SCHEDULER = 30
_SECONDS_TO_FETCH = 60  # the results of a case
UNFIT = "unfit"  # in an answer: address of a worker that can do no case, and "error": why
_MOST_UNFIT = 50  # workers
_CUT_OFF = "scheduler-connection-lost"  # Dask's reason why a case is cancelled
LEAVES = "leaves"  # in an answer: address of the worker, which has no time for the case, and will do no other
Arguments = Callable[[], tuple[Any, ...]]  # of a case, made anew for each attempt


class Observer(Protocol):
    """What :func:`dispatch` reports to. Hosts and workers are names and addresses; either may be unknown, ``""``."""

    def running(self, name: str, host: str, worker: str) -> None:
        """A worker has begun with a case."""

    def died(self, name: str, host: str, worker: str, why: str) -> None:
        """A worker could not finish a case, which is tried again elsewhere."""

    def unfit(self, name: str, error: str) -> None:
        """A worker can do no case, and gets no more."""

    def finished(self, name: str, answer: Mapping[str, Any]) -> None:
        """A worker has answered; ``answer`` is what the function returned."""

    def failed(self, name: str, kind: str, error: str) -> None:
        """A case is given up."""

    def waiting(self, workers: int, hint: str) -> None:
        """Some time has passed; if there are no workers, ``hint`` says where to look."""


@dataclass
class _Attempt:
    """A case that was given to the workers."""

    index: int
    future: Any
    host: str = ""
    worker: str = ""


def dispatch(
    cluster: Cluster,
    function: Callable[..., Mapping[str, Any]],
    cases: Sequence[tuple[str, Arguments]],
    observer: Observer,
    topic: str,
    try_again: Callable[[Mapping[str, Any]], str | None] = lambda answer: None,
) -> None:
    """Run a function for each case on the workers, each of which gets one case at a time.

    :param function: called on a worker with the arguments of a case and the number of the attempt, from 1. It should
        call :func:`tell_begin` first, and may call :func:`tell_answer` with what it returns. If it answers with
        :data:`LEAVES` or :data:`UNFIT`, the case goes to another worker.
    :param cases: name and arguments of each. If these cannot be made, by a `ClassScaleError`, the case has failed.
    :param topic: name of the messages of :func:`tell_begin`, of this run alone.
    :param try_again: says why a case should be tried elsewhere, from the answer of the function.
    :raises ClassScaleError: if the scheduler is lost, or the function cannot run on a worker.
    """
    _Dispatch(cluster, function, cases, observer, topic, try_again).run()


def own_address() -> str:
    """Return the address of the worker that runs this."""
    from distributed import get_worker

    return get_worker().address


def tell_begin(topic: str, name: str) -> None:
    """Tell, from a worker, that it begins with a case."""
    from distributed import get_worker

    worker = get_worker()
    process = f"{worker.address} (process {os.getpid()})"
    # as text, a name that is not UTF-8 would break the connection, and with it the worker
    worker.log_event(topic, {"name": os.fsencode(name), "host": platform.node(), "process": process})


def tell_answer(topic: str, answer: Mapping[str, Any]) -> None:
    """Tell, from a worker, the answer of the function that it runs: JSON values and paths, not much.

    Dask leaves what a function returns with the worker until it is fetched; if the worker dies before that, the
    function runs again.
    """
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(topic, {"key": worker.get_current_task(), "answer": json.dumps(answer, default=str)})


class _Dispatch:
    def __init__(
        self,
        cluster: Cluster,
        function: Callable[..., Mapping[str, Any]],
        cases: Sequence[tuple[str, Arguments]],
        observer: Observer,
        topic: str,
        try_again: Callable[[Mapping[str, Any]], str | None],
    ) -> None:
        self._cluster, self._function, self._observer = cluster, function, observer
        self._cases, self._topic, self._try_again = cases, topic, try_again
        self._pending = deque(range(len(cases)))
        self._at_work: dict[str, _Attempt] = {}  # by key
        self._index = {name: index for index, (name, _) in enumerate(cases)}
        self._attempts = [0] * len(cases)  # times that the case was given to the workers
        self._deaths, self._lost = [0] * len(cases), [0] * len(cases)
        self._answers, self._dead, self._most_workers = 0, 0, 0
        self._news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._alone_since: float | None = None  # since when there is no scheduler

    def run(self) -> None:
        from distributed.client import ClosedClientError

        try:
            self._run()
        except ClosedClientError as error:  # Dask has given up to connect to the scheduler again
            raise _gone(error) from error

    def _run(self) -> None:
        self._listen()
        looked = time.monotonic()
        try:
            while self._pending or self._at_work:
                self._cluster.want(len(self._pending) + len(self._at_work))
                while self._pending and len(self._at_work) < self._cluster.window:
                    self._submit(self._pending.popleft())
                try:
                    kind, facts = self._news.get(timeout=_SECONDS_BETWEEN)
                except queue.Empty:
                    pass
                else:
                    self._end(facts) if kind == "end" else self._told(facts)
                if time.monotonic() - looked > _SECONDS_BETWEEN:
                    self._look()
                    looked = time.monotonic()
        finally:
            with suppress(Exception):  # the connection may be closed
                self._cluster.client.unsubscribe_topic(self._topic)

    def _listen(self) -> None:
        """Ask the scheduler for what workers tell; a scheduler that was restarted has forgotten that."""
        self._cluster.client.subscribe_topic(self._topic, lambda event: self._news.put(("told", event[1])))

    def _submit(self, index: int) -> None:
        from distributed import TimeoutError  # before Python 3.11 it is not the built-in one

        name, make_arguments = self._cases[index]
        self._attempts[index] += 1
        try:
            arguments = make_arguments()
        except ClassScaleError as error:
            self._observer.failed(name, type(error).__name__, str(error))
            return
        except (OSError, TimeoutError):  # they are sent, and the last worker has just gone
            self._lose(index)
            return
        future = self._cluster.client.submit(
            self._function,
            *arguments,
            self._attempts[index],
            key=f"segment-{self._topic}-{index}-{self._attempts[index]}",
            resources=self._cluster.resources,
            workers=self._cluster.fit,
            pure=False,
        )
        self._at_work[future.key] = _Attempt(index, future)
        future.add_done_callback(lambda done: self._news.put(("end", done.key)))

    def _told(self, facts: Mapping[str, Any]) -> None:
        if "answer" not in facts:
            self._begin(facts)
        elif (attempt := self._at_work.pop(facts["key"], None)) is not None:
            self._answered(attempt, json.loads(facts["answer"]))
            attempt.future.release()

    def _begin(self, facts: Mapping[str, Any]) -> None:
        """Note that a worker has begun; if another one had begun already, that one has died and Dask has noticed."""
        index = self._index[os.fsdecode(facts["name"])]
        attempt = next((each for each in self._at_work.values() if each.index == index), None)
        if attempt is None:  # of an attempt that is over
            return
        if attempt.worker and attempt.worker != facts["process"]:
            self._died(attempt, _DIED)
            if self._deaths[index] > RETRIES:
                attempt.future.cancel()
                del self._at_work[attempt.future.key]
                self._give_up(index)
                return
        attempt.host, attempt.worker = facts["host"], facts["process"]
        self._observer.running(self._cases[index][0], attempt.host, attempt.worker)

    def _end(self, key: str) -> None:
        from distributed import CancelledError, TimeoutError
        from distributed.scheduler import KilledWorker

        attempt = self._at_work.pop(key, None)
        if attempt is None:
            return
        index, future = attempt.index, attempt.future
        if future.status == "finished":
            try:
                self._answered(attempt, future.result(timeout=_SECONDS_TO_FETCH))
            except (OSError, TimeoutError, CancelledError, KilledWorker):  # its worker has died meanwhile
                future.cancel()
                self._lose(index)
        elif future.status == "error":
            error = future.exception()
            if not isinstance(error, KilledWorker):
                raise _unusable(error)
            self._worker_died(attempt)
        elif future.status == "cancelled" and not _is_cut_off(future):
            self._worker_died(attempt)  # and took images with it that were sent there
        else:  # the scheduler was restarted, or forgot it
            self._listen()
            self._lose(index)
        future.release()

    def _worker_died(self, attempt: _Attempt) -> None:
        if not attempt.worker:
            self._lose(attempt.index)
            return
        self._died(attempt, _DIED)
        if self._deaths[attempt.index] > RETRIES:
            self._give_up(attempt.index)
        else:
            self._pending.append(attempt.index)  # behind the others, which should not suffer if it kills its workers

    def _answered(self, attempt: _Attempt, answer: Mapping[str, Any]) -> None:
        index = attempt.index
        if answer.get(LEAVES):
            self._cluster.retire(answer[LEAVES])
            self._pending.appendleft(index)
        elif answer.get(UNFIT):
            self._set_aside(answer[UNFIT], answer["error"])
            self._observer.unfit(self._cases[index][0], answer["error"])
            self._pending.appendleft(index)
        elif (why := self._try_again(answer)) is not None and self._deaths[index] < RETRIES:
            self._died(attempt, why)
            self._pending.append(index)
        else:
            self._answers += 1
            self._observer.finished(self._cases[index][0], answer)

    def _set_aside(self, worker: str, why: str) -> None:
        """Give no more cases to a worker that can do none; if it was the last one, end."""
        self._cluster.refresh()
        self._cluster.set_aside(worker)
        if self._cluster.window == 0 or len(self._cluster.unfit) > _MOST_UNFIT:
            raise ClassScaleError(why)

    def _died(self, attempt: _Attempt, why: str) -> None:
        self._deaths[attempt.index] += 1
        self._observer.died(self._cases[attempt.index][0], attempt.host, attempt.worker, why)
        self._dead += why == _DIED
        if self._answers == 0 and self._dead >= max(_DEATHS_AT_FIRST, 2 * self._most_workers):
            raise ClassScaleError(
                f"{self._dead} workers died while they segmented, and no case is done. Have they enough memory and "
                "time? Their logs may say why. Run the command again to go on."
            )

    def _give_up(self, index: int) -> None:
        said = f"{self._deaths[index]} workers died one after another while they segmented it, so it is put aside."
        why = "The logs of the workers may say why. If a queue ended them, give its jobs more time (walltime)."
        self._observer.failed(self._cases[index][0], PUT_ASIDE, f"{said} {why}")

    def _lose(self, index: int) -> None:
        """Give a case that had not begun to the workers again."""
        self._lost[index] += 1
        if self._lost[index] > _LOST_WHILE_WAITING:
            raise ClassScaleError(
                f"Workers die before they begin with a case, {self._lost[index]} times now. Their logs may say why: on "
                "this machine dask.log beside the ledger, in a queue the logs of its jobs."
            )
        self._pending.appendleft(index)

    def _look(self) -> None:
        """Look which workers there are; without a scheduler for some time, end."""
        from distributed import TimeoutError

        try:
            if self._cluster.client.status != "running":
                raise OSError("the connection was closed")
            self._cluster.refresh()
            self._most_workers = max(self._most_workers, self._cluster.workers)
            self._alone_since = None
        except (OSError, ValueError, TimeoutError) as error:
            self._alone_since = self._alone_since or time.monotonic()
            if time.monotonic() - self._alone_since > _SECONDS_WITHOUT_SCHEDULER:
                raise _gone(error) from error
        self._observer.waiting(self._cluster.workers, "" if self._cluster.workers else self._cluster.hint)


def _gone(error: Exception) -> ClassScaleError:
    said = f"The scheduler of the cluster does not answer any more ({innermost(error).rstrip('.')})."
    return ClassScaleError(f"{said} Run the command again to go on.")


def _is_cut_off(future: Any) -> bool:
    """Return whether a case was cancelled because the connection to the scheduler was lost."""
    from distributed import CancelledError

    try:
        future.result(timeout=1)
    except CancelledError as error:
        return getattr(error, "reason", _CUT_OFF) == _CUT_OFF
    return False


def _unusable(error: BaseException) -> ClassScaleError:
    """Return the error to tell if a worker cannot even begin, which is the fault of no case."""
    if isinstance(error, ModuleNotFoundError):
        return ClassScaleError(
            f"A worker of the cluster has no package {error.name}. Install ClassScaleSeg where the workers run, in the "
            "same version as here."
        )
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
    return ClassScaleError(
        f"The workers of the cluster cannot segment ({type(cause).__name__}: {reason(cause)[:200]}). Do they and the "
        "scheduler have the same version of ClassScaleSeg?"
    )
