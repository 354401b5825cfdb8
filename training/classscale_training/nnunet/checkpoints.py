"""Check the checkpoints of the nnU-Net trainer: if the latest one is damaged, an older one is used."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

from ClassScaleSegLib.errors import ModelError, reason
from ClassScaleSegLib.models.files import ZIP_FAULTS

from ..files import LATEST, PREVIOUS

BEST = "checkpoint_best.pth"


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
