"""``classscaleseg dicom``: sort an export; find series in an archive, fetch them, send to it, and watch it."""

from __future__ import annotations

import argparse

from ..process.exit_codes import ExitCode
from .archive_options import add_archive_options
from .dicom_fetch import fetch_command
from .dicom_find import find_command
from .dicom_send import send_command
from .dicom_sort import add_sort_options, sort_command
from .dicom_status import add_status_options, status_command
from .dicom_watch import add_watch_options, watch_command
from .options import add_command
from .parsing import Parser
from .reporting import Reporter

_ARCHIVE = "http://localhost:8042/dicom-web"


def add_dicom_options(parser: Parser) -> None:
    """Add the actions of ``classscaleseg dicom``."""
    parser.meant = "classscaleseg dicom send {} --to URL"
    commands = parser.add_subparsers(required=True, metavar="ACTION")
    add_sort_options(add_command(commands, "action", "sort", sort_command, "export/ --modality CT -o cases/"))
    _add_find(add_command(commands, "action", "find", find_command, f"--from {_ARCHIVE} --modality CT"))
    _add_fetch(add_command(commands, "action", "fetch", fetch_command, f"--from {_ARCHIVE} --series 1.2.3 -o series/"))
    words = f"--from {_ARCHIVE} --modality CT --date 20260131- -m toy-120 -o results/"
    add_watch_options(add_command(commands, "action", "watch", watch_command, words))
    add_status_options(add_command(commands, "action", "status", status_command, "results/"))
    sending = add_command(commands, "action", "send", send_command, f"ct.seg.dcm --to {_ARCHIVE}")
    text = "a DICOM file, or a folder, of which all DICOM files are sent"
    sending.add_argument("files", nargs="+", metavar="FILE", help=text)
    add_archive_options(sending, "--to", "what happened to each file")


def _add_find(finding: Parser) -> None:
    text = "patient ID, letter by letter; * stands for any letters"
    finding.add_argument("--patient", metavar="ID", help=text)
    finding.add_argument("--name", help="parts of the patient's name, in the order of the name")
    text = "day of the study, or a range: 20260131, 20260101-20260331, 20260101-"
    finding.add_argument("--date", metavar="DAY", help=text)
    finding.add_argument("--modality", help="list only series of this modality, such as CT, and their studies")
    finding.add_argument("--description", metavar="TEXT", help="a part of the description of the study")
    finding.add_argument("--study", metavar="UID", help="StudyInstanceUID")
    text = "list this many studies at most (default: 100)"
    finding.add_argument("--limit", type=_count, default=100, metavar="N", help=text)
    text = "JSON file with what is searched for, which other users of the computer could read on the command line"
    finding.add_argument("--criteria", metavar="FILE", help=text)
    add_archive_options(finding, "--from", "the studies and their series")


def _add_fetch(fetching: Parser) -> None:
    text = "series to fetch (SeriesInstanceUID)"
    fetching.add_argument("--series", nargs="+", action="extend", default=[], metavar="UID", help=text)
    text = "studies of which all series are fetched (StudyInstanceUID); with --series, in which these are"
    fetching.add_argument("--study", nargs="+", action="extend", default=[], metavar="UID", help=text)
    fetching.add_argument("--modality", help="fetch only series of this modality, such as CT")
    text = "folder, in which each series gets a folder named after its UID; what is there is not fetched again"
    fetching.add_argument("-o", "--output", required=True, metavar="FOLDER", help=text)
    text = "let the archive decompress the pixels, if it compresses them in a way that cannot be read"
    fetching.add_argument("--decompress", action="store_true", help=text)
    text = "JSON file with lists of the series and studies, of which a command line has room for some hundreds only"
    fetching.add_argument("--criteria", metavar="FILE", help=text)
    add_archive_options(fetching, "--from", "what was fetched of each series")


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError("it must be a number, 1 or more")
    return int(text)


def dicom_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Sort a DICOM export by its series; find series in an archive (PACS), fetch them, send to it, or watch it."""
    return options.action(options, reporter)
