"""The cases that a training folder holds: when each was saved, and which structures had been corrected."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError

IMAGES, SEGMENTATIONS = "images", "segmentations"
SUFFIX = ".seg.nrrd"
_CORRECTED = "ClassScaleSeg_Corrected"  # field of the header: names, as JSON
_BEGINNING = 1 << 16  # bytes that are looked at; the field stands before the segments


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

    :raises OutputError: if the folder cannot be read.
    """
    found = []
    try:
        for file in _segmentations(folder):
            found.append(SavedCase(file.name[: -len(SUFFIX)], datetime.fromtimestamp(file.stat().st_mtime), _of(file)))
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


def corrected_note(names: Sequence[str]) -> dict[str, str]:
    """Return the field of a header that names the structures that were corrected; nothing if there are none."""
    return {_CORRECTED: json.dumps(list(names))} if names else {}


def _segmentations(folder: Path) -> list[Path]:
    inner = folder / SEGMENTATIONS
    files = inner.iterdir() if inner.is_dir() else ()
    return [file for file in files if file.name.endswith(SUFFIX) and not file.name.startswith(".") and file.is_file()]


def _of(file: Path) -> tuple[str, ...]:
    """Return the names that are noted in the header of a file. A file from elsewhere is not trusted."""
    with file.open("rb") as opened:
        beginning = opened.read(_BEGINNING).partition(b"\n\n")[0].decode(errors="replace")
    noted = re.search(rf"^{_CORRECTED}:=(.*)$", beginning, re.MULTILINE)
    try:
        names = json.loads(noted[1]) if noted else []
    except (ValueError, RecursionError):
        return ()
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
