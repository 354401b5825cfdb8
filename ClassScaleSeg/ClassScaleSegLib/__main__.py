"""Run the command ``classscaleseg`` as a process of its own: ``python -m ClassScaleSegLib``."""

import gc
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from .commands.main import main
from .inference.progress import WAITED_FOR
from .process.ending import leave


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command with ``arguments``, those of the process by default, and end the process with its exit code."""
    # At Python's 700, collecting garbage takes a tenth of the seconds in which torch and nnU-Net are imported.
    gc.set_threshold(20_000)
    code = main(arguments)
    if any(thread.name == WAITED_FOR for thread in threading.enumerate()):
        # A cancelled read goes on in ITK. Python would end such a thread by an exception inside ITK, which aborts.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    leave(code)


if __name__ == "__main__":
    run()
