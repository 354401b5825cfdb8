"""The events of a job, which a server sends one after the other. It is not trusted to end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing

from .connection import Connection

_LONGEST_LINE = 64 << 10  # bytes of an event; of longer ones, which only the last of a job can be, the rest is left out
_STREAM_BYTES = 64 << 20  # of the events in one answer; 3000 of them and 500 messages take 15 MiB
_STREAM_SECONDS = 1200.0  # of one answer, which a server ends after 600


class Events:
    """The events of a job, through any number of answers.

    :param path: in the address of the events.
    """

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection, self._path = connection, path
        self._last = ""  # id of the last one

    def read(self, stop: threading.Event) -> Iterator[tuple[str, str]]:
        """Yield kind and JSON of the events of one answer, in the calling thread, until the job or the answer ends."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last:
            headers["Last-Event-ID"] = self._last
        with closing(self._connection.request("GET", self._path, headers)) as answer:
            kind, data, lines, until = "", "", Lines(), time.monotonic() + _STREAM_SECONDS
            for piece in self._connection.pieces(answer, _STREAM_BYTES):
                if stop.is_set() or time.monotonic() > until:
                    return
                for line in lines.of(piece):
                    name, _, value = line.decode("utf-8", "replace").rstrip("\r").partition(":")
                    value = value.removeprefix(" ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        data = value
                    elif name == "id" and re.fullmatch("[0-9]{1,15}", value):
                        self._last = value
                    elif not name and not value and kind:
                        yield kind, data
                        if kind == "end":
                            return
                        kind = data = ""


class Lines:
    """Divides what arrives piece by piece into lines, which are cut off where they are too long."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def of(self, piece: bytes) -> Iterator[bytes]:
        """Yield the lines that end in the next piece, without their ends."""
        *ended, rest = piece.split(b"\n")
        for line in ended:
            self._add(line)
            yield bytes(self._rest)
            self._rest.clear()
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._rest += piece[: _LONGEST_LINE - len(self._rest)]
