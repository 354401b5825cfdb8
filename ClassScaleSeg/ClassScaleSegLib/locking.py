"""A file lock between processes that the operating system releases when its holder ends, even by a crash."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import Busy, ClassScaleError, OutputError
from .files import unwritable

_SECONDS_BETWEEN_TRIES = (0.02, 0.1, 0.2)
_BYTE = 1 << 30  # the byte to lock; far behind the process id, because on Windows nobody can read a locked byte


@contextmanager
def locked(path: Path, purpose: str, kind: type[ClassScaleError] = Busy) -> Iterator[None]:
    """Hold a lock while the block runs.

    A lock cannot become stale: it ends with the process. The file stays, but a file alone locks nothing.

    :param path: the lock file, which names process id and host of its last holder. Missing folders are made.
    :param purpose: what the holder does, as the beginning of a sentence such as "Model A is being downloaded".
    :param kind: of the exception.
    :raises Busy: if another process or thread holds the lock.
    :raises OutputError: if the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "lock"), "Model A is being downloaded"):
    ...     int(Path(folder, "lock").read_text().split()[0]) == os.getpid()
    True
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")
    except OSError as error:
        raise unwritable(path, error) from error
    with file:
        try:
            _lock_soon(file.fileno())
        except (BlockingIOError, PermissionError):
            holder = "unknown"
            with suppress(OSError):  # on a network share that lets nobody read a locked file
                file.seek(0)
                holder = file.read(100).decode("ascii", "replace").strip() or holder
            raise kind(f"{purpose} by another process (id {holder}). Wait until it has ended.") from None
        except OSError as error:
            raise OutputError(
                f"{path} cannot be locked ({error.strerror or error}). Its file system may have no locks; choose a "
                "folder on another one."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}".encode("ascii", "replace"))
        file.flush()
        yield


def _lock_soon(descriptor: int) -> None:
    """Take a lock, after another look if somebody holds it: it may be :func:`is_locked`, for a moment."""
    for seconds in _SECONDS_BETWEEN_TRIES:
        with suppress(BlockingIOError, PermissionError):
            _lock(descriptor)
            return
        time.sleep(seconds)
    _lock(descriptor)


def is_locked(path: Path) -> bool | None:
    """Return whether a process holds a lock, without disturbing one that is about to take it for long.

    :param path: the lock file, which is only read.
    :returns: ``None`` if it cannot be told.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "lock"), "Model A is being downloaded"):
    ...     is_locked(Path(folder, "lock"))
    True
    """
    try:
        with open(path, "r+b" if sys.platform == "win32" else "rb") as file:
            _lock(file.fileno(), shared=True)
    except (BlockingIOError, PermissionError) as error:
        return True if error.filename is None else None  # with a name: it cannot be opened
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, shared: bool = False) -> None:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int, shared: bool = False) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
