"""Which labels are wanted, and in which order: those of a label table, a ``dataset.json`` or a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ClassScaleSegLib.catalog.catalog import resolve_model
from ClassScaleSegLib.errors import LabelTableError, named
from ClassScaleSegLib.labels.common_classes import common_classes
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.models.summary import summarize

from ..dataset_json import check_for_model, read_dataset_json

_MODELS, _TABLES = (".zip",), (".csv", ".ctbl", ".txt")


@dataclass(frozen=True)
class Wanted:
    """Labels, as a file names them.

    :ivar source: the file, or the model, for messages.
    :ivar table: the labels; a background among them does not count.
    :ivar channels: of the images for which they are, if the file says so.
    """

    source: str
    table: LabelTable
    channels: tuple[str, ...] | None = None


def read_wanted(source: str) -> Wanted:
    """Read the labels of a colour-table CSV, a ``dataset.json`` or the folder of a raw dataset, or a model.

    :param source: a path, or a model of the catalogue by id or name.
    :raises LabelTableError: if a table cannot be read, or labels are regions.
    :raises ModelError: if it is no model, or one that cannot be used.
    """
    path = Path(source)
    if path.is_dir() and (path / "dataset.json").is_file() and (path / "imagesTr").is_dir():
        path = path / "dataset.json"
    if path.suffix.lower() == ".json":
        return _of_dataset(path)
    if path.suffix.lower() in _TABLES or (path.is_file() and path.suffix.lower() not in _MODELS):
        return Wanted(source, LabelTable.from_file(path))
    summaries = [summarize(part) for part in resolve_model(source)]
    table = common_classes([summary.table for summary in summaries]).table
    return Wanted(source, table, tuple(summaries[0].channel_names))


def _of_dataset(file: Path) -> Wanted:
    dataset = read_dataset_json(file)
    with named(file):
        channels = check_for_model(dataset)
        values = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
        if any(isinstance(value, list) for value in values.values()):
            raise LabelTableError("Its labels are regions, which overlap. Name a table with one label a structure.")
        codes = file.with_name("labels.csv")
        given = LabelTable.from_csv(codes) if codes.is_file() else None
        names = {value: name for name, value in values.items()}
        table = LabelTable.from_names(names, given)
    return Wanted(str(file), table, channels)
