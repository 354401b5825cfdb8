"""A process with everything it started: found, and ended for certain.

`PythonSlicer` is a launcher: the work is done by its child, and killing the launcher alone leaves that running.
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


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a process that ended and that nobody has asked for its exit code does not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """All processes that ``pid`` started, and that these started."""
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def kill_tree(root: subprocess.Popen, timeout: float = 0.8) -> None:
    """Kill ``root``, the leader of its session, and all its descendants.

    :param timeout: seconds after which it returns even if one of them is not gone.
    """
    members = descendants(root.pid) if root.poll() is None else []
    if os.name == "posix":  # also those whose parent has ended already
        with contextlib.suppress(OSError):
            os.killpg(root.pid, signal.SIGKILL)
    kill_all(members)
    if root.poll() is None:
        root.kill()
    deadline = time.monotonic() + timeout
    with contextlib.suppress(subprocess.TimeoutExpired):
        root.wait(timeout)
    while any(map(is_alive, members)) and time.monotonic() < deadline:
        time.sleep(0.01)


def kill_all(processes: list[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
