"""``classscaleseg dicom``: send DICOM files to an archive. Passwords are never on the command line."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections import Counter

from ..archive.connection import Archive
from ..archive.files import DicomFile, find_dicom_files
from ..archive.sending import UNSENT, Sent, send
from ..errors import ArchiveError, Cancelled, ClassScaleError
from ..process.exit_codes import ExitCode, exit_code
from ..process.terminal import on_one_line
from .options import add_command
from .parsing import Parser
from .reporting import Reporter

PASSWORD, TOKEN = "CLASSSCALESEG_DICOM_PASSWORD", "CLASSSCALESEG_DICOM_TOKEN"


def add_dicom_options(parser: Parser) -> None:
    """Add the actions of ``classscaleseg dicom``."""
    parser.meant = "classscaleseg dicom send {} --to URL"
    commands = parser.add_subparsers(required=True, metavar="ACTION")
    sending = add_command(commands, "action", "send", _send, "ct.seg.dcm --to http://localhost:8042/dicom-web")
    text = "a DICOM file, or a folder, of which all DICOM files are sent"
    sending.add_argument("files", nargs="+", metavar="FILE", help=text)
    text = "root of the archive's DICOMweb service, such as http://localhost:8042/dicom-web"
    sending.add_argument("--to", required=True, metavar="URL", help=text)
    text = f"user of the archive; the password is in the environment variable {PASSWORD}, or asked for"
    sending.add_argument("--user", metavar="NAME", help=text)
    text = "send images, password and token to another machine even if the address is not one of https"
    sending.add_argument("--insecure", action="store_true", help=text)
    sending.add_argument("--json", action="store_true", help="print JSON: what happened to each file")


def dicom_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Send DICOM files to an archive."""
    return options.action(options, reporter)


def _send(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Send DICOM files, such as results or a whole series, to an archive (PACS) by DICOMweb (STOW-RS).

    :returns: ``OK`` if all were stored, ``SOME_FAILED`` if some were, ``USAGE`` if address or user are wrong, otherwise
        the code of the reason.
    :raises ImageError: if a file is not DICOM.
    """
    try:
        archive = _archive(options)
    except ArchiveError as error:
        reporter.error(error)
        return ExitCode.USAGE
    files, sent = find_dicom_files(options.files), []
    fault: ClassScaleError | None = None
    try:
        for one in send(files, archive):
            sent.append(one)
            if one.reason and not options.json:
                print(on_one_line(f"{one.file}: {one.state}. {one.reason}"), file=sys.stderr, flush=True)
    except ClassScaleError as error:
        fault = error
    except KeyboardInterrupt:
        fault = Cancelled("Cancelled.")
    sent += _unsent(files[len(sent) :], fault)
    arrived = sum(one.arrived for one in sent)
    if options.json:
        rows = [
            {"file": str(one.file), "instance": one.instance, "state": one.state, "reason": one.reason} for one in sent
        ]
        print(json.dumps(rows, indent=2))
    else:
        counts = Counter(one.state for one in sent)
        print(f"{archive.address}: {', '.join(f'{count} {state}' for state, count in counts.items())}", flush=True)
    if isinstance(fault, Cancelled):
        raise fault
    if fault is not None:
        reporter.error(fault)
    if arrived == len(sent):
        return ExitCode.OK
    return ExitCode.SOME_FAILED if arrived else exit_code(fault or ArchiveError())


def _unsent(files: list[DicomFile], fault: ClassScaleError | None) -> list[Sent]:
    return [Sent(file.path, file.instance, UNSENT, str(fault)) for file in files]


def _archive(options: argparse.Namespace) -> Archive:
    """Return the archive with the credentials that the environment, or the user who is asked, gives.

    :raises ArchiveError: if the address is not valid or not encrypted, or credentials are missing.
    """
    token = None if options.user is not None else os.environ.get(TOKEN) or None
    password = os.environ.get(PASSWORD) if options.user is not None else None
    archive = Archive(options.to, options.user, password, token, options.insecure)
    if options.user is None or password is not None:
        return archive
    if not sys.stdin.isatty():
        raise ArchiveError(
            f"The password of {options.user} is missing, and nobody can be asked, because standard input is not a "
            f"terminal. Put it into the environment variable {PASSWORD}."
        )
    password = getpass.getpass(f"Password of {options.user} at {archive.address}: ")
    return Archive(options.to, options.user, password, None, options.insecure)
