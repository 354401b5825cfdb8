"""``classscaleseg dicom watch``: segment the series of an archive as they arrive, and send the results to it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..archive.address import check_address
from ..archive.connection import Archive
from ..archive.credentials import Names
from ..archive.criteria import Criteria, parse_dates
from ..errors import ArchiveError
from ..files import refuse_unwritable_folder
from ..images.dicom.seg import refuse_missing_highdicom
from ..locking import locked
from ..options import Options
from ..process.exit_codes import ExitCode
from ..process.job import Job
from .archive_options import add_archive_options, archive_of, with_credentials
from .job_models import completed_job, find_models
from .options import add_options
from .parsing import Parser
from .reporting import Reporter
from .watch_loop import Watch
from .watch_record import LOCK
from .watch_work import SeriesWork

_OPTIONS = (
    *("classes", "device", "dicom_seg", "step", "mirroring", "bfloat16", "memory_limit_gib", "threads", "folds"),
    *("smooth", "remove_islands", "clean_classes", "locate_with", "locate_classes", "locate_margin", "interpolation"),
)
# Never those of the other archive: a password or token goes to no address for which it was not given.
_TARGET = Names("--to-user", "CLASSSCALESEG_DICOM_TO_PASSWORD", "CLASSSCALESEG_DICOM_TO_TOKEN")
_SHORTEST, _LONGEST = 5, 86400  # seconds between two looks
_MOST_DAYS = 3660
_LEAST_PATIENCE, _MOST_PATIENCE = 1, 1440  # minutes; loading a large model may take one


def add_watch_options(parser: Parser) -> None:
    """Add the options of ``classscaleseg dicom watch``."""
    add = parser.add_argument
    add("-m", "--model", nargs="+", action="extend", required=True, metavar="MODEL", help="as of classscaleseg segment")
    text = "segment only series of this modality, such as CT"
    add("--modality", required=True, help=text)
    days = parser.add_mutually_exclusive_group(required=True)
    text = "day of the study, or a range, usually from a day on: 20260131-"
    days.add_argument("--date", metavar="DAY", help=text)
    text = "studies of the last N days, counted anew at each look: 1 for those of today"
    days.add_argument("--days", type=int, metavar="N", help=text)
    add("--description", metavar="TEXT", help="a part of the description of the study")
    add("--series-description", metavar="TEXT", help="a part of the description of the series")
    text = "pass over series with fewer images (default: 10)"
    add("--least-images", type=int, default=10, metavar="N", help=text)
    text = "folder of the results, and of what is done; the same folder goes on there"
    add("-o", "--output", required=True, metavar="FOLDER", help=text)
    add("--to", metavar="URL", help="send the results to this archive (default: to the one that has the images)")
    text = f"user of the archive of --to; the password is in the environment variable {_TARGET.password}, or asked for"
    add("--to-user", metavar="NAME", help=text)
    add("--no-send", action="store_true", help="keep the results in the folder alone")
    add("--keep-images", action="store_true", help="keep the images that were fetched")
    add("--every", type=float, default=60.0, metavar="SECONDS", help="time between two looks (default: 60)")
    text = "end a segmentation that has made no progress for so long; it is tried again as others (default: 30)"
    add("--patience", type=float, default=30.0, metavar="MINUTES", help=text)
    add("--once", action="store_true", help="segment the series that there are now, and end")
    add_archive_options(parser, "--from", "a line for each series")
    add_options(parser, *_OPTIONS)


def watch_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment the series of an archive (PACS) as they arrive, and send the results to it, until it is stopped.

    :returns: with ``--once``, ``OK`` if all series are done, and ``SOME_FAILED`` if some are not; ``USAGE`` if an
        argument is wrong.
    :raises ModelError: if a model cannot be used.
    :raises OutputError: if the folder cannot be written, or the package highdicom is missing.
    :raises Busy: if another process works in the folder.
    :raises ArchiveError: with ``--once``, if the archive cannot be reached.
    """
    try:
        archive = archive_of(options)
        target = _target(options, archive)
        if options.days is not None and not 1 <= options.days <= _MOST_DAYS:
            raise ArchiveError(f"--days {options.days} is not possible. Give 1 to {_MOST_DAYS}.")
        dates = parse_dates(options.date) if options.date is not None else ("", "")
        criteria = Criteria(dates=dates, modality=options.modality, description=options.description)
        if not _SHORTEST <= options.every <= _LONGEST:
            how = "too often" if options.every < _SHORTEST else "no number of seconds to wait"
            raise ArchiveError(f"--every {options.every:g} is {how}. Give {_SHORTEST} to {_LONGEST} seconds.")
        if not _LEAST_PATIENCE <= options.patience <= _MOST_PATIENCE:
            raise ArchiveError(
                f"--patience {options.patience:g} is not possible. Give {_LEAST_PATIENCE} to {_MOST_PATIENCE} minutes."
            )
    except ArchiveError as error:
        reporter.error(error)
        return ExitCode.USAGE
    refuse_missing_highdicom()
    folder = Path(options.output)
    refuse_unwritable_folder(folder / "results" / "a result")
    chosen = Options(**{name: getattr(options, name) for name in _OPTIONS})
    job = completed_job(Job((), tuple(options.model), "", options=chosen))
    _ = find_models(job).table  # a model or class that does not exist is told now, not when a series arrives
    with locked(folder / LOCK, f"{folder} is being used"):
        work = SeriesWork(folder, job, target, 60 * options.patience)
        work.sweep()
        return Watch(options, archive, criteria, work, reporter).run()


def _target(options: argparse.Namespace, archive: Archive) -> Archive | None:
    """Return the archive for the results; ``None`` if they stay in the folder.

    :param archive: that has the images.
    :raises ArchiveError: if the address is not valid or not encrypted, or credentials are missing, or two options
        contradict each other.
    """
    if options.to is None:
        if options.to_user is not None:
            raise ArchiveError("--to-user is the user of the archive of --to. Give --to, or leave --to-user out.")
        return None if options.no_send else archive
    if options.no_send:
        raise ArchiveError("--to names an archive for the results, and --no-send keeps them. Leave one of them out.")
    same = options.to_user is None and check_address(options.to, _TARGET) == archive.address
    return archive if same else with_credentials(options.to, options.to_user, options.insecure, _TARGET)
