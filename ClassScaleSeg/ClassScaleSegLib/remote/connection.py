"""The connection to a server, which outlasts faults of the network and restarts.

A connection that is lost is made again, and what was lost is asked again: requests that change something have a key or
an offset, by which the server knows them. Only a server that stays away for long ends that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import ServerError
from ..inference.progress import Monitor
from .exchange import Exchange
from .faults import Lost, Refused
from .health import Health, health_of

PATIENCE = 600.0  # seconds without any contact, after which the server is given up
LARGEST_MODELS = 64 << 20  # bytes of an answer that describes models: one of 1000 classes with codes takes 0.3 MiB
LARGEST_JOB = 16 << 20  # of one that describes a job: what was cleaned up in 65535 classes takes 8 MiB
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 5.0)  # seconds before each new attempt; then always the last one
_FIRST_ATTEMPTS = 2  # more, to reach a server that was never reached: 0.7 s
_SILENT_SECONDS = 5.0  # after which a user is told that the server is away; a restart takes no longer
_BUSY_SECONDS = 60.0  # for which a server that takes no more at the moment is asked again
_T = TypeVar("_T")


@dataclass
class Connection(Exchange):
    """A connection to a server, for one thread.

    :ivar patience: seconds without any contact after which the server is given up.

    >>> Connection("localhost:8471", token="secret")
    Connection(address='http://localhost:8471', ca=None, insecure=False, patience=600.0)
    """

    patience: float = PATIENCE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._health: Health | None = None

    def another(self) -> Connection:
        """Return a connection to the same server, for another thread."""
        found = Connection(self.address, self.token, self.ca, self.insecure, self.patience)
        found._health, found._reached = self._health, self._reached
        return found

    def health(self, monitor: Monitor = Monitor()) -> Health:
        """Ask what the server is, and whether it takes the token.

        :raises ServerError: if it cannot be reached, is none of ClassScaleSeg or of another version, or does not take
            the token.
        """
        facts = self.ask("GET", "/v1/health", monitor, greet=False)
        self._health = health_of(facts, self.address, self.token)
        self._reached = True
        return self._health

    def ask(
        self,
        method: str,
        path: str,
        monitor: Monitor,
        body: Mapping[str, Any] | None = None,
        greet: bool = True,
        most: int | None = None,
    ) -> dict[str, Any]:
        """Send a request, again if the connection is lost, and return the JSON of the answer, empty if it is empty.

        :param body: sent as JSON.
        :param greet: ask first what the server is, unless that is known.
        :param most: bytes that the answer may have; by default ``LARGEST_JSON``.
        :raises Refused: if the server refuses the request.
        :raises ServerError: if it cannot be reached, stays away, or its answer has no end.
        :raises Cancelled: if the monitor's token is set.
        """
        since: float | None = None
        while True:
            try:
                return self.patiently(lambda: self.once(method, path, body, most), monitor, greet, at_once=True)
            except Refused as error:  # it takes no more at the moment
                since = time.monotonic() if since is None else since
                if error.status != 429 or time.monotonic() - since > _BUSY_SECONDS:
                    raise
                self.pause(monitor, _PAUSES[3])

    def patiently(
        self,
        work: Callable[[], _T],
        monitor: Monitor,
        greet: bool = True,
        meanwhile: Callable[[], object] = lambda: None,
        at_once: bool = False,
    ) -> _T:
        """Return ``work()``, which a thread does; do it again after :class:`Lost`, until patience ends.

        Work in which nothing moves for as long is lost, too: its thread is left alone.

        :param meanwhile: called every tenth of a second.
        :param at_once: the work is a single answer, which may not take longer than twice the patience in all, however
            often it begins.
        :raises ServerError: if the server was never reached, or stays away.
        :raises Cancelled: if the monitor's token is set.
        """
        if greet and self._health is None:
            self.health(monitor)
        attempt, begin, told = 0, time.monotonic(), False

        def look() -> None:
            meanwhile()
            now = time.monotonic()
            seconds = now - begin
            if at_once and seconds > 2 * self.patience:
                raise ServerError(
                    f"{self.address} has not sent a whole answer for {seconds:.0f} s. Ask the person who runs the "
                    "server."
                )
            if now - max(self._moved, self._contact, tried) > self.patience:
                raise Lost(f"{self.address}: the connection was lost (nothing arrives).")

        while True:
            before, tried = self._contact, time.monotonic()
            try:
                look()
                found = monitor.wait_for(work, look)
                self._contact = time.monotonic()
                return found
            except Lost as error:
                self.close()
                if self._health is None and attempt >= _FIRST_ATTEMPTS:
                    raise
                if self._contact > before:  # something has arrived
                    attempt, told = 0, False
                away = time.monotonic() - max(self._contact, begin)  # while nothing was asked, it was not away
                if away > self.patience:
                    raise ServerError(
                        f"{self.address} has not answered for {self.patience:.0f} s. Its last fault: {error} Ask the "
                        "person who runs the server."
                    ) from error
                if away > _SILENT_SECONDS and not told:
                    told = True
                    minutes = self.patience / 60
                    monitor.tell(f"{self.address} does not answer. It is asked again, for {minutes:g} minutes at most.")
            except Refused:
                self._contact = time.monotonic()
                raise
            self.pause(monitor, _PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    def pause(self, monitor: Monitor, seconds: float = _PAUSES[1]) -> None:
        """Wait, unless the job is stopped.

        :raises Cancelled: if the monitor's token is set.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            monitor.check()
            time.sleep(min(0.1, left))
