"""``classscaleseg compare``: segmentations of one case, or of many, beside those that they should be like."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError, ImageError
from ..files import refuse_replacing
from ..images.comparison import ClassComparison, compare
from ..images.comparison_summary import (
    Found,
    GatheredCases,
    StructureSummary,
    mean_dice,
    summarize_comparisons,
    write_comparisons,
)
from ..images.dicom.headers import is_dicom_seg
from ..images.formats import check_writable
from ..images.paired_cases import Pairs, find_images, find_pairs
from ..images.paired_reading import is_drawn, read_pair
from ..images.tables import TABLE_SUFFIXES
from ..labels.label import one_line
from ..labels.table import LabelTable
from ..process.exit_codes import ExitCode, exit_code
from .reporting import Reporter

_MOST_NAMES = 20  # of cases without a counterpart
_LONGEST_NAME = 60  # letters; in the table that is written, names are whole


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg compare``."""
    text = (
        "segmentation that counts as right: .seg.nrrd, a DICOM segmentation or RT structure set, or a label image; or "
        "a folder of them"
    )
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help=text)
    text = "segmentation to compare with it; or a folder, whose files have the names of those in REFERENCE"
    parser.add_argument("other", type=Path, metavar="OTHER", help=text)
    text = "write a table of all cases and structures, as .csv or .xlsx"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=text)
    text = "label table or colour table of REFERENCE (default: its own names, or those of a table beside it)"
    parser.add_argument("--labels", type=Path, metavar="TABLE", help=text)
    parser.add_argument("--other-labels", type=Path, metavar="TABLE", help="the same of OTHER")
    text = (
        "image or DICOM folder on whose grid structure sets are filled, and whose slices a DICOM segmentation has that "
        "leaves out some; with folders, the folder of the images, which have the names of the cases (default: the grid "
        "of the other segmentation)"
    )
    parser.add_argument("--grid", type=Path, metavar="IMAGE", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def compare_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Compare segmentations with those that they should be like: Dice and both volumes of each structure.

    :returns: ``SOME_FAILED`` if a case of several could not be compared, or has no counterpart.
    :raises ClassScaleError: if nothing can be compared, or the table not be written.
    """
    if options.output is not None:
        check_writable(options.output, options.overwrite, TABLE_SUFFIXES)
        refuse_replacing(options.output, filter(None, (options.labels, options.other_labels)))
    one, two = (None if file is None else LabelTable.from_file(file) for file in (options.labels, options.other_labels))
    found = find_pairs(options.reference, options.other)
    if options.grid is not None and not options.grid.exists():
        raise ImageError(f"{options.grid} does not exist.")
    gathered, cases = GatheredCases(), dict[str, list[ClassComparison]]()
    fault: ClassScaleError | None = None
    notices: dict[str, tuple[str, ...]] = {}
    images = find_images(options.grid) if options.grid is not None and found.several else None
    bar = _bar(found)
    for pair in bar:
        try:
            grid = options.grid
            if images is not None:
                both = pair.reference, pair.other
                needed = any(map(is_drawn, both)) or any(map(is_dicom_seg, both))
                grid = _only_image(images, pair.name, options.grid) if needed else None
            read = read_pair(pair, (one, two), grid)
            notices[pair.name] = read.notices
            comparison = compare(read.reference, read.other)
            cases[pair.name] = comparison.rows
            gathered.add(pair.name, comparison)
        except ClassScaleError as error:
            if not found.several:
                raise
            fault = error
            bar.clear()
            reporter.error(error)
        if notices.get(pair.name):
            bar.clear()
        for notice in notices.get(pair.name, ()):
            reporter.message(notice)
    together = gathered.found() if found.several else Found(cases, {}, {})
    cases = together.rows
    if options.json:
        facts = _facts(cases, found) | {"notices": {name: list(said) for name, said in notices.items() if said}}
        print(json.dumps(facts | {"missed": together.missed, "undrawn": together.undrawn}, indent=2), flush=True)
    else:
        _tell_unpaired(found, options)
        _tell_lacking(f"Structures that {options.other} has missed have a Dice of 0", together.missed, reporter)
        _tell_lacking(f"Structures that {options.reference} lacks have no Dice there", together.undrawn, reporter)
        lines = _lines(cases, found.several) if cases else _no_lines(found)
        print("\n".join(lines), flush=True)
    # last, so that nothing is lost if the disk is full, or a sheet has too few rows
    if options.output is not None and cases:
        write_comparisons(options.output, cases, options.overwrite)
    if not cases and fault is not None:
        return exit_code(fault)
    return ExitCode.SOME_FAILED if fault is not None or found.without_other else ExitCode.OK


def _bar(found: Pairs) -> Any:
    """Return a progress bar over the pairs, which nobody sees if there is one, or standard error is no terminal."""
    from tqdm import tqdm

    hidden = not (found.several and sys.stderr.isatty())
    return tqdm(found.pairs, unit="case", file=sys.stderr, leave=False, disable=hidden)


def _only_image(images: dict[str, list[Path]], case: str, folder: Path) -> Path:
    found = images.get(case, [])
    if len(found) != 1:
        what = "no image" if not found else f"several images ({found[0].name}, {found[1].name})"
        raise ImageError(f"{folder} has {what} of the case {case}, on whose grid to compare it.")
    return found[0]


def _tell_unpaired(found: Pairs, options: argparse.Namespace) -> None:
    first, second = options.reference, options.other
    for names, there, missing in (found.without_other, first, second), (found.without_reference, second, first):
        if names:
            more = f" and {len(names) - _MOST_NAMES} more" * (len(names) > _MOST_NAMES)
            text = f"Only in {there}, not in {missing}: {', '.join(map(_short, names[:_MOST_NAMES]))}{more}"
            print(text, file=sys.stderr, flush=True)


def _tell_lacking(what: str, lacking: dict[str, list[str]], reporter: Reporter) -> None:
    if lacking:
        listed = [f"{_short(case)} ({', '.join(map(_short, names[:3]))})" for case, names in lacking.items()]
        more = f" and {len(listed) - _MOST_NAMES} more" * (len(listed) > _MOST_NAMES)
        cases = ", ".join(listed[:_MOST_NAMES])
        reporter.message(f"{what}: {cases}{more}")


def _lines(cases: dict[str, list[ClassComparison]], several: bool) -> list[str]:
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


def _no_lines(found: Pairs) -> list[str]:
    if found.pairs:
        return ["No case could be compared."]
    return ["No case is in both folders. Give the files of one case the same name in both."]


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
    of = f" of {cases} case{'s' * (cases != 1)}" if several else ""
    alone = len(summary) - compared
    rest = f"; {alone} more {'are' if alone != 1 else 'is'} on one side alone" if alone else ""
    return f"Mean Dice {mean:.3f} over {compared} structure{'s' * (compared != 1)}{of}{rest}."


def _facts(cases: dict[str, list[ClassComparison]], found: Pairs) -> dict[str, Any]:
    summary = summarize_comparisons(cases)
    return {
        "mean_dice": mean_dice(summary),
        "structures": [row._asdict() for row in summary],
        "cases": {
            name: [row._asdict() | {"difference_ml": row.difference_ml} for row in rows] for name, rows in cases.items()
        },
        "without_other": list(found.without_other),
        "without_reference": list(found.without_reference),
    }
