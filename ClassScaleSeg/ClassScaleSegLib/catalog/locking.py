"""One process at a time: a lock that the operating system drops when its holder ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CatalogError
from ..files import unwritable

_BYTE = 1 << 30  # locked beyond the process id, which others may read: Windows lets nobody read a locked byte


@contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Hold the lock file ``path``, which keeps the process id of its last holder.

    No lock is ever stale: it ends with the process, and what stays of the file does not count.

    :param purpose: of the holder, as the beginning of a sentence such as "x is being downloaded".
    :raises CatalogError: if another process or thread holds it.
    :raises OutputError: if it cannot be written.
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
            raise CatalogError(f"{purpose} by another process (id {holder}): wait until it has ended.") from None
        except OSError as error:
            raise unwritable(path, error) from error
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


if os.name == "nt":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
