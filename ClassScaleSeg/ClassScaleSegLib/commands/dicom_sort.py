"""``classscaleseg dicom sort``: from the folders of an export to a folder for each series."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from ..archive.criteria import check_modality
from ..errors import ArchiveError, ImageError
from ..images.dicom.export import ExportedSeries, dead_folders, link_series, read_export
from ..process.exit_codes import ExitCode
from ..process.terminal import on_one_line
from .reporting import Reporter


def add_sort_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg dicom sort``."""
    text = "a folder of DICOM files, with any folders below, or a file"
    parser.add_argument("places", nargs="+", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--modality", help="take only series of this modality, such as CT")
    text = "folder, in which each series gets a folder with links to its files"
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON: what became of each series")


def sort_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Find the series in a DICOM export, and make a folder with links for each one that can be segmented.

    :returns: ``OK`` if all files can be read and all images of volumes form one, ``SOME_FAILED`` if some do,
        ``IMAGE`` if none does, ``USAGE`` if the modality is none.
    :raises ImageError: if there is no DICOM image.
    :raises OutputError: if the folders cannot be written.
    """
    from tqdm import tqdm

    try:
        modality = check_modality(options.modality) if options.modality is not None else None
    except ArchiveError as error:
        reporter.error(error)
        return ExitCode.USAGE
    with tqdm(unit="file", file=sys.stderr, leave=False, disable=not sys.stderr.isatty()) as bar:
        export = read_export(options.places, modality, options.output, bar.update)
    for fault in export.faults:
        print(on_one_line(fault), file=sys.stderr, flush=True)
    if not export.series:
        kind = f" of modality {modality}" if modality is not None else ""
        raise ImageError(f"{', '.join(map(str, options.places))}: there is no DICOM image{kind}, here or below.")
    rows = []
    for series in export.series:
        folder = link_series(series, options.output) if series.usable else None
        rows.append(_facts(series, folder))
        if not options.json:
            print(on_one_line(_line(series, folder)), flush=True)
    for folder in dead_folders(options.output):
        text = f"{folder} has links whose targets are missing, and is of no series that was found. Remove it."
        print(on_one_line(text), file=sys.stderr, flush=True)
    usable = sum(series.usable for series in export.series)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(on_one_line(f"{options.output}: {usable} of {len(export.series)} series can be segmented."))
        if usable:
            print(on_one_line(f"Next: classscaleseg segment {shlex.quote(str(options.output))} -m MODEL -o results/"))
    if not usable:
        return ExitCode.IMAGE
    faults = export.faults or [series for series in export.series if series.fault]
    return ExitCode.SOME_FAILED if faults else ExitCode.OK


def _line(series: ExportedSeries, folder: Path | None) -> str:
    what = f"{series.modality or '?'}, {series.images} image{'s' * (series.images != 1)}"
    if folder is not None:
        return f"{what} -> {folder}"
    return f"{series.name} ({what}) is left out: {series.needless + '.' if series.needless else series.fault}"


def _facts(series: ExportedSeries, folder: Path | None) -> dict[str, object]:
    return {
        "series": series.uid,
        "modality": series.modality,
        "description": series.description,
        "images": series.images,
        "folder": None if folder is None else str(folder),
        "left_out": series.needless or series.fault or None,
        "files": [str(file) for file in series.files],
    }
