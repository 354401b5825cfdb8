"""Comparisons of many cases: what they say of each structure, and one file of all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from .comparison import COLUMNS, DIGITS, ClassComparison, Comparison, cells
from .tables import write_table


class StructureSummary(NamedTuple):
    """What the comparisons of several cases say of one structure.

    :ivar name: of the structure, in the reference.
    :ivar cases: how many have a Dice of it.
    :ivar dice: the mean over these; ``None`` if there are none.
    :ivar least: the least Dice.
    :ivar least_case: the case with the least Dice.
    :ivar difference_ml: how much larger it is than in the reference, mL, the mean over the same cases.
    """

    name: str
    cases: int
    dice: float | None
    least: float | None
    least_case: str | None
    difference_ml: float | None


def summarize_comparisons(cases: Mapping[str, Iterable[ClassComparison]]) -> list[StructureSummary]:
    """Return a summary of each structure, in the order in which the cases name them.

    :param cases: the rows of each case, by its name.

    >>> rows = [ClassComparison("liver", 1, 1, dice, 10.0, 12.0) for dice in (0.5, 1.0)]
    >>> (liver,) = summarize_comparisons({"a": rows[:1], "b": rows[1:]})
    >>> liver.cases, liver.dice, liver.least_case, liver.difference_ml
    (2, 0.75, 'a', 2.0)
    """
    found: dict[str, list[tuple[str, ClassComparison]]] = {}
    for case, rows in cases.items():
        for row in rows:
            found.setdefault(row.name, []).append((case, row))
    return [_summary(name, rows) for name, rows in found.items()]


class GatheredCases:
    """The comparisons of many cases, each seen in the light of all others.

    Formats such as ``.seg.nrrd`` list only what was found. Therefore a structure that a case of the second folder
    lacks, but another case there names, was missed: its Dice is 0. What the reference lacks may not have been drawn:
    it has no Dice, and gets the name that it has in the reference of another case, if one has it.

    >>> keys = ({"liver": 1}, {"liver": 1})
    >>> gathered = GatheredCases()
    >>> gathered.add("a", Comparison([ClassComparison("liver", 1, 1, 0.9, 10.0, 9.0)], False, keys))
    >>> gathered.add("b", Comparison([ClassComparison("liver", 1, None, None, 8.0, None)], False, (keys[0], {})))
    >>> gathered.add("c", Comparison([ClassComparison("Liver", None, 1, None, None, 9.0)], False, ({}, keys[1])))
    >>> found = gathered.found()
    >>> found.rows["b"][0].dice, found.missed, found.rows["c"][0].name, found.undrawn
    (0.0, {'b': ['liver']}, 'liver', {'c': ['liver']})
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[ClassComparison]] = {}
        self._alone: dict[str, dict[int, list[object]]] = {}  # of each case the keys of rows of one side alone
        self._drawn: dict[object, str] = {}  # the name in the reference of the first case that has the class
        self._named: set[object] = set()  # the keys of all classes in the second folder

    def add(self, case: str, comparison: Comparison) -> None:
        """Add the comparison of a case."""
        drawn, named = comparison.keys
        names = {row.value: row.name for row in comparison.rows if row.value is not None}
        for key, value in drawn.items():
            self._drawn.setdefault(key, names[value])
        self._named.update(named)
        alone = self._alone[case] = {}
        for index, row in enumerate(comparison.rows):
            if row.value is None or row.other_value is None:
                keys, wanted = (named, row.other_value) if row.value is None else (drawn, row.value)
                alone[index] = [key for key, value in keys.items() if value == wanted]
                if row.value is not None and not comparison.shared.isdisjoint(alone[index]):
                    del alone[index]  # it was found, in several classes, of which none is certain to be it
        self._rows[case] = list(comparison.rows)

    def found(self, together: bool = True) -> Found:
        """Return what all cases say.

        :param together: in the light of all others; otherwise what each says by itself.
        """
        rows = {case: list(own) for case, own in self._rows.items()}
        if not together:
            return Found(rows, {}, {})
        missed: dict[str, list[str]] = {}
        undrawn: dict[str, list[str]] = {}
        for case, alone in self._alone.items():
            drawn = {row.name for row in rows[case] if row.value is not None}
            for index, keys in alone.items():
                row = rows[case][index]
                if row.value is not None:
                    if not self._named.isdisjoint(keys):
                        rows[case][index] = row._replace(dice=0.0, other_volume_ml=0.0)
                    continue
                name = next((self._drawn[key] for key in keys if key in self._drawn), None)
                if name is not None and name not in drawn:
                    rows[case][index] = row._replace(name=name)
                    undrawn.setdefault(case, []).append(name)
        for case, own in rows.items():
            if names := [row.name for row in own if row.dice is not None and not row.other_volume_ml]:
                missed[case] = names
        return Found(rows, missed, undrawn)


class Found(NamedTuple):
    """What :class:`GatheredCases` returns.

    :ivar rows: of each case.
    :ivar missed: by case, the names of structures that the reference has, and the second folder has in other cases or
        names here.
    :ivar undrawn: by case, the names of structures that the reference has in other cases, and the second folder here.
    """

    rows: dict[str, list[ClassComparison]]
    missed: dict[str, list[str]]
    undrawn: dict[str, list[str]]


def least_agreement(rows: Iterable[ClassComparison], undrawn: Collection[str]) -> tuple[str, float | None]:
    """Return the structure in which two segmentations of a case agree least, and its Dice; ``("", None)`` if none is.

    A structure that only the second one has counts as 0, if the first one has it in other cases.

    :param undrawn: names of such structures, as of :class:`Found`.

    >>> rows = [ClassComparison("liver", 1, 1, 0.9, 10.0, 9.0), ClassComparison("tumour", None, 2, None, None, 1.0)]
    >>> least_agreement(rows, ()), least_agreement(rows, ["tumour"])
    (('liver', 0.9), ('tumour', 0.0))
    """
    found = [(row.name, row.dice) for row in rows if row.dice is not None]
    found += [(name, 0.0) for name in undrawn]
    return min(found, key=lambda each: each[1], default=("", None))


def mean_dice(structures: Iterable[StructureSummary]) -> float | None:
    """Return the mean over the structures that have a Dice; ``None`` if there are none."""
    known = [structure.dice for structure in structures if structure.dice is not None]
    return math.fsum(known) / len(known) if known else None


def dice_deviations(cases: Mapping[str, Iterable[ClassComparison]]) -> dict[str, float]:
    """Return the standard deviation of the Dice of each structure over the cases that have one, if these are several.

    :param cases: as of :func:`summarize_comparisons`.
    :returns: by the name of the structure; of the sample, so the sum of squares is divided by one less than the cases.

    >>> rows = [ClassComparison("liver", 1, 1, dice, 10.0, 12.0) for dice in (0.5, 1.0)]
    >>> round(dice_deviations({"a": rows[:1], "b": rows[1:]})["liver"], 3)
    0.354
    """
    known: dict[str, list[float]] = {}
    for rows in cases.values():
        for row in rows:
            if row.dice is not None:
                known.setdefault(row.name, []).append(row.dice)
    return {name: statistics.stdev(values) for name, values in known.items() if len(values) > 1}


def write_comparisons(
    path: str | Path, cases: Mapping[str, Iterable[ClassComparison]], overwrite: bool = False
) -> None:
    """Write the comparisons of all cases as one ``.csv`` or ``.xlsx``, the case in the first column.

    :raises OutputExistsError: if the file exists and ``overwrite`` is false.
    :raises OutputError: if it cannot be written.
    """
    lines = ([case, *cells(row)] for case, rows in cases.items() for row in rows)
    write_table(path, ("Case", *COLUMNS), lines, overwrite, DIGITS)


def _summary(name: str, rows: list[tuple[str, ClassComparison]]) -> StructureSummary:
    known = [(row.dice, case, row.difference_ml) for case, row in rows if row.dice is not None]
    if not known:
        return StructureSummary(name, 0, None, None, None, None)
    least, least_case, _difference = min(known, key=lambda one: one[0])
    differences = [difference for _dice, _case, difference in known if difference is not None]
    mean = math.fsum(dice for dice, _case, _difference in known) / len(known)
    return StructureSummary(name, len(known), mean, least, least_case, math.fsum(differences) / len(differences))
