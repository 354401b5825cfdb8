"""Hold the labels of a model or label map as one immutable table.

`csv.py` reads and writes tables as 3D Slicer's colour-table CSV, `color_files.py` reads those of other programs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ..errors import LabelTableError
from ..files import replacing
from ..resources import resource
from .color_files import is_color_file, parse_color_file
from .csv import format_labels, read_content, read_labels
from .label import MAX_VALUE, Label, segment_color, segment_id


@dataclass(frozen=True)
class LabelTable:
    """Labels sorted by value, with unique values 0..65535 and unique segment ids.

    ``table[value]`` is the label with a value, ``value in table`` tells whether there is one, and iteration gives the
    labels in the order of their values.

    :ivar labels: the labels, sorted by value.
    :ivar file: the file that they were read from, which messages name; ``None`` if there is none. Tables that differ
        in it alone are equal.
    :raises LabelTableError: if values or ids repeat, or a value does not fit into 16 bits.

    >>> table = LabelTable.from_names({0: "background", 1: "liver", 2: "kidney_left"})
    >>> table[2].type_modifier.meaning
    'Left'
    >>> table.by_name("Kidney left").value
    2
    >>> table.select(["liver"]).names
    {0: 'background', 1: 'liver'}
    """

    labels: tuple[Label, ...]
    file: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(sorted(self.labels, key=lambda label: label.value)))
        values: dict[int, Label] = {}
        ids: dict[str, Label] = {}
        for label in self.labels:
            value, name = label.value, label.name
            if not 0 <= value <= MAX_VALUE:
                raise LabelTableError(f"Label value {value} ({name}) is not between 0 and {MAX_VALUE}.")
            if values.setdefault(value, label) is not label:
                raise LabelTableError(f"Label value {value} is used twice, by {values[value].name} and by {name}.")
            if ids.setdefault(label.id, label) is not label:
                raise LabelTableError(f"Segment id {label.id} is used twice, by {ids[label.id].name} and {name}.")

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, value: object) -> bool:
        return value in self._by_value

    def __getitem__(self, value: int) -> Label:
        """Return the label with this value.

        :raises LabelTableError: if no label has this value.
        """
        if value not in self:
            raise LabelTableError(f"No label has the value {value}; {self._extent}.")
        return self._by_value[value]

    @cached_property
    def _by_value(self) -> dict[int, Label]:
        return {label.value: label for label in self.labels}

    @cached_property
    def _by_name(self) -> dict[str, list[Label]]:
        return _grouped((label.name, label) for label in self.labels)

    @cached_property
    def _by_words(self) -> dict[tuple[str, ...], list[Label]]:
        return _grouped((tuple(name_words(label.name)), label) for label in self.labels)

    @property
    def _extent(self) -> str:
        if not self.labels:
            return "the table is empty" if self.file is None else f"{self.file} is empty"
        count, least, largest = len(self), self.labels[0].value, self.labels[-1].value
        if self.file is None:
            return f"the table has {count} labels from {least} to {largest}"
        return f"{self.file} has {count} labels from {least} to {largest}"

    @property
    def names(self) -> dict[int, str]:
        """Name of each label value."""
        return {label.value: label.name for label in self.labels}

    @property
    def foreground(self) -> tuple[Label, ...]:
        """All labels but the background."""
        return tuple(label for label in self.labels if label.value != 0)

    @cached_property
    def groups(self) -> dict[str, tuple[Label, ...]]:
        """Foreground labels by group, both in the order of the label values. Labels without a group are left out."""
        found = _grouped((label.group, label) for label in self.foreground if label.group)
        return {group: tuple(labels) for group, labels in found.items()}

    def by_name(self, name: str) -> Label:
        """Return the label with this name.

        An exact match takes precedence. Otherwise case is ignored, and spaces, underscores and hyphens are equal.

        :param name: name of the label.
        :raises LabelTableError: if no label has the name (the message lists similar names) or several have it.
        """
        found = self._called(name)
        if len(found) == 1:
            return found[0]
        if found:
            values = ", ".join(str(label.value) for label in found)
            raise LabelTableError(f"Several labels are called {name}: give a label value instead, {values}.")
        spelled = {" ".join(name_words(label.name)): label.name for label in self.labels}
        near = difflib.get_close_matches(" ".join(name_words(name)), spelled, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(spelled[word] for word in near)}?" if near else f"{self._extent}."
        raise LabelTableError(f"No label is called {name}; {hint}")

    def select(self, names_or_values: Iterable[str | int]) -> LabelTable:
        """Return a table of the given labels, and of the background if this table has one.

        :param names_or_values: names as in `by_name`, or label values; a value may be written as text.
        :raises LabelTableError: if a name or value is not in the table.
        """
        chosen = {label.value: label for label in self.labels if label.value == 0}
        for item in names_or_values:
            value = self._as_value(item)
            label = self.by_name(str(item)) if value is None else self[value]
            chosen[label.value] = label
        return LabelTable(tuple(chosen.values()))

    def lookup(self, name_or_value: str | int) -> tuple[Label, ...]:
        """Return all labels that match an entry of `select`.

        :param name_or_value: a name or label value.
        :returns: no label if it is not in the table, several labels if they share the name.
        """
        value = self._as_value(name_or_value)
        if value is None:
            return tuple(self._called(str(name_or_value)))
        return (self._by_value[value],) if value in self else ()

    def _called(self, name: str) -> list[Label]:
        return self._by_name.get(name) or self._by_words.get(tuple(name_words(name)), [])

    def _as_value(self, item: str | int) -> int | None:
        """Return the label value that ``item`` stands for; ``None`` if it is a name."""
        if isinstance(item, str) and (item in self._by_name or not re.fullmatch(r"[0-9]{1,5}", item)):
            return None
        return int(item)

    @classmethod
    def from_names(cls, names: Mapping[int, str], codes: LabelTable | None = None) -> LabelTable:
        """Create a table from names, with default colours and the codes and groups known for the names.

        :param names: name of each label value.
        :param codes: labels whose codes and groups are used for equal names, in preference to those that ship with
            ClassScaleSeg (the classes of TotalSegmentator). A name found in neither gets no codes.
        :raises LabelTableError: if a value does not fit into 16 bits.
        """
        known = _codes_in(resource("LabelTables", "totalsegmentator.csv")) | _codes_by_words(codes or ())
        labels = []
        for value, name in names.items():
            found = known.get(tuple(sorted(name_words(name))), {})
            labels.append(Label(int(value), segment_id(value), name, segment_color(value), **found))
        return cls(tuple(labels))

    @classmethod
    def from_csv(cls, path: str | Path) -> LabelTable:
        """Read a table from Slicer's colour-table CSV.

        :param path: the file, UTF-8.
        :raises LabelTableError: if the file cannot be read or used; the message names the file and, where known, the
            line.
        """
        return cls(read_labels(Path(path)), Path(path))

    @classmethod
    def from_file(cls, path: str | Path) -> LabelTable:
        """Read a table from a colour-table CSV, or from a colour table of another program.

        :param path: as of `from_csv`; or ``.ctbl`` or ``.txt`` of 3D Slicer, FreeSurfer or ITK-SNAP, ``.tsv`` of BIDS,
            or ``dataset.json`` of nnU-Net. Their labels get the codes and groups known for the names, as of
            `from_names`.
        :raises LabelTableError: as `from_csv`.
        """
        path = Path(path)
        if not is_color_file(path):
            return cls.from_csv(path)
        labels = parse_color_file(read_content(path), str(path))
        if any(label.type for label in labels):  # a table with codes, in spite of its name
            return cls(labels, path)
        known = cls.from_names({label.value: label.name for label in labels})
        return cls(tuple(replace(known[label.value], color=label.color) for label in labels), path)

    def to_csv(self, path: str | Path | None = None, overwrite: bool = False) -> str:
        """Return the table as Slicer's colour-table CSV, and write it to ``path`` if that is given.

        :param path: the file to be written.
        :param overwrite: replace an existing file.
        :returns: the CSV text.
        :raises OutputExistsError: if the file exists and ``overwrite`` is false.
        :raises OutputError: if the file cannot be written.
        """
        text = format_labels(self.labels)
        if path is not None:
            with replacing(path, overwrite) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")
        return text


def _grouped(items: Iterable[tuple[Any, Label]]) -> dict[Any, list[Label]]:
    found: dict[Any, list[Label]] = {}
    for key, label in items:
        found.setdefault(key, []).append(label)
    return found


def name_words(name: str) -> list[str]:
    """Return the words by which `LabelTable.by_name` compares names.

    >>> name_words("Kidney_LEFT"), name_words(" kidney-left")
    (['kidney', 'left'], ['kidney', 'left'])
    """
    return re.sub(r"[\s_\-]+", " ", name.casefold()).split()


def _codes_by_words(table: Iterable[Label]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return codes and group of each label that has codes, by the sorted words of its name, with and without its side.

    Words are sorted so that ``left kidney`` finds ``kidney_left``. The entry without a side has no code for the side.
    Labels whose side is part of the concept itself (left atrium) have no such entry.
    """
    whole: dict[tuple[str, ...], dict[str, Any]] = {}
    sideless: dict[tuple[str, ...], dict[str, Any]] = {}
    sides = ("left", "right")
    for label in table:
        if label.category is not None:
            words, known = sorted(name_words(label.name)), {**label.codes, "group": label.group}
            whole[tuple(words)] = known
            modifiers = {field: code for field, code in label.codes.items() if code and field.endswith("modifier")}
            sided = [field for field, code in modifiers.items() if code.meaning.casefold() in sides]
            if sided:
                sideless[tuple(word for word in words if word not in sides)] = known | dict.fromkeys(sided)
    return sideless | whole


@cache
def _codes_in(file: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    return _codes_by_words(LabelTable.from_csv(file))
