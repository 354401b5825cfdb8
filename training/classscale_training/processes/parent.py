"""Let processes end when the process that started them has been killed: they would wait for it for ever."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.util import register_after_fork

_SECONDS_BETWEEN = 1.0


def end_with_parent() -> None:
    """Let this process, which was not forked, end when its parent has ended, whatever it does then."""
    parent = multiprocessing.parent_process()
    if parent is None:
        _end_after(functools.partial(_wait_for, os.getppid()))
    else:
        _end_after(functools.partial(multiprocessing.connection.wait, [parent.sentinel]))


@functools.cache
def forked_end_with_parent() -> None:
    """Let every process end with this one that multiprocessing forks from now on, such as nnU-Net's augmentation.

    Those that it spawns begin as new programs, and call :func:`end_with_parent` themselves.
    """
    # forked processes hold both ends of their sentinels, which therefore never tell
    register_after_fork(end_with_parent, lambda _: _end_after(functools.partial(_wait_for, os.getppid())))


def _wait_for(parent: int) -> None:
    import psutil

    try:
        process = psutil.Process(parent)
    except psutil.Error:  # it has ended already
        return
    # Where a process that has lost its parent does not get another one (Windows), the parent is asked for.
    while os.getppid() == parent and process.is_running():
        time.sleep(_SECONDS_BETWEEN)


def _end_after(wait: Callable[[], object]) -> None:
    def end() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=end, daemon=True, name="parent").start()
