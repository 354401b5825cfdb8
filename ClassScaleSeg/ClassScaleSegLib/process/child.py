"""Run a command in a child process, so that the caller stays responsive and the GPU is free afterwards.

The child reports its progress in JSON lines. Whatever happens to the child, to its folder or to this process, no
process and no file of its work folder is left behind: see :mod:`.parent_watch`, :mod:`.process_tree` and
:mod:`.work_folder`. The commands are those of :mod:`.segmentation`, :mod:`.training` and :mod:`.archive`.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import math
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from ..errors import ClassScaleError
from ..files import unwritable
from .exit_codes import explain_exit
from .job import Event, parse_event
from .process_tree import kill_tree
from .work_folder import CANCEL_FILE, make_work_folder, remove_work_folder

_SECONDS_TO_STOP = 1.0  # in which the child may remove what it was writing; then it is killed
_LONGEST_LINE = 1 << 20  # bytes
_LOG_LINES, _LOG_LINE = 5000, 4000  # lines, and characters of one
_UNREAD_LINES = 1000  # then the child waits until somebody reads
_SECONDS_TO_LOOK = 0.5  # whether the job has ended, while nobody reads
_LONGEST_STEP = 1.0  # seconds that count between two looks at the child: more have passed if the computer slept
_Process = TypeVar("_Process", bound="ChildProcess")
_MODELS_FOLDER = "CLASSSCALESEG_MODELS"  # environment variable with the folder of the catalogue


class ChildProcess:
    """A command in a child process, which a subclass names.

    :cvar memory: a sentence on what to do if memory has run out.
    :ivar work_folder: a temporary folder for this command, removed by :meth:`close`, and at once if it fails or is
        cancelled.
    :ivar state: "new", "running", "finished", "failed" or "cancelled".
    :ivar error: a sentence, if the command failed.
    :ivar kind: name of the class of an error that the child has reported.
    :ivar result: what the child has reported as its result, once it is finished.
    :param python: path of an interpreter; by default that of :func:`default_python`.
    :param environment: variables to add to those of this process.
    :raises OutputError: if the folder cannot be made.
    :raises ClassScaleError: if psutil is not installed.
    """

    memory: str

    def __init__(self, python: str | None = None, environment: dict[str, str] | None = None):
        self.state = "new"
        self.error: str | None = None
        self.kind: str | None = None
        self.result: dict[str, Any] = {}
        self.work_folder = make_work_folder()
        self._python, self._environment = python, environment or {}
        self._log: collections.deque[str] = collections.deque(maxlen=_LOG_LINES)
        self._output: collections.deque[str] = collections.deque(maxlen=20)  # the last lines that are not events
        self._reported: str | None = None  # the error that the child has reported
        self._lines: queue.Queue[tuple[str, str | None]] = queue.Queue(_UNREAD_LINES)
        self._pending: list[Event] = []  # events of this process, not the child's
        self._open_pipes: set[str] = set()
        self._child: subprocess.Popen | None = None
        self._ended: float | None = None  # when the child was first seen to have ended
        self._heard = False  # whether the child has written a line; until then it has nothing to clean up
        self._stopping, self._lock, self._stop_lock = False, threading.Lock(), threading.Lock()
        atexit.register(self._close_at_exit, os.getpid())

    def _command(self) -> list[str]:
        """Return the arguments of the interpreter: a module, and the arguments of that command.

        :raises OSError: if a file for the child cannot be written.
        """
        raise NotImplementedError

    def __enter__(self: _Process) -> _Process:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def log(self) -> str:
        """The command, all messages, and everything else that the child printed, for people to read."""
        return "\n".join(list(self._log))

    @property
    def pid(self) -> int | None:
        """The process id of the child, once it is started."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the child. If that fails, the state is "failed" and :meth:`poll` reports the error.

        :raises ClassScaleError: if it was started already.
        """
        if self.state != "new":
            raise ClassScaleError("A child process can be started only once.")
        python = self._python or default_python()
        # the child sees the user's own packages exactly if this process does; inside Slicer it does not
        isolation = ["-s"] if sys.flags.no_user_site else []
        try:
            command = [python, *isolation, *self._command()]
        except OSError as error:
            self._fail(str(unwritable(self.work_folder, error)))
            return
        self._log.append(f"{python}: {self}")
        try:
            self._child = subprocess.Popen(
                [*command, "--stop-with-parent", str(os.getpid()), str(self.work_folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._child_environment(),
                cwd=self.work_folder,  # python -m looks for modules in the current folder first
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._fail(f"{python} cannot be started ({error.strerror or error}). It should be a Python interpreter.")
            return
        for name in ("stdout", "stderr"):
            self._open_pipes.add(name)
            threading.Thread(target=self._read, args=(name, getattr(self._child, name)), daemon=True).start()
        self._pending.append(Event("progress", "start"))
        self.state = "running"

    def poll(self) -> list[Event]:
        """Return the events since the last call, without blocking. When the child has ended, this sets the state."""
        return self._collect(0)

    def wait(self, on_event: Callable[[Event], None] | None = None, patience: float = math.inf) -> str:
        """Block until the command has ended.

        :param on_event: called with each event. If it raises, or Ctrl-C is pressed, the command is cancelled.
        :param patience: seconds without an event after which the command is killed as :meth:`cancel` does it; it has
            failed then.
        :returns: the state.
        """
        silent, last, stage = 0.0, time.monotonic(), "start"
        try:
            running = True
            while running:
                events = self._collect(0.05)
                now = time.monotonic()
                silent = 0.0 if events else silent + min(now - last, _LONGEST_STEP)
                last, stage = now, next((event.stage for event in reversed(events) if event.stage), stage)
                if self.state == "running" and silent > patience:
                    sentence = f"It made no progress in the stage {stage} for {_duration(patience)}, and was ended."
                    self._log.append(sentence)
                    self._kill("failed", sentence)
                    events.append(Event("error", text=sentence))
                running = self.state == "running"
                for event in events:
                    if on_event is not None:
                        on_event(event)
        except BaseException:
            self.cancel()
            raise
        return self.state

    def cancel(self) -> None:
        """Kill the child with all that it started, and remove the folder; this takes up to two seconds.

        Calling it again, or after the command has ended, has no effect. It may be called from another thread than
        :meth:`poll`. The state becomes "cancelled" once processes and folder are gone.
        """
        self._kill("cancelled")

    def _kill(self, state: str, error: str | None = None) -> None:
        """Kill the child, unless it has ended, and set the state."""
        with self._stop_lock:
            with self._lock:
                if self.state not in ("new", "running"):
                    return
                self._stopping = True
            if self._child is not None:
                self._stop(self._child)
            self._end(state, error)

    def close(self) -> None:
        """Cancel the command if it still runs, and remove the folder. Read the result of a finished one before."""
        self.cancel()
        remove_work_folder(self.work_folder)
        atexit.unregister(self._close_at_exit)

    def _close_at_exit(self, owner: int) -> None:
        if os.getpid() == owner:  # a forked copy of the owner must not close it
            self.close()

    def _stop(self, child: subprocess.Popen) -> None:
        if self._heard:  # the disk may be full, and the child may be busy with a long computation
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                (self.work_folder / CANCEL_FILE).touch()
                child.wait(_SECONDS_TO_STOP)
        kill_tree(child)

    def _folders(self) -> list[Path]:
        """Return the folders of packages that the child needs."""
        folder = Path(__file__).resolve().parents[2]
        # A folder of installed packages is searched anyway. On PYTHONPATH it would come before the standard library,
        # and a package there, such as PyPI's argparse, would replace Python's own.
        return [] if folder.name in ("site-packages", "dist-packages") else [folder]

    def _child_environment(self) -> dict[str, str]:
        environment = {**os.environ, **self._environment}
        paths = [*map(str, self._folders()), *environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in paths if path)
        if models := environment.get(_MODELS_FOLDER):  # absolute, because the child's current folder is another one
            environment[_MODELS_FOLDER] = os.path.abspath(models)
        return {**environment, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "PYTHONFAULTHANDLER": "1"}

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(_LONGEST_LINE):
                self._heard = self._heard or name == "stdout"
                if not self._pass_on(name, line.decode("utf-8", "replace").rstrip()):
                    return
        self._pass_on(name, None)

    def _pass_on(self, name: str, line: str | None) -> bool:
        """Put a line into the queue when it has room, and return whether anybody will read it."""
        while self.state in ("new", "running") and not self._stopping:
            with contextlib.suppress(queue.Full):
                self._lines.put((name, line), timeout=_SECONDS_TO_LOOK)
                return True
        return False

    def _collect(self, timeout: float) -> list[Event]:
        with self._lock:
            events, self._pending = self._pending, []
            with contextlib.suppress(queue.Empty):
                for _ in range(_UNREAD_LINES):  # a child that prints without end does not keep the caller here
                    name, line = self._lines.get(timeout=0 if events else timeout)
                    if line is None:
                        self._open_pipes.discard(name)
                    elif (event := parse_event(line) if name == "stdout" else None) is not None:
                        self._note(event)
                        events.append(event)
                    elif line:
                        shown = line.rpartition("\r")[2][:_LOG_LINE]  # of a progress bar, what it was at last
                        self._log.append(shown)
                        self._output.append(shown)
            child = self._child
            if self.state == "running" and not self._stopping and child is not None and self._has_ended(child):
                self._conclude(child.returncode)
                events += self._pending
                self._pending = []
        return [] if self._stopping else events

    def _note(self, event: Event) -> None:
        self._log.extend(line[:_LOG_LINE] for line in event.text.splitlines())
        if event.kind == "error":
            self._reported, self.kind = event.text, event.facts.get("kind")
        elif event.kind == "result":
            self.result = event.facts

    def _has_ended(self, child: subprocess.Popen) -> bool:
        """Return whether the child has ended and all its output is read."""
        if child.poll() is None:
            return False
        if not self._open_pipes:
            return True
        self._ended = self._ended or time.monotonic()
        seconds = time.monotonic() - self._ended
        if seconds > 1:  # a process that the child has started still runs, and holds its pipes open
            kill_tree(child)
        return seconds > 2

    def _conclude(self, code: int) -> None:
        if code == 0 and self.result:
            self.state = "finished"
        elif self._reported is not None:  # poll() returns the child's own event
            self._end("failed", self._reported)
        else:
            self._fail(explain_exit(code, list(self._output), self.memory))

    def _fail(self, sentence: str) -> None:
        self._log.append(sentence)
        self._pending.append(Event("error", text=sentence))
        self._end("failed", sentence)

    def _end(self, state: str, error: str | None = None) -> None:
        remove_work_folder(self.work_folder)
        atexit.unregister(self._close_at_exit)
        self.state, self.error = state, error


def _duration(seconds: float) -> str:
    count, unit = (seconds / 60, "minute") if seconds >= 60 else (seconds, "second")
    return f"{count:g} {unit}{'s' * (count != 1)}"


def default_python() -> str:
    """Return the interpreter that sees the same packages as this one; inside Slicer the launcher `PythonSlicer`.

    :raises ClassScaleError: if there is none.
    """
    if hasattr(sys.modules.get("slicer"), "app"):  # inside Slicer; the package slicer-core has no application
        beside = os.path.dirname(sys.executable or "")
        if found := shutil.which("PythonSlicer", path=beside) or shutil.which("PythonSlicer"):
            return found
    if not sys.executable:
        raise ClassScaleError("No Python interpreter was found for the child process. Name one (python=...).")
    return sys.executable
