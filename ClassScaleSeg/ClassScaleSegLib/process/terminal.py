"""Print to terminals and pipes that cannot show every letter, or that nobody reads any more."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from ..errors import OutputError


class NobodyReads(BrokenPipeError):
    """The program that read standard output has ended."""


@contextlib.contextmanager
def any_letters() -> Iterator[None]:
    """Replace letters that standard output and standard error cannot encode, instead of raising an exception."""
    changed: list[tuple[io.TextIOWrapper, str]] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not None, nor a stand-in, such as that of a notebook
            changed.append((stream, stream.errors or "strict"))
            stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream, errors in changed:
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)


def flush(after: OSError | None = None) -> None:
    """Write what standard output still holds. If that fails, what is printed from then on is lost.

    :param after: an error that may be of standard output, and is followed by an empty line there if it is not.
    :raises NobodyReads: if it is a pipe that nobody reads any more.
    :raises OutputError: if it cannot be written for another reason, such as a full disk.
    """
    if sys.stdout is None:
        return
    try:
        if after is not None and after.filename is None:  # errors of files name the file
            print()  # what could not be written is gone, so that there may be nothing to flush
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, sys.stdout.fileno())  # otherwise Python tries again when it ends, and complains
            os.close(nothing)
        if isinstance(error, BrokenPipeError):
            raise NobodyReads from error
        raise OutputError(f"Standard output cannot be written ({error.strerror}). Make room there.") from error


def on_one_line(text: object) -> str:
    """Return a text whose letters neither begin a line nor control a terminal: names of files may have such letters.

    >>> print(on_one_line("ct\\n\\x1b[2J.nii.gz"))
    ct\\n\\x1b[2J.nii.gz
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in found)


def printable(text: object) -> str:
    """Return a text that every encoding of Unicode can hold: bytes of names that are not UTF-8 become ``\\udc..``.

    >>> printable("M\\udcfcller.nii.gz")
    'M\\\\udcfcller.nii.gz'
    """
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")
