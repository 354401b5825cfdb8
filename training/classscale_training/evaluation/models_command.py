"""The command ``classscaleseg-train compare-models``: which of several models knows the structures of drawn cases."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ClassScaleSegLib.cohort.records import FOLDER
from ClassScaleSegLib.errors import ClassScaleError, ImageError
from ClassScaleSegLib.files import refuse_existing, refuse_unwritable_folder
from ClassScaleSegLib.images.comparison_summary import write_comparisons
from ClassScaleSegLib.images.formats import check_writable
from ClassScaleSegLib.images.several_comparisons import write_several_comparisons
from ClassScaleSegLib.images.tables import TABLE_SUFFIXES
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.process.exit_codes import ExitCode

from ..data.collect.cases import ANOTHER_MODEL, Case, add_folders, listed, named_folders, pair_cases
from ..files import alone, write_json
from ..processes.json_progress import add_progress_options, reported
from .case_checks import CheckedCases, check_cases
from .drawn_cases import common_channels, compare_models, without_common_classes
from .model_results import Candidate, candidates
from .models_report import JsonReport, Report
from .unfinished import DAYS, Room, unfinished

FACTS = "comparison.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`run`."""
    add = parser.add_argument
    add_folders(parser)
    text = "model to compare: a bundle, a folder or a name; repeat it for each"
    add("-m", "--model", action="append", required=True, metavar="MODEL", help=text)
    add("--names", nargs="+", metavar="NAME", help="what to call the models (default: their own names)")
    add("--cases", nargs="+", metavar="CASE", help="compare on these alone (default: all that are drawn)")
    add("--labels", type=Path, metavar="TABLE", help="label table of the segmentations, instead of their own names")
    add("-o", "--output", type=Path, metavar="FILE", help="write a table of all cases and structures, .csv or .xlsx")
    text = f"keep what the models find in a folder for each, and all figures in {FACTS}"
    add("--results", type=Path, metavar="DIR", help=text)
    add("-device", default="auto", help="auto (default: CUDA, else MPS, else the CPU), cuda, cpu or mps")
    add("--overwrite", action="store_true", help="replace what exists, except what would be the same")
    add_progress_options(parser)


def run(options: argparse.Namespace) -> int:
    """Segment drawn cases with each model, and print the Dice of each structure, side by side.

    :param options: parsed from the arguments of :func:`add_arguments`.
    :returns: ``SOME_FAILED`` if a case of several could not be compared.
    :raises ClassScaleError: if an argument is wrong, a model cannot be used, or no case can be compared.
    :raises OutputError: if something cannot be written.
    """
    if options.json_progress:
        return reported(options, lambda: _compare(options, JsonReport()))
    return _compare(options, Report())


def _compare(options: argparse.Namespace, report: Report) -> int:
    """Do what :func:`run` does, and report it."""
    images, segmentations = named_folders(options)
    table = None if options.labels is None else LabelTable.from_file(options.labels)
    models = candidates(options.model, options.names, options.device)
    channels = common_channels(models)
    if options.output is not None:
        check_writable(options.output, options.overwrite, TABLE_SUFFIXES)
    kept: Path | None = options.results
    if kept is not None:
        refuse_existing(kept / FACTS, options.overwrite)
        refuse_unwritable_folder(kept / FACTS)
    apart = without_common_classes(models)
    for first, second in apart:
        report.line(f"{first} and {second} have no class in common.")
    cases, faults = _cases(images, segmentations, channels, options.cases, report)
    checked = _checked(cases, models, table, report)
    with _results(kept, (images, segmentations), models, options.cases, report) as room:
        compared = compare_models(
            models, checked.cases, room.folder, table, options.overwrite, report.case, report.line
        )
        compared.faults[:0] = [*faults, *checked.faults]
        names, rows = compared.names, compared.rows
        if not rows[0]:
            raise ClassScaleError(f"No case could be compared. The last fault was: {compared.faults[-1]}")
        if options.output is not None and len(rows) == 1:
            write_comparisons(options.output, rows[0], options.overwrite)
        elif options.output is not None:
            write_several_comparisons(options.output, dict(zip(names, rows, strict=True)), options.overwrite)
        if kept is not None:  # last: it tells a program that the comparison is done
            write_json(kept / FACTS, compared.facts())
        room.done = not compared.faults  # of which the user may mend some, and compare again
    report.compared(compared, apart)
    return int(ExitCode.SOME_FAILED if compared.faults else ExitCode.OK)


def _checked(
    cases: Sequence[Case], models: Sequence[Candidate], table: LabelTable | None, report: Report
) -> CheckedCases:
    """Return the cases that can be read, and say which models have none of the structures that are drawn.

    :raises ClassScaleError: if no case can be read, or that holds for all models.
    """
    found = [model.found() for model in models]
    checked = check_cases(cases, found[0], table, report.line)
    checked.refuse_if_none()
    tables = [each.table for each in found]
    checked.refuse_if_unknown(tables)
    for model, own in zip(models, tables, strict=True):
        if not checked.knows(own):
            report.line(f"{model.name} has none of the structures that are drawn.")
    return checked


@contextmanager
def _results(
    kept: Path | None,
    folders: tuple[Path, Path],
    models: Sequence[Candidate],
    cases: Sequence[str] | None,
    report: Report,
) -> Iterator[Room]:
    """Yield the folder for what models find: that which the user has named, or one that is emptied at the end.

    :param folders: of the images, and of what is drawn.
    :param cases: as of :func:`.unfinished`.
    :raises Busy: if another process uses it.
    """
    if kept is not None:
        with alone(kept / FOLDER / "compare.lock", f"{kept} is being used"):
            yield Room(kept)
        return
    paths = [Path(source.path) for model in models for source in model.found().sources]
    with unfinished(*folders, paths, cases) as room:
        try:
            yield room
        finally:
            if room.lasting and not (room.done or room.empty):
                report.line(
                    f"What the models have found so far is kept for {DAYS} days in {room.folder}, and the same command "
                    "goes on there. Delete the folder if you do not want that."
                )


def _cases(
    images: Path, segmentations: Path, channels: int, wanted: list[str] | None, report: Report
) -> tuple[list[Case], list[str]]:
    """Return the cases that are drawn, or of these the wanted ones.

    :returns: the cases, and a sentence on each segmentation that has no image.
    :raises ClassScaleError: if there is none, or a wanted one is not there.
    """
    cases, findings = pair_cases(images, segmentations, channels, ANOTHER_MODEL)
    if wanted is None:
        for finding in findings:
            report.line(finding.sentence)
        faults = [finding.sentence for finding in findings if finding.error is not None]
        if not cases:
            raise ImageError(f"No case could be compared. {faults[-1]}")
        return cases, faults
    if missing := sorted(set(wanted) - {case.name for case in cases}):
        raise ClassScaleError(
            f"{listed(missing)}: no image in {images} and segmentation in {segmentations} have this name."
        )
    return [case for case in cases if case.name in wanted], []
