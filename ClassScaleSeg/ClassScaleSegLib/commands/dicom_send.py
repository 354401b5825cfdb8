"""``classscaleseg dicom send``: send DICOM files to an archive."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter

from ..archive.files import DicomFile, find_dicom_files
from ..archive.sending import UNSENT, Sent, send
from ..errors import ArchiveError, Cancelled, ClassScaleError
from ..inference.progress import Progress
from ..process.exit_codes import ExitCode, exit_code
from ..process.terminal import on_one_line
from .archive_options import archive_of
from .reporting import Reporter


def send_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Send DICOM files, such as results or a whole series, to an archive (PACS) by DICOMweb (STOW-RS).

    :returns: ``OK`` if all were stored, ``SOME_FAILED`` if some were, ``USAGE`` if address or user are wrong, otherwise
        the code of the reason.
    :raises ImageError: if a file is not DICOM.
    """
    try:
        archive = archive_of(options)
    except ArchiveError as error:
        reporter.error(error)
        return ExitCode.USAGE
    files, sent = find_dicom_files(options.files), []
    fault: ClassScaleError | None = None
    try:
        for one in send(files, archive):
            sent.append(one)
            if options.json_progress:
                reporter.progress(Progress("send", len(sent), len(files)))
            if one.reason and not options.json:
                print(on_one_line(f"{one.file}: {one.state}. {one.reason}"), file=sys.stderr, flush=True)
    except ClassScaleError as error:
        fault = error
    except KeyboardInterrupt:
        fault = Cancelled("Cancelled.")
    sent += _unsent(files[len(sent) :], fault)
    arrived = sum(one.arrived for one in sent)
    rows = [{"file": str(one.file), "instance": one.instance, "state": one.state, "reason": one.reason} for one in sent]
    if options.json_progress:
        for row in rows:
            reporter.result(**row)
    elif options.json:
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
