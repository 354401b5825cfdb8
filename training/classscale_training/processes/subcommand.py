"""Run one of our commands in a process of its own, which ends with this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SECONDS_TO_END = 30
# The child ends when this process was killed; nothing else could stop a training then.
_CHILD = (
    "from classscale_training.processes.parent import end_with_parent; end_with_parent(); "
    "from classscale_training.commands import run; run()"
)


def run_subcommand(
    arguments: Sequence[str], variables: Mapping[str, str], log: Path, shown: re.Pattern[str] | None = None
) -> int:
    """Run a command of ``classscaleseg-train``, and return its exit code, negative if a signal ended it.

    What it prints goes to a file. Warnings and faults go where those of this process go.

    :param arguments: the name of the command, and its arguments.
    :param variables: added to the environment.
    :param log: the file, which is replaced.
    :param shown: lines that match are also printed here, by the first group of the pattern.
    """
    environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    # without this folder, which -c puts first: a random.py in it would be taken for Python's own
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {_CHILD}", *arguments]
    form: dict[str, Any] = {"stdout": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    with open(log, "w", encoding="utf-8") as file, subprocess.Popen(command, env=environment, **form) as child:
        with _ended(child):
            assert child.stdout is not None
            for line in child.stdout:
                file.write(line)
                if shown is not None and (found := shown.match(line.rstrip("\n"))):
                    print(found[1], flush=True)
            return child.wait()


@contextmanager
def _ended(child: subprocess.Popen) -> Iterator[None]:
    """End a process with the block, if it still runs because of an error or a signal."""
    try:
        yield
    except BaseException:
        child.terminate()
        try:
            child.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
