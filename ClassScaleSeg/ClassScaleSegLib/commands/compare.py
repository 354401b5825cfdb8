"""``classscaleseg compare``: segmentations of one case, or of many, beside those that they should be like."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError, ImageError
from ..files import refuse_replacing
from ..images.comparison import ClassComparison, Comparison, compare
from ..images.comparison_summary import (
    Found,
    GatheredCases,
    least_agreement,
    mean_dice,
    summarize_comparisons,
    write_comparisons,
)
from ..images.dicom.headers import is_dicom_seg
from ..images.formats import check_writable
from ..images.paired_cases import Pair, Pairs, find_images, find_pairs
from ..images.paired_reading import is_drawn, read_pair
from ..images.several_comparisons import facts_of_several, write_several_comparisons
from ..images.tables import TABLE_SUFFIXES
from ..labels.table import LabelTable
from ..process.exit_codes import ExitCode, exit_code
from .compare_lines import comparison_lines, distinct_names, lacking_line, no_comparison_line, several_lines, some_names
from .parsing import add_program_options
from .reporting import Reporter

_Rows = Mapping[str, Sequence[ClassComparison]]  # of each case


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg compare``."""
    text = (
        "segmentation that counts as right: .seg.nrrd, a DICOM segmentation or RT structure set, or a label image; or "
        "a folder of them"
    )
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help=text)
    text = (
        "segmentation to compare with it; or a folder, whose files have the names of those in REFERENCE; several, such "
        "as the results of two models, are shown beside each other"
    )
    parser.add_argument("other", nargs="+", type=Path, metavar="OTHER", help=text)
    text = "write a table of all cases and structures, as .csv or .xlsx"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=text)
    text = "label table or colour table of REFERENCE (default: its own names, or those of a table beside it)"
    parser.add_argument("--labels", type=Path, metavar="TABLE", help=text)
    parser.add_argument("--other-labels", type=Path, metavar="TABLE", help="the same of every OTHER")
    text = (
        "image or DICOM folder on whose grid structure sets are filled, and whose slices a DICOM segmentation has that "
        "leaves out some; with folders, the folder of the images, which have the names of the cases (default: the grid "
        "of the other segmentation)"
    )
    parser.add_argument("--grid", type=Path, metavar="IMAGE", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_program_options(parser, "print for each case where both agree least as a JSON line, with the progress")


def compare_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Compare segmentations with those that they should be like: Dice and both volumes of each structure.

    :returns: ``SOME_FAILED`` if a case of several could not be compared, or has no counterpart.
    :raises ClassScaleError: if nothing can be compared, or the table not be written.
    """
    if options.output is not None:
        check_writable(options.output, options.overwrite, TABLE_SUFFIXES)
        refuse_replacing(options.output, filter(None, (options.labels, options.other_labels)))
    reference, others = options.reference, options.other
    names = distinct_names(others)
    found = [find_pairs(reference, other) for other in others]
    several = found[0].several
    in_all = set.intersection(*({pair.name for pair in pairs.pairs} for pairs in found))
    cases = list(zip(*([pair for pair in pairs.pairs if pair.name in in_all] for pairs in found), strict=True))
    together, notices, fault = _compared(
        cases, len(others), _reader(options, several), several, reporter, options.json_progress
    )
    rows = [own.rows for own in together]
    if options.json_progress:
        for case in rows[0]:
            structure, dice = least_agreement(rows[0][case], together[0].undrawn.get(case, ()))
            reporter.result(case=case, structure=structure, dice=dice)
    elif options.json:
        facts = [_facts(*each) for each in zip(found, together, strict=True)]
        whole = facts[0] if len(facts) == 1 else _facts_of_several(others, rows, facts)
        print(json.dumps(whole | {"notices": notices}, indent=2), flush=True)
    else:
        for other, pairs, own in zip(others, found, together, strict=True):
            _tell_unpaired(reference, other, pairs)
            _tell_lacking(f"Structures that {other} has missed have a Dice of 0", own.missed, reporter)
        _tell_lacking(f"Structures that {reference} lacks have no Dice there", _undrawn(together), reporter)
        if not rows[0]:
            lines = [no_comparison_line(bool(cases))]
        else:
            lines = comparison_lines(rows[0], several) if len(rows) == 1 else several_lines(names, rows, several)
        print("\n".join(lines), flush=True)
    # last, so that nothing is lost if the disk is full, or a sheet has too few rows
    if options.output is not None and rows[0] and len(rows) == 1:
        write_comparisons(options.output, rows[0], options.overwrite)
    elif options.output is not None and rows[0]:
        write_several_comparisons(options.output, dict(zip(names, rows, strict=True)), options.overwrite)
    if not rows[0] and fault is not None:
        return exit_code(fault)
    return ExitCode.SOME_FAILED if fault is not None or any(pairs.without_other for pairs in found) else ExitCode.OK


def _compared(
    cases: Sequence[tuple[Pair, ...]],
    others: int,
    read: Callable[[Pair, list[str]], Comparison],
    several: bool,
    reporter: Reporter,
    begins: bool,
) -> tuple[list[Found], dict[str, list[str]], ClassScaleError | None]:
    """Compare the pairs of each case. It counts for all of the others, or if one cannot be read, for none.

    :param read: as `_reader` returns it.
    :param begins: whether to report the beginning of each case.
    :returns: the rows of each other, sentences on each case, and the last error.
    :raises ClassScaleError: if there are not several cases, and the only one cannot be compared.
    """
    gathered, notices = [GatheredCases() for _ in range(others)], dict[str, list[str]]()
    fault: ClassScaleError | None = None
    bar = _bar(cases, several)
    for number, case in enumerate(bar, start=1):
        name, said = case[0].name, list[str]()
        if begins:
            reporter.begin(name, number, len(cases))
        try:
            comparisons = [read(pair, said) for pair in case]
            for gathers, comparison in zip(gathered, comparisons, strict=True):
                gathers.add(name, comparison)
        except ClassScaleError as error:
            if not several:
                raise
            fault = error
            bar.clear()
            reporter.error(error)
        if said:
            notices[name] = list(dict.fromkeys(said))
            bar.clear()
        for notice in notices.get(name, ()):
            reporter.message(notice)
    return [gathers.found(several) for gathers in gathered], notices, fault


def _reader(options: argparse.Namespace, several: bool) -> Callable[[Pair, list[str]], Comparison]:
    """Return a function that compares a pair, and adds what the user should see of it to a list.

    :raises ClassScaleError: if a label table cannot be read, or the grid is none.
    """
    one, two = (None if file is None else LabelTable.from_file(file) for file in (options.labels, options.other_labels))
    if options.grid is not None and not options.grid.exists():
        raise ImageError(f"{options.grid} does not exist.")
    images = find_images(options.grid) if options.grid is not None and several else None

    def read(pair: Pair, said: list[str]) -> Comparison:
        grid = options.grid
        if images is not None:
            both = pair.reference, pair.other
            needed = any(map(is_drawn, both)) or any(map(is_dicom_seg, both))
            grid = _only_image(images, pair.name, options.grid) if needed else None
        found = read_pair(pair, (one, two), grid)
        said += found.notices
        return compare(found.reference, found.other)

    return read


def _bar(cases: Sequence[tuple[Pair, ...]], several: bool) -> Any:
    """Return a progress bar over the cases, which nobody sees if there is one, or standard error is no terminal."""
    from tqdm import tqdm

    return tqdm(cases, unit="case", file=sys.stderr, leave=False, disable=not (several and sys.stderr.isatty()))


def _only_image(images: dict[str, list[Path]], case: str, folder: Path) -> Path:
    found = images.get(case, [])
    if len(found) != 1:
        what = "no image" if not found else f"several images ({found[0].name}, {found[1].name})"
        raise ImageError(f"{folder} has {what} of the case {case}, on whose grid to compare it.")
    return found[0]


def _tell_unpaired(first: Path, second: Path, found: Pairs) -> None:
    for names, there, missing in (found.without_other, first, second), (found.without_reference, second, first):
        if names:
            print(f"Only in {there}, not in {missing}: {some_names(names)}", file=sys.stderr, flush=True)


def _undrawn(together: Sequence[Found]) -> dict[str, list[str]]:
    """Return by case what the reference lacks there and any of the others has."""
    cases = dict.fromkeys(case for own in together for case in own.undrawn)
    return {case: list(dict.fromkeys(name for own in together for name in own.undrawn.get(case, ()))) for case in cases}


def _tell_lacking(what: str, lacking: Mapping[str, Sequence[str]], reporter: Reporter) -> None:
    if lacking:
        reporter.message(lacking_line(what, lacking))


def _facts(found: Pairs, together: Found) -> dict[str, Any]:
    """Return what JSON says of one OTHER."""
    summary = summarize_comparisons(together.rows)
    return {
        "mean_dice": mean_dice(summary),
        "structures": [row._asdict() for row in summary],
        "cases": {
            name: [row._asdict() | {"difference_ml": row.difference_ml} for row in rows]
            for name, rows in together.rows.items()
        },
        "without_other": list(found.without_other),
        "without_reference": list(found.without_reference),
        "missed": together.missed,
        "undrawn": together.undrawn,
    }


def _facts_of_several(others: Sequence[Path], rows: Sequence[_Rows], facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what JSON says of several OTHERs: lists have an item for each of them."""
    return {
        **facts_of_several(rows),
        "others": [{"path": str(other), **own} for other, own in zip(others, facts, strict=True)],
    }
