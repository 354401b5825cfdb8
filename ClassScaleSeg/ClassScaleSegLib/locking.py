"""A file lock between processes that the operating system releases when its holder ends, even by a crash."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import Busy, ClassScaleError
from .files import unwritable

_BYTE = 1 << 30  # the byte to lock; far behind the process id, because on Windows nobody can read a locked byte


@contextmanager
def locked(path: Path, purpose: str, kind: type[ClassScaleError] = Busy) -> Iterator[None]:
    """Hold a lock while the block runs.

    A lock cannot become stale: it ends with the process. The file stays, but a file alone locks nothing.

    :param path: the lock file, which names the process id of its last holder. Missing folders are made.
    :param purpose: what the holder does, as the beginning of a sentence such as "Model A is being downloaded".
    :param kind: of the exception.
    :raises Busy: if another process or thread holds the lock.
    :raises OutputError: if the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "lock"), "Model A is being downloaded"):
    ...     int(Path(folder, "lock").read_text()) == os.getpid()
    True
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")
    except OSError as error:
        raise unwritable(path, error) from error
    with file:
        try:
            _lock(file.fileno())
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read(20).decode("ascii", "replace").strip() or "unknown"
            raise kind(f"{purpose} by another process (id {holder}). Wait until it has ended.") from None
        except OSError as error:
            raise unwritable(path, error) from error
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
