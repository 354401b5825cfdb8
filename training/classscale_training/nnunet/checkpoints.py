"""Checkpoints of the nnU-Net trainer: a write that fails loses nothing, and a damaged newest one has a predecessor."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.files import replacing, unwritable
from ClassScaleSegLib.models.files import ZIP_FAULTS, first_line

LATEST, PREVIOUS, BEST = (f"checkpoint_{name}.pth" for name in ("latest", "previous", "best"))


def save_whole(file: Path, write: Callable[[str], None]) -> None:
    """``write(name)`` a temporary file that replaces ``file``; ``checkpoint_latest.pth`` leaves a predecessor behind.

    :raises OutputError: if it cannot be written (disk full, say); the older checkpoints are then as they were.
    """
    with replacing(file, overwrite=True) as temporary:
        try:
            write(str(temporary))
        except RuntimeError as error:  # torch's zip writer hides the OSError
            raise unwritable(file, first_line(error)) from error
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        if file.name == LATEST and file.exists():
            _keep(file, file.with_name(PREVIOUS))


def _keep(file: Path, previous: Path) -> None:
    """Let ``file`` have a second name, so that no moment is without it; move it where links are not supported."""
    previous.unlink(missing_ok=True)
    try:
        os.link(file, previous)
    except OSError:
        os.replace(file, previous)


def readable(file: Path) -> Path:
    """``file`` if it is whole. In place of a damaged ``checkpoint_latest.pth`` its predecessor, or the best so far.

    :raises ModelError: if it is missing or damaged and nothing can stand in.
    """
    fault = _fault(file)
    if fault is None:
        return file
    if file.name == LATEST:
        for other in (file.with_name(PREVIOUS), file.with_name(BEST)):
            if _fault(other) is None:
                warnings.warn(f"{file} {fault}; going on from {other.name}.", stacklevel=2)
                return other
    raise ModelError(f"{file} {fault}. Name another checkpoint, or train anew without it.")


def _fault(file: Path) -> str | None:
    if not file.is_file():
        return "does not exist"
    try:
        with zipfile.ZipFile(file) as archive:
            return None if archive.testzip() is None else "is damaged (checksum)"
    except ZIP_FAULTS as error:
        return f"is damaged ({first_line(error)})"
