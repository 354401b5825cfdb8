"""The tables of the brain model. They are CSV files, so that they can be read and corrected without reading code.

``structures.csv`` lists the structures of the SPL brain atlas, which are the classes. ``label_sets.csv`` defines each
label of the coarsely labelled individuals as a set of these classes. ``tissues.csv`` describes the grey values of each
tissue. A structure or label names its tissue and its set. The set ``rest`` is label 0 of an individual, that is,
everything that is not annotated. Voxels of the set ``ignored`` do not enter the loss.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar, get_type_hints

import torch
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.labels.label import Label
from ClassScaleSegLib.labels.sides import other_sides

from ...loss.label_sets import LabelSets

REST, IGNORED = "rest", "ignored"
IGNORE_INDEX = -1
AIR, CORTEX = "air", "cerebral cortex"
FOLDER = Path(__file__).parent


class Structure(NamedTuple):
    """One class."""

    label: int  # from 1
    atlas_value: int
    name: str
    red: int  # 0..255
    green: int
    blue: int
    radlex: str  # code in RadLex, or empty
    group: str  # heading under which it is reported
    tissue: str
    set: str  # under which individuals annotate it


class CoarseLabel(NamedTuple):
    """One label of the individuals."""

    value: int
    name: str
    tissue: str
    set: str  # of the classes that it means
    around: str  # tissue that its voxels get where they surround the atlas subject


class Tissue(NamedTuple):
    """The look of one tissue."""

    tissue: str  # its name
    family: str  # tissues of one family have similar grey values in random contrasts
    t1: float  # mean grey value in T1-weighted images, 0..1
    t2: float
    brain: int  # 1 if it remains in a skull-stripped image, else 0
    texture: float  # largest standard deviation of the grey value over millimetres


_Row = TypeVar("_Row", Structure, CoarseLabel, Tissue)


@dataclass(frozen=True, eq=False)
class BrainTables:
    """The three tables, and tensors derived from them over C classes (0 is the background) and K coarse labels.

    >>> tables = BrainTables.read()
    >>> len(tables.names), tables.names[0]
    (312, 'background')
    """

    structures: tuple[Structure, ...]
    coarse: tuple[CoarseLabel, ...]
    tissues: tuple[Tissue, ...]

    @classmethod
    def read(cls, folder: Path = FOLDER) -> BrainTables:
        """Read the three tables from ``folder``.

        :raises ClassScaleError: if a table is missing or a row does not fit; it names the file or the row.
        """
        structures = _rows(folder / "structures.csv", Structure)
        coarse = _rows(folder / "label_sets.csv", CoarseLabel)
        tables = cls(structures, coarse, _rows(folder / "tissues.csv", Tissue))
        if [row.label for row in structures] != list(range(1, len(structures) + 1)):
            raise ClassScaleError(f"{folder / 'structures.csv'}: labels must be 1, 2, 3, ... in this order.")
        known = {row.tissue for row in tables.tissues}
        rows: list[Structure | CoarseLabel] = [*structures, *coarse]
        for row in rows:
            if unknown := {row.tissue, getattr(row, "around", row.tissue)} - known:
                raise ClassScaleError(f"{row.name}: tissue {unknown.pop()!r} is not in {folder / 'tissues.csv'}.")
        sets = {row.set for row in structures} | {REST, IGNORED}
        for label in coarse:
            if label.set not in sets:
                raise ClassScaleError(f"{label.name}: no structure belongs to the set {label.set!r}.")
        return tables

    @property
    def names(self) -> dict[int, str]:
        """Name of each class, including the background."""
        return {0: "background", **{row.label: row.name for row in self.structures}}

    def digest(self) -> str:
        """Return what tells the tables from others that lead to other images or labels; colours do not."""
        structures = [(row.label, row.tissue, row.set) for row in self.structures]
        coarse = [(row.value, row.tissue, row.set, row.around) for row in self.coarse]
        content = (structures, coarse, [tuple(row) for row in self.tissues], self.other_side_of_class.tolist())
        return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()

    @cached_property
    def set_names(self) -> tuple[str, ...]:
        """Names of the sets in the order of their labels; ``rest`` is label 0."""
        return (REST, *dict.fromkeys(row.set for row in self.structures if row.set != REST))

    @cached_property
    def set_of_class(self) -> torch.Tensor:
        """``(C,)`` int64: the label under which an individual annotates each class."""
        return torch.tensor([0, *(self.set_names.index(row.set) for row in self.structures)])

    @cached_property
    def other_side_of_class(self) -> torch.Tensor:
        """``(C,)`` int64: the class that each class is in a mirror image, left for right; itself if it has no side."""
        return _other_sides([name for _, name in sorted(self.names.items())])

    @cached_property
    def other_side_of_set(self) -> torch.Tensor:
        """``(S,)`` int64: the same for the sets, by their labels."""
        return _other_sides(self.set_names)

    @cached_property
    def is_gyrus(self) -> torch.Tensor:
        """``(C,)`` bool: whether a class is a part of the cerebral cortex."""
        return torch.tensor([False, *(row.tissue == CORTEX for row in self.structures)])

    @cached_property
    def label_of_gyrus(self) -> torch.Tensor:
        """``(C,)`` int16: the label of each class in dataset 2; 0 unless it is a gyrus.

        There is one label for each gyrus, in place of the labels of the cortex of either side.
        """
        cortex = sorted({int(label) for label in self.set_of_class[self.is_gyrus]})
        free = (*cortex, *range(len(self.set_names), len(self.names)))
        labels, gyri = torch.zeros(len(self.names), dtype=torch.int16), self.is_gyrus.nonzero()[:, 0]
        labels[gyri] = torch.tensor(free[: len(gyri)], dtype=torch.int16)
        return labels

    @cached_property
    def other_side_of_label(self) -> torch.Tensor:
        """``(L,)`` int64: what :attr:`other_side_of_set` is, for the labels of dataset 2."""
        gyri = self.is_gyrus.nonzero()[:, 0]
        labels = self.label_of_gyrus.long()
        others = torch.arange(int(labels.max()) + 1)
        others[: len(self.set_names)] = self.other_side_of_set
        others[labels[gyri]] = labels[self.other_side_of_class[gyri]]
        return others

    @cached_property
    def label_sets(self) -> LabelSets:
        """Label sets of the datasets.

        In dataset 0, the atlas, each class has its own label. Datasets 1 and 2 are the individuals: in dataset 2 each
        gyrus has its own label, too.
        """
        classes = range(len(self.names))
        plain = self.set_of_class.tolist()
        fine = torch.where(self.is_gyrus, self.label_of_gyrus.long(), self.set_of_class).tolist()
        sets = [{label: [c for c in classes if of[c] == label] for label in range(max(of) + 1)} for of in (plain, fine)]
        return LabelSets.from_classes(len(classes), [{c: [c] for c in classes}, *sets])

    @cached_property
    def label_of_coarse(self) -> torch.Tensor:
        """``(K,)`` int16: the label of the set of each coarse label, or :data:`IGNORE_INDEX`."""
        labels = [IGNORE_INDEX if row.set == IGNORED else self.set_names.index(row.set) for row in self.coarse]
        return torch.tensor(labels, dtype=torch.int16)

    def tissue_numbers(self, names: list[str]) -> torch.Tensor:
        """Return the row of each of the named tissues in :attr:`tissues`, int64."""
        number = {row.tissue: index for index, row in enumerate(self.tissues)}
        return torch.tensor([number[name] for name in names])

    @cached_property
    def tissue_of_class(self) -> torch.Tensor:
        """``(C,)`` int64: row of the tissue of each class. The background is air, which the surroundings replace."""
        return self.tissue_numbers([AIR, *(row.tissue for row in self.structures)])

    @cached_property
    def tissue_of_coarse(self) -> torch.Tensor:
        """``(K,)`` int64: row of the tissue of each coarse label."""
        return self.tissue_numbers([row.tissue for row in self.coarse])

    @cached_property
    def around_of_coarse(self) -> torch.Tensor:
        """``(K,)`` int64: row of the tissue that each coarse label becomes around the atlas subject."""
        return self.tissue_numbers([row.around for row in self.coarse])

    @cached_property
    def is_brain(self) -> torch.Tensor:
        """``(tissues,)`` bool: whether the tissue remains in a skull-stripped image."""
        return torch.tensor([bool(row.brain) for row in self.tissues])


def _other_sides(names: Sequence[str]) -> torch.Tensor:
    """Return the number of the other side of each name, or its own.

    :raises LabelTableError: if a name states a side and does not have exactly one counterpart.
    """
    others = other_sides(Label(number, f"{number}", name, (0, 0, 0)) for number, name in enumerate(names))
    return torch.tensor([others.get(number, number) for number in range(len(names))])


def _rows(path: Path, kind: type[_Row]) -> tuple[_Row, ...]:
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        columns = get_type_hints(kind)
        return tuple(kind(*(convert(row[name]) for name, convert in columns.items())) for row in rows)
    except (OSError, KeyError, ValueError, TypeError) as fault:
        raise ClassScaleError(f"{path} is not a table with the columns {', '.join(kind._fields)}: {fault}.") from fault
