"""Walk through the elements of a DICOM data set in memory, of which only those that are asked for are kept.

pydicom makes an object of every element and item: a small file of a hundred million of them would fill the memory. And
it takes a data set whose end is missing for a whole one.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import ImageError
from .deflate import inflated

_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF  # length of what ends with a delimiter
_DEEPEST = 16  # sequences in sequences; a structure set has five
_CUT_OFF = "It cannot be read, because part of it is missing. Export it again."


class Value(NamedTuple):
    """Where the value of an element is.

    :ivar start: its first byte.
    :ivar end: the byte after its last one, without the delimiter of a sequence.
    :ivar explicit: whether the elements in it, if it is a sequence, have a value representation.
    """

    start: int
    end: int
    explicit: bool


class Elements:
    """Elements of a data set, or of an item of a sequence.

    :ivar values: where the value of each element is that was asked for, by its tag, such as 0x30060050.
    """

    def __init__(self, content: bytes, values: dict[int, Value]) -> None:
        self._content, self.values = content, values

    def bytes_of(self, tag: int) -> bytes:
        """Return the value of an element without what pads it; nothing if the element is missing."""
        found = self.values.get(tag)
        return b"" if found is None else self._content[found.start : found.end].strip(b" \0")

    def ascii(self, tag: int) -> str:
        """Return the value of an element that has no letters of a character set; "" if the element is missing."""
        return self.bytes_of(tag).decode("ascii", "replace")

    def items(self, tag: int, wanted: Collection[int]) -> Iterator[Elements]:
        """Yield the items of a sequence; none if the element is missing.

        :param wanted: tags of the elements to keep of each item.
        :raises ImageError: if an item is damaged.
        """
        found = self.values.get(tag)
        if found is None:
            return
        position = found.start
        while position < found.end:
            kind, length = _item_header(self._content, position, found.end)
            if kind != _ITEM:
                raise ImageError("It is damaged: a sequence has something else than items. Export it again.")
            position += 8
            end = found.end if length == _UNDEFINED else position + length
            if end > found.end:
                raise ImageError(_CUT_OFF)
            values, position = _scan(self._content, position, end, found.explicit, wanted, length == _UNDEFINED, 0)
            yield Elements(self._content, values)


def read_elements(path: Path, wanted: Collection[int]) -> Elements:
    """Read a DICOM file into memory, and find elements of its data set.

    :param wanted: tags of the elements to keep.
    :raises ImageError: if part of it is missing, it is damaged, in big endian, or larger than half of the free memory.
    :raises OSError: if it cannot be read.
    """
    import psutil

    size, free = path.stat().st_size, psutil.virtual_memory().available
    if size > free // 2:
        raise ImageError(f"It has {size:,} bytes, more than half of the free memory ({free / 2**30:.1f} GiB).")
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] != b"DICM":
        content = path.read_bytes()
        return _found(content, 0, content[4:6].isalpha() and content[4:6].isupper(), wanted)
    whole = inflated(path)
    content = whole.read_bytes() if isinstance(whole, Path) else whole.getvalue()
    # the file meta information is in Explicit VR, and ends where the group does
    position, syntax = 132, ""
    while content[position : position + 2] == b"\x02\x00":
        tag, value, following = _element(content, position, len(content), True, 0)
        if tag == 0x00020010:
            syntax = content[value.start : value.end].strip(b" \0").decode("ascii", "replace")
        position = following
    if syntax == _BIG_ENDIAN:
        raise ImageError("It is in Explicit VR Big Endian, which DICOM has retired. Export it in Little Endian.")
    return _found(content, position, syntax != _IMPLICIT, wanted)


def _found(content: bytes, start: int, explicit: bool, wanted: Collection[int]) -> Elements:
    values, _end = _scan(content, start, len(content), explicit, wanted, False, 0)
    return Elements(content, values)


def _scan(
    content: bytes, start: int, end: int, explicit: bool, wanted: Collection[int], delimited: bool, depth: int
) -> tuple[dict[int, Value], int]:
    """Return the wanted elements of a data set or an item, and where it ends.

    :param delimited: whether a delimiter ends it, rather than its length.
    """
    values: dict[int, Value] = {}
    position = start
    while position < end:
        if delimited and _item_header(content, position, end)[0] == _ITEM_END:
            return values, position + 8
        if content[position : position + 8] == bytes(min(8, end - position)):
            if end < len(content) or content[position:].strip(b"\0"):
                raise ImageError("It is damaged: it has zeros in the place of an element. Export it again.")
            break  # some writers fill the last block of the file
        tag, value, position = _element(content, position, end, explicit, depth)
        if tag in wanted:
            if tag in values:
                raise ImageError(f"It is damaged: it has the element {tag:08X} twice in one place. Export it again.")
            values[tag] = value
    if delimited:
        raise ImageError(_CUT_OFF)
    return values, position


def _item_header(content: bytes, position: int, end: int) -> tuple[int, int]:
    if position + 8 > end:
        raise ImageError(_CUT_OFF)
    group, element, length = struct.unpack_from("<HHL", content, position)
    return group << 16 | element, length


def _element(content: bytes, position: int, end: int, explicit: bool, depth: int) -> tuple[int, Value, int]:
    """Return the tag of an element, its value, and where the next one begins."""
    tag, length = _item_header(content, position, end)
    position += 8
    kind = b""
    if explicit and tag >> 16 != 0xFFFE:
        kind = content[position - 4 : position - 2]
        if kind in _LONG:
            if position + 4 > end:
                raise ImageError(_CUT_OFF)
            (length,) = struct.unpack_from("<L", content, position)
            position += 4
        else:
            (length,) = struct.unpack_from("<H", content, position - 2)
    inner = explicit and kind != b"UN"  # a sequence of unknown representation is in Implicit VR
    if length == _UNDEFINED:
        value_end, following = _end_of_sequence(content, position, end, inner, depth + 1)
    else:
        value_end = following = position + length
    if following > end:
        raise ImageError(_CUT_OFF)
    return tag, Value(position, value_end, inner), following


def _end_of_sequence(content: bytes, position: int, end: int, explicit: bool, depth: int) -> tuple[int, int]:
    """Return where the delimiter of a sequence of undefined length is, and what follows it."""
    if depth > _DEEPEST:
        raise ImageError(f"It has more than {_DEEPEST} sequences in each other, so it is damaged. Export it again.")
    while True:
        kind, length = _item_header(content, position, end)
        position += 8
        if kind == _SEQUENCE_END:
            return position - 8, position
        if kind != _ITEM:
            raise ImageError("It is damaged: a sequence has something else than items. Export it again.")
        if length == _UNDEFINED:
            _, position = _scan(content, position, end, explicit, (), True, depth)
        elif position + length > end:
            raise ImageError(_CUT_OFF)
        else:
            position += length
