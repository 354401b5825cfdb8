"""The tables behind the brain model, kept as CSV so that they can be read and corrected without reading code.

``structures.csv``: the structures of the SPL brain atlas, which are the classes; ``label_sets.csv``: what
each label of a coarsely labelled individual means, as a set of these classes; ``tissues.csv``: what a tissue may
look like. A structure or label names its tissue and its set; ``rest`` is label 0 of an individual, everything that it
does not annotate, and ``ignored`` voxels take no part in the loss.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch
from ClassScaleSegLib.errors import ClassScaleError

from ...loss.label_sets import LabelSets

REST, IGNORED = "rest", "ignored"
IGNORE_INDEX = -1
AIR = "air"
FOLDER = Path(__file__).parent


class Structure(NamedTuple):
    """One class. ``label`` counts from 1; ``atlas_value`` is its value in the atlas; colours are 0..255."""

    label: int
    atlas_value: int
    name: str
    red: int
    green: int
    blue: int
    radlex: str
    group: str
    tissue: str
    set: str


class CoarseLabel(NamedTuple):
    """One label of the individuals. ``around``: the tissue it lends to the surroundings of the atlas subject."""

    value: int
    name: str
    tissue: str
    set: str
    around: str


class Tissue(NamedTuple):
    """Mean grey value in T1- and T2-weighted images, 0..1; ``texture``: how much it may vary inside."""

    tissue: str
    family: str
    t1: float
    t2: float
    brain: int
    texture: float


@dataclass(frozen=True, eq=False)
class BrainTables:
    """The three tables, and what follows from them as tensors over C classes (0 the background) and K coarse labels."""

    structures: tuple[Structure, ...]
    coarse: tuple[CoarseLabel, ...]
    tissues: tuple[Tissue, ...]

    @classmethod
    def read(cls, folder: Path = FOLDER) -> BrainTables:
        """:raises ClassScaleError: naming the file and row that does not fit."""
        structures = _rows(folder / "structures.csv", Structure)
        coarse = _rows(folder / "label_sets.csv", CoarseLabel)
        tables = cls(structures, coarse, _rows(folder / "tissues.csv", Tissue))
        if [row.label for row in structures] != list(range(1, len(structures) + 1)):
            raise ClassScaleError(f"{folder / 'structures.csv'}: labels must be 1, 2, 3, ... in this order.")
        known = {row.tissue for row in tables.tissues}
        for row in (*structures, *coarse):
            if unknown := {row.tissue, getattr(row, "around", row.tissue)} - known:
                raise ClassScaleError(f"{row.name}: tissue {unknown.pop()!r} is not in {folder / 'tissues.csv'}.")
        sets = {row.set for row in structures} | {REST, IGNORED}
        for row in coarse:
            if row.set not in sets:
                raise ClassScaleError(f"{row.name}: no structure belongs to the set {row.set!r}.")
        return tables

    @property
    def names(self) -> dict[int, str]:
        """Name of each class, background included."""
        return {0: "background", **{row.label: row.name for row in self.structures}}

    @cached_property
    def set_names(self) -> tuple[str, ...]:
        """Sets in the order of their labels; the rest is 0."""
        return (REST, *dict.fromkeys(row.set for row in self.structures if row.set != REST))

    @cached_property
    def set_of_class(self) -> torch.Tensor:
        """``(C,)`` int64: the label under which an individual annotates each class."""
        return torch.tensor([0, *(self.set_names.index(row.set) for row in self.structures)])

    @cached_property
    def label_sets(self) -> LabelSets:
        """Dataset 0: the atlas, every class for itself. Dataset 1: the individuals."""
        numbers = self.set_of_class.tolist()
        sets = {label: [c for c, s in enumerate(numbers) if s == label] for label in range(len(self.set_names))}
        return LabelSets.from_classes(len(numbers), [{c: [c] for c in range(len(numbers))}, sets])

    @cached_property
    def label_of_coarse(self) -> torch.Tensor:
        """``(K,)`` int16: label of the set of each coarse label, or :data:`IGNORE_INDEX`."""
        labels = [IGNORE_INDEX if row.set == IGNORED else self.set_names.index(row.set) for row in self.coarse]
        return torch.tensor(labels, dtype=torch.int16)

    def tissue_numbers(self, names: list[str]) -> torch.Tensor:
        """Row of each tissue in :attr:`tissues`, int64."""
        number = {row.tissue: index for index, row in enumerate(self.tissues)}
        return torch.tensor([number[name] for name in names])

    @cached_property
    def tissue_of_class(self) -> torch.Tensor:
        """``(C,)`` int64; the background counts as air, which the surroundings replace."""
        return self.tissue_numbers([AIR, *(row.tissue for row in self.structures)])

    @cached_property
    def tissue_of_coarse(self) -> torch.Tensor:
        """``(K,)`` int64."""
        return self.tissue_numbers([row.tissue for row in self.coarse])

    @cached_property
    def around_of_coarse(self) -> torch.Tensor:
        """``(K,)`` int64."""
        return self.tissue_numbers([row.around for row in self.coarse])

    @cached_property
    def is_brain(self) -> torch.Tensor:
        """``(tissues,)`` bool: what stays in a skull-stripped image."""
        return torch.tensor([bool(row.brain) for row in self.tissues])


def _rows(path: Path, kind: Callable[..., Any]) -> tuple[Any, ...]:
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        columns = get_type_hints(kind)
        return tuple(kind(*(convert(row[name]) for name, convert in columns.items())) for row in rows)
    except (OSError, KeyError, ValueError, TypeError) as fault:
        raise ClassScaleError(f"{path} is not a table with the columns {', '.join(kind._fields)}: {fault}.") from fault
