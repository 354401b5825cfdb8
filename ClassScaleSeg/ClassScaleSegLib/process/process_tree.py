"""Find a process with all its descendants, and kill them all.

`PythonSlicer` is a launcher: its child does the work, and would survive if only the launcher were killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_SECONDS_TO_END = 0.8


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process still runs; a zombie, which ended but was not waited for, does not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """Return all children of the process ``pid``, their children, and so on; none if it has ended."""
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def kill_tree(root: subprocess.Popen) -> None:
    """Kill the leader of a session and all its descendants, and wait until they have ended, but not for long."""
    members = descendants(root.pid) if root.poll() is None else []
    if os.name == "posix":  # this also reaches processes whose parent has ended
        with contextlib.suppress(OSError):
            os.killpg(root.pid, signal.SIGKILL)
    kill_all(members)
    root.kill()
    deadline = time.monotonic() + _SECONDS_TO_END
    with contextlib.suppress(subprocess.TimeoutExpired):
        root.wait(_SECONDS_TO_END)
    while any(map(is_alive, members)) and time.monotonic() < deadline:
        time.sleep(0.01)


def kill_all(processes: list[psutil.Process]) -> None:
    """Kill the processes that still run."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
