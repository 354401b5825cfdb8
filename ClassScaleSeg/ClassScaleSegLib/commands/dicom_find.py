"""``classscaleseg dicom find``: list studies of an archive and their series."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from ..archive.asking import asking
from ..archive.criteria import Criteria, parse_dates
from ..archive.searching import Search, Series, Study
from ..errors import ArchiveError
from ..process.exit_codes import ExitCode
from ..process.terminal import on_one_line
from .archive_options import archive_of, criteria_of
from .reporting import Reporter

_CRITERIA = ("patient", "name", "date", "modality", "description", "study")
_LONGEST = 40  # letters of a text in the table


def find_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Find studies and their series in an archive (PACS) by DICOMweb (QIDO-RS).

    :returns: ``OK`` even if there are none, ``USAGE`` if the address, the user or what is searched for is wrong.
    :raises ArchiveError: if the archive cannot be reached, or does not search.
    """
    try:
        archive, wanted = archive_of(options), criteria_of(options, _CRITERIA)
        dates = parse_dates(wanted["date"]) if "date" in wanted else ("", "")
        criteria = Criteria(dates=dates, **{name: wanted[name] for name in wanted if name != "date"})
    except ArchiveError as error:
        reporter.error(error)
        return ExitCode.USAGE
    with asking(archive) as ask:
        search = Search(ask)
        studies = search.studies(criteria, options.limit)
    for notice in search.notices:
        reporter.message(notice)
    if options.json_progress:
        for study in studies:
            reporter.result(**asdict(study))
    elif options.json:
        print(json.dumps([asdict(study) for study in studies], indent=2))
    elif studies:
        _print(sorted(studies, key=lambda study: (study.name.casefold(), study.patient, study.date)))
    else:
        hint = " Some archives compare case and accents of names." if criteria.name is not None else ""
        print(f"No study of {archive.address} is like that.{hint}")
    return ExitCode.OK


def _print(studies: Sequence[Study]) -> None:
    """Print a table in which the series follow their study. The last word of each line is a UID."""
    rows = [("DATE", "PATIENT", "NAME", "STUDY", "UID")]
    rows += [
        (_day(study.date), _short(study.patient), _short(study.name), _short(study.description), study.uid)
        for study in studies
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    indented = [_series_row(series) for study in studies for series in study.series]
    columns = [max((len(row[column]) for row in indented), default=0) for column in range(3)]
    indent = " " * 12
    place = max(sum(widths) + 8, len(indent) + sum(columns) + 6)  # of the UID
    for row, study in zip(rows, (None, *studies), strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)).ljust(place) + row[-1])
        for series in study.series if study is not None else ():
            modality, images, description = _series_row(series)
            cells = f"{modality:<{columns[0]}}  {images:>{columns[1]}}  {description}"
            print((indent + cells).ljust(place) + series.uid)


def _series_row(series: Series) -> tuple[str, str, str]:
    images = "? images" if series.images is None else f"{series.images} {'image ' if series.images == 1 else 'images'}"
    return _short(series.modality) or "?", images, _short(series.description)


def _day(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else _short(date)


def _short(text: str) -> str:
    """Return a text of the archive so that it neither controls the terminal nor fills it."""
    line = on_one_line(" ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."
