"""Processes that train together, forked from one that has loaded nnU-Net's trainer: each would take seconds for that.

Where a test is about what they compute, they come from multiprocessing's fork server, which loads
`fork_server.py` first. How `launch` spawns them in earnest, and how they end, is tested in
``test_several_processes.py``.
"""

from __future__ import annotations

import functools
import multiprocessing
import operator
import os
from multiprocessing import forkserver, reduction, spawn
from pathlib import Path
from typing import Any

import pytest
from classscale_training.processes import launch
from torch.multiprocessing.spawn import start_processes

_describe = spawn.get_preparation_data


def fork_trainings(patch: pytest.MonkeyPatch) -> None:
    """Let `launch` fork its processes. They get the environment, and standard output and error, that are set then."""
    patch.setattr(launch, "start_processes", functools.partial(start_processes, start_method="forkserver"))
    patch.setattr(spawn, "get_preparation_data", _with_surroundings)
    with pytest.MonkeyPatch.context() as starting:
        starting.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        multiprocessing.set_forkserver_preload(["fork_server"])
        forkserver.ensure_running()


class _Stream:
    """A file descriptor, which a process has under another number when it has unpickled it."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.methodcaller("detach"), (reduction.DupFd(self._number),)


def _with_surroundings(name: str) -> dict[str, Any]:
    return {**_describe(name), "environment": dict(os.environ), "streams": [_Stream(1), _Stream(2)]}
