"""Stands in for the module ``subprocess`` in ``child.py``, with children of `warm_child.py`, which has loaded torch."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

# Python and its libraries read these when they start. A child with other ones is started in the ordinary way.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "OMP_", "MKL_", "MALLOC_", "TORCH", "CUDA_")
_LONGEST = 64  # bytes of a process id or exit code
_MOST = 2  # processes with torch
_started: list[tuple[dict[str, str], socket.socket, subprocess.Popen]] = []


class WarmChildren:
    """Starts children of the command ``python -m ClassScaleSegLib``, all others as ``subprocess`` does."""

    PIPE, DEVNULL, TimeoutExpired = subprocess.PIPE, subprocess.DEVNULL, subprocess.TimeoutExpired

    def Popen(self, command: list[str], **options: Any) -> subprocess.Popen | WarmChild:
        interpreter, flag, module, *arguments = command
        environment = options["env"]
        if sys.platform != "linux" or (interpreter, flag) != (sys.executable, "-m"):
            return subprocess.Popen(command, **options)
        read = {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}
        if (warm := _warm(read)) is None:
            return subprocess.Popen(command, **options)
        request = {"module": module, "arguments": [module, *arguments], "environment": environment}
        return WarmChild(warm, {**request, "folder": str(options["cwd"])}, command)


class WarmChild:
    """What ``child.py`` uses of a ``subprocess.Popen``."""

    def __init__(self, warm: socket.socket, request: dict[str, Any], command: list[str]) -> None:
        self.args, self.returncode = command, None
        self._report, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (output, their_output), (error, their_error) = os.pipe(), os.pipe()
        self.stdout: IO[bytes] = os.fdopen(output, "rb")
        self.stderr: IO[bytes] = os.fdopen(error, "rb")
        socket.send_fds(warm, [json.dumps(request).encode()], [theirs.fileno(), their_output, their_error])
        theirs.close()
        os.close(their_output)
        os.close(their_error)
        self.pid = int(self._report.recv(_LONGEST))

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._report.recv(_LONGEST))
            self._report.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _warm(read_at_start: dict[str, str]) -> socket.socket | None:
    """Return the socket of a process that has loaded torch with these variables, or None if there are enough others.

    It is started when first wanted, and ends with this process. Some tests set variables of their own, and some
    libraries leave theirs.
    """
    for variables, warm, _process in _started:
        if variables == read_at_start:
            return warm
    if len(_started) == _MOST:
        return None
    _started.append((read_at_start, *_start(read_at_start)))
    return _started[-1][1]


def _start(read_at_start: dict[str, str]) -> tuple[socket.socket, subprocess.Popen]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    others = {name: value for name, value in os.environ.items() if not name.startswith(_READ_AT_START)}
    program = str(Path(__file__).with_name("warm_child.py"))
    with theirs:
        process = subprocess.Popen(
            [sys.executable, program, str(theirs.fileno())],
            env={**others, **read_at_start},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours, process
