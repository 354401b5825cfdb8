"""An image that a client sends in parts, or has sent."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any


@dataclass
class Upload:
    """An image that is being sent, or was.

    :ivar id: 32 hexadecimal digits.
    :ivar owner: name of the token.
    :ivar key: chosen by the client, so that it can ask again if it got no answer.
    :ivar kind: suffix of the file.
    :ivar size: bytes, as the client has announced.
    :ivar sha256: 64 hexadecimal digits, as the client has announced.
    :ivar path: of the file.
    :ivar offset: bytes that have arrived.
    :ivar jobs: ids of jobs that need it.
    :ivar used: when it was used last, by the clock that never jumps.
    :ivar arrived: when something of it arrived last, or it was announced; by the same clock.
    """

    id: str
    owner: str
    key: str
    kind: str
    size: int
    sha256: str
    path: Path
    offset: int = 0
    complete: bool = False
    jobs: set[str] = field(default_factory=set)
    used: float = field(default_factory=time.monotonic)
    arrived: float = field(default_factory=time.monotonic)
    busy: bool = False
    removed: bool = False
    digest: Any = field(default_factory=hashlib.sha256)
    stream: IO[bytes] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The JSON of an answer."""
        return {"id": self.id, "offset": self.offset, "size": self.size, "complete": self.complete}
