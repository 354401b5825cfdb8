"""What the fork server of `forked_trainings.py` loads before it forks. Only that process imports this file."""

import gc
import os
from multiprocessing import spawn
from typing import Any

import classscale_training.nnunet.trainer  # noqa: F401
import classscale_training.processes.launch  # noqa: F401

_prepare = spawn.prepare


def _prepare_with_surroundings(data: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(data["environment"])
    for number, stream in enumerate(data["streams"], 1):
        os.dup2(stream, number)
        os.close(stream)
    _prepare(data)


# else, the processes had the environment of their server, and wrote what is for the test in which that was started
spawn.prepare = _prepare_with_surroundings
gc.freeze()  # otherwise, each process copies all of it when it collects garbage
