"""A group of processes that train together, on one machine or on several: to join it, and to work in it."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from ClassScaleSegLib.errors import ClassScaleError, reason
from torch import distributed

TIMEOUT = timedelta(minutes=30)  # for one exchange; the others wait so long while one unpacks or validates
_GLOO = "gloo/"  # gloo raises RuntimeErrors that begin with the place in its sources
Result = TypeVar("Result")


class LostProcessError(ClassScaleError):
    """Another process of the group has ended, or does not answer."""


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together.

    :ivar number: of this process among those of all machines, from 0.
    :ivar count: of the processes of all machines; with 1, there is no group.
    :ivar device: what this process computes on.

    >>> print(Rank(1, 2, torch.device("cpu")))
    Process 2 of 2 (rank 1)
    """

    number: int
    count: int
    device: torch.device

    def __str__(self) -> str:
        return f"Process {self.number + 1} of {self.count} (rank {self.number})"


@contextmanager
def joined(rank: Rank, timeout: timedelta = TIMEOUT, store: distributed.Store | None = None) -> Iterator[None]:
    """Let this process belong to the group, by NCCL or gloo, for the duration of a ``with`` block.

    :param timeout: how long to wait for the others in one exchange.
    :param store: how the processes find each other; by default by the variables that ``torchrun`` sets.
    :raises LostProcessError: if another process ends or does not answer.
    """
    backend = "gloo"
    if rank.device.type == "cuda":
        backend = "nccl"
        torch.cuda.set_device(rank.device)
    numbers: dict[str, Any] = {} if store is None else {"rank": rank.number, "world_size": rank.count}
    # DDP imports it, and its functions keep the group that exists then, as a default argument, for ever.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        distributed.init_process_group(backend, store=store, timeout=timeout, **numbers)
    except RuntimeError as error:
        raise LostProcessError(
            f"{rank} has not found the others within {timeout.total_seconds():.0f} s "
            f"({reason(error)[:200]}). Start all processes at about the same time, and let their machines reach each "
            "other."
        ) from error
    try:
        yield
        # A network under DDP keeps the group, often in a cycle. gloo's threads end with the group, and one that still
        # frees a tensor when the interpreter ends aborts the process.
        gc.collect()
        distributed.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and _GLOO not in str(error):
            raise
        text = reason(error).partition("] ")[2] or reason(error)  # without the place in gloo's sources
        raise LostProcessError(
            f"{rank} has lost another one, which has ended or has not answered for {timeout.total_seconds():.0f} s "
            f"({text.partition('. ')[0]}). Read what the others have printed, also on other machines."
        ) from error


def from_first(compute: Callable[[], Result]) -> Result:
    """Return what the first process of the group computes, in all of them; the others compute nothing.

    So only one process reads and writes the files, and all go on with the same.

    :param compute: its result must be picklable. Without a group, it is simply called.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return compute()
    found: list = [compute() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(found)
    return found[0]
