"""Find which structures of many segmentations are the same, by their names, or else by their codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ClassScaleSegLib.errors import LabelTableError
from ClassScaleSegLib.labels.label import Label
from ClassScaleSegLib.labels.sides import side_by_name
from ClassScaleSegLib.labels.table import LabelTable

from ..merge.class_names import ClassNames, words

Words = tuple[str, ...]
_NO_STRUCTURES = {("background",): "voxels without a label", ("ignore",): "voxels that do not count"}


class Structures:
    """Structures by their numbers, 0, 1, 2 and so on, in the order in which they appear.

    The same names are one structure, apart from case, spaces, ``_``, ``-`` and the place of the side, which may be a
    letter, as in ``Kidney_L``; or else the same codes, also those that are known for a name.

    :ivar labels: of each structure, as it first appeared, with the codes that are known for its name if it had none.
    :ivar alike: pairs of names that were joined by their codes alone.

    >>> found = Structures()
    >>> for names in ({1: "kidney left", 2: "liver"}, {1: "Liver", 4: "Kidney_L", 5: "cyst"}):
    ...     print(found.match(LabelTable.from_names(names).foreground))
    {1: 0, 2: 1}
    {1: 1, 4: 0, 5: 2}
    """

    def __init__(self) -> None:
        self._names = ClassNames()
        self._words: list[Words] = []  # of each structure
        self._wanted: frozenset[Words] | None = None
        self.labels: list[Label] = []
        self.alike: dict[tuple[str, str], None] = {}

    def close(self) -> None:
        """Let further structures be unwanted: they are told apart from the others, and from each other if possible."""
        self._wanted = frozenset(self._words)
        self.alike.clear()

    def match(self, labels: Sequence[Label]) -> dict[int, int]:
        """Return the structure of each label value of one segmentation, and add those that are new.

        Unwanted labels that have no name of their own are left out.

        :raises LabelTableError: if names do not tell the other labels apart, or one is no name of a structure.
        """
        known = _comparable(labels)
        comparable = {label.value: label for label in known}
        keys = {label.value: tuple(sorted(words(label.name))) for label in known}
        kept = self._distinct(labels, keys)
        found = self._names.match([label for label in known if label.value in kept])
        for value, number in sorted(found.items(), key=lambda item: item[1]):
            if number == len(self.labels):
                own, coded = kept[value], comparable[value]
                self.labels.append(replace(coded, name=own.name, color=own.color) if own.category is None else own)
                self._words.append(keys[value])
            elif keys[value] != self._words[number]:
                self.alike[kept[value].name, self.labels[number].name] = None
        return dict(sorted(found.items()))

    def _distinct(self, labels: Sequence[Label], keys: Mapping[int, Words]) -> dict[int, Label]:
        """Return the labels by their values, without those that are left out."""
        first: dict[Words, Label] = {}
        twice = set[Words]()
        for label in labels:
            key = keys[label.value]
            other = first.setdefault(key, label)
            if other is label and key not in _NO_STRUCTURES:
                continue
            twice.add(key)
            if self._wanted is not None and key not in self._wanted:
                continue
            if key in _NO_STRUCTURES:
                raise LabelTableError(
                    f"It has a segment {label.name}, which to nnU-Net means {_NO_STRUCTURES[key]}. Rename or remove "
                    "the segment."
                )
            raise LabelTableError(
                f"It has segments {other.name} ({other.value}) and {label.name} ({label.value}), which are the same by "
                "their names. Rename or remove one of them."
            )
        return {label.value: label for label in labels if keys[label.value] not in twice}


def _comparable(labels: Sequence[Label]) -> list[Label]:
    """Return labels with the side written out, and with the codes that are known for their names if they have none."""
    names = {}
    for label in labels:
        side, (_, *rest) = side_by_name(label.name)
        names[label.value] = label.name if side is None else f"{side} {' '.join(rest)}"
    known = LabelTable.from_names(names)
    return [
        known[label.value] if label.category is None else replace(label, name=names[label.value]) for label in labels
    ]
