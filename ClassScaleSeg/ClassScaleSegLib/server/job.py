"""A job of the server: how far it is, and what came out."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .limits import MESSAGES
from .wishes import Wish

WAITING, RUNNING, FINISHED, FAILED, CANCELLED = "waiting", "running", "finished", "failed", "cancelled"


@dataclass
class ServerJob:
    """A job. Members change under the lock of :class:`Jobs` alone.

    :ivar id: 32 hexadecimal digits.
    :ivar paths: of the images, in their order.
    :ivar state: "waiting", "running", "finished", "failed" or "cancelled".
    :ivar progress: stage, done, total, remaining, part, parts.
    :ivar error: a sentence, if it has failed.
    :ivar code: an :class:`~ClassScaleSegLib.process.exit_codes.ExitCode`, if it has failed.
    :ivar result: ``structures``, ``seconds`` and ``files``, once it is finished.
    :ivar stop: asks the thread that runs it to end it.
    :ivar changes: grows with everything that happens; the id of an event.
    :ivar messages: the last ones, each with its id.
    :ivar ended: when it ended, by the clock that never jumps.
    :ivar fetched: when its result was sent completely.
    :ivar streams: clients that read its events now.
    """

    id: str
    wish: Wish
    paths: tuple[Path, ...] = ()
    state: str = WAITING
    progress: dict[str, Any] = field(default_factory=lambda: {"stage": "queue", "done": 0, "total": 1})
    error: str | None = None
    code: int | None = None
    result: dict[str, Any] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    changes: int = 0
    messages: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=MESSAGES))
    log: str = ""
    ended: float | None = None
    fetched: float | None = None
    streams: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state not in (WAITING, RUNNING)
