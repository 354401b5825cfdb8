"""Processes that train together, forked from one that has loaded nnU-Net's trainer: each would take seconds for that.

Where a test is about what they compute, they come from multiprocessing's fork server, which loads
`fork_server.py` first. How `launch` spawns them in earnest, and how they end, is tested in
``test_several_processes.py``.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from multiprocessing import forkserver, spawn
from pathlib import Path
from typing import Any

import pytest
from classscale_training.processes import launch
from torch.multiprocessing.spawn import start_processes

_describe = spawn.get_preparation_data


def fork_trainings(patch: pytest.MonkeyPatch) -> None:
    """Let `launch` fork its processes. They get the variables of the environment that are set then."""
    patch.setattr(launch, "start_processes", functools.partial(start_processes, start_method="forkserver"))
    patch.setattr(spawn, "get_preparation_data", _with_environment)
    with pytest.MonkeyPatch.context() as starting:
        starting.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        multiprocessing.set_forkserver_preload(["fork_server"])
        forkserver.ensure_running()


def _with_environment(name: str) -> dict[str, Any]:
    return {**_describe(name), "environment": dict(os.environ)}
