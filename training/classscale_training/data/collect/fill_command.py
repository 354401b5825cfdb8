"""The command ``classscaleseg-train fill``: what a model finds in drawn cases, for ``collect --under``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ClassScaleSegLib.commands.cases import Case as CaseToSegment
from ClassScaleSegLib.commands.cohort_job import CohortJob, segment_here
from ClassScaleSegLib.commands.job_models import completed_job, find_models
from ClassScaleSegLib.commands.reporting import TerminalReporter
from ClassScaleSegLib.errors import ClassScaleError, LabelTableError, OutputError
from ClassScaleSegLib.files import refuse_unwritable_folder
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.process.fault_log import FaultLog
from ClassScaleSegLib.process.job import Job

from ..findings import Finding, report
from .cases import ANOTHER_MODEL, Case, add_folders, listed, named_folders, pair_cases, without_unchanged
from .survey import survey_case
from .wanted import read_wanted

_SUFFIX = ".seg.nrrd"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`run`."""
    add = parser.add_argument
    add_folders(parser)
    add("-m", "--model", required=True, metavar="MODEL", help="model that segments: a bundle, a folder or a name")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for what it finds, NAME.seg.nrrd")
    labels = "label table, dataset.json or model that names the labels of the segmentations, as for collect"
    add("--labels", metavar="TABLE", help=labels)
    add(
        "--corrected", action="store_true", help="leave out results of segment that nobody has changed, as collect does"
    )
    add("-device", default="auto", help="auto (default: CUDA, else MPS, else the CPU), cuda, cpu or mps")


def run(options: argparse.Namespace) -> int:
    """Segment the cases that are drawn with a model. What it has segmented already stays.

    :param options: parsed from the arguments of :func:`add_arguments`.
    :returns: 0.
    :raises ClassScaleError: of the kind of the last fault, if cases cannot be segmented; the others are.
    :raises ModelError: if the model cannot be used.
    :raises ClassScaleError: before any case is segmented, for all that ``collect`` would refuse of single cases.
    :raises OutputError: if the folder cannot be written, or has the segmentations.
    """
    images, segmentations = named_folders(options)
    if options.output.exists() and options.output.samefile(segmentations):
        raise OutputError(f"{options.output} has what is drawn. Name another folder for what the model finds (-o).")
    refuse_unwritable_folder(options.output / _SUFFIX)
    names = None if options.labels is None else read_wanted(options.labels).table
    fill(images, segmentations, options.model, options.output, options.device, names, options.corrected)
    return 0


def fill(
    images: Path,
    segmentations: Path,
    model: str,
    folder: Path,
    device: str = "auto",
    names: LabelTable | None = None,
    corrected: bool = False,
) -> None:
    """Do what :func:`run` does.

    :param folder: for the results, which list what the model has not found as empty segments.
    :param names: as of :func:`.survey_case`.
    :param corrected: leave out results of ``classscaleseg segment`` that nobody has changed.
    :param device: as of :class:`~ClassScaleSegLib.options.Options`.
    :raises ClassScaleError: as :func:`run`.
    """
    job = completed_job(Job((), model, folder, options=Options(device=device, keep_empty=True)))
    models = find_models(job)
    cases, findings = pair_cases(images, segmentations, models.channels, ANOTHER_MODEL)
    if corrected:
        cases, told = without_unchanged(cases, True)  # collect says which these are, if others are left
        if not cases and not any(finding.error for finding in findings):
            findings += [*told, Finding(f"No segmentation in {segmentations} is left to be filled.", LabelTableError)]
    if not any(finding.error for finding in findings):  # else these are quicker to mend
        findings += [found for case in cases if isinstance(found := survey_case(names, case), Finding)]
    report(str(segmentations), findings)
    reporter = _Reporter(FaultLog("classscaleseg-train", ["fill"]))
    try:
        failed = segment_here(CohortJob(job, (_SUFFIX,)), _to_segment(cases, folder), models, reporter)
    finally:
        reporter.close()
    if failed and reporter.last is not None:
        kind = type(reporter.last)
        raise kind(f"{len(failed)} of {len(cases)} cases were not segmented: {listed(failed)}. {reporter.last}")


class _Reporter(TerminalReporter):
    """Also keeps the last fault, for programs, to which the sentence with which a command ends is shown.

    :ivar last: the fault; ``None``: there was none.
    """

    last: ClassScaleError | None = None

    def error(self, error: ClassScaleError) -> None:
        super().error(error)
        self.last = error


def _to_segment(cases: Sequence[Case], folder: Path) -> list[CaseToSegment]:
    return [CaseToSegment(case.name, case.images, folder / f"{case.name}{_SUFFIX}") for case in cases]
