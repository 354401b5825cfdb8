"""Refuse zips with millions of members before Python makes an object of each of them."""

from __future__ import annotations

import struct
from typing import BinaryIO

from ..errors import ModelError

MAX_DIRECTORY = 32 << 20  # bytes; 100,000 members with names of 250 letters
_END = b"PK\x05\x06"
_END_BYTES, _LONGEST_COMMENT = 22, 1 << 16
_LOCATOR_BYTES, _END64_BYTES = 20, 56


def check_directory(stream: BinaryIO) -> None:
    """Check the size of the list of members of a zip, and leave the stream at its beginning.

    :param stream: seekable.
    :raises ModelError: if there are more members than any model has. Whether it is a zip at all is left to ``zipfile``.
    """
    length = stream.seek(0, 2)
    start = max(0, length - _END_BYTES - _LONGEST_COMMENT - _LOCATOR_BYTES - _END64_BYTES)
    stream.seek(start)
    tail = stream.read()
    stream.seek(0)
    # as `zipfile` looks for it: at the end, else with the shortest comment
    at_the_end = tail[-_END_BYTES:].startswith(_END) and tail.endswith(b"\0\0")
    place = len(tail) - _END_BYTES if at_the_end else tail.rfind(_END)
    if place < 0 or len(tail) < place + _END_BYTES:
        return
    size = struct.unpack_from("<L", tail, place + 12)[0]
    before = place - _LOCATOR_BYTES - _END64_BYTES
    if before >= 0 and tail[before : before + 4] == b"PK\x06\x06":  # of zips that are larger than 4 GiB
        size = struct.unpack_from("<Q", tail, before + 40)[0]
    if size > MAX_DIRECTORY:
        raise ModelError("It lists more members than any model has. It was not opened.")
