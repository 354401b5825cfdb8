"""Process independent cases in several processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

from ClassScaleSegLib.errors import OutOfMemoryError

from ..processes.interrupts import interrupts_held_back, let_interrupts_through
from ..processes.parent import end_with_parent

_SECONDS_TO_END = 3.0


class ProcessKilledError(OutOfMemoryError):
    """A process was killed from outside."""


Item = TypeVar("Item")
Result = TypeVar("Result")


def map_cases(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield ``function`` of each item, in the order of the items.

    Processes are spawned, not forked: forking a process that runs threads (torch, SimpleITK) may hang.

    >>> list(map_cases(abs, [-3, 2, -1], workers=0))
    [3, 2, 1]

    :param workers: number of processes. With less than two, ``function`` runs in this process.
    :raises ProcessKilledError: if a process was killed.
    """
    if workers < 2:
        yield from map(function, items)
        return
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        try:
            with interrupts_held_back():
                found = pool.map(functools.partial(_work, function), items)
            yield from found
        except BrokenProcessPool as error:
            raise ProcessKilledError(
                "A process that worked on a case was killed, most likely because memory ran out. Run the command again "
                "with fewer processes."
            ) from error
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                _end(set(multiprocessing.active_children()) - others)
            raise


# Ctrl-C reaches every process. The first one says so; one that imports or waits for work would print a traceback.
_working = False


def _begin() -> None:
    """Begin a process that works on cases."""
    end_with_parent()
    signal.signal(signal.SIGINT, _interrupted)
    let_interrupts_through()


def _interrupted(*_: object) -> None:
    """End the work on a case, which then removes its partial files, or else the process."""
    if _working:
        raise KeyboardInterrupt
    os._exit(1)


def _end(processes: Iterable[BaseProcess]) -> None:
    """End processes that need not finish their cases: they get a moment to remove partial files."""
    end = time.monotonic() + _SECONDS_TO_END
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        process.terminate()


def _work(function: Callable[[Item], Result], item: Item) -> Result:
    global _working
    _working = True
    try:
        return function(item)
    finally:
        _working = False
