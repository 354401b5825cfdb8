"""``classscaleseg segment``: segment one case or many, with one model or several."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import errors
from ..process.exit_codes import ExitCode
from .cases import Case, find_cases
from .options import count, fraction, model_options, positive
from .reporting import Reporter

if TYPE_CHECKING:
    from ..images.segmentation import Segmentation


def add_segment_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg segment``."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="an image, one file per channel, a DICOM folder, several images, or a folder of images",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="file of the segmentation; with several images, a folder"
    )
    parser.add_argument(
        "-m",
        "--model",
        required=True,
        action="append",
        help="nnU-Net v2 model folder, exported zip, bundle, or id or name of a model of the catalogue. Several models "
        "(-m A -m B) make one segmentation with the classes of all; where two claim a voxel, the later one gets it.",
    )
    model_options(parser)
    parser.add_argument(
        "--format",
        default=".seg.nrrd",
        choices=(".seg.nrrd", ".nii.gz", ".nrrd", ".mha"),
        help="format of segmentations that are written into a folder (default: .seg.nrrd)",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--step",
        type=fraction,
        default=0.5,
        help="distance between windows as a fraction of the patch (default: 0.5)",
    )
    parser.add_argument(
        "--no-mirroring",
        action="store_true",
        help="do not average over mirrored patches: faster, slightly less accurate",
    )
    parser.add_argument(
        "--classes", nargs="+", action="extend", metavar="NAME", help="names or label values of the classes to keep"
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
        help="also write the voxels and millilitres of each class as CSV; with several images, name a folder",
    )
    parser.add_argument(
        "--memory-limit", type=positive, metavar="GIB", help="GiB of GPU memory, or of RAM on a CPU, that may be used"
    )
    parser.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="number of CPU threads (default: OMP_NUM_THREADS, or all cores but one)",
    )
    parser.add_argument("--keep-empty", action="store_true", help="also list classes that were not found")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist already")
    parser.add_argument("--json-progress", action="store_true", help="report progress as JSON lines on standard output")
    parser.add_argument(
        "--stop-with-parent",
        nargs=2,
        metavar=("PID", "FOLDER"),
        help="for programs: when the process PID ends, stop and remove FOLDER",
    )


def segment_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment one image or many. With many, finished ones are skipped, and a failed one does not stop the others.

    :param options: of :func:`add_segment_options`.
    :param reporter: for progress, results and errors.
    :returns: ``SOME_FAILED`` if one of many cases failed, otherwise ``OK``.
    :raises ClassScaleError: if the only case failed.
    """
    from ..images.formats import IMAGE_SUFFIXES, SEGMENTATION_SUFFIXES, TABLE_SUFFIXES, check_writable

    suffixes = {"confidence": IMAGE_SUFFIXES, "statistics": TABLE_SUFFIXES}
    if options.classes_file is not None:
        options.classes = [*(options.classes or ()), *read_classes(Path(options.classes_file))]
    channels, run = _models(options)
    found = find_cases(options.images, channels, options.output, options.format)
    failed = []
    for index, case in enumerate(found.cases, start=1):
        reporter.begin(case.name, index, len(found.cases))
        if found.many and case.output.exists() and not options.overwrite:
            reporter.skipped(case.name, f"{case.output} exists already")
            continue
        try:
            files = _side_files(options, case, found.many)
            check_writable(case.output, options.overwrite, SEGMENTATION_SUFFIXES)
            for kind, path in files.items():
                check_writable(path, options.overwrite, suffixes[kind])
            _segment_case(options, reporter, case, files, run)
        except errors.Cancelled:
            raise
        except Exception as error:
            if not found.many:
                raise
            if not isinstance(error, errors.ClassScaleError):
                traceback.print_exc()  # a bug, ours or a library's: show it and continue with the other cases
                error = errors.ClassScaleError(f"{case.name} failed unexpectedly ({type(error).__name__}: {error}).")
            reporter.error(case.name, error)
            failed.append(case.name)
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def read_classes(path: Path) -> list[str]:
    """Return the class names and label values that a text file lists, one per line.

    :param path: a file in UTF-8; empty lines are ignored.
    :raises LabelTableError: if the file cannot be read as UTF-8 text, or lists none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise errors.LabelTableError(f"{path} cannot be read ({reason}). It should list one class per line.") from error
    if not any(line.strip() for line in lines):
        raise errors.LabelTableError(f"{path} lists no class. Write one name or label value per line.")
    return [line.strip() for line in lines if line.strip()]


def _models(options: argparse.Namespace) -> tuple[int, Callable[..., Segmentation]]:
    """Return the number of input channels, and a function that segments an image with the models.

    A single model is opened once for all cases.
    """
    from ..catalog.catalog import resolve_model
    from ..inference.segmenter import segment
    from ..inference.several_models import common_channels, segment_parts
    from ..models.model import open_model

    sources = [path for text in options.model for path in resolve_model(text)]
    which = {"folds": options.folds, "checkpoint": options.checkpoint, "configuration": options.configuration}
    if len(sources) == 1:
        model = open_model(sources[0], **which)
        return model.channels, lambda image, **more: segment(image, model, **more)
    channels = common_channels(sources, options.configuration)
    return channels, lambda image, **more: segment_parts(image, sources, **which, **more)


def _side_files(options: argparse.Namespace, case: Case, many: bool) -> dict[str, Path]:
    """Return the confidence and statistics files of a case; with many cases, the options name folders."""
    files = {}
    for kind, suffix in (("confidence", ".nrrd"), ("statistics", ".csv")):
        if (named := getattr(options, kind)) is not None:
            files[kind] = Path(named) / f"{case.name}{suffix}" if many else Path(named)
    return files


def _segment_case(options: argparse.Namespace, reporter: Reporter, case: Case, files: dict, run: Any) -> None:
    from ..files import replacing
    from ..inference.progress import Progress

    begin = time.monotonic()
    result = run(
        case.files[0] if len(case.files) == 1 else case.files,
        progress=reporter.progress,
        device=options.device,
        step=options.step,
        mirroring=not options.no_mirroring,
        classes=options.classes,
        confidence="confidence" in files,
        memory_limit=None if options.memory_limit is None else int(options.memory_limit * 2**30),
        threads=options.threads,
    )
    reporter.progress(Progress("write", 0, 1))
    writers = {"confidence": result.write_confidence, "statistics": result.write_statistics}
    with ExitStack() as stack:  # all files are written before any is renamed to its final name
        for kind, path in files.items():
            writers[kind](stack.enter_context(replacing(path, options.overwrite)))
        result.write(case.output, options.overwrite, options.keep_empty)
    structures = sum(row.voxels > 0 for row in result.statistics())
    reporter.result(
        case.name, output=case.output, **files, structures=structures, seconds=round(time.monotonic() - begin, 2)
    )
