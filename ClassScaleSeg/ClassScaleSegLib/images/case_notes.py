"""What the header of a saved case says: which structures were corrected, who saved it, or that nobody looked at it.

The notes are fields of a ``.seg.nrrd``, before its segments. Slicer and others pass over them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

_CORRECTED, _UNCHECKED = "ClassScaleSeg_Corrected", "ClassScaleSeg_Unchecked"  # names, as JSON
_READERS = "ClassScaleSeg_Readers"  # as well
_BEGINNING = 1 << 16  # bytes that are looked at


class CaseNotes(NamedTuple):
    """The notes of a case.

    :ivar corrected: names of the structures that were corrected, as far as this is known.
    :ivar unchecked: names of the models that found the structures, if nobody has edited or checked one of them since.
    :ivar readers: who has saved the case, the last one last; only those who gave a name.
    """

    corrected: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    def fields(self) -> dict[str, str]:
        """Return the fields of the header; none for what is empty."""
        noted = {_CORRECTED: self.corrected, _UNCHECKED: self.unchecked, _READERS: self.readers}
        return {name: json.dumps(list(names)) for name, names in noted.items() if names}


def read_notes(file: Path) -> CaseNotes:
    """Return the notes in the header of a file; none if it has none. A file from elsewhere is not trusted.

    :raises OSError: if it cannot be read.
    """
    with file.open("rb") as opened:
        return notes_in(opened.read(_BEGINNING).partition(b"\n\n")[0].decode(errors="replace"))


def notes_in(header: str) -> CaseNotes:
    """Return the notes in a header."""
    return CaseNotes(*(_names(header, field) for field in (_CORRECTED, _UNCHECKED, _READERS)))


def _names(header: str, field: str) -> tuple[str, ...]:
    noted = re.search(rf"^{field}:=(.*)$", header, re.MULTILINE)
    try:
        names = json.loads(noted[1]) if noted else []
    except (ValueError, RecursionError):
        return ()
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
