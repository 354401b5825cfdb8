"""What is wanted of a server, and the classes that its result must name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..catalog.chosen import classes_of, parts_of
from ..errors import named
from ..labels.table import LabelTable
from ..options import Options
from .offers import RemoteModel


@dataclass(frozen=True)
class Request:
    """What is segmented with which models of a server.

    :ivar models: ids.
    :ivar options: only those that the server is told are looked at, and ``confidence``.
    :ivar table: the classes that the result must name.
    :ivar channels: of the models.
    :ivar flat: as of :func:`~ClassScaleSegLib.images.reading.read_image`, like ``nibabel``.
    """

    models: tuple[str, ...]
    options: Options
    table: LabelTable
    channels: int
    flat: bool
    nibabel: bool


def wanted_table(models: Sequence[RemoteModel], options: Options) -> LabelTable:
    """Return the classes of models of a server, those that were chosen.

    :raises LabelTableError: if there is no such class.
    """
    table = classes_of(parts_of(models)).table
    with named(", ".join(model.name for model in models)):
        return table if options.classes is None else table.select(options.classes)
