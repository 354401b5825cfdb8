"""Process independent cases in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ClassScaleSegLib.errors import OutOfMemoryError

from ..processes.parent import end_with_parent


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
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as error:
            raise ProcessKilledError(
                "A process that worked on a case was killed, most likely because memory ran out. Run the command again "
                "with fewer processes."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
