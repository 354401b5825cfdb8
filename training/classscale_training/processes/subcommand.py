"""Run one of our commands in a process of its own, which ends with this one."""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

_SECONDS_TO_END = 30
_SECONDS_TO_READ = 2  # its last words, while a process that it has started still holds the pipe
_CHUNK = 1 << 16  # bytes
# The child ends when this process was killed; nothing else could stop a training then.
_CHILD = (
    "from classscale_training.processes.parent import end_with_parent; end_with_parent(); "
    "from classscale_training.commands import run; run(sys.argv[2:], sys.argv[1])"
)


class Ended(NamedTuple):
    """How a command has ended.

    :ivar code: its exit code, negative if a signal ended it.
    :ivar error: the sentence with which it ended; empty if it did so without one.
    """

    code: int
    error: str


def run_subcommand(
    arguments: Sequence[str],
    variables: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None],
    on_errors: Callable[[str], None],
) -> Ended:
    """Run a command of ``classscaleseg-train``. All that it prints is appended to a file, with the time.

    :param arguments: the name of the command, and its arguments.
    :param variables: added to the environment.
    :param log: the file.
    :param on_line: called with each line of its standard output.
    :param on_errors: called with each piece of its standard error as it is, progress bars too; in another thread.
    """
    environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    ending = log.with_suffix(".error")
    ending.unlink(missing_ok=True)
    # without this folder, which -c puts first: a random.py in it would be taken for Python's own
    code = f"import sys; sys.path[:] = {sys.path!r}; {_CHILD}"
    command = [sys.executable, "-c", code, str(ending), *arguments]
    with closing(_LogLines(log)) as log_line:
        log_line(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(arguments)}")
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stderr is not None
            pipe, child.stderr = child.stderr, None  # the thread closes it: it may still read when this one goes on
            errors = threading.Thread(target=_pass_on, args=(pipe, log_line, on_errors), daemon=True)
            errors.start()
            with _ended(child):
                for line in child.stdout:
                    text = line.decode("utf-8", "replace").rstrip("\r\n")
                    log_line(text)
                    on_line(text)
                child.wait()
                errors.join(_SECONDS_TO_READ)
    try:
        return Ended(child.returncode, ending.read_text(encoding="utf-8") if child.returncode else "")
    except OSError:  # it crashed or was killed
        return Ended(child.returncode, "")
    finally:
        ending.unlink(missing_ok=True)


class _LogLines:
    """Adds lines to a file, from several threads. Where the disk is full they are lost, and the command goes on.

    :raises OSError: if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._lock = open(path, "a", encoding="utf-8"), threading.Lock()

    def __call__(self, line: str) -> None:
        with self._lock, suppress(OSError):
            if not self._file.closed:
                self._file.write(f"{line}\n")
                self._file.flush()

    def close(self) -> None:
        with self._lock, suppress(OSError):
            self._file.close()


def _pass_on(pipe: IO[bytes], log_line: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Tell what comes through a pipe, and write its lines into the log, a progress bar as it was at last."""
    decoder, line = codecs.getincrementaldecoder("utf-8")("replace"), ""
    with pipe:
        while piece := os.read(pipe.fileno(), _CHUNK):
            text = decoder.decode(piece)
            tell(text)
            *lines, line = (line + text).split("\n")
            for each in lines:
                log_line(each.rstrip("\r").rpartition("\r")[2])
            line = line.rpartition("\r")[2] if not line.endswith("\r") else line[-_CHUNK:]
    if line:
        log_line(line.rpartition("\r")[2])


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
