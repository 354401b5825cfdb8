"""Write and check the checkpoints of the nnU-Net trainer.

A write that fails leaves the older checkpoints unchanged. ``checkpoint_latest.pth`` has a predecessor, which is used if
the latest file is damaged.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from ClassScaleSegLib.errors import ModelError, reason
from ClassScaleSegLib.files import replacing, unwritable
from ClassScaleSegLib.models.files import ZIP_FAULTS

LATEST, PREVIOUS, BEST = (f"checkpoint_{name}.pth" for name in ("latest", "previous", "best"))


def save_whole(file: Path, write: Callable[[str], None]) -> None:
    """Write a temporary file and, once it is complete, let it replace ``file``.

    If ``file`` is ``checkpoint_latest.pth``, the older file is kept as ``checkpoint_previous.pth``.

    :param file: the checkpoint to write or replace.
    :param write: called with the name of the temporary file, which it writes.
    :raises OutputError: if the file cannot be written, because the disk is full for example; the older checkpoints are
        then unchanged.
    """
    with replacing(file, overwrite=True) as temporary:
        try:
            write(str(temporary))
        except RuntimeError as error:  # torch's zip writer raises this instead of the OSError
            raise unwritable(file, reason(error)) from error
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        if file.name == LATEST and file.exists():
            _keep(file, file.with_name(PREVIOUS))


def _keep(file: Path, previous: Path) -> None:
    """Give ``file`` the second name ``previous``, so that ``file`` always exists; without hard links, rename it."""
    previous.unlink(missing_ok=True)
    try:
        os.link(file, previous)
    except OSError:
        os.replace(file, previous)


def readable(file: Path) -> Path:
    """Return the checkpoint to read: ``file`` or, in place of ``checkpoint_latest.pth``, an older one.

    :param file: a checkpoint.
    :returns: ``file`` if it is complete. If ``checkpoint_latest.pth`` is missing or damaged, the previous checkpoint or
        the best one, with a warning.
    :raises ModelError: if ``file`` is missing or damaged and no other checkpoint can be used.
    """
    fault = _fault(file)
    if fault is None:
        return file
    if file.name == LATEST:
        for other in (file.with_name(PREVIOUS), file.with_name(BEST)):
            if _fault(other) is None:
                warnings.warn(f"{file} {fault}; continuing from {other.name}.", stacklevel=2)
                return other
    raise ModelError(f"{file} {fault}. Name another checkpoint, or start the training again without it.")


def _fault(file: Path) -> str | None:
    if not file.is_file():
        return "does not exist"
    try:
        with zipfile.ZipFile(file) as archive:
            return None if archive.testzip() is None else "is damaged (checksum)"
    except ZIP_FAULTS as error:
        return f"is damaged ({reason(error)})"
