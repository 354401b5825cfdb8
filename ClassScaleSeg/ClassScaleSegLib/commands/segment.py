"""``classscaleseg segment``: segment one case or many, with one model or several."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import errors
from ..cohort.bids import RESULT, default_suffix
from ..cohort.workers import check_where
from ..images.formats import refuse_overlaps
from ..process.exit_codes import ExitCode
from ..remote.faults import Unencrypted
from .case_runner import CaseRunner
from .cohort_job import CohortJob, add_failed, find_cohort, segment_here, tell_left_out, writing_page
from .cohort_run import segment_on_cluster
from .cohort_table import tables_of
from .job_models import JobModels, completed_job, find_models
from .job_report import JobReport
from .reporting import Reporter
from .results import CaseResults
from .segment_options import NOT_BESIDE_JOB, job_of_options
from .server_models import find_server_models
from .server_options import connect, refuse_beside_server

_BIDS_FORMAT = RESULT[RESULT.index(".") :]


def segment_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment one image or many. With many, finished ones are skipped, and a failed one does not stop the others.

    :returns: ``SOME_FAILED`` if one of many cases failed, ``USAGE`` if a choice is wrong, otherwise ``OK``.
    :raises ClassScaleError: if the only case failed.
    """
    if options.job is not None and (beside := [name for name in NOT_BESIDE_JOB if getattr(options, name) is not None]):
        said = f"{options.job} says what to segment and how, so {', '.join(beside)} cannot be given beside --job."
        reporter.error(errors.ClassScaleError(f"{said} Leave that out, or change the file."))
        return ExitCode.USAGE
    try:
        job = job_of_options(options)
    except errors.ClassScaleError as error:
        if options.job is not None or isinstance(error, errors.LabelTableError):
            raise
        reporter.error(error)
        return ExitCode.USAGE
    try:
        refuse_beside_server(options, job)
        _check_cluster(options)
    except errors.ClassScaleError as error:
        reporter.error(error)
        return ExitCode.USAGE
    models: JobModels
    if job.server is None:
        job = completed_job(job)
        models = find_models(job)
    else:
        try:
            segmenter = connect(job, options.server_token_file)
        except Unencrypted as error:
            reporter.error(error)
            return ExitCode.USAGE
        models = find_server_models(job, segmenter)
    bids = _bids(options, models)
    first = [] if bids is None else [_BIDS_FORMAT]
    formats = tuple(dict.fromkeys([*first, *(options.format or ([".seg.nrrd"] if bids is None else []))]))
    found = find_cohort(job, models, formats[0], bids)
    tell_left_out(found, reporter)
    if options.format and not found.in_folder:
        said = f"--format is for results in a folder, and {job.output} is the name of a file. Leave --format out, or "
        raise errors.OutputError(f"{said}write {job.output}/ for a new folder.")
    tables: tuple[Path, ...] = ()
    if found.many:
        tables, job = tables_of(job)
    if options.statistics_format and not (found.many and job.statistics is not None):
        said = "--statistics-format is for the statistics of several images, in the folder that --statistics names."
        raise errors.OutputError(f"{said} Leave it out, or name that folder.")
    if job.options.overlap == "keep" and len(models.sources) > 1:
        for file in CaseResults.of(job, found.cases[0], found.many, formats[1:]).outputs:
            refuse_overlaps(file, job.options.dicom_seg)
    if options.cluster is not None and not found.many:
        raise errors.ImageError("--cluster is for many cases: give a folder of images, or several images.")
    if found.many and job.reported is not None:
        raise errors.ClassScaleError("reported says what the report calls a single case, and the images are many.")
    if found.many:
        chosen = tuple(dict.fromkeys(options.statistics_format or [".csv"]))
        cohort = CohortJob(job, formats, options.overwrite, bids, chosen, tables)
        if options.cluster is None:
            failed = segment_here(cohort, found.cases, models, reporter)
        else:
            failed = segment_on_cluster(cohort, found.cases, models, reporter, options.cluster, options.transfer)
        return ExitCode.SOME_FAILED if failed else ExitCode.OK
    report = None if job.report is None else JobReport(job.report, job, models, options.overwrite, many=False)
    if report is not None:
        report.files.check()
    (case,) = found.cases
    reporter.begin(case.name, 1, 1)
    try:
        _ = models.table  # a class that does not exist is told before the model is opened
        CaseRunner(job, models, report=report).run(case, reporter, options.overwrite)
    except errors.ClassScaleError as error:
        if job.reported is None or isinstance(error, errors.Cancelled):
            raise
        with writing_page(report):
            add_failed(report, case, error, reporter)
            raise
    return ExitCode.OK


def _check_cluster(options: argparse.Namespace) -> None:
    """Check the options of a cluster, before anything else is done.

    :raises ClassScaleError: if one is wrong, or they contradict each other.
    """
    if options.cluster is not None:
        check_where(options.cluster)
    elif options.transfer:
        raise errors.ClassScaleError("--transfer sends images to the workers of a cluster; name it (--cluster).")
    if options.transfer and options.report is not None:
        raise errors.ClassScaleError(
            "A report cannot be written while images are sent (--transfer). Leave --report out. Once all cases are "
            "done, run the command with it, but without --cluster."
        )


def _bids(options: argparse.Namespace, models: JobModels) -> str | None:
    """Return the suffix of the images of a BIDS dataset; ``None`` if there is no dataset.

    :raises ImageError: if images are given beside it, or the suffix cannot be guessed.
    """
    if options.bids is None:
        if options.bids_suffix is not None:
            raise errors.ImageError("--bids-suffix chooses images of a BIDS dataset; name it (--bids).")
        return None
    if options.images:
        raise errors.ImageError(f"--bids takes the images of {options.bids}, so leave {options.images[0]} out.")
    return options.bids_suffix or default_suffix(models.summaries[0].modality)
