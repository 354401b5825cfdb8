"""The temporary folder of a child process: make it, remove it, and remove those that crashed programs have left.

It may contain images of patients, so it must be removed whatever happens. Its name is ``classscaleseg-PID-RANDOM``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from ..errors import ClassScaleError
from ..files import unwritable

PREFIX = "classscaleseg-"
_DAY = 24 * 3600
CANCEL_FILE = "cancel"  # the parent creates it in the folder to stop its child


def make_work_folder() -> Path:
    """Make a folder that only this user can read, and remove those of programs that crashed over a day ago.

    :raises OutputError: if the temporary folder of the system cannot be written.
    :raises ClassScaleError: if psutil is not installed.

    >>> folder = make_work_folder()
    >>> folder.name.startswith(f"classscaleseg-{os.getpid()}-")
    True
    >>> remove_work_folder(folder)
    >>> folder.exists()
    False
    """
    root = Path(tempfile.gettempdir())
    _sweep(root)
    try:
        return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    except OSError as error:
        raise unwritable(root, error) from error


def remove_work_folder(folder: Path) -> None:
    """Remove a folder with all its contents; try for a second if a file is still open (Windows) or being written."""
    deadline = time.monotonic() + 1
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    # Only after a day: if containers share a temporary folder, a process of another container seems to have ended.
    try:
        import psutil
    except ModuleNotFoundError as error:
        raise ClassScaleError(
            "The Python package psutil is not installed, and segmentation needs it. Install ClassScaleSeg's "
            "dependencies; in Slicer, press Apply once, or call ClassScaleSegLogic().installDependencies()."
        ) from error

    for folder in root.glob(f"{PREFIX}[0-9]*-*"):
        pid = folder.name.split("-")[1]
        try:
            stale = time.time() - folder.stat().st_mtime > _DAY
        except OSError:  # another process has just removed it
            continue
        if stale and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
