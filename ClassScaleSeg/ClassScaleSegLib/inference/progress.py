"""Report the progress of a job, and stop it on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from ..errors import Cancelled

WAITED_FOR = "ClassScaleSeg: waited for"  # name of the threads of `Monitor.wait_for`
_UNITS = 1000  # steps of progress that each of several models counts
_T = TypeVar("_T")


@dataclass(frozen=True)
class Progress:
    """One report on a running job.

    With several models (:mod:`.several_models`), ``done``, ``total`` and ``remaining`` are those of the whole job.

    :ivar stage: "read", "preprocess", "segment" (windows), "decode" (rows, if there is only one window), "clean" (if
        the result is cleaned up) or "write"; with several models also "load", and "locate" (windows of a coarse model);
        with a server also "send" and "fetch" (MiB), "queue" (jobs before this one that are done) and "start".
    :ivar done: steps of this stage that are done.
    :ivar total: all steps of this stage.
    :ivar remaining: estimated seconds until this stage is done; ``None`` while unknown.
    :ivar message: a sentence for the user, if there is something to tell.
    :ivar part: which of several models is at work, from 1.
    :ivar parts: number of models.

    >>> print(Progress("segment", 3, 12, remaining=4.2))
    segment 3/12, 4 s left
    >>> Progress("segment", 1500, 5000, part=2, parts=5).title
    'part 2 of 5: segment'
    """

    stage: str
    done: int
    total: int
    remaining: float | None = None
    message: str = ""
    part: int = 1
    parts: int = 1

    @property
    def title(self) -> str:
        """The stage, after the part if there are several."""
        return self.stage if self.parts == 1 else f"part {self.part} of {self.parts}: {self.stage}"

    def __str__(self) -> str:
        text = f"{self.title} {self.done}/{self.total}"
        if self.remaining is not None:
            text += f", {self.remaining:.0f} s left"
        return f"{text}: {self.message}" if self.message else text


class PartsProgress:
    """Turns the reports of several models into reports of the whole job, to which all contribute equally.

    :ivar part: which of them is at work, from 1.
    :param progress: called with each report.
    :param count: number of models.
    """

    def __init__(self, progress: Callable[[Progress], None] | None, count: int):
        self._progress, self._count, self._begin = progress, count, time.monotonic()
        self.part, self._done = 1, 0
        self._told: dict[str, int] = {}  # the messages, and which model told them

    def __call__(self, own: Progress) -> None:
        """Pass on a report of the model at work; what another one has told, such as of the image, is told once."""
        if self._progress is None or (own.message and self._told.setdefault(own.message, self.part) != self.part):
            return
        share = own.done / own.total if own.stage in ("segment", "decode", "locate") else 0
        # never backwards: after a single window, "decode" starts again at 0
        self._done = max(self._done, round(_UNITS * (self.part - 1 + share)))
        total, seconds = _UNITS * self._count, time.monotonic() - self._begin
        remaining = seconds / self._done * (total - self._done) if self._done else None
        self._progress(Progress(own.stage, self._done, total, remaining, own.message, self.part, self._count))

    def locating(self, own: Progress) -> None:
        """Pass on a report of the model that locates the classes."""
        self(replace(own, stage="locate") if own.stage in ("segment", "decode") else own)


class Steps:
    """Counts the steps of a stage through several passes over an image, so that its reports never go back.

    :param monitor: receives the reports, and may cancel.
    :param total: steps that are expected; more may follow.

    >>> steps = Steps(Monitor(print), "preprocess", 5)
    >>> steps.step(), steps.follow(0, 2), steps.follow(1, 2)
    preprocess 1/5, 0 s left
    preprocess 1/3, 0 s left
    preprocess 2/3, 0 s left
    (None, None, None)
    """

    def __init__(self, monitor: Monitor | None, stage: str, total: int):
        self.monitor, self._stage, self._total = monitor or Monitor(), stage, total
        self._done = self._reached = 0  # by steps; and by what follows them

    def step(self) -> None:
        """Report one more step.

        :raises Cancelled: if the monitor's token is set; :meth:`follow` raises it too.
        """
        self._done = self._reached = self._reached + 1
        self.monitor.report(self._stage, self._done, max(self._total, self._done))

    def follow(self, done: int, total: int) -> None:
        """Report how much is done of what follows all steps so far."""
        self._reached = self._done + done
        self.monitor.report(self._stage, self._reached, self._done + total)


class CancelToken(Protocol):
    """Any object with ``is_set()``, such as ``threading.Event`` or ``multiprocessing.Event``."""

    def is_set(self) -> bool: ...


class Monitor:
    """Pass reports on, and raise :class:`Cancelled` at the first report after the token was set.

    :param progress: called with each report.
    :param cancel: the token.

    >>> import threading
    >>> token = threading.Event()
    >>> monitor = Monitor(print, token)
    >>> monitor.report("segment", 0, 8)
    segment 0/8
    >>> monitor.tell("Using the CPU.")
    segment 0/8: Using the CPU.
    >>> token.set()
    >>> monitor.check()
    Traceback (most recent call last):
        ...
    ClassScaleSegLib.errors.Cancelled: Cancelled during segment; nothing was written.
    """

    def __init__(self, progress: Callable[[Progress], None] | None = None, cancel: CancelToken | None = None):
        self._progress, self._cancel = progress, cancel
        self._last, self._begin = Progress("read", 0, 1), time.monotonic()

    def report(self, stage: str, done: int = 0, total: int = 1) -> None:
        """Report how far a stage is, with the remaining time extrapolated from the steps done.

        :raises Cancelled: if the token is set.
        """
        self.check()
        if stage != self._last.stage:
            self._begin = time.monotonic()
        seconds = time.monotonic() - self._begin
        remaining = seconds / done * (total - done) if done and total > 1 else None
        self._last = Progress(stage, done, total, remaining)
        if self._progress is not None:
            self._progress(self._last)

    def tell(self, message: str) -> None:
        """Repeat the last report with a message for the user."""
        if self._progress is not None:
            self._progress(replace(self._last, message=message))

    def wait_for(self, work: Callable[[], _T], meanwhile: Callable[[], object] = lambda: None) -> _T:
        """Return ``work()``, which a thread does, so that the job can be stopped meanwhile.

        :param meanwhile: called every tenth of a second until the work is done.
        :raises Cancelled: if the token is set. The thread ends when its work is done.

        >>> Monitor().wait_for(lambda: 3)
        3
        """
        outcome: list[_T | BaseException] = []

        def run() -> None:
            try:
                outcome.append(work())
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run, name=WAITED_FOR, daemon=True)
        thread.start()
        while thread.is_alive():
            self.check()
            meanwhile()
            thread.join(0.1)
        result = outcome.pop()
        if not isinstance(result, BaseException):
            return result
        try:
            raise result
        finally:
            del result  # which would hold its own frame, and with it the image and the model of the callers

    def check(self) -> None:
        """Stop the job if that was requested.

        :raises Cancelled: if the token is set.
        """
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled(f"Cancelled during {self._last.stage}; nothing was written.")
