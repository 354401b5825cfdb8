"""``classscaleseg segment``: segment one case or many, with one model or several."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .. import errors
from ..catalog.catalog import resolve_model
from ..catalog.download import sha256_of
from ..files import replacing
from ..images.dicom_seg import DICOM_SUFFIX, DicomSeg, UsedModel, refuse_missing_highdicom
from ..images.dicom_source import read_source
from ..images.formats import (
    IMAGE_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    TABLE_SUFFIXES,
    check_writable,
    files_of,
    writable_geometry,
)
from ..images.geometry import Geometry
from ..images.reading import InputImage, read_image
from ..images.segmentation import Segmentation
from ..inference.progress import Progress
from ..inference.segmenter import segment_with
from ..inference.several_models import common_channels, segment_parts
from ..models.model import open_model
from ..models.summary import summarize
from ..options import FIELDS, Options
from ..process.exit_codes import ExitCode
from ..process.job import Job, read_job
from ..process.terminal import flush
from .cases import Case, find_cases
from .options import add_options
from .reporting import Reporter

_OPTIONS = tuple(name for name in FIELDS if name != "confidence")  # --confidence names a file
_IN_JOB = ("images", "output", "model", "confidence", "statistics", "classes_file", *_OPTIONS)
_SIDE_FILES = {  # the suffix of a file in a folder, and the allowed suffixes
    "confidence": (".nrrd", IMAGE_SUFFIXES),
    "statistics": (".csv", TABLE_SUFFIXES),
}


class _Models(NamedTuple):
    """What the models of a job have in common, and a function that segments an image with them.

    :ivar channels: number of input channels.
    :ivar flat: whether all are 2D.
    :ivar nibabel: whether the first model's images were read with nibabel, as of :func:`read_image`.
    :ivar used: their names and licences, and the paths of their files.
    """

    channels: int
    flat: bool
    nibabel: bool
    run: Callable[..., Segmentation]
    used: tuple[tuple[UsedModel, Path], ...]


def add_segment_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg segment``."""
    images = parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="an image, one file per channel, a DICOM folder, several images, or a folder of images",
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
    add_options(parser, *_OPTIONS)
    parser.set_defaults(**dict.fromkeys(_OPTIONS))  # None: not given
    parser.add_argument(
        "--format",
        default=".seg.nrrd",
        choices=(".seg.nrrd", ".nii.gz", ".nrrd", ".mha", DICOM_SUFFIX),
        help="format of segmentations that are written into a folder (default: .seg.nrrd)",
    )
    parser.add_argument(
        "--classes-file", metavar="FILE", help="text file with classes to keep, one name or label value per line"
    )
    parser.add_argument(
        "--confidence",
        metavar="FILE",
        help="also write the probability of each voxel's class; with several images, name a folder",
    )
    parser.add_argument(
        "--statistics",
        metavar="FILE",
        help="also write volume, surface, position and intensities of each class as CSV; with several images, name a "
        "folder",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist already")
    parser.add_argument("--json-progress", action="store_true", help="report progress as JSON lines on standard output")
    parser.add_argument(
        "--stop-with-parent",
        nargs=2,
        metavar=("PID", "FOLDER"),
        help="for programs: when the process PID ends, stop and remove FOLDER",
    )

    def instead_of_the_rest(file: str) -> Path:
        images.required = output.required = model.required = False
        return Path(file)

    parser.add_argument(
        "--job",
        type=instead_of_the_rest,
        metavar="FILE",
        help="for programs: take images, models, results and all choices from FILE, in JSON, instead of options",
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
    job = _job(options)
    models = _models(job)
    found = find_cases(job.images, models.channels, job.output, options.format, models.flat)
    if found.many and job.more_outputs:
        raise errors.OutputError(
            "With several images, give one folder (-o); --format chooses the format of the results."
        )
    failed = []
    for index, case in enumerate(found.cases, start=1):
        reporter.begin(case.name, index, len(found.cases))
        try:
            if found.many and case.output.exists() and not options.overwrite:
                reporter.skipped(f"{case.output} exists already")
                continue
            _refuse_name(case)
            files = _side_files(job, case, found.many)
            outputs = _outputs(job, case, options.overwrite)
            for kind, path in files.items():
                check_writable(path, options.overwrite, _SIDE_FILES[kind][1])
            _segment_case(job, options.overwrite, reporter, case, outputs, files, models)
        except Exception as error:
            if not found.many or isinstance(error, errors.Cancelled):
                raise
            if isinstance(error, OSError):
                flush(error)  # standard output may be what has failed, and that ends the command
            if not isinstance(error, errors.ClassScaleError):  # a bug, ours or a library's
                error = reporter.faults.sentence(case.name, error)
            reporter.error(error)
            failed.append(case.name)
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


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
    files = (output, options.confidence, options.statistics)
    return Job(tuple(options.images), tuple(options.model), *files, Options(**chosen), tuple(more))


def _models(job: Job) -> _Models:
    """Open a single model, once for all cases; several are opened one after the other in each case."""
    sources = [path for text in job.models for path in resolve_model(str(text))]
    options = replace(job.options, confidence=job.confidence is not None)
    if len(sources) == 1:
        model = open_model(sources[0], options.folds, options.checkpoint, options.configuration)
        flat = len(model.patch) == 2
        run = partial(segment_with, model=model, options=options)
        only = (UsedModel(model.name, model.licence), Path(sources[0]))
        return _Models(model.channels, flat, model.reads_with_nibabel, run, (only,))
    channels = common_channels(sources, options.configuration)
    summaries = [summarize(source, options.configuration) for source in sources]
    flat = all(len(summary.patch) == 2 for summary in summaries)
    run = partial(segment_parts, sources=sources, options=options)
    used = tuple((UsedModel(summary.name, summary.licence), summary.path) for summary in summaries)
    return _Models(channels, flat, summaries[0].reads_with_nibabel, run, used)


def _refuse_name(case: Case) -> None:
    """Refuse images whose names are not UTF-8 before their results, which are named after them, are refused."""
    for file in map(str, case.files):
        if file != file.encode(errors="ignore").decode():
            raise errors.ImageError(f"{file!a} is not a name in UTF-8, which ITK needs. Rename the file or its folder.")


def _outputs(job: Job, case: Case, overwrite: bool) -> list[Path]:
    """Return the files that get the segmentation, once it is known that all of them can be written."""
    outputs = [case.output, *map(Path, job.more_outputs)]
    written: set[Path] = set()
    for output in outputs:
        check_writable(output, overwrite, SEGMENTATION_SUFFIXES)
        own = {file.absolute() for file in files_of(output)}
        if own & written:
            raise errors.OutputError(f"{output} or its colour table would replace another result. Choose another name.")
        written |= own
    return outputs


def _side_files(job: Job, case: Case, many: bool) -> dict[str, Path]:
    """Return the confidence and statistics files of a case; with many cases, the job names folders."""
    return {
        kind: Path(path) / f"{case.name}{suffix}" if many else Path(path)
        for kind, (suffix, *_) in _SIDE_FILES.items()
        if (path := getattr(job, kind)) is not None
    }


def _first_channel(case: Case, models: _Models) -> InputImage:
    """Read the image anew for its intensities: during the segmentation its voxels were freed."""
    channels = models.channels if len(case.files) == 1 else 1
    return read_image(case.files[0], channels, flat=models.flat, nibabel=models.nibabel)


def _dicom_seg(job: Job, case: Case, outputs: Sequence[Path], reporter: Reporter, models: _Models) -> DicomSeg | None:
    """Return what the DICOM segmentation of a case needs, before the long computation; ``None`` for other formats."""
    if not any(output.name.lower().endswith(DICOM_SUFFIX) for output in outputs):
        return None
    refuse_missing_highdicom()
    series = read_source(case.files[0])
    used = tuple(replace(model, sha256=sha256_of(path) if path.is_file() else None) for model, path in models.used)
    return DicomSeg(
        series,
        job.options.dicom_seg,
        used,
        tell=lambda sentence: reporter.progress(Progress("write", 0, 1, message=sentence)),
    )


def _segment_case(
    job: Job,
    overwrite: bool,
    reporter: Reporter,
    case: Case,
    outputs: Sequence[Path],
    files: dict[str, Path],
    models: _Models,
) -> None:
    begin = time.monotonic()
    written = [*outputs, *(files[kind] for kind in files if kind == "confidence")]

    def accept(geometry: Geometry) -> None:
        for path in written:
            writable_geometry(path, geometry)

    images = case.files[0] if len(case.files) == 1 else case.files
    dicom = _dicom_seg(job, case, outputs, reporter, models)
    result = models.run(images, progress=reporter.progress, accept=accept)
    reporter.progress(Progress("write", 0, 1))
    with ExitStack() as stack:  # these files are written before, and renamed after, the segmentation gets its name
        for kind, path in files.items():
            temporary = stack.enter_context(replacing(path, overwrite))
            if kind == "confidence":
                result.write_confidence(temporary)
            else:
                image = _first_channel(case, models)
                assert image.voxels is not None  # an image that was just read has its voxels
                result.write_statistics(temporary, image=image.voxels[0])
                del image
        for output in reversed(outputs):  # the first one, which tells that a case is finished, comes last
            result.write(output, overwrite, job.options.keep_empty, dicom)
    structures = sum(row.voxels > 0 for row in result.statistics())
    seconds = round(time.monotonic() - begin, 2)
    more = {"more_outputs": outputs[1:]} if len(outputs) > 1 else {}
    changes = {} if result.changes is None else {"changes": [asdict(change) for change in result.changes]}
    reporter.result(output=case.output, **more, **files, structures=structures, seconds=seconds, **changes)
