"""Run the command ``classscaleseg`` as a process of its own: ``python -m ClassScaleSegLib``."""

import os
import sys
import threading
from typing import NoReturn

from .commands.main import main
from .inference.progress import WAITED_FOR


def run() -> NoReturn:
    """Run the command and end the process with its exit code."""
    code = main()
    if any(thread.name == WAITED_FOR for thread in threading.enumerate()):
        # A cancelled read goes on in ITK. Python would end such a thread by an exception inside ITK, which aborts.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
