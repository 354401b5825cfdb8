"""What the header of a saved case says of its structures: which were corrected, and whether nobody has looked at them.

The notes are fields of a ``.seg.nrrd``, before its segments. Slicer and others pass over them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

_CORRECTED, _UNCHECKED = "ClassScaleSeg_Corrected", "ClassScaleSeg_Unchecked"  # names, as JSON
_BEGINNING = 1 << 16  # bytes that are looked at


class CaseNotes(NamedTuple):
    """The notes of a case.

    :ivar corrected: names of the structures that were corrected, as far as this is known.
    :ivar unchecked: names of the models that found the structures, if nobody has edited or checked one of them since.
    """

    corrected: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def fields(self) -> dict[str, str]:
        """Return the fields of the header; none for what is empty."""
        noted = {_CORRECTED: self.corrected, _UNCHECKED: self.unchecked}
        return {name: json.dumps(list(names)) for name, names in noted.items() if names}


def read_notes(file: Path) -> CaseNotes:
    """Return the notes in the header of a file; none if it has none. A file from elsewhere is not trusted.

    :raises OSError: if it cannot be read.
    """
    with file.open("rb") as opened:
        beginning = opened.read(_BEGINNING).partition(b"\n\n")[0].decode(errors="replace")
    return CaseNotes(_names(beginning, _CORRECTED), _names(beginning, _UNCHECKED))


def _names(header: str, field: str) -> tuple[str, ...]:
    noted = re.search(rf"^{field}:=(.*)$", header, re.MULTILINE)
    try:
        names = json.loads(noted[1]) if noted else []
    except (ValueError, RecursionError):
        return ()
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
