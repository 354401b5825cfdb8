"""Read the names and colours that a NIfTI label map has in its header, as TotalSegmentator and Connectome Workbench do.

They are XML in an extension of the header: ``CaretExtension/VolumeInformation/LabelTable/Label``, where the attribute
``Key`` is the label value, ``Red``, ``Green`` and ``Blue`` lie between 0 and 1, and the text is the name. Of several
volumes in one file, the first table counts.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from ..errors import reason, shown
from ..labels.label import MAX_VALUE
from .nifti import is_nifti, read_extensions

_CODES = (0, 30)  # TotalSegmentator leaves the kind of its extension open; 30 is that of Caret, now Workbench
_BACKGROUND = ("", "???", "background", "unknown", "clearlabel", "label0")  # of Workbench, FreeSurfer, ITK-SNAP
_LABEL = ["CaretExtension", "VolumeInformation", "LabelTable", "Label"]
_DEEPEST = 100  # each open element takes memory
_COLORS = ("Red", "Green", "Blue")


class NamedValues(NamedTuple):
    """What a header says of label values.

    :ivar names: of the label values, without 0.
    :ivar colors: red, green, blue, 0..255, of those that have one.
    :ivar notices: sentences that the user should see, which name the file: what was left out.
    """

    names: dict[int, str]
    colors: dict[int, tuple[int, int, int]]
    notices: tuple[str, ...]


_NOTHING = NamedValues({}, {}, ())


def read_named_values(file: Path) -> NamedValues:
    """Return the names that the header of a NIfTI label map has for its values; none of other files.

    An extension that cannot be understood is a notice: the voxels are as good without it.

    :raises ImageError: if the header contradicts itself.
    """
    if not is_nifti(file):
        return _NOTHING
    try:
        for code, content in read_extensions(file):
            if code in _CODES and b"CaretExtension" in content[:4096]:
                return _parsed(content, file)
    except _UnusableError as error:
        said = f"{file} has names of its labels that cannot be read ({error}). Its labels are called by their values."
        return NamedValues({}, {}, (said,))
    return _NOTHING


class _UnusableError(Exception):
    """The text of an extension cannot be used."""


def _parsed(content: bytes, file: Path) -> NamedValues:
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_types
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.texts.append
    try:
        parser.Parse(content.strip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two: of the encoding that it declares
        raise _UnusableError(shown(reason(error))) from None
    return reader.found(file)


def _refuse_types(*_names: object) -> None:
    # entities are declared there, which name other files, or each other until memory is full
    raise _UnusableError("it declares types of its own")


class _Reader:
    """Collects the labels of the first table, as the parser comes to them."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._volumes = 0
        self._attributes: dict[str, str] = {}
        self.texts: list[str] = []
        self._names: dict[int, str] = {}
        self._colors: dict[int, tuple[int, int, int]] = {}
        self._odd: list[str] = []
        self._twice: list[int] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._path) == _DEEPEST:
            raise _UnusableError(f"its elements are nested more than {_DEEPEST} deep")
        self._path.append(tag)
        self._volumes += self._path == _LABEL[:2]
        if self._path == _LABEL:
            self._attributes = attributes
        self.texts.clear()

    def end(self, _tag: str) -> None:
        if self._path == _LABEL and self._volumes == 1:
            self._add("".join(self.texts).strip())
        self.texts.clear()
        self._path.pop()

    def _add(self, name: str) -> None:
        key = self._attributes.get("Key", "").strip()
        if not (re.fullmatch("[0-9]{1,9}", key) and int(key) <= MAX_VALUE):
            self._odd.append(key)
            return
        value = int(key)
        if self._names.setdefault(value, name) != name:
            self._twice.append(value)
            return
        try:
            parts = [float(self._attributes[part]) for part in _COLORS]
        except (KeyError, ValueError):
            return
        if all(map(math.isfinite, parts)):
            red, green, blue = (round(255 * min(1.0, max(0.0, part))) for part in parts)
            self._colors[value] = red, green, blue

    def found(self, file: Path) -> NamedValues:
        background = self._names.pop(0, "")
        notices: list[str] = []
        if background.casefold().replace(" ", "") not in _BACKGROUND:
            notices.append(f'{file} calls the label value 0 "{shown(background)}". Here 0 is the background.')
        if self._twice:
            said = f"{file} has several names for the label value {self._twice[0]}. The first one is taken."
            notices.append(said)
        if self._odd:
            notices.append(
                f'{file} has a name for the label value "{shown(self._odd[0])}". Label values are whole numbers from 0 '
                f"to {MAX_VALUE}; the name is left out."
            )
        names = {value: name for value, name in self._names.items() if name}
        return NamedValues(names, {value: self._colors[value] for value in names if value in self._colors}, (*notices,))
