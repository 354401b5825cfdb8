"""Note what happens while a case is segmented: seconds of each stage, messages, and the most memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from ..images.dicom.seg import UsedModel
from ..version import VERSION
from .facts import Run

_PACKAGES = ("torch", "nnunetv2", "numpy", "SimpleITK")


class Recorder:
    """Notes the run of one case, which begins now.

    >>> recorder = Recorder()
    >>> recorder.note("read")
    >>> recorder.note("write", "The disk is nearly full.")
    >>> list(recorder.run().stages), recorder.messages
    (['read', 'write'], ['The disk is nearly full.'])
    """

    def __init__(self) -> None:
        self.messages: list[str] = []
        self._started = datetime.now(timezone.utc)
        self._begin = self._since = time.monotonic()
        self._stage = ""
        self._stages: dict[str, float] = {}
        _forget_peaks()

    def note(self, stage: str, message: str = "") -> None:
        """Note the stage that is at work, and a sentence that the user was told."""
        if message:
            self.messages.append(message)
        if stage != self._stage:
            self._close()
            self._stage = stage

    def run(self, device: str = "", options: str = "", models: Sequence[UsedModel] = ()) -> Run:
        """Return what was noted until now.

        :param device: as in :class:`Run`, like the other parameters.
        """
        self._close()
        return Run(
            started=self._started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._begin, 2),
            stages={stage: round(seconds, 2) for stage, seconds in self._stages.items()},
            device=device,
            options=options,
            memory_bytes=_peak(),
            gpu_memory_bytes=_gpu_peak(),
            versions=_versions(),
            models=tuple(models),
        )

    def _close(self) -> None:
        now = time.monotonic()
        if self._stage:
            self._stages[self._stage] = self._stages.get(self._stage, 0.0) + now - self._since
        self._since = now


def _versions() -> dict[str, str]:
    found = {"ClassScaleSeg": VERSION, "Python": python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _forget_peaks() -> None:
    """Begin to look for the most memory anew, where the system allows it; elsewhere it is that since the start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> int | None:
    """Return the most main memory of this process, in bytes; ``None`` if the system does not tell."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    with suppress(ImportError):
        import resource  # not on Windows

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    with suppress(ImportError):
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", None)
    return None


def _gpu_peak() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return max(torch.cuda.max_memory_reserved(index) for index in range(torch.cuda.device_count())) or None
