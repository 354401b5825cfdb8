"""What ``classscaleseg segment`` can be told: its options, and the job that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from .. import errors
from ..images.suffixes import SEGMENTATION_SUFFIXES, STATISTICS_SUFFIXES
from ..options import FIELDS, Options
from ..process.job import Job, read_job
from .options import add_options
from .parsing import Parser, add_program_options
from .server_options import add_server_options

FORMATS = tuple(suffix for suffix in SEGMENTATION_SUFFIXES if suffix != ".nii")  # which is not compressed
_OPTIONS = tuple(name for name in FIELDS if name != "confidence")  # --confidence names a file
_BESIDE = (
    "images",
    "output",
    "model",
    "confidence",
    "statistics",
    "statistics_format",
    "report",
    "classes_file",
    "bids",
    "server",
    "server_ca",
    "insecure",
)
NOT_BESIDE_JOB = (*_BESIDE, *_OPTIONS)


def _suffix(text: str) -> str:
    """Return a suffix as a format is called: ``nii.gz`` means ``.nii.gz``."""
    return f".{text.lower().removeprefix('.')}"


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
        type=_suffix,
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
        "report that refers to a .seg.dcm. May be given several times. With several images, .csv and .xlsx are one "
        "table of all, and a folder gets a file of each",
    )
    more.add_argument(
        "--statistics-format",
        action="append",
        type=_suffix,
        choices=STATISTICS_SUFFIXES,
        help="format of statistics that are written into a folder (default: .csv). May be given several times.",
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
    add_options(speed, "device", "mirroring", "step", "interpolation", "bfloat16", "memory_limit_gib", "threads")
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
    add_program_options(parser).add_argument(
        "--job",
        type=instead(images, output, model),
        metavar="FILE",
        help="take images, models, results and all choices from FILE, in JSON, instead of options",
    )


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


def job_of_options(options: argparse.Namespace) -> Job:
    """Return the job of the command line, or of the file that it names.

    :raises ClassScaleError: if a choice is wrong, or the file is not a job.
    """
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
