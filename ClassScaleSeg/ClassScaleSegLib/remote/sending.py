"""Send files to a server, in parts, going on where a lost connection has ended."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ServerError, reason
from ..inference.progress import Monitor
from .connection import Connection
from .faults import Refused
from .preparing import ImageFile
from .removing import Sent, is_id

PART_BYTES = 16 << 20  # of one request
RESTARTS = 5  # of the server, after which sending is given up
MIB = 1 << 20
MOST_SECONDS_BUSY = 3600.0  # for which images of the same token may be sent before this one
_LEAST_PART = 1 << 18  # bytes, if a server in front takes no larger ones
_SECONDS_BUSY = 1.0
_IN_VAIN = 20  # parts of which nothing arrives, after which an image is sent anew
_MOST_PARTS = 1000  # that may arrive incompletely, in all; a server that takes a byte of each would never have it


class _Part:
    """A part of a file, as it is read while it is sent.

    :ivar sent: bytes that were read.
    :ivar fault: why it cannot be read to its end; empty if it can.
    """

    def __init__(self, file: ImageFile, offset: int, size: int, stopped: Callable[[], bool]) -> None:
        self._stream, self._size, self._stopped = file.path.open("rb"), min(size, file.size - offset), stopped
        self.sent, self.fault = 0, ""
        self._stream.seek(offset)

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        if self._stopped():
            raise ConnectionAbortedError("Cancelled")
        left = self._size - self.sent
        try:
            content = self._stream.read(left if size < 0 else min(size, left))
        except OSError as error:
            self.fault = f"cannot be read any more ({error.strerror or reason(error)})"
            raise
        if left and not content:
            self.fault = "has become shorter while it was sent"
            raise OSError(self.fault)
        self.sent += len(content)
        return content

    def close(self) -> None:
        self._stream.close()


def send(connection: Connection, files: Sequence[ImageFile], monitor: Monitor, begun: list[Sent]) -> list[str]:
    """Send files, and return the ids that the server gives to them.

    :param monitor: gets reports of the stage "send", in MiB.
    :param begun: gets each file before it is announced, so that it can be removed if sending fails.
    :raises ServerError: if the server refuses one, or stays away; or a file has changed meanwhile.
    :raises Cancelled: if the monitor's token is set.
    """
    total = sum(file.size for file in files)
    steps = max(1, -(-total // MIB))
    before, names = 0, []

    def report(done: int) -> None:
        monitor.report("send", (before + done) // MIB, steps)

    monitor.report("send", 0, steps)
    for file in files:
        names.append(_Sending(connection, file, monitor, report).run(begun))
        before += file.size
    monitor.report("send", steps, steps)
    return names


class _Sending:
    """Sends one file."""

    def __init__(
        self, connection: Connection, file: ImageFile, monitor: Monitor, report: Callable[[int], None]
    ) -> None:
        self._connection, self._file, self._monitor, self._report = connection, file, monitor, report
        self._part_bytes = PART_BYTES
        self._refused: float | None = None  # since when others of the same token send, so that this one has to wait

    def run(self, begun: list[Sent]) -> str:
        """Send it, and return its id on the server; the parameter is that of :func:`send`."""
        for attempt in range(RESTARTS):
            file = self._file
            announced = {"key": file.key, "kind": file.kind, "size": file.size, "sha256": file.sha256}
            begun.append(Sent("/v1/uploads", announced))
            name, offset, complete = self._state(self._connection.ask("POST", "/v1/uploads", self._monitor, announced))
            begun[-1].name = name
            in_vain, left = 0, _MOST_PARTS + 4 * file.size // _LEAST_PART
            try:
                while not complete:
                    before, left = offset, left - 1
                    offset, complete = self._part(f"/v1/uploads/{name}", offset)
                    in_vain = in_vain + 1 if offset == before and self._refused is None else 0
                    if in_vain > _IN_VAIN or left < 0:
                        break
                else:
                    return name
            except Refused as error:
                if error.code == "upload_damaged" and attempt > 0:
                    raise ServerError(f"{file.path} has changed while it was sent. Run this again.") from error
                if error.code not in ("upload_unknown", "upload_damaged"):
                    raise
            self._file = replace(file, key=secrets.token_urlsafe(24))
        raise ServerError(
            f"{self._connection.address} lost the image {RESTARTS} times while it was sent. Ask the person who runs "
            "the server."
        )

    def _part(self, path: str, offset: int) -> tuple[int, bool]:
        """Send a part, and return how many bytes have arrived, and whether these are all."""
        if offset == self._file.size:  # the server compares the SHA-256
            self._connection.pause(self._monitor)
            _, offset, complete = self._state(self._connection.ask("GET", path, self._monitor))
            return offset, complete
        stop = threading.Event()
        parts: list[_Part] = []

        def work() -> dict[str, Any] | None:
            if parts:  # an earlier attempt was lost; the server says how far it came
                return None
            try:
                parts.append(_Part(self._file, offset, self._part_bytes, stop.is_set))
            except OSError as error:
                raise ServerError(f"{self._file.path} cannot be read any more ({error.strerror}).") from error
            return self._connection.part(path, parts[0], offset)

        sent = 0

        def meanwhile() -> None:
            nonlocal sent
            if parts:
                if parts[0].sent > sent:
                    sent = parts[0].sent
                    self._connection.moved()
                self._report(offset + parts[0].sent)

        facts = None
        try:
            facts = self._connection.patiently(work, self._monitor, meanwhile=meanwhile)
        except Refused as error:
            if error.status == 413 and not error.code and self._part_bytes > _LEAST_PART:
                self._part_bytes //= 4
            elif error.code == "upload_busy":  # the server has not noticed yet that the connection was lost
                self._connection.pause(self._monitor)
            elif error.status == 429 and time.monotonic() - (self._refused or time.monotonic()) < MOST_SECONDS_BUSY:
                self._refused = self._refused or time.monotonic()
                self._connection.pause(self._monitor, _SECONDS_BUSY)
            elif error.code != "offset":
                raise
        finally:
            stop.set()
            for part in parts:
                part.close()
        if parts and parts[0].fault:
            raise ServerError(f"{self._file.path} {parts[0].fault}. Run this again.")
        if facts is None:
            facts = self._connection.ask("GET", path, self._monitor)
        else:
            self._refused = None
        _, offset, complete = self._state(facts)
        self._report(offset)
        return offset, complete

    def _state(self, facts: Mapping[str, Any]) -> tuple[str, int, bool]:
        """Return the id of an upload, how many bytes have arrived, and whether these are all."""
        name, offset, complete = facts.get("id"), facts.get("offset"), facts.get("complete")
        valid = is_id(name) and type(offset) is int and 0 <= offset <= self._file.size and isinstance(complete, bool)
        if not valid or (complete and offset != self._file.size):
            raise self._connection.odd("an image that was sent")
        assert isinstance(name, str) and isinstance(offset, int) and isinstance(complete, bool)
        return name, offset, complete
