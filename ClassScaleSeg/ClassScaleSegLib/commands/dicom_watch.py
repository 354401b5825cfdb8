"""``classscaleseg dicom watch``: segment the series of an archive as they arrive, and send the results to it."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path

from ..archive.asking import Asking, asking
from ..archive.connection import Archive, NotReached
from ..archive.criteria import Criteria, parse_dates
from ..archive.fetching import SeriesFetch
from ..archive.files import find_dicom_files
from ..archive.received import look_at
from ..archive.searching import MOST_LOOKED_THROUGH, Search, Series
from ..archive.sending import send
from ..errors import ArchiveError, ClassScaleError, ImageError, OutputError, named, reason
from ..files import refuse_unwritable_folder, replacing
from ..images.dicom.deflate import read_header
from ..images.dicom.seg import refuse_missing_highdicom
from ..locking import locked
from ..options import Options
from ..process.exit_codes import ExitCode
from ..process.job import Job
from ..process.segmentation import SegmentationProcess
from ..process.terminal import on_one_line
from .archive_options import add_archive_options, archive_of
from .job_models import completed_job, find_models
from .options import add_options
from .parsing import Parser
from .reporting import Reporter
from .watch_record import DONE, FAILED, LEFT_OUT, SEGMENTED, Records, SeriesRecord

_OPTIONS = ("classes", "device", "dicom_seg", "step", "mirroring", "memory_limit_gib", "threads")
_SHORTEST, _LONGEST = 5, 86400  # seconds between two looks
_MOST_DAYS = 3660
_MOST_ATTEMPTS = 8  # at a series, each after twice the time, until the command is started again


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
    add("--no-send", action="store_true", help="keep the results in the folder alone")
    add("--keep-images", action="store_true", help="keep the images that were fetched")
    add("--every", type=float, default=60.0, metavar="SECONDS", help="time between two looks (default: 60)")
    add("--once", action="store_true", help="segment what there is now, and end")
    add_archive_options(parser, "--from", "a line for each series", programs=False)
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
        target = archive if options.to is None else replace(archive, address=options.to)
        if options.days is not None and not 1 <= options.days <= _MOST_DAYS:
            raise ArchiveError(f"--days {options.days} is not possible. Give 1 to {_MOST_DAYS}.")
        dates = parse_dates(options.date) if options.date is not None else ("", "")
        criteria = Criteria(dates=dates, modality=options.modality, description=options.description)
        if options.to is not None and options.no_send:
            raise ArchiveError(
                "--to names an archive for the results, and --no-send keeps them. Leave one of them out."
            )
        if not _SHORTEST <= options.every <= _LONGEST:
            how = "too often" if options.every < _SHORTEST else "no number of seconds to wait"
            raise ArchiveError(f"--every {options.every:g} is {how}. Give {_SHORTEST} to {_LONGEST} seconds.")
    except ArchiveError as error:
        reporter.error(error)
        return ExitCode.USAGE
    refuse_missing_highdicom()
    folder = Path(options.output)
    refuse_unwritable_folder(folder / "results" / "a result")
    chosen = Options(**{name: getattr(options, name) for name in _OPTIONS})
    job = completed_job(Job((), tuple(options.model), "", options=chosen))
    _ = find_models(job).table  # a model or class that does not exist is told now, not when a series arrives
    with locked(folder / ".lock", f"{folder} is being used"):
        return _Watch(options, archive, None if options.no_send else target, criteria, job).run()


class _Watch:
    """Looks for series again and again, and works on those that are due, one by one."""

    def __init__(
        self, options: argparse.Namespace, archive: Archive, target: Archive | None, criteria: Criteria, job: Job
    ) -> None:
        self._options, self._archive, self._target = options, archive, target
        self._criteria, self._job = criteria, job
        self._folder = Path(options.output)
        self._records = Records(self._folder / "records")
        self._counts: dict[str, int] = {}  # images of each series at the last look
        self._failures: dict[str, tuple[int, float]] = {}  # how many of a series, and when it is due again
        self._fault = ""  # that was told last of the archive, or of the folder
        self._notices: set[str] = set()  # of the last look
        self._passed_over = False  # there are series of which it is not clear what is to be done

    def run(self) -> ExitCode:
        """Work until it is stopped, or with ``--once`` until nothing is due."""
        all_done = True
        while True:
            begin = time.monotonic()
            try:
                with asking(self._archive) as ask:
                    due = self._due(ask)
                for series, images, patient in due:
                    with asking(self._archive) as ask:
                        all_done = self._work(ask, series, images, patient) and all_done
                self._fault = ""
            except (ArchiveError, OutputError) as error:  # the archive may come back, and the disk have room again
                if self._options.once:
                    raise
                if str(error) != self._fault:
                    self._fault = str(error)
                    _tell(f"{_now()} {error} The next look is in {self._options.every:g} s.")
            if self._options.once:
                return ExitCode.OK if all_done and not self._passed_over else ExitCode.SOME_FAILED
            time.sleep(max(0.0, self._options.every - (time.monotonic() - begin)))

    def _due(self, ask: Asking) -> list[tuple[Series, int, str]]:
        """Return the series on which there is something to do, how many images each has, and the ID of its patient.

        A series has arrived if it has as many images as at the last look.
        """
        search, due = Search(ask), []
        self._passed_over = False
        criteria = self._criteria
        if self._options.days is not None:
            first = date.today() - timedelta(days=self._options.days - 1)
            criteria = replace(criteria, dates=(f"{first:%Y%m%d}", ""))
        studies = search.studies(criteria, MOST_LOOKED_THROUGH)
        counts: dict[str, int] = {}
        studies_of: dict[str, str] = {}  # in which each series was first
        for series, patient in ((series, study.patient) for study in studies for series in study.series):
            part = self._options.series_description
            if part is not None and part.casefold() not in series.description.casefold():
                continue
            try:
                record = self._records.read(series.uid)
            except OutputError as error:
                search.notices.append(str(error))
                self._passed_over = True
                continue
            study = studies_of.setdefault(series.uid, series.study if record is None else record.study)
            if study != series.study:
                search.notices.append(
                    f"The series {series.uid} of the study {series.study} is passed over: it was in the study {study} "
                    "too, or before. If it was moved, delete its record, and it is segmented again."
                )
                self._passed_over = True
                continue
            images = series.images if series.images is not None else len(search.images(series) or ())
            counts[series.uid] = images
            arrived = self._options.once or self._counts.get(series.uid) == images
            if images > self._counts.get(series.uid, images):
                self._failures.pop(series.uid, None)
            wanted = images >= self._options.least_images and (record is None or record.is_due(images))
            if arrived and wanted and time.monotonic() >= self._failures.get(series.uid, (0, 0.0))[1]:
                due.append((series, images, patient))
        self._counts = counts
        for notice in search.notices:
            if notice not in self._notices:  # not again at every look
                _tell(f"{_now()} {notice}")
        self._notices = set(search.notices)
        return due

    def _work(self, ask: Asking, series: Series, images: int, patient: str) -> bool:
        """Fetch, segment and send a series; return whether it is done, or nothing of it is wanted.

        :raises NotReached: if the archive cannot be reached. The series stays due.
        :raises OutputError: if what has become of it cannot be recorded.
        """
        begin = time.monotonic()
        record = self._records.read(series.uid)
        made = record if record is not None and record.state == SEGMENTED and record.images == images else None
        empty = SeriesRecord(series.uid, series.study, images, FAILED)
        result = self._folder / "results" / f"{series.uid}.seg.dcm"
        try:
            if made is None or not _is_whole(result):
                made = None
                made = self._segment(ask, series, result, replace(empty, state=SEGMENTED))
                self._records.write(made)
            if _is_of_another(result, patient):
                made = None
                self._remove_images(series)
                _remove([result])
                raise ClassScaleError(
                    "The images name another patient (PatientID) than the archive does, as after a correction there. "
                    "They and the result were deleted here, and nothing was sent."
                )
            if self._target is not None:
                _send(result, self._target)
            done = replace(made, state=DONE, reason="")
            self._records.write(done)
        except NotReached:
            raise
        except ClassScaleError as error:
            left_out = isinstance(error, _NoVolume)
            failed = replace(made or empty, reason=str(error))
            failed = replace(failed, state=LEFT_OUT) if left_out else failed
            if not left_out:
                self._wait(series, for_ever=made is not None or isinstance(error, OutputError))
            self._records.write(failed)
            if left_out:
                self._forget_images(series)
            self._say(series, failed, begin)
            return left_out
        self._failures.pop(series.uid, None)
        self._forget_images(series)
        self._say(series, done, begin)
        return True

    def _segment(self, ask: Asking, series: Series, result: Path, record: SeriesRecord) -> SeriesRecord:
        """Fetch a series, segment it in a child process, and return the record with what was found.

        :raises ArchiveError: if not all of its images come.
        :raises _NoVolume: if it cannot be segmented because of what it is.
        :raises ClassScaleError: if it cannot be segmented.
        """
        fetched = SeriesFetch(ask, series, self._folder / "images").run()
        if not fetched.whole:
            faults = fetched.faults or [f"{fetched.images} of {fetched.expected or '?'} images came."]
            raise ArchiveError(" ".join(faults))
        _remove(fetched.others)  # as of an attempt before the archive has deleted or moved images
        with SegmentationProcess() as process:
            made = process.work_folder / "result.seg.dcm"
            process.job = replace(self._job, images=(str(fetched.folder.resolve()),), output=made)
            process.start()
            if process.wait() != "finished":
                kind = _NoVolume if process.kind == ImageError.__name__ else ClassScaleError
                raise kind(process.error or "The segmentation has ended without a word.")
            with replacing(result, overwrite=True) as temporary, named(result):
                shutil.copyfile(made, temporary)
            structures = int(process.result.get("structures") or 0)
        images = max(record.images, fetched.expected or 0)  # more may have come since the look
        return replace(record, structures=structures, images=images)

    def _wait(self, series: Series, for_ever: bool) -> None:
        """Let a series rest after a failure: twice as long after each, and after the last one until the next start.

        :param for_ever: try it again after the last one, too.
        """
        count = min(self._failures.get(series.uid, (0, 0.0))[0] + 1, _MOST_ATTEMPTS)
        rest = self._options.every * 2**count if for_ever or count < _MOST_ATTEMPTS else math.inf
        self._failures[series.uid] = count, time.monotonic() + rest

    def _forget_images(self, series: Series) -> None:
        if not self._options.keep_images:
            self._remove_images(series)

    def _remove_images(self, series: Series) -> None:
        shutil.rmtree(self._folder / "images" / series.uid, ignore_errors=True)

    def _say(self, series: Series, record: SeriesRecord, begin: float) -> None:
        """Print a line on a series. It names no patient."""
        seconds = round(time.monotonic() - begin, 1)
        if self._options.json:
            print(json.dumps({"time": _now(), **asdict(record), "seconds": seconds}), flush=True)
            return
        what = on_one_line(f"{series.modality} {series.description[:40]}".strip())
        text = f"{record.structures} structures in {seconds:g} s, {'kept' if self._target is None else 'sent'}"
        if record.state != DONE:
            count, due = self._failures.get(series.uid, (0, 0.0))
            ends = self._options.once or count == 0 or due == math.inf
            again = "" if ends else f" It is tried again in {due - time.monotonic():.0f} s."
            text = f"{'left out' if record.state == LEFT_OUT else 'failed'}. {on_one_line(record.reason)}{again}"
        print(f"{_now()} {series.uid} ({what}, {record.images} images): {text}", flush=True)


class _NoVolume(ClassScaleError):
    """The images of a series are nothing that can be segmented."""


def _is_whole(result: Path) -> bool:
    """Return whether a result is there, and not cut or damaged, as after the power has failed."""
    try:
        _ = look_at(result)
    except (ArchiveError, OSError):
        return False
    return True


def _is_of_another(result: Path, patient: str) -> bool:
    """Return whether a result names another patient than the archive does. Archives may garble letters beyond ASCII.

    :param patient: ID, as the archive tells it; empty if it does not.
    :raises OutputError: if the result cannot be read.
    """
    try:
        found = str(read_header(result).get("PatientID") or "").strip()
    except OSError as error:
        raise OutputError(f"{result} cannot be read ({reason(error)}). Correct its permissions.") from error
    return bool(patient and found) and patient.isascii() and found.isascii() and patient != found


def _send(result: Path, target: Archive) -> None:
    """Send a result.

    :raises ArchiveError: if the archive does not store it.
    """
    for sent in send(find_dicom_files([result]), target):
        if not sent.arrived:
            raise ArchiveError(
                f"{target.address} has not stored the result ({sent.state}). {sent.reason or ''}".strip()
            )


def _remove(files: Sequence[Path]) -> None:
    """Delete files.

    :raises OutputError: if that is not possible.
    """
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{file} cannot be deleted ({reason(error)}). Delete it.") from error


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _tell(text: str) -> None:
    print(on_one_line(text), file=sys.stderr, flush=True)
