"""Comparisons of many cases: what they say of each structure, and one file of all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .comparison import COLUMNS, DIGITS, ClassComparison, cells
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


def with_misses(
    cases: Mapping[str, Sequence[ClassComparison]],
) -> tuple[dict[str, list[ClassComparison]], dict[str, list[str]]]:
    """Count structures that the second segmentation of a case lacks, but has in other cases, as missed: Dice 0.

    Formats such as ``.seg.nrrd`` list only what was found. A second segmentation that missed a structure, or is empty,
    would otherwise not count. The other way round nothing changes: what a reference lacks may not have been drawn.

    :param cases: the rows of each case, by its name.
    :returns: the rows with these changes; the names of the structures that were missed, by case.

    >>> both, alone = ClassComparison("liver", 1, 1, 0.9, 10.0, 9.0), ClassComparison("liver", 1, None, None, 8.0, None)
    >>> rows, missed = with_misses({"a": [both], "b": [alone]})
    >>> rows["b"][0].dice, missed
    (0.0, {'b': ['liver']})
    """
    known = {row.name for rows in cases.values() for row in rows if row.dice is not None}
    found: dict[str, list[ClassComparison]] = {}
    missed: dict[str, list[str]] = {}
    for case, rows in cases.items():
        times = Counter(row.name for row in rows)
        found[case] = []
        for row in rows:
            # a name that several structures of the case have decides nothing
            if row.volume_ml and row.dice is None and row.name in known and times[row.name] == 1:
                row = row._replace(dice=0.0, other_volume_ml=0.0)
                missed.setdefault(case, []).append(row.name)
            found[case].append(row)
    return found, missed


def mean_dice(structures: Iterable[StructureSummary]) -> float | None:
    """Return the mean over the structures that have a Dice; ``None`` if there are none."""
    known = [structure.dice for structure in structures if structure.dice is not None]
    return math.fsum(known) / len(known) if known else None


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
