"""The loop of ``classscaleseg dicom watch``: which series are due, and what is said of them."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date, timedelta

from ..archive.asking import Asking, NotGiven, asking
from ..archive.connection import Archive, NotReached, UserRefused
from ..archive.criteria import Criteria
from ..archive.searching import MOST_LOOKED_THROUGH, Search, Series
from ..errors import ArchiveError, ClassScaleError, OutputError
from ..process.exit_codes import ExitCode
from ..process.terminal import on_one_line
from .reporting import Reporter
from .watch_record import DONE, FAILED, LEFT_OUT, Look, SeriesRecord, checksum_of, now
from .watch_work import Damaged, NoVolume, SeriesWork

_MOST_REPORTED = 200  # series that have failed or were not sent, the last ones first
_MOST_FAULTS = 5  # of records that cannot be read: if one lacks permissions, all may
_MOST_ATTEMPTS = 8  # at a series, each after twice the time, until the command is started again
_MOST_DOUBLED = 16  # times; then any rest is the longest
_LONGEST_REST = 3600  # seconds, if an archive or the disk is at fault, which may be in order again
_SECONDS_BETWEEN_LISTS = 3600  # of the images of a series that is done: replaced ones do not change their number


class Watch:
    """Looks for series again and again, and works on those that are due, one by one.

    :param options: of the command.
    :param reporter: gets what is noted of each look, if a program follows; and exceptions that nobody foresaw, which
        fail a series while the others go on.
    """

    def __init__(
        self, options: argparse.Namespace, archive: Archive, criteria: Criteria, work: SeriesWork, reporter: Reporter
    ) -> None:
        self._options, self._archive, self._criteria, self._work = options, archive, criteria, work
        self._reporter = reporter
        self._counts: dict[str, int] = {}  # images of each series at the last look
        self._listed: dict[str, float] = {}  # when the images of a series were compared with those of its result
        self._arriving = 0  # series of which more images may come
        self._first: set[str] | None = None  # the series of the first look
        self._undone: set[str] = set()  # series that have failed
        self._failures: dict[str, tuple[int, float]] = {}  # how many of a series, and when it is due again
        self._fault = ""  # that was told last of the archive, or of the folder
        self._notices: set[str] = set()  # of the last look
        self._refusals, self._sends_again = 0, 0.0  # by the archive for results, one after the other; when it is asked
        self._passed_over = False  # there are series of which it is not clear what is to be done

    def run(self) -> ExitCode:
        """Work until it is stopped, or with ``--once`` until all series of the first look are done or have failed."""
        once, every, refused = self._options.once, self._options.every, 0
        self._report(None)
        while True:
            begin, rest = time.monotonic(), every
            try:
                self._work.records.refuse_lost()
                with asking(self._archive) as ask:
                    due = self._due(ask)
                self._note(begun := Look(now(), arriving=self._arriving, due=len(due)))
                for number, (series, images, patient) in enumerate(due):
                    self._work.records.refuse_lost()
                    self._note(replace(begun, due=len(due) - number, series=series.uid, since=now()))
                    with asking(self._archive) as ask:
                        self._do(ask, series, images, patient)
                self._note(replace(begun, due=0))
                if self._fault:
                    _tell(f"{now()} It goes on.")
                self._fault, refused = "", 0
            except (ArchiveError, OutputError) as error:  # the archive may come back, and the disk have room again
                self._note(Look(now(), str(error)))
                if once:
                    raise
                # a wrong password again and again makes many systems lock the user out
                refused = refused + 1 if _is_refused(error) else 0
                rest = self._rest_after(refused)
                if str(error) != self._fault or refused:
                    self._fault = str(error)
                    _tell(f"{now()} {error} The next look is in {rest:g} s.")
            if once and self._arriving == 0:
                return ExitCode.SOME_FAILED if self._undone or self._passed_over else ExitCode.OK
            if once:
                _tell(f"{now()} A look in {every:g} s shows whether more images come: {self._arriving} series.")
            time.sleep(max(0.0, rest - (time.monotonic() - begin)))

    def _due(self, ask: Asking) -> list[tuple[Series, int, str]]:
        """Return the series on which there is something to do, how many images each has, and the ID of its patient.

        A series has arrived if it has as many images as at the last look, or in an earlier attempt.
        """
        search, due = Search(ask), []
        self._passed_over, self._arriving = False, 0
        criteria = self._criteria
        if self._options.days is not None:
            first = date.today() - timedelta(days=self._options.days - 1)
            criteria = replace(criteria, dates=(f"{first:%Y%m%d}", ""))
        counts: dict[str, int] = {}
        for series, patient, record in self._wanted(search, criteria):
            images = series.images if series.images is not None else len(search.images(series) or ())
            counts[series.uid] = images
            before = self._counts.get(series.uid)
            if before not in (None, images):
                self._failures.pop(series.uid, None)
            wanted = record is None or record.is_open or self._has_changed(search, series, images, record)
            rests = time.monotonic() < self._failures.get(series.uid, (0, 0.0))[1]
            if rests or not wanted or images < self._options.least_images:
                continue
            if images == before or (record is not None and images == record.images):
                due.append((series, images, patient))
            else:
                self._arriving += 1
        self._counts = counts
        if self._options.once and self._first is None:
            self._first = set(counts)
        for notice in search.notices:
            if notice not in self._notices:  # not again at every look
                _tell(f"{now()} {notice}")
        self._notices = set(search.notices)
        return due

    def _wanted(self, search: Search, criteria: Criteria) -> Iterator[tuple[Series, str, SeriesRecord | None]]:
        """Yield the series that are searched for, the ID of the patient of each, and its record."""
        studies = search.studies(criteria, MOST_LOOKED_THROUGH)
        part = (self._options.series_description or "").casefold()
        studies_of: dict[str, str] = {}  # in which each series was first
        for series, patient in ((series, study.patient) for study in studies for series in study.series):
            if part not in series.description.casefold() or (self._first is not None and series.uid not in self._first):
                continue
            try:
                record = self._work.records.read(series.uid)
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
            yield series, patient, record

    def _has_changed(self, search: Search, series: Series, images: int, record: SeriesRecord) -> bool:
        """Return whether a series has other images than those of its record.

        Their identifiers decide, if the archive lists them. It is asked if their number has changed, and now and then.
        """
        clock, more_or_fewer = time.monotonic(), images != record.images
        is_time = clock >= self._listed.get(series.uid, -math.inf) + _SECONDS_BETWEEN_LISTS
        if not record.instances or not (more_or_fewer or is_time):
            return more_or_fewer
        self._listed[series.uid] = clock
        try:
            instances = search.images(series)
        except NotGiven as error:
            if _is_refused(error):
                raise
            search.notices.append(f"Whether the series {series.uid} has changed is not known. {error}")
            return False
        return more_or_fewer if instances is None else checksum_of(instances) != record.instances

    def _do(self, ask: Asking, series: Series, images: int, patient: str) -> None:
        """Work on a series.

        :raises ArchiveError: if the archive that has it cannot be reached, or asks who this is. The series stays due.
        :raises OutputError: if what has become of it cannot be recorded.
        """
        begin, work = time.monotonic(), self._work
        if begin >= self._sends_again:
            work.refusal = None
        try:
            done = work.run(ask, series, images, patient)
        except Exception as fault:
            if isinstance(fault, UserRefused) and work.refusal is None:
                self._hold_results(fault)
            of_all = isinstance(fault, NotReached) or _is_refused(fault)
            if of_all and work.made is None:  # a result also waits if its archive is away
                raise
            known = isinstance(fault, ClassScaleError)
            error = fault if known else self._reporter.faults.sentence(f"The series {series.uid}", fault)
            failed = work.made or SeriesRecord(series.uid, series.study, images, FAILED)
            failed = replace(failed, reason=str(error), state=LEFT_OUT if isinstance(error, NoVolume) else failed.state)
            if failed.state == LEFT_OUT:
                self._undone.discard(series.uid)
                self._forget_images(series)
            else:
                if isinstance(error, Damaged):  # they are fetched again: the archive may have others by then
                    work.remove_images(series)
                self._undone.add(series.uid)
                self._wait(series, for_ever=work.made is not None or isinstance(error, (ArchiveError, OutputError)))
            work.records.write(failed)
            self._say(series, failed, begin)
            return
        self._refusals = 0
        self._undone.discard(series.uid)
        self._failures.pop(series.uid, None)
        self._forget_images(series)
        self._say(series, done, begin)

    def _hold_results(self, refusal: UserRefused) -> None:
        """Send nothing for a time, twice as long after each refusal: the archive may lock the user out."""
        self._refusals += 1
        self._work.refusal = refusal
        self._sends_again = time.monotonic() + self._rest_after(self._refusals)

    def _rest_after(self, failures: int) -> float:
        """Return how many seconds to wait after so many failures: twice as long after each, up to an hour."""
        every = self._options.every
        # weeks of failures are more than a float can double
        return min(every * 2 ** min(failures, _MOST_DOUBLED), max(_LONGEST_REST, every))

    def _wait(self, series: Series, for_ever: bool) -> None:
        """Let a series rest after a failure: twice as long after each, and after the last one until the next start.

        :param for_ever: try it again after the last one, too, and after an hour at most.
        """
        count = min(self._failures.get(series.uid, (0, 0.0))[0] + 1, _MOST_ATTEMPTS)
        longest = self._options.every * 2**count if count < _MOST_ATTEMPTS else math.inf
        rest = self._rest_after(count) if for_ever else longest
        self._failures[series.uid] = count, time.monotonic() + rest

    def _note(self, look: Look) -> None:
        if self._work.records.are_there:
            self._work.records.write_look(look)
        self._report(look)

    def _report(self, look: Look | None) -> None:
        """Tell a program what has become of all series, and what there was at a look of this run."""
        if self._options.json_progress:
            found, faults = self._work.records.read_all()
            failed = sorted((record for record in found if record.is_open), key=lambda record: record.time)
            self._reporter.result(
                look=look and asdict(look),
                states=Counter(record.state for record in found),
                failed=[asdict(record) for record in failed[: -_MOST_REPORTED - 1 : -1]],
                faults=faults[:_MOST_FAULTS],
            )

    def _forget_images(self, series: Series) -> None:
        if not self._options.keep_images:
            self._work.remove_images(series)

    def _say(self, series: Series, record: SeriesRecord, begin: float) -> None:
        """Print a line on a series. It names no patient."""
        seconds = round(time.monotonic() - begin, 1)
        if self._options.json_progress:
            return
        if self._options.json:
            facts = asdict(record)
            del facts["instances"], facts["time"]
            print(json.dumps({"time": now(), **facts, "seconds": seconds}), flush=True)
            return
        what = on_one_line(f"{series.modality} {series.description[:40]}".strip())
        text = f"{record.structures} structures in {seconds:g} s, {'kept' if self._work.target is None else 'sent'}"
        if record.state != DONE:
            count, due = self._failures.get(series.uid, (0, 0.0))
            ends = self._options.once or count == 0 or due == math.inf
            again = "" if ends else f" It is tried again in {due - time.monotonic():.0f} s."
            text = f"{'left out' if record.state == LEFT_OUT else 'failed'}. {on_one_line(record.reason)}{again}"
        print(f"{now()} {series.uid} ({what}, {record.images} images): {text}", flush=True)


def _is_refused(error: Exception) -> bool:
    """Return whether an archive does not accept who asks."""
    return isinstance(error, NotGiven) and error.status == 401


def _tell(text: str) -> None:
    print(on_one_line(text), file=sys.stderr, flush=True)
