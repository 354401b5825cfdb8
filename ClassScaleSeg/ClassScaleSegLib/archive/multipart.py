"""Read a message of several parts (multipart/related, RFC 2046) piece by piece, whatever its size.

dicomweb-client, which sends our files, holds a whole part in memory, or all that follows if the boundary never comes,
and takes a message for complete whose end is missing: where an archive closes the connection to say that it is done, as
Orthanc does, a lost connection looks the same. The parsers of web servers want forms. So this one is our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message

from ..errors import ArchiveError

LONGEST_HEADER = 64 << 10  # bytes of what precedes the first part, and of the headers of each part
_LONGEST_BOUNDARY = 200  # bytes; RFC 2046 allows 70
_LONGEST_PADDING = 256  # bytes: spaces between a boundary and the end of its line


class Incomplete(ArchiveError):
    """The message is not what it should be, or ends too early. The parts before were whole."""


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary that a Content-Type names; ``None`` if it is not of several parts.

    :raises Incomplete: if it names none that is valid.

    >>> boundary_of('multipart/related; type="application/dicom"; boundary="a b"')
    b'a b'
    """
    message = Message()
    message["Content-Type"] = " ".join(content_type.split())
    if message.get_content_maintype() != "multipart":
        return None
    boundary = message.get_boundary("")
    if not (boundary and len(boundary) <= _LONGEST_BOUNDARY and boundary.isascii() and boundary.isprintable()):
        raise Incomplete("The archive does not say by what it separates the files (boundary). Tell its administrator.")
    return boundary.encode()


class Parts:
    """The parts of a message, each an iterator of pieces of its content, which is to be read before the next part.

    :ivar pieces: of the message, of any size.

    >>> message = [b"--x\\r\\nContent-Type: a/b\\r\\n\\r\\none\\r\\n--", b"x\\r\\n\\r\\n\\r\\ntwo\\r\\n--x--"]
    >>> [b"".join(part) for part in Parts(message, b"x")]
    [b'one', b'\\r\\ntwo']
    """

    def __init__(self, pieces: Iterable[bytes], boundary: bytes) -> None:
        self._pieces = iter(pieces)
        self._line = b"--" + boundary
        self._buffer = bytearray(b"\r\n")  # the first boundary needs no new line before it

    def __iter__(self) -> Iterator[Iterator[bytes]]:
        """Yield each part.

        :raises Incomplete: if the message has no such boundary, its end is missing, or headers are too long.
        """
        for _ in self._until_boundary(LONGEST_HEADER):
            pass
        while self._begins_part():
            self._skip_headers()
            content = self._until_boundary()
            yield content
            for _ in content:  # what was not read
                pass

    def _more(self) -> None:
        """Add the next piece to the buffer.

        :raises Incomplete: if there is none.
        """
        piece = next(self._pieces, None)
        if piece is None:
            raise Incomplete("The end of the archive's answer is missing.")
        self._buffer += piece

    def _until_boundary(self, limit: int | None = None) -> Iterator[bytes]:
        """Yield what comes before the next boundary, and leave in the buffer what follows it.

        :param limit: bytes that may come before it.
        """
        delimiter, start, count = b"\r\n" + self._line, 0, 0
        while True:
            found = self._buffer.find(delimiter, start)
            is_boundary = found >= 0 and self._ends_line(found + len(delimiter))
            # all before it, or all but what may be the beginning of one
            ready = found if found >= 0 else max(len(self._buffer) - len(delimiter) + 1, 0)
            count += ready
            if limit is not None and count > limit:
                raise Incomplete("The archive does not separate the files by what it says (boundary).")
            if ready:
                yield bytes(self._buffer[:ready])
                del self._buffer[:ready]
            if is_boundary:
                del self._buffer[: len(delimiter)]
                return
            start = 1 if found >= 0 else 0  # behind content that only begins like a boundary
            if found < 0:
                self._more()

    def _ends_line(self, place: int) -> bool:
        """Return whether a boundary that ends at this place of the buffer is one: content may begin like it.

        It is followed by ``--``, or by the end of the line, perhaps after spaces.
        """
        while True:
            rest = bytes(self._buffer[place : place + _LONGEST_PADDING])
            after = rest.lstrip(b" \t")
            if rest.startswith(b"--") or after.startswith(b"\r\n"):
                return True
            if (after not in (b"", b"\r") and rest != b"-") or len(rest) == _LONGEST_PADDING:
                return False
            self._more()

    def _begins_part(self) -> bool:
        """Return whether a part follows the boundary that was read, and not the end of the message."""
        return not self._buffer.startswith(b"--")

    def _skip_headers(self) -> None:
        """Drop the rest of the line of the boundary, and the headers of the part: the content says what it is."""
        del self._buffer[: self._buffer.index(b"\r\n")]
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > LONGEST_HEADER:
                raise Incomplete("The archive precedes a file by headers without an end. Tell its administrator.")
            self._more()
        del self._buffer[: end + 4]
