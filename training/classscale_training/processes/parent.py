"""Let processes end when the process that started them has been killed: they would wait for it for ever."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from multiprocessing.util import register_after_fork

_SECONDS_BETWEEN = 1.0


def end_with_parent() -> None:
    """Let this process end when its parent has ended, whatever it does then."""
    threading.Thread(target=_wait, args=(os.getppid(),), daemon=True, name="parent").start()


@functools.cache
def forked_end_with_parent() -> None:
    """Let every process end with this one that multiprocessing forks from now on, such as nnU-Net's augmentation.

    Those that it spawns begin as new programs, and call :func:`end_with_parent` themselves.
    """
    register_after_fork(end_with_parent, lambda _: end_with_parent())


def _wait(parent: int) -> None:
    process = multiprocessing.parent_process()
    if process is not None:
        multiprocessing.connection.wait([process.sentinel])
    else:  # multiprocessing did not start this process
        while os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN)
    os._exit(1)
