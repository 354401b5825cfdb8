"""Compare several segmentations with the same reference, structure by structure, by the cases that all of them have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .comparison import COLUMNS, DIGITS, ClassComparison, cells
from .comparison_summary import mean_dice, summarize_comparisons
from .tables import write_table


class StructureDices(NamedTuple):
    """How well several segmentations, such as those of several models, know one structure.

    :ivar name: of the structure, in the reference.
    :ivar cases: how many count: those in which each of them that knows the structure has a Dice of it.
    :ivar dice: of each the mean over these cases; ``None`` if it does not know the structure.
    """

    name: str
    cases: int
    dice: tuple[float | None, ...]

    @property
    def change(self) -> float | None:
        """By how much the last Dice is higher than the first one; ``None`` if one of both is not known."""
        first, last = self.dice[0], self.dice[-1]
        return None if first is None or last is None else last - first


def summarize_several(others: Sequence[Mapping[str, Iterable[ClassComparison]]]) -> list[StructureDices]:
    """Return how well each knows each structure that the reference has in any case, in the order of the cases.

    :param others: of each, the rows of each case by its name, which all come from the same reference.

    >>> rows = [ClassComparison("liver", 1, 1, dice, 10.0, 12.0) for dice in (0.5, 1.0, 0.75)]
    >>> cyst = ClassComparison("cyst", 2, None, None, 1.0, None)
    >>> before, now = {"a": [rows[0], cyst], "b": [rows[1]]}, {"a": [rows[2], cyst], "b": [rows[1]]}
    >>> summarize_several([before, now])
    [StructureDices(name='liver', cases=2, dice=(0.75, 0.875)), StructureDices(name='cyst', cases=0, dice=(None, None))]
    """
    found: dict[str, list[dict[str, float]]] = {}  # of each structure, for each the Dice of each case
    for index, cases in enumerate(others):
        for case, rows in cases.items():
            for row in rows:
                if row.value is not None:
                    of_all = found.setdefault(row.name, [{} for _ in others])
                    if row.dice is not None:
                        of_all[index][case] = row.dice
    return [_summary(name, dices) for name, dices in found.items()]


def mean_dices(structures: Sequence[StructureDices]) -> tuple[int, tuple[float, ...]]:
    """Return how many structures all of them know, and of each the mean Dice over these; no means if there are none."""
    known = [[dice for dice in structure.dice if dice is not None] for structure in structures]
    shared = [own for own, structure in zip(known, structures, strict=True) if len(own) == len(structure.dice)]
    return len(shared), tuple(math.fsum(dices) / len(shared) for dices in zip(*shared, strict=True))


def facts_of_several(others: Sequence[Mapping[str, Sequence[ClassComparison]]]) -> dict[str, Any]:
    """Return the figures as for JSON; lists have an item for each of the others.

    ``mean_dice`` is over the structures that each knows, ``mean_dice_of_all`` over those that all know.

    :param others: as of :func:`summarize_several`.
    """
    structures = summarize_several(others)
    count, means = mean_dices(structures)
    return {
        "structures": [structure._asdict() for structure in structures],
        "mean_dice": [mean_dice(summarize_comparisons(cases)) for cases in others],
        "structures_of_all": count,
        "mean_dice_of_all": list(means),
    }


def write_several_comparisons(
    path: str | Path, others: Mapping[str, Mapping[str, Iterable[ClassComparison]]], overwrite: bool = False
) -> None:
    """Write the comparisons of all cases with each of several others as one ``.csv`` or ``.xlsx``.

    :param others: the rows of each case by its name, by the name of the other.
    :raises OutputExistsError: if the file exists and ``overwrite`` is false.
    :raises OutputError: if it cannot be written.
    """
    lines = (
        [case, other, *cells(row)] for other, cases in others.items() for case, rows in cases.items() for row in rows
    )
    write_table(path, ("Case", "Other", *COLUMNS), lines, overwrite, DIGITS)


def _summary(name: str, dices: list[dict[str, float]]) -> StructureDices:
    known = [of_cases for of_cases in dices if of_cases]
    cases = [case for case in (known[0] if known else ()) if all(case in of_cases for of_cases in known)]
    if not cases:
        return StructureDices(name, 0, (None,) * len(dices))
    means = (math.fsum(own[case] for case in cases) / len(cases) if own else None for own in dices)
    return StructureDices(name, len(cases), tuple(means))
