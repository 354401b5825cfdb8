"""The temporary folder of one child process: made, removed, and swept up after a program that crashed.

Images of patients may lie in it, so it must go whatever happens. It is called ``classscaleseg-PID-RANDOM``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from ..errors import ClassScaleError
from ..files import unwritable

_PREFIX = "classscaleseg-"
_DAY = 24 * 3600
CANCEL_FILE = "cancel"  # made in it by the parent that wants its child to stop


def make_work_folder() -> Path:
    """A new folder that only this user can read; folders of programs that crashed over a day ago are removed.

    :raises OutputError: if the temporary folder of the system cannot be written.
    :raises ClassScaleError: if psutil is not installed.
    """
    _sweep(Path(tempfile.gettempdir()))
    try:
        return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    except OSError as error:
        raise unwritable(Path(tempfile.gettempdir()), error) from error


def checked_work_folder(path: str) -> Path:
    """``path``, which is to be removed later.

    :raises ClassScaleError: if it is not called like a folder of `make_work_folder`.
    """
    if not Path(path).name.startswith(_PREFIX):
        raise ClassScaleError(f"{path} is not a temporary folder of ClassScaleSeg and would be removed: name another.")
    return Path(path)


def remove_work_folder(folder: Path) -> None:
    """Remove it with everything in it, trying for a second while something in it is still open (Windows) or written."""
    deadline = time.monotonic() + 1
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        if folder.exists():
            time.sleep(0.02)


def _sweep(root: Path) -> None:
    # A day: where containers share a temporary folder, a process seems gone that only lives in another one.
    try:
        import psutil
    except ModuleNotFoundError as error:
        raise ClassScaleError(
            "The Python package psutil is not installed, and no segmentation runs without it. Install ClassScaleSeg's "
            "dependencies; in Slicer, press Apply once, or call ClassScaleSegLogic().installDependencies()."
        ) from error

    for folder in root.glob(f"{_PREFIX}[0-9]*-*"):
        pid = folder.name.split("-")[1]
        try:
            stale = time.time() - folder.stat().st_mtime > _DAY
        except OSError:  # gone meanwhile
            continue
        if stale and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
