"""Telling how far a job is, and stopping it when asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ..errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """One report. ``remaining`` is an estimate in seconds, ``None`` while unknown.

    With several models :mod:`.several_models` writes the part before the stage, as in "part 2 of 5:
    segment", and adds the stage "load".
    """

    stage: str  # "read", "preprocess", "segment" (windows), "decode" (rows, after the only window), "write"
    done: int
    total: int
    remaining: float | None = None
    message: str = ""

    def __str__(self) -> str:
        text = f"{self.stage} {self.done}/{self.total}"
        if self.remaining is not None:
            text += f", {self.remaining:.0f} s left"
        return f"{text}: {self.message}" if self.message else text


class CancelToken(Protocol):
    """``threading.Event`` and ``multiprocessing.Event`` are such tokens."""

    def is_set(self) -> bool: ...


class Monitor:
    """Passes reports on and raises :class:`Cancelled` at the first report after the token was set."""

    def __init__(self, progress: Callable[[Progress], None] | None = None, cancel: CancelToken | None = None):
        self._progress, self._cancel = progress, cancel
        self._last, self._begin = Progress("read", 0, 1), time.monotonic()

    def report(self, stage: str, done: int = 0, total: int = 1) -> None:
        self.check()
        if stage != self._last.stage:
            self._begin = time.monotonic()
        seconds = time.monotonic() - self._begin
        remaining = seconds / done * (total - done) if done and total > 1 else None
        self._last = Progress(stage, done, total, remaining)
        if self._progress is not None:
            self._progress(self._last)

    def tell(self, message: str) -> None:
        """Something to be said in the middle of a stage."""
        if self._progress is not None:
            self._progress(replace(self._last, message=message))

    def check(self) -> None:
        """:raises Cancelled: if the token is set."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled(f"Cancelled during {self._last.stage}; nothing was written.")
