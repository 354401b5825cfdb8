"""Keep Ctrl-C, which reaches every process of a command, from those that would answer it with a traceback."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any

# the standard library's own hook, of which typeshed does not know that it is a static method
_POPEN = "_Popen"


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Hold back Ctrl-C until the end of the block, and from processes that begin in it until they let it through.

    Windows cannot do so.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let Ctrl-C through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_interrupts_through() -> None:
    """Let Ctrl-C through in a process that began while it was held back; one that came meanwhile comes now."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def spawned_without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C for good from the processes that multiprocessing spawns within the block.

    This is for the pools of others, which end their processes when they themselves are interrupted.
    """
    usual: Callable[[Any], Any] = getattr(SpawnProcess, _POPEN)

    @functools.wraps(usual)
    def start(process: Any) -> Any:
        with interrupts_held_back():
            return usual(process)

    setattr(SpawnProcess, _POPEN, staticmethod(start))
    try:
        yield
    finally:
        setattr(SpawnProcess, _POPEN, staticmethod(usual))
