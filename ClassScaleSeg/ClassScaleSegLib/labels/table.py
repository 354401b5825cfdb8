"""What label values mean: names, colours and terminology codes, as one immutable table.

Tables are read from and written to 3D Slicer's colour-table CSV (`csv.py`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..errors import LabelTableError
from .label import MAX_VALUE, Label, segment_color, segment_id


@dataclass(frozen=True)
class LabelTable:
    """Labels sorted by value, with unique values 0..65535 and unique ids.

    :raises LabelTableError: if values or ids repeat, or a value does not fit into 16 bits.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(sorted(self.labels, key=lambda label: label.value)))
        for label in self.labels:
            if not 0 <= label.value <= MAX_VALUE:
                raise LabelTableError(f"Label value {label.value} ({label.name}) is not between 0 and {MAX_VALUE}.")
        for before, label in zip(self.labels, self.labels[1:], strict=False):
            if before.value == label.value:
                raise LabelTableError(f"Label value {label.value} is used twice, by {before.name} and by {label.name}.")
        ids: dict[str, Label] = {}
        for label in self.labels:
            if ids.setdefault(label.id, label) is not label:
                raise LabelTableError(f"Segment id {label.id} is used twice, by {ids[label.id].name} and {label.name}.")

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, value: object) -> bool:
        return value in self._by_value

    def __getitem__(self, value: int) -> Label:
        """:raises LabelTableError: if no label has this value."""
        try:
            return self._by_value[value]
        except KeyError:
            raise LabelTableError(f"No label has the value {value}; {self._extent}.") from None

    @cached_property
    def _by_value(self) -> dict[int, Label]:
        return {label.value: label for label in self.labels}

    @cached_property
    def _by_name(self) -> dict[str, list[Label]]:
        found: dict[str, list[Label]] = {}
        for label in self.labels:
            found.setdefault(label.name, []).append(label)
        return found

    @cached_property
    def _by_words(self) -> dict[tuple[str, ...], list[Label]]:
        found: dict[tuple[str, ...], list[Label]] = {}
        for label in self.labels:
            found.setdefault(tuple(_words(label.name)), []).append(label)
        return found

    @property
    def _extent(self) -> str:
        if not self.labels:
            return "the table is empty"
        return f"the table has {len(self)} labels from {self.labels[0].value} to {self.labels[-1].value}"

    @property
    def names(self) -> dict[int, str]:
        return {label.value: label.name for label in self.labels}

    @property
    def foreground(self) -> tuple[Label, ...]:
        return tuple(label for label in self.labels if label.value != 0)

    @cached_property
    def groups(self) -> dict[str, tuple[Label, ...]]:
        """Foreground labels of each group, groups and labels in the order of their values; without the ungrouped."""
        found: dict[str, list[Label]] = {}
        for label in self.foreground:
            if label.group:
                found.setdefault(label.group, []).append(label)
        return {group: tuple(labels) for group, labels in found.items()}

    def by_name(self, name: str) -> Label:
        """The label called ``name``, exactly or else but for case, spaces, underscores and hyphens.

        :raises LabelTableError: if there is none, naming similar ones, or if several carry the name.
        """
        found = self._called(name)
        if len(found) == 1:
            return found[0]
        if found:
            values = ", ".join(str(label.value) for label in found)
            raise LabelTableError(f"Several labels are called {name}: name one by its value, {values}.")
        spelled = {" ".join(_words(label.name)): label.name for label in self.labels}
        near = difflib.get_close_matches(" ".join(_words(name)), spelled, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(spelled[word] for word in near)}?" if near else f"{self._extent}."
        raise LabelTableError(f"No label is called {name}; {hint}")

    def select(self, names_or_values: Iterable[str | int]) -> LabelTable:
        """The named labels, and the background where there is one. A number written as text counts as a value.

        :raises LabelTableError: if a name or value is not in the table.
        """
        chosen = {label.value: label for label in self.labels if label.value == 0}
        for item in names_or_values:
            label = self[int(item)] if self._is_value(item) else self.by_name(item)
            chosen[label.value] = label
        return LabelTable(tuple(chosen.values()))

    def lookup(self, name_or_value: str | int) -> tuple[Label, ...]:
        """All labels that `select` could mean by this: none if it is not in the table, several that share a name."""
        if self._is_value(name_or_value):
            label = self._by_value.get(int(name_or_value))
            return () if label is None else (label,)
        return tuple(self._called(name_or_value))

    def _called(self, name: str) -> list[Label]:
        return self._by_name.get(name) or self._by_words.get(tuple(_words(name)), [])

    def _is_value(self, item: str | int) -> bool:
        return not isinstance(item, str) or bool(re.fullmatch(r"[0-9]{1,5}", item) and item not in self._by_name)

    @classmethod
    def from_names(cls, names: Mapping[int, str], codes: LabelTable | None = None) -> LabelTable:
        """Table with the given names, colours by value, and the codes and groups known for the names.

        :param codes: labels whose codes and groups are taken over by name, before those that ship with ClassScaleSeg
            (the classes of TotalSegmentator). A name that neither knows gets none.
        """
        given = {} if codes is None else _codes_by_words(codes)
        labels = []
        for value, name in names.items():
            words = tuple(sorted(_words(name)))
            known = given.get(words) or _known_codes().get(words) or {}
            labels.append(Label(int(value), segment_id(value), name, segment_color(value), **known))
        return cls(tuple(labels))

    @classmethod
    def from_csv(cls, path: str | Path) -> LabelTable:
        """Read Slicer's colour-table CSV.

        :raises LabelTableError: a sentence naming the file, and the line where there is one.
        """
        from .csv import read_labels

        return cls(read_labels(Path(path)))

    def to_csv(self, path: str | Path | None = None, overwrite: bool = False) -> str:
        """The table as Slicer's colour-table CSV; also written to ``path`` if that is given.

        :raises OutputError: if the file cannot be written, or exists and is not to be overwritten.
        """
        from .csv import format_labels

        text = format_labels(self.labels)
        if path is not None:
            from ..files import replacing

            with replacing(path, overwrite) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")
        return text


def _words(name: str) -> list[str]:
    return re.sub(r"[\s_\-]+", " ", name.casefold()).split()


def _codes_by_words(table: Iterable[Label]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Codes and group of each label that has codes, by its sorted words, and by those without its side.

    So ``left kidney`` is ``kidney_left``. The entry without a side drops the code of the side; labels whose side is
    part of the concept itself (left atrium) have no such entry.
    """
    whole, sideless = {}, {}
    for label in table:
        words = sorted(_words(label.name))
        if label.category is None:
            continue
        whole[tuple(words)] = {**label.codes, "group": label.group}
        unsided = label
        for field in ("type_modifier", "region_modifier"):
            modifier = getattr(label, field)
            if modifier is not None and modifier.meaning.casefold() in ("left", "right"):
                unsided = replace(unsided, **{field: None})
        if unsided is not label:
            sideless[tuple(word for word in words if word not in ("left", "right"))] = {
                **unsided.codes,
                "group": label.group,
            }
    return {**sideless, **whole}


@lru_cache(maxsize=1)
def _known_codes() -> dict[tuple[str, ...], dict[str, Any]]:
    from ..resources import resource

    return _codes_by_words(LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv")))
