"""Faults a user can act on. The message of each is a sentence: which file, what was found, what to do."""

from __future__ import annotations


class ClassScaleError(Exception):
    """Base of all faults raised on purpose; anything else that escapes is a bug."""


class ModelError(ClassScaleError):
    """A model folder, archive or checkpoint that cannot be used."""


class CatalogError(ModelError):
    """A model that the catalogue does not have, or that is not downloaded or could not be."""


class ImageError(ClassScaleError):
    """An input image that cannot be read, or does not fit the model."""


class LabelTableError(ClassScaleError):
    """A label table that cannot be read or contradicts itself or the labels."""


class OutputError(ClassScaleError):
    """A result that cannot be written; whatever stood there before is untouched."""


class OutputExistsError(OutputError):
    """The result exists already and was not to be overwritten."""


class OutOfMemoryError(ClassScaleError):
    """The smallest memory plan still does not fit; the message says what it would take."""


class Cancelled(ClassScaleError):
    """The caller's cancel token was set; nothing was left behind."""
