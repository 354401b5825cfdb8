"""Exceptions for faults that a user can correct. Each message names the file, what was found and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class ClassScaleError(Exception):
    """Base class of every exception that ClassScaleSeg raises on purpose. Any other exception is a bug."""


class ModelError(ClassScaleError):
    """A model folder, zip or checkpoint cannot be used."""


class CatalogError(ModelError):
    """A model is not in the catalogue, has not been downloaded, or could not be downloaded."""


class ImageError(ClassScaleError):
    """An input image cannot be read or does not fit the model."""


class DamagedImageError(ImageError):
    """A file of an image is cut or damaged. Another copy of it may be whole."""


class LargeImageError(ImageError):
    """An image does not fit into the memory that is free now. Later there may be more."""


class LabelTableError(ClassScaleError):
    """A label table cannot be read, contradicts itself, or does not match the labels of a model or label map."""


class OutputError(ClassScaleError):
    """A result cannot be written. An existing file of that name is unchanged."""


class OutputExistsError(OutputError):
    """The file to be written already exists, and overwriting was not allowed."""


class ArchiveError(OutputError):
    """A DICOM archive cannot be reached, does not store what is sent to it, or does not give what it is asked for."""


class ServerError(ClassScaleError):
    """A server of ClassScaleSeg cannot be reached, or does not do what it should. The message gives its address."""


class OutOfMemoryError(ClassScaleError):
    """Even the smallest memory plan does not fit. The message gives the memory that it needs."""


class Busy(ClassScaleError):
    """Another process does what only one at a time can do. The message gives its process id."""


class Cancelled(ClassScaleError):
    """The caller's cancel token was set. No files were left behind."""


def reason(error: BaseException, line: int = 0) -> str:
    """Return one line of an exception's message, to be quoted in a sentence; the class name if it has no message.

    :param line: the first line by default; ITK gives the reason in the last one, -1.

    >>> reason(ValueError("No pixels.\\nTried two readers.")), reason(KeyError())
    ('No pixels.', 'KeyError')
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # what ITK adds is any earlier error of the system, such as "Success"
    text = ([one for one in lines if not one.startswith("Reason: ")] or lines)[line].strip()
    return re.sub(r"^ITK ERROR: \w+\(0x[0-9a-f]+\): ", "", text)  # the object of ITK that says so


def innermost(error: BaseException) -> str:
    """Return the text of the innermost cause of an error of the network, without the objects that wrap it.

    >>> innermost(OSError(OSError("no route")))
    'no route'
    """
    while getattr(error, "args", None) and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    cause = getattr(error, "reason", None)
    text = str(cause if isinstance(cause, Exception) else error)
    return re.sub(r"(<[^>]*>|HTTPS?Connection\([^)]*\)):? ?", "", text)[:200]


def shown(text: str) -> str:
    """Return the beginning of a text of somebody else on one line, without letters that control a terminal.

    >>> shown("a\\x1b[2J\\nb")
    'a [2J b'
    """
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:1000]).split())[:200]


@contextmanager
def named(file: object) -> Iterator[None]:
    """Name the file in the sentences of the exceptions raised inside: "It" is the file, if a sentence begins so.

    A sentence that begins with the name of the file stays as it is, and so does that of `Cancelled`.

    >>> with named("plans.json"):
    ...     raise ModelError("It has no configurations.")
    Traceback (most recent call last):
    ClassScaleSegLib.errors.ModelError: plans.json has no configurations.
    """
    try:
        yield
    except Cancelled:
        raise
    except ClassScaleError as error:
        sentence = str(error)
        if sentence.startswith((f"{file} ", f"{file}: ", f"{file}, ")):
            raise
        raise type(error)(f"{file}{sentence[2:]}" if sentence.startswith("It ") else f"{file}: {sentence}") from error
