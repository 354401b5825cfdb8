"""What ``classscaleseg compare`` prints: tables with a line for each structure, and a sentence on all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..images.comparison import ClassComparison
from ..images.comparison_summary import StructureSummary, mean_dice, summarize_comparisons
from ..images.several_comparisons import StructureDices, mean_dices, summarize_several
from ..labels.label import one_line

_MOST_NAMES = 20  # of cases without a counterpart
_LONGEST_NAME = 60  # letters; in the table that is written, names are whole


def comparison_lines(cases: Mapping[str, Sequence[ClassComparison]], several: bool) -> list[str]:
    """Return the lines of a comparison, at least one case of which was compared.

    :param several: of folders: each structure has its mean over the cases.
    """
    summary = sorted(summarize_comparisons(cases), key=lambda row: row.dice is None)
    title: tuple[str, ...]
    if several:
        title = ("structure", "cases", "mean Dice", "least Dice", "of case", "mean difference mL")
        rows = [_cells(row.name, row.cases, row.dice, row.least, row.least_case, row.difference_ml) for row in summary]
    else:
        title = ("structure", "Dice", "mL", "other mL", "difference mL")
        every = sorted((row for rows in cases.values() for row in rows), key=lambda row: row.dice is None)
        rows = [_cells(row.name, row.dice, row.volume_ml, row.other_volume_ml, row.difference_ml) for row in every]
    return [*_table([title, *rows]), _sentence(summary, len(cases), several)]


def several_lines(
    names: Sequence[str], others: Sequence[Mapping[str, Sequence[ClassComparison]]], several: bool
) -> list[str]:
    """Return the lines of several comparisons with the same reference, of the same cases, at least one.

    Of two there is also the change from the first to the second one.

    :param names: of each, the title of its column.
    """
    summary = sorted(summarize_several(others), key=lambda row: row.cases == 0)
    two = len(others) == 2
    title = ("structure", *("cases",) * several, *names, *("change",) * two)
    rows = [
        _cells(row.name, *(row.cases,) * several, *row.dice)
        + ("" if row.change is None else f"{_rounded(row.change):+.3f}",) * two
        for row in summary
    ]
    return [*_table([tuple(map(_short, title)), *rows]), *_sentences(names, summary, len(others[0]), several)]


def no_comparison_line(paired: bool) -> str:
    """Return the line that says that nothing was compared.

    :param paired: whether a case was in both folders.
    """
    if paired:
        return "No case could be compared."
    return "No case is in all folders. Give the files of one case the same name in each."


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return short names of files or folders, all different: as much of the end of each path as it takes.

    >>> distinct_names([Path("a/old/x.seg.nrrd"), Path("a/new/x.seg.nrrd")])
    ['old/x.seg.nrrd', 'new/x.seg.nrrd']
    >>> distinct_names([Path("old"), Path("b/new")]), distinct_names([Path("a"), Path("a")])
    (['old', 'new'], ['a', 'a (2)'])
    """
    parts = [path.absolute().parts for path in paths]
    longest = max(map(len, parts))
    for count in range(1, longest + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    seen: list[str] = []
    for path in paths:  # some are the same
        before = sum(path == other for other in paths[: len(seen)])
        seen.append(f"{path}" + f" ({before + 1})" * bool(before))
    return seen


def lacking_line(what: str, lacking: Mapping[str, Sequence[str]]) -> str:
    """Return a sentence on structures that cases lack.

    :param lacking: the names of structures by the case.
    """
    listed = [f"{_short(case)} ({', '.join(map(_short, own[:3]))})" for case, own in lacking.items()]
    return f"{what}: {_some(listed)}"


def some_names(names: Sequence[str]) -> str:
    """Return names of cases as a list in a sentence."""
    return _some(list(map(_short, names)))


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _MOST_NAMES} more" * (len(items) > _MOST_NAMES)
    return ", ".join(items[:_MOST_NAMES]) + more


def _cells(*values: str | float | None) -> tuple[str, ...]:
    return tuple("" if v is None else f"{v:.3f}" if isinstance(v, float) else _short(str(v)) for v in values)


def _short(name: str) -> str:
    """Return a name as a line of the table can hold it: of a damaged file it may have thousands of letters."""
    name = one_line(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _table(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    """Yield lines of columns: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def _sentence(summary: list[StructureSummary], cases: int, several: bool) -> str:
    mean, compared = mean_dice(summary), sum(row.dice is not None for row in summary)
    if mean is None:
        return "No structure is in both."
    of = f" of {_counted(cases, 'case')}" if several else ""
    alone = len(summary) - compared
    rest = f"; {alone} more {'are' if alone != 1 else 'is'} on one side alone" if alone else ""
    return f"Mean Dice {mean:.3f} over {_counted(compared, 'structure')}{of}{rest}."


def _sentences(names: Sequence[str], summary: list[StructureDices], cases: int, several: bool) -> list[str]:
    count, means = mean_dices(summary)
    if not count:
        return ["No structure is in all of them."]
    of = f" of {_counted(cases, 'case')}" if several else ""
    each = ", ".join(f"{_short(name)} {mean:.3f}" for name, mean in zip(names, means, strict=True))
    said = [f"Mean Dice over the {_counted(count, 'structure')}{of} that all of them have: {each}."]
    if len(names) == 2:
        changes = [_rounded(row.change) for row in summary if row.change is not None]
        better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        said.append(f"{_short(names[1])} is better in {better}, worse in {worse}, and the same in the others.")
    return said


def _rounded(change: float) -> float:
    """Return a change as it is shown; never -0."""
    return round(change, 3) + 0.0


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
