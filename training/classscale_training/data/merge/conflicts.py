"""Find labels of different datasets that contradict each other, and classes that no dataset can teach.

Each fault names the pair, and the lines of CSV that settle it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from ClassScaleSegLib.errors import LabelTableError

from ..dataset_json import HIGHEST
from ..findings import Finding, first, report
from .class_names import SIDES, code_key, sides_and_rest, words
from .meaning import LabelMeaning, Meaning
from .source import source_called
from .taxonomy import Taxonomy

_ABSENT = -1


def check_meaning(meaning: Meaning, taxonomy: Taxonomy = Taxonomy()) -> None:
    """Refuse labels that contradict each other, and classes that cannot be learned.

    :param taxonomy: from which the meaning follows.
    :raises LabelTableError: with all faults.
    """
    if len(meaning.names) > HIGHEST:
        raise LabelTableError(
            f"The datasets have {len(meaning.names)} classes together; nnU-Net has at most {HIGHEST}. Merge "
            "fewer datasets."
        )
    conflicts = _Conflicts(meaning, taxonomy)
    sentences = [*conflicts.sides(), *conflicts.names(), *conflicts.overlaps()]
    if sentences:
        place = (
            f"to {taxonomy.file}" if taxonomy.file else "to a file for --taxonomy, below the line dataset,label,class"
        )
        head = f"The datasets contradict each other. Add the lines that are right {place}."
        raise LabelTableError("\n".join([head, *first(sentences, "- ", "contradictions")]))
    report("The merged dataset", [Finding(sentence, LabelTableError) for sentence in _inseparable(meaning)])


class _Conflicts:
    def __init__(self, meaning: Meaning, taxonomy: Taxonomy) -> None:
        self.meaning, self.taxonomy = meaning, taxonomy
        rows = [row for row in taxonomy.rows if words(row.label) == words("background")]
        self.backgrounds = {  # of which the rows say what they contain
            index
            for index, source in enumerate(meaning.sources)
            if any(not row.dataset or source_called([source], row.dataset) for row in rows)
        }
        self.labels = [
            (index, label) for index, labels in enumerate(meaning.meanings) for label in labels if label.members != (0,)
        ]

    def sides(self) -> Iterator[str]:
        """Yield labels without a side beside labels of another dataset for the left or the right side of the same."""
        sided: dict[object, dict[str, list[tuple[int, LabelMeaning]]]] = {}
        for index, label in self.labels:
            for key, side in _sides(label):
                sided.setdefault(key, {}).setdefault(side, []).append((index, label))
        for index, label in self.labels:
            keys = _without_side(label)
            found = next((sided[key] for key in keys if key in sided), None)
            if label.rows or found is None or any(other == index for pairs in found.values() for other, _ in pairs):
                continue
            pairs = [pair for side in SIDES for pair in found.get(side, ())[:1]]
            if any(self._names_too(other, label) for other, _ in pairs):
                continue
            there = " and ".join(f"{other.label.name} of {self._dataset(number)}" for number, other in pairs)
            members = [member for _, other in pairs for member in other.members]
            lines = [self._line(index, label, self.meaning.names[member]) for member in members]
            missing = [side for side in SIDES if side not in found]
            if missing:
                name = _other_side(pairs[0][1].label.name, missing[0])
                lines += [self._line(index, label, name), self.taxonomy.line("", name, name)]
            fitting = self._fits(index, label, members)
            yield self._settle(
                f"{self._called(index, label)} has no side, but there is {there}.",
                *([(f"If {label.label.name} is both sides together", lines)] if fitting else []),
                ("If it is a class of its own", [self._own(index, label)]),
            )

    def names(self) -> Iterator[str]:
        """Yield labels that are a class by their name or codes beside labels with the same and another meaning."""
        said: dict[object, list[tuple[int, LabelMeaning]]] = {}
        for index, label in self.labels:
            for key in (sides_and_rest(label.label.name), code_key(label.label)) if label.rows else ():
                said.setdefault(key, []).append((index, label))
        for index, label in self.labels:
            keys = [key for key in (sides_and_rest(label.label.name), code_key(label.label)) if key is not None]
            same = [pair for key in keys for pair in said.get(key, ())]
            other = next((pair for pair in same if pair[0] != index and pair[1].members != label.members), None)
            if label.rows or other is None:
                continue
            names = [self.meaning.names[member] for member in other[1].members]
            lines = [self._line(index, label, name) for name in names]
            fitting = self._fits(index, label, other[1].members)
            yield self._settle(
                f"{self._called(index, label)} is a class by its name, but {self._called(*other)} stands for "
                f"{_listed(names)}.",
                *([("If both mean the same", lines)] if fitting else []),
                ("If not", [self._own(index, label)]),
            )

    def overlaps(self) -> Iterator[str]:
        """Yield labels with common classes, neither of which stands for all classes of the other."""
        of_class: dict[int, list[int]] = {}
        for position, (_, label) in enumerate(self.labels):
            for member in label.members if len(label.members) > 1 else ():
                of_class.setdefault(member, []).append(position)
        pairs = {pair for positions in of_class.values() for pair in combinations(positions, 2)}
        told = set()
        for one_position, other_position in sorted(pairs):
            (index, label), (other_index, other) = self.labels[one_position], self.labels[other_position]
            mine, theirs = set(label.members), set(other.members)
            sets = label.members, other.members
            if mine <= theirs or theirs <= mine or sets in told:
                continue
            told.add(sets)
            names = self.meaning.names
            common = _listed([names[member] for member in sorted(mine & theirs)])
            ways = []
            for number, one, another in ((index, label, other), (other_index, other, label)):
                more = [member for member in another.members if member not in one.members]
                if self._fits(number, one, more):
                    lines = [self._line(number, one, names[member]) for member in more]
                    if not self._own_rows(one):
                        lines.insert(0, self._line(number, one, one.label.name))
                    which = _listed([names[member] for member in more])
                    ways.append((f"If {one.label.name} of {self._dataset(number)} contains {which} too", lines))
            rows = [*label.rows, *other.rows]
            yield self._settle(
                f"{self._called(index, label)} and {self._called(other_index, other)} both stand for {common}, and "
                f"each for more; one must be a part of the other ({self.taxonomy.where(*rows)}).",
                *(ways or [("Correct these lines", [])]),
            )

    def _settle(self, sentence: str, *ways: tuple[str, Sequence[str]]) -> str:
        texts = [f"{way}{', add' if lines else ''}{':' if lines else '.'}" for way, lines in ways]
        blocks = ["\n    ".join([text, *lines]) for text, (_, lines) in zip(texts, ways, strict=True)]
        return "\n  ".join([sentence, *blocks])

    def _own(self, index: int, label: LabelMeaning) -> str:
        """Return the line that says that a label is the class that it is by its name."""
        return self._line(index, label, self.meaning.names[label.members[0]])

    def _line(self, index: int, label: LabelMeaning, name: str) -> str:
        return self.taxonomy.line(self.meaning.sources[index].number, label.label.name, name)

    def _called(self, index: int, label: LabelMeaning) -> str:
        return f"{label.label.name} of {self._dataset(index)}"

    def _dataset(self, index: int) -> str:
        return self.meaning.sources[index].name

    def _own_rows(self, label: LabelMeaning) -> bool:
        """Tell whether the rows of a label name its dataset, so that more rows add to them."""
        return all(row.dataset for row in label.rows)

    def _names_too(self, index: int, label: LabelMeaning) -> bool:
        """Tell whether a dataset has a label of its own for the class of a label of another."""
        return any(label.members == other.members for other in self.meaning.meanings[index])

    def _fits(self, index: int, label: LabelMeaning, members: Sequence[int]) -> bool:
        """Tell whether a label may stand for more classes: no other label of its dataset does, nor its background."""
        others = {m for other in self.meaning.meanings[index] if other.label != label.label for m in other.members}
        if index in self.backgrounds:
            others.update(self.meaning.backgrounds[index])
        return others.isdisjoint(members)


def _sides(label: LabelMeaning) -> Iterator[tuple[object, str]]:
    """Yield what a label is a side of, by its name and by its codes, and the side."""
    sides, rest = sides_and_rest(label.label.name)
    if len(sides) == 1 and rest:
        yield rest, sides[0]
    modifiers = [code for field, code in label.label.codes.items() if code and field.endswith("modifier")]
    found = {code.meaning.casefold() for code in modifiers} & set(SIDES)
    key = code_key(label.label, with_side=False)
    if key is not None and len(found) == 1:
        yield key, found.pop()


def _without_side(label: LabelMeaning) -> list[object]:
    """Return by what a label without a side is compared with those that have one; nothing if it has a side."""
    if any(True for _ in _sides(label)):
        return []
    sides, rest = sides_and_rest(label.label.name)
    key = code_key(label.label)
    return [*([] if sides else [rest]), *([] if key is None else [key])]


def _other_side(name: str, side: str) -> str:
    """Return the name of the same on the other side.

    >>> _other_side("Left-Kidney", "right")
    'Right-Kidney'
    """
    here = SIDES[1 - SIDES.index(side)]
    start = name.casefold().find(here)
    found = name[start : start + len(here)]
    side = side.upper() if found.isupper() else side.capitalize() if found[:1].isupper() else side
    return f"{name[:start]}{side}{name[start + len(here) :]}"


def _inseparable(meaning: Meaning) -> Iterator[str]:
    """Yield classes that a label stands for together, while no dataset has them under two labels."""
    count = len(meaning.names)
    table = np.full((len(meaning.sources), count), _ABSENT)
    alone = np.zeros(count, bool)
    for row, labels, background in zip(table, meaning.meanings, meaning.backgrounds, strict=True):
        row[list(background)] = 0
        for label in labels:
            row[list(label.members)] = label.label.value
            if len(label.members) == 1:
                alone[label.members[0]] = True
    told: set[int] = set()
    for index, labels in enumerate(meaning.meanings):
        for label in labels:
            members = np.array(label.members)
            for member in members[~alone[members]] if len(members) > 1 else ():
                here, others = table[:, member, None], table[:, members]
                apart = ((here != others) & (here != _ABSENT) & (others != _ABSENT)).any(0)
                together = [int(other) for other in members[~apart]]
                if len(together) > 1 and member not in told:
                    told.update(together)
                    names = _listed([meaning.names[other] for other in together])
                    yield (
                        f"Nothing tells {names} apart: {label.label.name} of {meaning.sources[index].name} stands for "
                        "all of them, and no dataset has them under different labels. Make one class of them, or add a "
                        "dataset that does."
                    )


def _listed(names: Sequence[str]) -> str:
    shown = list(names) if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
