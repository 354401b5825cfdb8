"""``classscaleseg dicom status``: what ``classscaleseg dicom watch`` has done in a folder, and whether it runs."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from ..errors import OutputError
from ..locking import is_locked
from ..process.exit_codes import ExitCode
from ..process.terminal import on_one_line
from .reporting import Reporter
from .watch_record import DONE, FAILED, LEFT_OUT, LOCK, SEGMENTED, Records

_DAYS = 7
_WORDS = {DONE: "done", LEFT_OUT: "left out", SEGMENTED: "not sent", FAILED: "failed"}
_MOST_LINES = 50  # of series that have failed; --json lists all
_RUNS = {True: "runs", False: "does not run", None: "may run"}


def add_status_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg dicom status``."""
    text = "folder of classscaleseg dicom watch, that of its option -o"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON: the same, and all series")


def status_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Say what classscaleseg dicom watch has done: how many series are done, and which have failed and why.

    :returns: ``OK``; ``SOME_FAILED`` if a series has failed or was not sent, or the archive could not be asked;
        ``USAGE`` if it is another folder.
    """
    folder = options.folder
    records = Records(folder)
    look = records.read_look()
    if look is None and not records.folder.is_dir():
        reporter.error(OutputError(f"{folder} is no folder of classscaleseg dicom watch. Name that of its option -o."))
        return ExitCode.USAGE
    found, faults = records.read_all()
    runs = is_locked(folder / LOCK)
    states = Counter(record.state for record in found)
    failed = sorted((record for record in found if record.is_open), key=lambda record: record.time, reverse=True)
    # a result without a reason is being sent
    some_failed = faults or (look is not None and look.fault) or any(record.reason for record in failed)
    code = ExitCode.SOME_FAILED if some_failed else ExitCode.OK
    if options.json:
        facts = {"runs": runs, "look": look and asdict(look), "faults": faults}
        print(json.dumps({**facts, "series": [asdict(record) for record in found]}, indent=2))
        return code
    print(on_one_line(f"{folder}: {_RUNS[runs]}{'' if look is None else f', last look {look.time}'}"))
    if look is not None and look.fault:
        print(on_one_line(look.fault))
    if look is not None and runs is not False:
        waiting = f"{look.due} series to do, {look.arriving} arriving"
        print(on_one_line(waiting + (f"; at work on {look.series} since {look.since}" if look.series else "")))
    since = f"{datetime.now() - timedelta(days=_DAYS):%Y-%m-%d %H:%M:%S}"
    recent = sum(record.state == DONE and record.time >= since for record in found)
    counts = [f"{states[state]} {word}" for state, word in _WORDS.items()]
    print(f"{counts[0]} ({recent} in the last {_DAYS} days), {', '.join(counts[1:])}")
    for record in failed[:_MOST_LINES]:
        images = f"{record.images} image{'s' * (record.images != 1)}"
        line = f"{record.time}  {_WORDS[record.state]}  {record.series} ({images})"
        print(on_one_line(f"{line}: {record.reason}" if record.reason else line))
    if len(failed) > _MOST_LINES:
        print(f"{len(failed) - _MOST_LINES} more are listed with --json.")
    for fault in faults:
        print(on_one_line(fault))
    return code
