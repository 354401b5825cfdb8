"""What the header of a saved case says: which structures were corrected, who saved it, or that nobody looked at it.

The notes are fields of a ``.seg.nrrd``, before its segments. Slicer passes over them. Other programs may keep them when
they change voxels, so a checksum tells whether nobody has looked at these voxels.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

UNCHECKED = "ClassScaleSeg_Unchecked"  # names, as JSON
VOXELS = "ClassScaleSeg_Voxels"  # CRC-32 of the voxels that are unchecked, as 8 hexadecimal digits
_CORRECTED, _READERS = "ClassScaleSeg_Corrected", "ClassScaleSeg_Readers"  # names, as JSON
_AT_ONCE, _MOST_BYTES = 1 << 16, 1 << 24  # bytes that are read to find the notes
_END = re.compile(rb"\n(Segment|\n)")  # the segments, or the end of the header
_TRAILER = 8  # bytes at the end of what gzip has compressed: CRC-32 and size of its content, the lowest byte first


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
        noted = {_CORRECTED: self.corrected, UNCHECKED: self.unchecked, _READERS: self.readers}
        return {name: json.dumps(list(names)) for name, names in noted.items() if names}


def read_notes(file: Path) -> CaseNotes:
    """Return the notes in the header of a file; none if it has none. A file from elsewhere is not trusted.

    What a program has changed since is not unchecked, even if the header still says so.

    :raises OSError: if it cannot be read.
    """
    with file.open("rb") as opened:
        beginning = more = opened.read(_AT_ONCE)
        while more and len(beginning) < _MOST_BYTES and not _END.search(beginning):
            beginning += (more := opened.read(_AT_ONCE))
        header = beginning.partition(b"\n\n")[0].decode(errors="replace")
        notes = notes_in(header)
        if notes.unchecked and (noted := _field(header, VOXELS)) is not None:
            opened.seek(-min(_TRAILER, file.stat().st_size), os.SEEK_END)
            if noted.strip() != checksum_in(opened.read()):
                return notes._replace(unchecked=())
    return notes


def checksum_in(end: bytes) -> str:
    """Return the CRC-32 that gzip has noted of its content, as 8 hexadecimal digits.

    :param end: the last bytes of what was compressed, 8 at least.
    """
    return end[-_TRAILER:-4][::-1].hex()


def notes_in(header: str) -> CaseNotes:
    """Return the notes in a header."""
    header = header.partition("\nSegment")[0]  # they come before the segments, which may be a thousand
    return CaseNotes(*(_names(header, field) for field in (_CORRECTED, UNCHECKED, _READERS)))


def _names(header: str, field: str) -> tuple[str, ...]:
    noted = _field(header, field)
    try:
        names = [] if noted is None else json.loads(noted)
    except (ValueError, RecursionError):
        return ()
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _field(header: str, field: str) -> str | None:
    noted = re.search(rf"^{field}:=(.*)$", header, re.MULTILINE)
    return noted[1] if noted else None
