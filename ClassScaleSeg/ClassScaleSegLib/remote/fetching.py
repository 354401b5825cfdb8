"""A file of a job, fetched in several pieces if the connection is lost."""

from __future__ import annotations

import re
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .connection import Connection
from .faults import Lost

_PIECES = {False: 1 << 16, True: 1 << 10}  # bytes of a file; small ones after a lost connection, which is likely again


@dataclass(frozen=True)
class RemoteFile:
    """A file that a job has made.

    :ivar size: bytes.
    :ivar sha256: 64 hexadecimal digits.
    """

    size: int
    sha256: str


class Fetching:
    """Fetches a file into a place, going on where an earlier attempt has ended.

    :ivar done: bytes that have arrived.
    :param path: in the address of the file.
    """

    def __init__(self, connection: Connection, path: str, file: RemoteFile, place: Path) -> None:
        self._connection, self._path, self.file, self._place = connection, path, file, place
        self._stop = threading.Event()
        self._stream: BinaryIO | None = None
        self.done = 0
        self._again = False

    def close(self) -> None:
        """Stop the thread that fetches, and close its file, which could not be removed on Windows otherwise."""
        self._stop.set()
        if self._stream is not None:
            self._stream.close()

    def work(self) -> None:
        """Fetch what is missing, in the calling thread."""
        headers = {"Accept": "application/x-nrrd"}
        if self.done:
            headers["Range"] = f"bytes={self.done}-"
        with closing(self._connection.request("GET", self._path, headers)) as answer:
            begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if answer.status_code == 206 and begins is None:
                raise Lost(f"{self._connection.address}: the connection was lost (the answer breaks off).")
            if begins is None or int(begins[1]) != self.done:
                self.done = 0
            if self._stop.is_set():
                return
            with self._place.open("r+b" if self.done else "wb") as stream:
                self._stream = stream
                stream.seek(self.done)
                stream.truncate()
                size, self._again = _PIECES[self._again], True
                for piece in self._connection.pieces(answer, self.file.size - self.done, size):
                    if self._stop.is_set():
                        return
                    stream.write(piece)
                    self.done += len(piece)
        if self.done < self.file.size:
            raise Lost(f"{self._connection.address}: the connection was lost ({self.done} bytes have arrived).")
