"""Helpers of `cohort.py`: cases, commands at work, their processes, and what is found in a folder of results.

What is found is read without the library: processes by a variable in their environment, which children inherit also if
their parent has died, and the ledger as lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from ClassScaleSegLib.resources import resource as resource_path
from measure import environment

MODEL = resource_path("Models", "toy-120.zip")
FAST = ("-m", MODEL, "--device", "cpu", "--no-mirroring", "--threads", 1)
_MARK = "COHORT_BENCHMARK"
_SECONDS_TO_WAIT = 60
_OWN = re.compile(r"[^.].*\.seg\.nrrd|\.classscaleseg/(cohort\.jsonl|lock|run|dask\.log|cases/[^.].*\.json)")


def write_cases(folder: Path, count: int, shape: Sequence[int]) -> Path:
    """Write volumes of noise with voxels of 2 mm, those of the model; a folder that is there is used again.

    :param shape: voxels (z, y, x).
    """
    import numpy as np
    import SimpleITK as sitk

    if not folder.exists():
        writing = folder.with_name(f"{folder.name}_writing")
        writing.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        for number in range(count):
            image = sitk.GetImageFromArray(rng.normal(100, 40, shape).astype(np.int16))
            image.SetSpacing((2.0, 2.0, 2.0))
            sitk.WriteImage(image, str(writing / f"case{number:04}.nrrd"))
        writing.rename(folder)
    return folder


class Command:
    """A command ``classscaleseg`` in a session of its own, as a terminal would start it.

    :ivar begin: when it was started, by :func:`time.perf_counter`.
    :ivar ended: when it was seen to have ended, likewise.
    :ivar processor: seconds of the processor that it and its workers took, if no other one ran meanwhile.
    :ivar lines: the lines of its ``--json-progress`` so far, each with the time at which it came.
    """

    def __init__(self, *arguments: Any, threads: int = 1) -> None:
        self._mark = secrets.token_hex(8)
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self.begin = self.ended = time.perf_counter()
        self._processor, self.processor = _seconds_of_children(), 0.0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ClassScaleSegLib", *map(str, arguments), "--json-progress"],
            env={**environment(threads), _MARK: self._mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.perf_counter(), json.loads(line)))

    def times(self, event: str) -> list[float]:
        """Return when the lines of an event came."""
        return [at for at, line in self.lines if line["event"] == event]

    def workers(self) -> list[psutil.Process]:
        """Return the processes of workers that run."""
        return [process for process in self.left() if "spawn_main" in " ".join(_command_line(process))]

    def left(self) -> list[psutil.Process]:
        """Return all processes of the command that run, and those that it started, directly or not."""
        self.process.poll()  # else it stays as a zombie
        return [process for process in psutil.process_iter() if _environment_of(process).get(_MARK) == self._mark]

    def kill(self) -> None:
        """Kill the process of the command, and nothing else."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Wait until it ends, and return its exit code."""
        code = self.process.wait()
        self.ended = time.perf_counter()
        self.processor = _seconds_of_children() - self._processor
        self._reader.join()
        return code

    def seconds_until_gone(self) -> float:
        """Wait until no process of it is left, and return the seconds; after a minute, kill what is left."""
        begin = time.perf_counter()
        while left := self.left():
            if time.perf_counter() - begin > _SECONDS_TO_WAIT:
                for process in left:
                    kill(process)
            time.sleep(0.02)
        return time.perf_counter() - begin


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(*arguments: Any, threads: int = 1, code: int = 0) -> Command:
    """Run a command to its end.

    :raises SystemExit: if its exit code is not ``code``.
    """
    command = Command(*arguments, threads=threads)
    if (ended := command.end()) != code:
        raise SystemExit(f"classscaleseg {' '.join(map(str, arguments))} ended with {ended}: {command.lines[-3:]}")
    return command


def kill(process: psutil.Process) -> bool:
    """Kill a process; return whether it was there."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.Error:
        return False
    return True


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _environment_of(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}


def ledger(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a ledger that are whole."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / ".classscaleseg" / "cohort.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def stray_files(folder: Path) -> list[str]:
    """Return the files in a folder of results that are neither results nor ledger, log, lock and records."""
    files = (Path(root, name).relative_to(folder).as_posix() for root, _, names in os.walk(folder) for name in names)
    return sorted(file for file in files if not _OWN.fullmatch(file))


def different(folder: Path, reference: Path) -> list[str]:
    """Return the names of results that are missing, too many, or differ in a byte."""
    names = {file.name for file in (*folder.glob("*.nrrd"), *reference.glob("*.nrrd"))}
    return sorted(name for name in names if _content(folder / name) != _content(reference / name))


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None
