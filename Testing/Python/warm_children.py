"""Stands in for the module ``subprocess`` in ``child.py``, with children of `warm_child.py`, which has loaded torch."""

from __future__ import annotations

import functools
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


class WarmChildren:
    """Starts children of the command ``python -m ClassScaleSegLib``, all others as ``subprocess`` does."""

    PIPE, DEVNULL, TimeoutExpired = subprocess.PIPE, subprocess.DEVNULL, subprocess.TimeoutExpired

    def Popen(self, command: list[str], **options: Any) -> subprocess.Popen | WarmChild:
        interpreter, flag, module, *arguments = command
        environment = options["env"]
        if sys.platform != "linux" or (interpreter, flag) != (sys.executable, "-m"):
            return subprocess.Popen(command, **options)
        read = tuple(sorted(item for item in environment.items() if item[0].startswith(_READ_AT_START)))
        request = {"module": module, "arguments": [module, *arguments], "environment": environment}
        return WarmChild(_warm(read)[0], {**request, "folder": str(options["cwd"])}, command)


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


@functools.cache
def _warm(read_at_start: tuple[tuple[str, str], ...]) -> tuple[socket.socket, subprocess.Popen]:
    """Start a process that has loaded torch with these variables. It ends with this one.

    :returns: the socket for requests, and the process.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    others = {name: value for name, value in os.environ.items() if not name.startswith(_READ_AT_START)}
    program = str(Path(__file__).with_name("warm_child.py"))
    with theirs:
        process = subprocess.Popen(
            [sys.executable, program, str(theirs.fileno())],
            env={**others, **dict(read_at_start)},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours, process
