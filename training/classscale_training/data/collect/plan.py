"""From what all cases have to the labels of the dataset: their values, what a case lacks, and what overlaps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ClassScaleSegLib.errors import LabelTableError, named
from ClassScaleSegLib.labels.label import Label, segment_color, segment_id
from ClassScaleSegLib.labels.table import LabelTable

from ..dataset_json import HIGHEST
from ..findings import Finding
from ..merged_labels import Merged, SourceDataset
from .cases import Case, listed
from .record import RECORD, Record
from .structures import Structures
from .survey import Survey
from .wanted import Wanted

BACKGROUND, UNLABELLED = "background", "unlabelled"
MISSING = (BACKGROUND, UNLABELLED)
FIRST, LAST = "first", "last"
OVERLAP = (FIRST, LAST)
_MOST_SHOWN = 8  # structures or pairs in one sentence
_MOST_CASES = 3  # of each


@dataclass(frozen=True)
class Rules:
    """What holds where segmentations leave it open.

    :ivar missing: what a structure is in a case that lacks it: ``background``, it is not in the image;
        ``unlabelled``, it may be; ``None``: it is a fault.
    :ivar overlap: which structure wins where several overlap, ``first`` or ``last`` in the order of the labels;
        ``None``: an overlap is a fault.
    """

    missing: str | None = None
    overlap: str | None = None


@dataclass(frozen=True)
class PlannedCase:
    """What becomes of a case.

    :ivar target: its name in the dataset.
    :ivar values: the new value of each value in its segmentation.
    :ivar stamps: of its files, as of :func:`.stamps_of`.
    :ivar filled: new values of the structures that come from another segmentation.
    """

    case: Case
    target: str
    values: Mapping[int, int]
    stamps: Mapping[str, list[Any]]
    filled: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    :ivar table: the labels 1, 2, 3 and so on.
    :ivar new: how many of them, the last ones, an earlier call did not have.
    :ivar groups: the values that the cases of each group have drawn; none unless the dataset is a merged one.
    :ivar merged: what the labels of each group stand for; ``None`` if every case has all structures.
    """

    table: LabelTable
    new: int
    cases: tuple[PlannedCase, ...]
    groups: tuple[frozenset[int], ...] = ()
    merged: Merged | None = None


def make_plan(
    cases: Sequence[Case], surveys: Sequence[Survey], rules: Rules, before: Record, wanted: Wanted | None = None
) -> tuple[Plan, list[Finding]]:
    """Number the structures of all cases.

    Labels of an earlier call keep their values. The others follow in the order of the wanted labels, or else in that in
    which the cases have them. A structure without a voxel in any case gets no label.

    :param surveys: of the cases.
    :param before: the earlier call.
    :param wanted: the only structures that get labels; by default all do.
    :returns: the plan, and what is wrong or worth a warning. A plan with faults must not be carried out.
    """
    return _Planner(cases, surveys, rules, before, wanted).plan()


class _Planner:
    def __init__(
        self, cases: Sequence[Case], surveys: Sequence[Survey], rules: Rules, before: Record, wanted: Wanted | None
    ) -> None:
        self.cases, self.surveys, self.rules, self.before, self.wanted = cases, surveys, rules, before, wanted
        self.findings: list[Finding] = []
        self.structures = Structures()

    def plan(self) -> tuple[Plan, list[Finding]]:
        earlier = len(self.structures.match(self.before.table.foreground))
        allowed = self._allowed(earlier)
        numbers = [self._match(case, survey) for case, survey in zip(self.cases, self.surveys, strict=True)]
        values = self._values(earlier, numbers, allowed)
        own = [{value: values[number] for value, number in found.items() if number in values} for found in numbers]
        table = self._table(values)
        drawn = [
            frozenset(new for value, new in found.items() if value in survey.drawn)
            for found, survey in zip(own, self.surveys, strict=True)
        ]
        forgotten = [table.names[n] for n in range(1, earlier + 1) if not any(n in known for known in drawn)]
        if forgotten and self.before.cases.keys() <= {case.name for case in self.cases}:
            self._fault(
                f"No segmentation has {listed(forgotten)} any more, of the labels that the dataset has. If it has "
                "another name now, allow overwriting (--overwrite) to number the labels anew."
            )
            return Plan(table, 0, ()), self.findings
        self._overlaps(own, table)
        groups, merged, prefixes = self._groups(drawn, table)
        self._default_names(table)
        for other, first in self.structures.alike:
            self._tell(f"{other} is taken for {first}: they have the same codes.")
        filled = [
            tuple(sorted(new for value, new in found.items() if value in survey.filled))
            for found, survey in zip(own, self.surveys, strict=True)
        ]
        planned = [
            PlannedCase(case, f"{prefix}{case.name}", found, survey.stamps, others)
            for case, survey, prefix, found, others in zip(self.cases, self.surveys, prefixes, own, filled, strict=True)
        ]
        return Plan(table, len(values) - earlier, tuple(planned), groups, merged), self.findings

    def _allowed(self, earlier: int) -> set[int] | None:
        """Return which structures may get labels; ``None`` for all."""
        if self.wanted is None:
            return None
        with named(self.wanted.source):
            allowed = set(self.structures.match(self.wanted.table.foreground).values())
        self.structures.close()
        others = [self.structures.labels[number].name for number in range(earlier) if number not in allowed]
        if others:
            self._fault(
                f"The dataset has labels that {self.wanted.source} lacks: {listed(others)}. Name another table, or "
                "allow overwriting (--overwrite) to number the labels anew."
            )
        return allowed | set(range(earlier))

    def _match(self, case: Case, survey: Survey) -> dict[int, int]:
        try:
            with named(case.segmentation):
                return self.structures.match(survey.labels)
        except LabelTableError as error:
            self._fault(str(error))
            return {}

    def _values(self, earlier: int, numbers: Sequence[Mapping[int, int]], allowed: set[int] | None) -> dict[int, int]:
        """Return the label value of each structure that gets one, and tell which do not."""
        occurring: dict[int, list[str]] = {}
        for case, survey, found in zip(self.cases, self.surveys, numbers, strict=True):
            for value in survey.occurs & found.keys():
                occurring.setdefault(found[value], []).append(case.name)
        chosen = [*range(earlier), *sorted(number for number in occurring if number >= earlier)]
        chosen = [number for number in chosen if allowed is None or number in allowed]
        values = {number: value for value, number in enumerate(chosen, 1)}
        names = [label.name for label in self.structures.labels]
        if left_out := [number for number in sorted(occurring) if number not in values]:
            what = [f"{names[number]} ({listed(occurring[number], _MOST_CASES)})" for number in left_out]
            source = self.wanted.source if self.wanted is not None else RECORD
            self._tell(f"Structures that {source} does not name are left out: {listed(what, _MOST_SHOWN)}.")
        never = [names[n] for n in range(len(names)) if n not in occurring and n not in values]
        if never and values:
            self._tell(f"No segmentation has a voxel of {listed(never, _MOST_SHOWN)}: no label for what is nowhere.")
        if not values and not any(finding.error for finding in self.findings):
            self._fault("No segmentation has a voxel of a structure that gets a label. Check the segmentations.")
        if len(values) > HIGHEST:
            self._fault(f"There are {len(values)} structures; nnU-Net can hold {HIGHEST} in its label maps.")
        return values

    def _table(self, values: Mapping[int, int]) -> LabelTable:
        rows, taken = [], dict[str, Label]()
        for number, value in values.items():
            label = self.structures.labels[number]
            other = taken.setdefault(label.name, label)
            if other is not label:
                self._fault(f"Two structures are called {label.name}, and have different codes. Rename one of them.")
                continue
            default = label.color == segment_color(label.value)
            color = segment_color(value) if default else label.color
            rows.append(replace(label, value=value, id=segment_id(value), color=color))
        return LabelTable(tuple(rows))

    def _overlaps(self, own: Sequence[Mapping[int, int]], table: LabelTable) -> None:
        if self.rules.overlap is not None:
            return
        found: dict[tuple[int, int], dict[str, int]] = {}
        for case, survey, values in zip(self.cases, self.surveys, own, strict=True):
            for (one, two), voxels in survey.overlaps.items():
                if one in values and two in values:
                    pair = min(values[one], values[two]), max(values[one], values[two])
                    found.setdefault(pair, {})[case.name] = voxels
        if not found:
            return
        what = [
            f"{one} {table.names.get(one)} and {two} {table.names.get(two)} "
            f"({_voxels(sum(voxels.values()))} in {listed(list(voxels), _MOST_CASES)})"
            for (one, two), voxels in sorted(found.items())
        ]
        self._fault(
            f"Structures overlap, and nnU-Net's label maps have one label a voxel: {listed(what, _MOST_SHOWN)}. Say "
            "which label wins, the first or the last by these numbers: --overlap first, or --overlap last."
        )

    def _default_names(self, table: LabelTable) -> None:
        """Tell that names do not say what a structure is."""
        names = [name for name in table.names.values() if re.fullmatch(r"Segment[_ ]\d+", name)]
        if names and len(self.cases) > 1:
            self._tell(
                f"Slicer calls new segments {listed(names, _MOST_SHOWN)}. Each name is one structure in all cases; "
                "rename the segments if they are different ones."
            )

    def _groups(
        self, drawn: Sequence[frozenset[int]], table: LabelTable
    ) -> tuple[tuple[frozenset[int], ...], Merged | None, list[str]]:
        """Return the groups of cases that have the same structures, what their labels mean, and each case's prefix."""
        every = frozenset(table.names)
        lacking = {case.name: every - known for case, known in zip(self.cases, drawn, strict=True) if known < every}
        plain = (), None, ["" for _ in self.cases]
        if not lacking or self.rules.missing == BACKGROUND:
            return plain
        if self.rules.missing is None:
            self._refuse_missing(lacking, table)
            return plain
        empty = [case.name for case, known in zip(self.cases, drawn, strict=True) if not known]
        if empty:
            self._fault(
                f"None of the structures is drawn in {listed(empty)}, so that nothing can be learned there. Remove the "
                "segmentations."
            )
        groups = [*self.before.groups, *dict.fromkeys(known for known in drawn if known not in self.before.groups)]
        numbers = [groups.index(known) for known in drawn]
        datasets = []
        for number in sorted(set(numbers)):
            known, names = groups[number], table.names
            without = [names[value] for value in sorted(every - known)]
            labels = {0: (0, *sorted(every - known)), **{value: (value,) for value in sorted(known)}}
            what = f"without {listed(without, _MOST_CASES)}" if without else "all structures"
            name = f"{group_prefix(number)[:-1]} ({what})"
            datasets.append(SourceDataset(name, group_prefix(number), float(numbers.count(number)), labels))
        merged = Merged((BACKGROUND, *table.names.values()), (), None, tuple(datasets))
        return tuple(groups), merged, [group_prefix(number) for number in numbers]

    def _refuse_missing(self, lacking: Mapping[str, frozenset[int]], table: LabelTable) -> None:
        of_structure: dict[int, list[str]] = {}
        for case, values in lacking.items():
            for value in values:
                of_structure.setdefault(value, []).append(case)
        what = [f"{table.names[value]} ({listed(of_structure[value], _MOST_CASES)})" for value in sorted(of_structure)]
        self._fault(
            f"{len(lacking)} of {len(self.cases)} segmentations lack structures: {listed(what, _MOST_SHOWN)}. If they "
            "are not in these images, add empty segments of these names, or say so with --missing background. If they "
            "may be there but were not drawn, say --missing unlabelled."
        )

    def _tell(self, sentence: str) -> None:
        self.findings.append(Finding(sentence))

    def _fault(self, sentence: str) -> None:
        self.findings.append(Finding(sentence, LabelTableError))


def _voxels(count: int) -> str:
    return f"{count:,} voxel{'s' * (count != 1)}"


def group_prefix(group: int) -> str:
    """Return what the names of the cases of a group begin with, if what they lack may be there.

    :param group: its number, from 0.
    """
    return f"g{group + 1:03d}_"
