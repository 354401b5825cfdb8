"""Connections of clients: those that do not send a request, or do not read the answer, are closed.

uvicorn waits for both for ever, so anybody who can reach the server, also without a token, could take all connections.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..addresses import is_loopback
from .limits import CONNECTIONS, CONNECTIONS_OF_ADDRESS, SECONDS_FOR_REQUEST, SECONDS_TO_READ

_OPEN_FILES = 4096


class Connection(H11Protocol):
    """A connection, read by h11, which limits the head of a request and needs no compiled package."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._late: asyncio.TimerHandle | None = None  # closes it if no request comes
        self._stalled: asyncio.TimerHandle | None = None  # closes it if nothing is read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close it at once if there are too many."""
        super().connection_made(transport)
        address = self.client[0] if self.client else "localhost"
        here = sum(isinstance(each, Connection) and (each.client or "")[:1] == (address,) for each in self.connections)
        most = CONNECTIONS if is_loopback(address) else CONNECTIONS_OF_ADDRESS  # a proxy may be at loopback
        if len(self.connections) > CONNECTIONS or here > most:
            transport.abort()
        else:
            self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take what a client has sent."""
        super().data_received(data)
        self._await_request()

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as the server writes."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(SECONDS_TO_READ, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        super().resume_writing()
        self._stalled = _cancelled(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._late, self._stalled = _cancelled(self._late), _cancelled(self._stalled)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Go on with the next request. A client that still sends the answered one, as it was refused, has to end."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._await_request()

    def _await_request(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # it is being answered
            self._late = _cancelled(self._late)
        elif self._late is None:
            self._late = self.loop.call_later(SECONDS_FOR_REQUEST, self.transport.abort)


def allow_open_files() -> None:
    """Let this process have a file open for each connection, and some more, if the system allows it."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None
