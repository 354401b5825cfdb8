"""``classscaleseg segment``: segment one case or many, with one model or several."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from .. import errors
from ..cohort.bids import RESULT, default_suffix
from ..cohort.workers import check_where
from ..images.dicom_rtstruct import RTSTRUCT_SUFFIX
from ..images.dicom_seg import DICOM_SUFFIX
from ..images.formats import refuse_overlaps
from ..options import FIELDS, Options
from ..process.exit_codes import ExitCode
from ..process.job import Job, read_job
from ..remote.faults import Unencrypted
from .case_runner import CaseRunner
from .cohort_job import CohortJob, add_failed, find_cohort, segment_here, tell_left_out, writing_page
from .cohort_run import segment_on_cluster
from .job_models import JobModels, completed_job, find_models
from .job_report import JobReport
from .options import add_options
from .parsing import Parser
from .reporting import Reporter
from .results import CaseResults
from .server_models import add_server_options, connect, find_server_models, refuse_beside_server

FORMATS = (".seg.nrrd", ".nii.gz", ".nrrd", ".mha", DICOM_SUFFIX, RTSTRUCT_SUFFIX)
BIDS_FORMAT = RESULT[RESULT.index(".") :]
_OPTIONS = tuple(name for name in FIELDS if name != "confidence")  # --confidence names a file
_BESIDE = (
    "images",
    "output",
    "model",
    "confidence",
    "statistics",
    "report",
    "classes_file",
    "bids",
    "server",
    "server_ca",
    "insecure",
)
_IN_JOB = (*_BESIDE, *_OPTIONS)


def instead(*others: argparse.Action) -> Callable[[str], Path]:
    """Return the type of an option with a path, beside which others are not required."""

    def path(text: str) -> Path:
        for other in others:
            other.required = False
        return Path(text)

    return path


def add_segment_options(parser: Parser) -> None:
    """Add the options of ``classscaleseg segment``."""
    parser.hint = "classscaleseg models list shows the models."
    images = parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="an image, one file per channel, a DICOM folder, several images, or a folder of images or DICOM folders",
    )
    parser.add_argument(
        "--bids",
        type=instead(images),
        metavar="DATASET",
        help="take the images of a BIDS dataset, and make OUT a BIDS derivative, instead of IMAGE",
    )
    parser.add_argument(
        "--bids-suffix",
        metavar="SUFFIX",
        help="which images of the dataset: the end of their names, such as FLAIR or acq-mprage*_T1w (default: ct for a "
        "model for CT, T1w for MR)",
    )
    output = parser.add_argument(
        "-o",
        "--output",
        required=True,
        action="append",
        metavar="OUT",
        help="file of the segmentation; with several images, a folder. Several files (-o A -o B) get the same "
        "segmentation in several formats.",
    )
    model = parser.add_argument(
        "-m",
        "--model",
        required=True,
        action="append",
        help="nnU-Net v2 model folder, exported zip, bundle, or id or name of a model of the catalogue. Several models "
        "(-m A -m B) make one segmentation with the classes of all. Where their names meet, they are told apart.",
    )
    add_options(parser, "overlap")
    parser.add_argument(
        "--format",
        action="append",
        choices=FORMATS,
        help="format of segmentations that are written into a folder (default: .seg.nrrd). May be given several times.",
    )
    add_options(parser, "dicom_seg", "keep_empty")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist already")
    more = parser.add_argument_group("also write")
    more.add_argument(
        "--statistics",
        action="append",
        metavar="FILE",
        help="also write volume, surface, position and intensities of each class: .csv, .xlsx, or .sr.dcm, a DICOM "
        "report that refers to a .seg.dcm. May be given several times; with several images, name a folder, which gets "
        "CSV",
    )
    more.add_argument(
        "--report",
        metavar="DIR",
        help="also write a page of all cases into this folder, with pictures, volumes and what is unusual, and the "
        "same as JSON",
    )
    more.add_argument(
        "--confidence",
        metavar="FILE",
        help="also write the probability of each voxel's class; with several images, name a folder",
    )
    classes = parser.add_argument_group("which classes")
    add_options(classes, "classes")
    classes.add_argument(
        "--classes-file", metavar="FILE", help="text file with classes to keep, one name or label value per line"
    )
    add_options(classes, "locate_with", "locate_classes", "locate_margin")
    add_options(parser.add_argument_group("clean up"), "smooth", "remove_islands", "clean_classes")
    speed = parser.add_argument_group("speed and memory")
    add_options(speed, "device", "mirroring", "step", "interpolation", "memory_limit_gib", "threads")
    cluster = parser.add_argument_group("many cases on a cluster")
    cluster.add_argument(
        "--cluster",
        metavar="WHERE",
        help="segment the cases of a folder on the workers of Dask: local:4 starts four on this machine, "
        "tcp://HOST:8786 is a scheduler that runs already, and a YAML file describes the jobs of a queue",
    )
    cluster.add_argument(
        "--transfer",
        action="store_true",
        help="send images, models and results, for workers that do not see the folders of this machine",
    )
    add_server_options(parser.add_argument_group("on a server"))
    add_options(parser.add_argument_group("parts of the model"), "folds", "checkpoint", "configuration")
    parser.set_defaults(**dict.fromkeys(_OPTIONS))  # None: not given
    programs = parser.add_argument_group("for programs")
    programs.add_argument(
        "--json-progress", action="store_true", help="report progress as JSON lines on standard output"
    )
    programs.add_argument(
        "--stop-with-parent",
        nargs=2,
        metavar=("PID", "FOLDER"),
        help="when the process PID ends, stop and remove FOLDER",
    )

    programs.add_argument(
        "--job",
        type=instead(images, output, model),
        metavar="FILE",
        help="take images, models, results and all choices from FILE, in JSON, instead of options",
    )


def segment_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment one image or many. With many, finished ones are skipped, and a failed one does not stop the others.

    :returns: ``SOME_FAILED`` if one of many cases failed, ``USAGE`` if a choice is wrong, otherwise ``OK``.
    :raises ClassScaleError: if the only case failed.
    """
    if options.job is not None and (beside := [name for name in _IN_JOB if getattr(options, name) is not None]):
        said = f"{options.job} says what to segment and how, so {', '.join(beside)} cannot be given beside --job."
        reporter.error(errors.ClassScaleError(f"{said} Leave that out, or change the file."))
        return ExitCode.USAGE
    try:
        job = _job(options)
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
    first = [] if bids is None else [BIDS_FORMAT]
    formats = tuple(dict.fromkeys([*first, *(options.format or ([".seg.nrrd"] if bids is None else []))]))
    found = find_cohort(job, models, formats[0], bids)
    tell_left_out(found, reporter)
    if options.format and not found.in_folder:
        raise errors.OutputError(f"--format is for results in a folder, and {job.output} is a file. Leave one out.")
    if job.options.overlap == "keep" and len(models.sources) > 1:
        for file in CaseResults.of(job, found.cases[0], found.many, formats[1:]).outputs:
            refuse_overlaps(file, job.options.dicom_seg)
    if options.cluster is not None and not found.many:
        raise errors.ImageError("--cluster is for many cases: give a folder of images, or several images.")
    if found.many and job.reported is not None:
        raise errors.ClassScaleError("reported says what the report calls a single case, and the images are many.")
    if found.many:
        cohort = CohortJob(job, formats, options.overwrite, bids)
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


def read_classes(path: Path) -> list[str]:
    """Return the class names and label values that a text file lists, one per line; empty lines are ignored.

    :raises LabelTableError: if the file cannot be read as UTF-8 text, or lists none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise errors.LabelTableError(f"{path} cannot be read ({reason}). It should list one class per line.") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise errors.LabelTableError(f"{path} lists no class. Write one name or label value per line.")
    return names


def _job(options: argparse.Namespace) -> Job:
    """Return the job of the command line, or of the file that it names."""
    if options.job is not None:
        return read_job(options.job)
    chosen = {name: getattr(options, name) for name in _OPTIONS}
    if options.classes_file is not None:
        chosen["classes"] = [*(options.classes or ()), *read_classes(Path(options.classes_file))]
    output, *more = options.output
    statistics, *more_statistics = options.statistics or [None]
    return Job(
        tuple(options.images) if options.bids is None else (options.bids,),
        tuple(options.model),
        output,
        options.confidence,
        statistics,
        Options(**chosen),
        tuple(more),
        tuple(more_statistics),
        options.report,
        server=options.server,
        server_ca=options.server_ca,
        insecure=options.insecure is True,
    )
