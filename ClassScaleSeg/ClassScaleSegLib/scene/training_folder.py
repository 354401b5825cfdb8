"""The cases that a training folder holds: when each was saved, and which structures had been corrected."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError
from ..images.case_notes import read_notes
from ..images.paired_cases import segmentation_files

IMAGES, SEGMENTATIONS = "images", "segmentations"
SUFFIX = ".seg.nrrd"


class SavedCase(NamedTuple):
    """A case in a training folder.

    :ivar name: of the case, in the names of its files.
    :ivar saved: when its segmentation was written, in local time.
    :ivar corrected: names of the structures that had been corrected, as far as this is known.
    """

    name: str
    saved: datetime
    corrected: tuple[str, ...]


def saved_cases(folder: Path) -> list[SavedCase]:
    """Return the cases of a training folder, the latest first; none if there is no such folder.

    Those that were not saved here count too: whatever ``collect`` takes for a segmentation.

    :raises OutputError: if the folder cannot be read.
    """
    found = []
    try:
        for name, files in _segmentations(folder).items():
            saved = max(file.stat().st_mtime for file in files)
            own = next((file for file in files if file.name.endswith(SUFFIX)), None)
            found.append(SavedCase(name, datetime.fromtimestamp(saved), read_notes(own).corrected if own else ()))
    except OSError as error:
        raise OutputError(f"{folder} cannot be read ({error.strerror or error}). Choose another folder.") from error
    return sorted(found, key=lambda case: case.saved, reverse=True)


def count_cases(folder: Path) -> int:
    """Return how many cases a training folder has."""
    return len(_segmentations(folder))


def is_of(file: Path, name: str) -> bool:
    """Return whether a file in a training folder is of a case, whatever its format."""
    numbered = r"_\d{4}" if file.parent.name == IMAGES else ""
    return re.match(rf"{re.escape(name)}{numbered}\.", file.name, re.IGNORECASE) is not None


def _segmentations(folder: Path) -> dict[str, list[Path]]:
    inner = folder / SEGMENTATIONS
    return segmentation_files(inner) if inner.is_dir() else {}
