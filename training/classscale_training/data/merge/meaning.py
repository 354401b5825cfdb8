"""Find what the labels of several datasets mean: the classes of all of them, and those that each label stands for."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from ClassScaleSegLib.errors import LabelTableError
from ClassScaleSegLib.labels.label import Label

from ..findings import Finding, report
from .class_names import ClassNames, words
from .source import Source, source_called
from .taxonomy import Row, Taxonomy

_BACKGROUND, _IGNORE = ("background",), ("ignore",)
Words = tuple[str, ...]


@dataclass(frozen=True)
class LabelMeaning:
    """What a label other than the background stands for.

    :ivar label: of the dataset, with its value there.
    :ivar members: its classes; ``(0,)`` if its voxels count as background.
    :ivar rows: of the taxonomy that say so; none if the label is a class by its name or its codes.
    """

    label: Label
    members: tuple[int, ...]
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Meaning:
    """The classes of D datasets, and what the labels of each stand for.

    :ivar sources: the datasets.
    :ivar names: of the C classes, the background first, the others in the order in which they appear.
    :ivar meanings: for each dataset its labels without the background, in ascending order of their values.
    :ivar backgrounds: for each dataset the classes that its background contains, class 0 first.
    """

    sources: tuple[Source, ...]
    names: tuple[str, ...]
    meanings: tuple[tuple[LabelMeaning, ...], ...]
    backgrounds: tuple[tuple[int, ...], ...]


def resolve(sources: Sequence[Source], taxonomy: Taxonomy = Taxonomy()) -> Meaning:
    """Find what all labels mean.

    A label that the taxonomy does not mention is a class. It is the same as that of another dataset if the names are
    the same, apart from case, spaces, underscores, hyphens and the place of "left" and "right", or else the codes. The
    background of a dataset contains all classes that none of its labels stands for, unless the taxonomy says what it
    contains.

    :raises LabelTableError: if the taxonomy names what does not exist, contradicts itself, or puts a class under two
        labels of a dataset. All faults are in the message.

    >>> from pathlib import Path
    >>> from ClassScaleSegLib.labels.table import LabelTable
    >>> names = {0: "background", 1: "left kidney", 2: "right kidney"}, {0: "background", 1: "liver", 2: "kidney"}
    >>> sources = [Source(n, Path(f"Dataset00{n}_A"), LabelTable.from_names(names[n])) for n in (0, 1)]
    >>> csv = b"dataset,label,class\\n1,kidney,left kidney\\n1,kidney,right kidney\\n"
    >>> meaning = resolve(sources, Taxonomy.parse(csv, "kidneys.csv"))
    >>> meaning.names
    ('background', 'left kidney', 'right kidney', 'liver')
    >>> [label.members for label in meaning.meanings[1]], meaning.backgrounds
    ([(3,), (1, 2)], ((0, 3), (0,)))
    """
    return _Resolver(sources, taxonomy).resolve()


class _Resolver:
    """The steps of :func:`resolve`; classes have preliminary numbers until the last one."""

    def __init__(self, sources: Sequence[Source], taxonomy: Taxonomy) -> None:
        self.sources, self.taxonomy = tuple(sources), taxonomy
        self.findings: list[Finding] = []
        self.rows: dict[tuple[int, int], list[Row]] = {}  # by dataset and label value
        self.groups: dict[Words, list[Row]] = {}  # for all datasets, by the words of the label
        self.declared: dict[Words, Row] = {}  # a class that stands for itself
        self.expanded: dict[Words, tuple[int, ...]] = {}
        self.mentioned: dict[int, Row] = {}  # the row that mentions a class
        self.classes = ClassNames()
        self.classes.add("background")
        self.spelled: dict[Words, list[str]] = {}  # labels that the taxonomy says something of

    def resolve(self) -> Meaning:
        for row in self.taxonomy.rows:
            self._sort(row)
        self._declare()
        found = [self.classes.match(self._unmentioned(index)) for index in range(len(self.sources))]
        self._expand()
        self._report()
        meanings = [self._labels(index, classes) for index, classes in enumerate(found)]
        backgrounds = [self._background(index) for index in range(len(self.sources))]
        self._report()
        numbers = {0: 0}
        for labels in meanings:
            for label in labels:
                for member in label.members:
                    numbers.setdefault(member, len(numbers))
        for member in (member for background in backgrounds for member in background or ()):
            if member not in numbers:
                self._fault(
                    f"the class {self.classes.names[member]} is in the background alone: no label of the datasets "
                    "stands for it, so that nothing can teach it. Remove the line.",
                    self.mentioned[member],
                )
        self._report()
        order = sorted(numbers, key=numbers.__getitem__)
        numbered = [[_renumbered(label, numbers) for label in labels] for labels in meanings]
        return Meaning(
            self.sources,
            tuple(self.classes.names[number] for number in order),
            tuple(map(tuple, numbered)),
            tuple(
                self._contents(index, numbered[index], given and [numbers[member] for member in given], len(order))
                for index, given in enumerate(backgrounds)
            ),
        )

    def _sort(self, row: Row) -> None:
        """Put a row where it belongs; find out whether dataset and label exist."""
        if words(row.member) == _IGNORE:
            self._fault("ignore cannot be a class: it marks voxels that do not count. Use another name.", row)
        elif not row.label:
            self._dataset(row)
        elif not row.dataset:
            self.groups.setdefault(words(row.label), []).append(row)
        else:
            index = self._dataset(row)
            if index is not None:
                several = [label.name for label in self.sources[index].table.lookup(row.label)]
                if len(several) > 1:
                    names = " and ".join(several)
                    self._fault(f"{self.sources[index].name} has {names}. Write the name exactly as one of them.", row)
                    return
                try:
                    value = self.sources[index].table.by_name(row.label).value
                    self.rows.setdefault((index, value), []).append(row)
                except LabelTableError as error:
                    self._fault(f"{self.sources[index].name}: {error}", row)

    def _dataset(self, row: Row) -> int | None:
        source = source_called(self.sources, row.dataset)
        if source is not None:
            return self.sources.index(source)
        names = ", ".join(source.name for source in self.sources)
        self._fault(f"the dataset {row.dataset} is not among those to be merged ({names}). Correct or remove it.", row)
        return None

    def _declare(self) -> None:
        for name, rows in list(self.groups.items()):
            if len(rows) == 1 and words(rows[0].member) == name and name != _BACKGROUND:
                self.declared[name] = rows[0]
                self.classes.add(rows[0].member)
                del self.groups[name]

    def _unmentioned(self, index: int) -> list[Label]:
        """Return the labels of a dataset of which the taxonomy says nothing."""
        rest = []
        for label in self.sources[index].table.foreground:
            name = words(label.name)
            if (index, label.value) in self.rows or name in self.groups:
                self.spelled.setdefault(name, []).append(label.name)
            else:
                rest.append(label)
        return rest

    def _expand(self) -> None:
        """Find the classes of the labels without a dataset."""
        labels = {words(label.name) for source in self.sources for label in source.table.foreground} | {_BACKGROUND}
        times = Counter(words(row.member) for row in self.taxonomy.rows)
        for name, rows in (*self.groups.items(), *((name, [row]) for name, row in self.declared.items())):
            if name not in labels and times[name] == sum(words(row.member) == name for row in rows):
                self._fault(
                    f"no dataset has a label {rows[0].label}, and no other line names it"
                    f"{self._near(rows[0].label)}. Correct or remove it.",
                    *rows,
                )
        graph = {name: {words(row.member) for row in rows} & set(self.groups) for name, rows in self.groups.items()}
        graph[_BACKGROUND] = graph.get(_BACKGROUND, set()) - {_BACKGROUND}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = error.args[1][::-1]
            rows = [row for name in circle[1:] for row in self.groups[name] if words(row.member) in circle]
            names = " > ".join(self.groups[name][0].label for name in circle)
            self._fault(f"{names} is a circle: a label cannot stand for itself. Correct one of the lines.", *rows)
            return
        for name in order:
            self.expanded[name] = self._members(self.groups.get(name, []))

    def _members(self, rows: Sequence[Row]) -> tuple[int, ...]:
        """Return the classes that rows name, in the order of the rows."""
        members: dict[int, Row] = {}
        for row in rows:
            name = words(row.member)
            if name == _BACKGROUND:
                found: Sequence[int] = (0,)
            elif name in self.expanded:
                found = self.expanded[name]
            else:
                found = self._called(row.member)
                if len(found) > 1:
                    several = " and ".join(self.classes.names[number] for number in found)
                    self._fault(f"the class {row.member} may be {several}. Write it exactly as one of them.", row)
                elif not found:
                    self._fault(
                        f"no dataset has a label {row.member}{self._near(row.member)}. If it is the name of a class "
                        f"all the same, add the line {self.taxonomy.line('', row.member, row.member)}",
                        row,
                    )
            for number in found:
                members.setdefault(number, row)
                self.mentioned.setdefault(number, row)
        return tuple(members)

    def _called(self, name: str) -> Sequence[int]:
        """Return the classes with a name: one that is there, or else a new one with the name of a label."""
        found, spelled = self.classes.exactly(name), self.spelled.get(words(name), [])
        if not found and name in spelled:
            return (self.classes.add(name),)
        found = found or self.classes.with_words_of(name)
        return found or ((self.classes.add(spelled[0]),) if spelled else ())

    def _labels(self, index: int, classes: dict[int, int]) -> list[LabelMeaning]:
        """Return what the labels of a dataset stand for, without the background."""
        meanings, labels = [], dict[int, LabelMeaning]()
        for label in self.sources[index].table.foreground:
            rows = self.rows.get((index, label.value), [])
            if rows:
                members = self._members(rows)
            elif label.value in classes:
                members = (classes[label.value],)
            else:
                rows, members = self.groups[words(label.name)], self.expanded[words(label.name)]
            meaning = LabelMeaning(label, members, tuple(rows))
            if 0 in members and len(members) > 1:
                self._fault(
                    f"{label.name} of {self.sources[index].name} stands for the background and for "
                    f"{self.classes.names[max(members)]}. Remove one of the lines.",
                    *rows,
                )
            for member in members:
                first = labels.setdefault(member, meaning)
                if first is not meaning and member != 0:
                    self._fault(
                        f"{self.sources[index].name} has {self.classes.names[member]} under the labels "
                        f"{first.label.name} and {label.name}; only one may stand for it. Correct the lines.",
                        *first.rows,
                        *rows,
                    )
            meanings.append(meaning)
        return meanings

    def _background(self, index: int) -> tuple[int, ...] | None:
        """Return the classes that the rows say the background contains; ``None`` if there are none."""
        rows = self.rows.get((index, 0)) or self.groups.get(_BACKGROUND)
        return self._members(rows) if rows else None

    def _contents(
        self, index: int, labels: Sequence[LabelMeaning], given: Sequence[int] | None, count: int
    ) -> tuple[int, ...]:
        """Return the classes that the background of a dataset contains."""
        of_class = {member: label for label in labels for member in label.members if member}
        if given is None:
            return tuple(number for number in range(count) if number not in of_class)
        rows = self.rows.get((index, 0)) or self.groups.get(_BACKGROUND, [])
        for number in given:
            if number in of_class:
                self._fault(
                    f"{self.sources[index].name} has a class in its background for which its label "
                    f"{of_class[number].label.name} stands. Remove one of the lines.",
                    *rows,
                )
        self._report()
        return (0, *sorted(set(given) - {0}))

    def _near(self, name: str) -> str:
        """Return a question that names similar labels."""
        labels = (label for source in self.sources for label in source.table.foreground)
        known = {" ".join(words(label.name)): label.name for label in labels}
        near = difflib.get_close_matches(" ".join(words(name)), known, n=3, cutoff=0.5)
        return f" (did you mean {', '.join(known[key] for key in near)}?)" if near else ""

    def _fault(self, sentence: str, *rows: Row) -> None:
        place = f"{self.taxonomy.where(*rows)}: " if rows else ""
        finding = Finding(f"{place}{sentence}", LabelTableError)
        if finding not in self.findings:
            self.findings.append(finding)

    def _report(self) -> None:
        report(self.taxonomy.file, self.findings)


def _renumbered(label: LabelMeaning, numbers: dict[int, int]) -> LabelMeaning:
    return LabelMeaning(label.label, tuple(sorted(numbers[member] for member in label.members)), label.rows)
