"""``classscaleseg segment``: segment one case or many, with one model or several."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .. import errors
from ..images.dicom_headers import modality_of
from ..images.dicom_rtstruct import RTSTRUCT_SUFFIX
from ..images.dicom_seg import DICOM_SUFFIX
from ..images.geometry import Geometry
from ..inference.progress import Progress
from ..options import FIELDS, Options
from ..process.exit_codes import ExitCode
from ..process.job import Job, read_job
from ..process.terminal import flush
from .cases import Case, Cases, find_cases
from .job_models import JobModels, open_models
from .job_report import JobReport
from .options import add_options
from .reporting import Reporter
from .results import CaseResults, Measured

FORMATS = (".seg.nrrd", ".nii.gz", ".nrrd", ".mha", DICOM_SUFFIX, RTSTRUCT_SUFFIX)
_OPTIONS = tuple(name for name in FIELDS if name != "confidence")  # --confidence names a file
_IN_JOB = ("images", "output", "model", "confidence", "statistics", "report", "classes_file", *_OPTIONS)


def add_segment_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg segment``."""
    images = parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="an image, one file per channel, a DICOM folder, several images, or a folder of images or DICOM folders",
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
        "(-m A -m B) make one segmentation with the classes of all; where two claim a voxel, the later one gets it.",
    )
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
        help="also write volume, surface, position and intensities of each class: .csv, or .sr.dcm, a DICOM report "
        "that refers to a .seg.dcm. May be given several times; with several images, name a folder, which gets CSV",
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
    add_options(speed, "device", "mirroring", "step", "memory_limit_gib", "threads")
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

    def instead_of_the_rest(file: str) -> Path:
        images.required = output.required = model.required = False
        return Path(file)

    programs.add_argument(
        "--job",
        type=instead_of_the_rest,
        metavar="FILE",
        help="take images, models, results and all choices from FILE, in JSON, instead of options",
    )


def segment_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment one image or many. With many, finished ones are skipped, and a failed one does not stop the others.

    :returns: ``SOME_FAILED`` if one of many cases failed, ``USAGE`` if a choice is given beside a job's file, otherwise
        ``OK``.
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
    models = open_models(job)
    formats = tuple(dict.fromkeys(options.format or [".seg.nrrd"]))
    found = find_cases(job.images, models.channels, job.output, formats[0], models.flat)
    if found.many and job.more_outputs:
        raise errors.OutputError(
            "With several images, give one folder (-o); --format chooses the formats of the results."
        )
    if found.many and job.more_statistics:
        raise errors.OutputError("With several images, give one folder for the statistics (--statistics).")
    if options.format and not found.in_folder:
        raise errors.OutputError(f"--format is for results in a folder, and {job.output} is a file. Leave one out.")
    report = None if job.report is None else JobReport(job.report, job, models, options.overwrite, found.many)
    if report is not None:
        report.files.check()
    try:
        failed = _segment_cases(job, found, formats[1:], options.overwrite, reporter, models, report)
    except BaseException:
        if report is not None:
            with suppress(errors.ClassScaleError):  # the other fault is told
                report.write()
        raise
    if report is not None:
        report.write()
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _segment_cases(
    job: Job,
    found: Cases,
    more_formats: Sequence[str],
    overwrite: bool,
    reporter: Reporter,
    models: JobModels,
    report: JobReport | None,
) -> list[str]:
    """Segment all cases, and return the names of those that failed."""
    failed, skipped = [], 0
    for index, case in enumerate(found.cases, start=1):
        reporter.begin(case.name, index, len(found.cases))
        try:
            if found.many and case.output.exists() and not overwrite:
                reporter.skipped(f"{case.output} exists already{_not_made(job, case, more_formats)}")
                if report is not None:
                    report.add_finished(case, reporter)
                skipped += 1
                continue
            _refuse_name(case)
            results = CaseResults.of(job, case, found.many, overwrite, more_formats)
            _segment_case(job, overwrite, reporter, case, results, models, report)
        except Exception as error:
            if not found.many or isinstance(error, errors.Cancelled):
                raise
            if isinstance(error, OSError):
                flush(error)  # standard output may be what has failed, and that ends the command
            if not isinstance(error, errors.ClassScaleError):  # a bug, ours or a library's
                error = reporter.faults.sentence(case.name, error)
            reporter.error(error)
            failed.append(case.name)
            if report is not None:
                try:
                    report.add_failed(case, error)
                except errors.ClassScaleError as another:  # the next case is segmented all the same
                    if str(another) != str(error):
                        reporter.error(another)
    if found.many:
        reporter.end(len(found.cases) - len(failed) - skipped, skipped, failed)
    return failed


def _not_made(job: Job, case: Case, more_formats: Sequence[str]) -> str:
    """Say which other results of a skipped case are missing."""
    wanted = {suffix: case.in_format(suffix) for suffix in more_formats}
    for what, folder, suffix in (("confidence", job.confidence, ".nrrd"), ("statistics", job.statistics, ".csv")):
        if folder is not None:
            wanted[what] = Path(folder) / f"{case.name}{suffix}"
    missing = [what for what, file in wanted.items() if not file.exists()]
    return f", but not its {' and '.join(missing)}; --overwrite makes all anew" if missing else ""


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
        tuple(options.images),
        tuple(options.model),
        output,
        options.confidence,
        statistics,
        Options(**chosen),
        tuple(more),
        tuple(more_statistics),
        options.report,
    )


def _refuse_name(case: Case) -> None:
    """Refuse images whose names are not UTF-8 before their results, which are named after them, are refused."""
    for file in map(str, case.files):
        if file != file.encode(errors="ignore").decode():
            raise errors.ImageError(f"{file!a} is not a name in UTF-8, which ITK needs. Rename the file or its folder.")


def _segment_case(
    job: Job,
    overwrite: bool,
    reporter: Reporter,
    case: Case,
    results: CaseResults,
    models: JobModels,
    report: JobReport | None,
) -> None:
    begin = time.monotonic()
    noting = reporter if report is None else report.begin(case, reporter)
    images = case.files[0] if len(case.files) == 1 else case.files
    dicom = results.dicom(job, case, noting, models)
    warned: set[str] = set()

    def accept(geometry: Geometry) -> None:
        results.accept(geometry)
        for warning in models.advice(geometry, modality_of(case.files[0])):
            if warning not in warned:  # each model of several reads the image
                reporter.progress(Progress("read", 0, 1, message=warning))
            warned.add(warning)

    result = models.run(images, progress=noting.progress, accept=accept)
    noting.progress(Progress("write", 0, 1))
    measured = Measured(result, case, models)
    results.write(result, measured, overwrite, job.options.keep_empty, dicom)
    facts = results.facts(result)
    if report is not None and (page := report.add(case, result, measured, results)) is not None:
        facts["report"] = page
    reporter.result(**facts, seconds=round(time.monotonic() - begin, 2))
