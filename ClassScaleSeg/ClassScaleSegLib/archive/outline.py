"""Walk through a DICOM file from its beginning to its end, and keep a few of its elements.

pydicom makes objects of all items of a sequence whose length is not defined: empty ones take it many times the memory
of the file (`Testing/Python/test_outline.py` has such a file). It also passes over an end that is missing. This walk
keeps nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

TRANSFER_SYNTAX = 0x00020010
IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
LARGEST = 64 << 30  # bytes of what was compressed
MOST_ELEMENTS = 20_000_000  # half a minute; a segmentation of 100,000 frames has 4 million
_LONGEST_VALUE = 1024  # bytes of an element that is kept
_DEEPEST = 100  # sequences within each other
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE, _UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF
_LONG = set(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # kinds of elements with four bytes of length
_KINDS = _LONG | set(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_PART = 1 << 16  # bytes that are read at once


class Damaged(ValueError):
    """The file is not DICOM, or its end is missing."""


class _Stream(Protocol):
    def read(self, size: int) -> bytes: ...

    def skip(self, size: int) -> None: ...


def read_outline(path: Path, wanted: Collection[int]) -> dict[int, str]:
    """Read a file with preamble to its end, and return the texts of some elements that are in no sequence.

    :param wanted: their tags, such as 0x00080018; that of the transfer syntax is found anyway.
    :returns: the elements that there are.
    :raises Damaged: if it is not DICOM, or its end is missing.
    :raises OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            raise Damaged("it does not begin like one")
        stream = _File(file)
        found = _Walk(stream, {TRANSFER_SYNTAX}).run(group=2)
        syntax = found.get(TRANSFER_SYNTAX, "")
        rest: _Stream = _Inflated(file) if syntax == DEFLATED else stream
        return found | _Walk(rest, wanted, syntax == IMPLICIT, syntax == BIG_ENDIAN).run()


class _File:
    """A file in which parts are passed over without reading them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        here = file.tell()
        self._size = file.seek(0, 2)
        file.seek(here)

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def skip(self, size: int) -> None:
        if self._file.seek(size, 1) > self._size:
            raise Damaged("its end is missing")


class _Inflated:
    """The part of a file that is compressed, piece by piece."""

    def __init__(self, file: BinaryIO) -> None:
        self._parts, self._part, self._place = _inflate(file), b"", 0

    def read(self, size: int) -> bytes:
        found = self._part[self._place : self._place + size]
        self._place += len(found)
        while len(found) < size and self._next():
            self._place = min(size - len(found), len(self._part))
            found += self._part[: self._place]
        return found

    def skip(self, size: int) -> None:
        while (rest := len(self._part) - self._place) < size:
            size -= rest
            if not self._next():
                raise Damaged("its end is missing")
        self._place += size

    def _next(self) -> bool:
        self._part, self._place = next(self._parts, b""), 0
        return bool(self._part)


def _inflate(file: BinaryIO) -> Iterator[bytes]:
    decompressor, size = zlib.decompressobj(wbits=-zlib.MAX_WBITS), 0
    while not decompressor.eof:
        compressed = decompressor.unconsumed_tail or file.read(_PART)
        try:
            part = decompressor.decompress(compressed, _PART)
        except zlib.error as error:
            raise Damaged(str(error)) from error
        if not (compressed or part):
            raise Damaged("its end is missing")
        size += len(part)
        if size > LARGEST:
            raise Damaged(f"it becomes more than {LARGEST >> 30} GiB")
        if part:
            yield part


class _Walk:
    """Goes through elements, in and out of sequences whose length is not defined.

    In such a sequence, there are only items; in an item of which the length is not defined, elements as outside. Both
    end by a delimiter. What has a length is passed over.
    """

    def __init__(
        self, stream: _Stream, wanted: Collection[int], implicit: bool = False, big_endian: bool = False
    ) -> None:
        self._stream, self._wanted = stream, wanted
        order = ">" if big_endian else "<"
        self._tag, self._short, self._long = (struct.Struct(order + kind) for kind in ("HH", "H", "L"))
        # whether elements do not tell their kind, outside and in each open sequence and item; None if they may
        self._implicit: list[bool | None] = [implicit]
        self._in_sequence = False
        self._found: dict[int, str] = {}

    def run(self, group: int | None = None) -> dict[int, str]:
        """Return the texts that were wanted.

        :param group: of the elements, at the first other one of which the walk ends.
        """
        for _ in range(MOST_ELEMENTS):
            head = self._stream.read(8)
            if len(head) < 8:
                if head.strip(b"\0") or len(self._implicit) > 1:
                    raise Damaged("its end is missing")
                return self._found
            high, low = self._tag.unpack_from(head)
            if group is not None and high != group and len(self._implicit) == 1:
                self._stream.skip(-8)
                return self._found
            self._step(high << 16 | low, head)
        raise Damaged("it has too many elements")

    def _step(self, tag: int, head: bytes) -> None:
        if self._in_sequence:
            self._item(tag, self._long.unpack_from(head, 4)[0])
        elif tag == _END_OF_ITEM and len(self._implicit) > 1:
            self._implicit.pop()
            self._in_sequence = True
        else:
            self._element(tag, head)

    def _item(self, tag: int, length: int) -> None:
        if tag == _END_OF_SEQUENCE:
            self._implicit.pop()
            self._in_sequence = False
        elif tag != _ITEM:
            raise Damaged("it has a sequence of something else than items")
        elif length == _UNDEFINED:
            self._enter(self._implicit[-1])
            self._in_sequence = False
        else:
            self._stream.skip(length)

    def _element(self, tag: int, head: bytes) -> None:
        kind, implicit = head[4:6], self._implicit[-1]
        if implicit is None:
            implicit = kind not in _KINDS
        if implicit or not (kind.isalpha() and kind.isupper()):  # some writers change to implicit in sequences
            length = self._long.unpack_from(head, 4)[0]
        elif kind in _LONG:
            more = self._stream.read(4)
            if len(more) < 4:
                raise Damaged("its end is missing")
            length = self._long.unpack(more)[0]
        else:
            length = self._short.unpack_from(head, 6)[0]
        if length == _UNDEFINED:
            # what is of unknown kind should be implicit (PS3.5, 6.2.2), and is not always
            self._enter(None if kind == b"UN" and not implicit else self._implicit[-1])
            self._in_sequence = True
        elif len(self._implicit) == 1 and tag in self._wanted and length <= _LONGEST_VALUE:
            value = self._stream.read(length)
            if len(value) < length:
                raise Damaged("its end is missing")
            self._found[tag] = value.decode("ascii", "replace").strip(" \0")
        else:
            self._stream.skip(length)

    def _enter(self, implicit: bool | None) -> None:
        if len(self._implicit) > 2 * _DEEPEST:
            raise Damaged("its sequences are too deep")
        self._implicit.append(implicit)
