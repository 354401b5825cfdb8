"""Many cases on a cluster: ``classscaleseg segment --cluster`` and ``classscaleseg cohort retry``."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import errors
from ..cohort.cluster import Cluster
from ..cohort.dispatch import dispatch
from ..cohort.fitting import visible_gpus
from ..cohort.ledger import PUT_ASIDE, History, Ledger, open_ledger, pace, read_ledger
from ..cohort.records import Records, State
from ..cohort.workers import open_cluster
from ..errors import Cancelled, ClassScaleError, OutOfMemoryError
from ..files import replacing
from ..process.job import job_of
from ..version import VERSION
from .case_worker import OUTDATED, Setup, cancel_run, segment_case, segment_sent_case
from .cases import Case
from .cohort_job import CohortJob, add_failed, writing_page
from .job_models import JobModels
from .job_report import JobReport
from .reporting import CohortState, Reporter
from .sent_files import SentFiles

_SECONDS_TO_CANCEL = 2
_SECONDS_ALONE, _SECONDS_UNTIL_AGAIN = 15, 300  # without workers, before that is told for the first time, and again


def segment_on_cluster(
    cohort: CohortJob,
    cases: Sequence[Case],
    models: JobModels,
    reporter: Reporter,
    where: str,
    sent: bool = False,
    only: frozenset[str] | None = None,
) -> list[str]:
    """Segment all cases that are not finished on a cluster, and return the names of those that failed.

    :param where: as of :func:`~ClassScaleSegLib.cohort.workers.open_cluster`.
    :param sent: send images and results, instead of reading and writing them where the worker is.
    :param only: names of the cases to try, also if they were put aside.
    :raises ClassScaleError: if there are no such workers, no worker can segment, or a file cannot be written.
    :raises Busy: if another command segments into the same folder.
    """
    job = job_of(cohort.job.facts())  # with absolute paths
    cohort = replace(cohort, job=job, tables=tuple(map(_absolute, cohort.tables)))
    cases = [replace(case, files=tuple(map(_absolute, case.files)), output=_absolute(case.output)) for case in cases]
    folder = Path(job.output)
    records, report = cohort.records(models), cohort.report(models)
    if report is not None:
        report.files.check()
    cohort.begin(models)
    with open_ledger(folder) as ledger, writing_page(report, when_cancelled=False):
        history = read_ledger(folder)
        run = _Run(cohort, cases, records, report, reporter, ledger)
        todo = run.begin(history, where, sent, only)
        try:
            if todo:
                reporter.message(f"{len(todo)} of {len(cases)} cases to do; looking for workers at {where}")
                with open_cluster(where, folder, visible_gpus(job.options.device), job.options.threads) as cluster:
                    run.on(cluster, todo, sent)
        except KeyboardInterrupt:
            raise Cancelled(
                f"Cancelled: {run.done + run.skipped} of {len(cases)} cases are done. Run the command again to go on."
            ) from None
        records.tidy(cohort.folders(cases))  # of workers that died
        ledger.add("end", done=run.done, failed=len(run.failures), skipped=run.skipped)
        run.complete_report()
    written = cohort.written(cases, models, run.failures, reporter)
    reporter.end(run.done, run.skipped, run.failures, run.kept, written)
    return run.failures


def _absolute(path: Path) -> Path:
    """Return a path with the name of a link, not of its target."""
    return Path(os.path.abspath(path))


class _Run:
    """One run of a cohort: what :func:`dispatch` reports to, and what it asks for."""

    def __init__(
        self,
        cohort: CohortJob,
        cases: Sequence[Case],
        records: Records,
        report: JobReport | None,
        reporter: Reporter,
        ledger: Ledger,
    ) -> None:
        self._cohort, self._records, self._report, self._reporter = cohort, records, report, reporter
        self._ledger = ledger
        self._cases = {case.name: case for case in cases}
        self._number = {case.name: index for index, case in enumerate(cases, start=1)}
        self._at_work: dict[str, str] = {}  # host by case
        self._times: list[float] = []
        self._started = time.monotonic()  # whatever becomes of the clock
        self._tell_alone = time.monotonic() + _SECONDS_ALONE
        self.done, self.skipped, self.kept = 0, 0, 0
        self.failures: list[str] = []
        self._todo, self._aside = 0, 0
        self._told: set[str] = set()  # why workers can do no case
        self._unreported: set[str] = set()  # cases with results that may be missing in the report

    def begin(self, history: History, where: str, sent: bool, only: frozenset[str] | None) -> list[tuple[Case, bool]]:
        """Find out which cases are to be segmented, and note it; with each, whether its results may be replaced."""
        todo: list[tuple[Case, bool]] = []
        again: dict[str, int] = {}
        before = history.cases
        self._ledger.add(
            "begin",
            cases=len(self._cases),
            cluster=os.path.abspath(where) if os.path.isfile(where) else where,
            transfer=sent,
            overwrite=self._cohort.overwrite,
            formats=self._cohort.formats,
            statistics_formats=self._cohort.statistics_formats,
            tables=list(map(str, self._cohort.tables)),
            bids=self._cohort.bids,
            job=self._cohort.job.facts(),
            version=VERSION,
        )
        for case in self._cases.values():
            known = before.get(case.name)
            if only is not None and case.name not in only:
                self.skipped += 1
                continue
            finding = self._cohort.find(case, self._records)
            if finding.state in (State.DONE, State.KEPT):
                self.skipped += 1
                self._unreported.add(case.name)
                kept = finding.state is State.KEPT
                if kept:
                    self.kept += 1
                    self._begin(case.name)
                    self._reporter.skipped(finding.reason)
                if known is None or known.state != ("kept" if kept else "done"):
                    self._ledger.add("kept" if kept else "done", case=case.name)
                continue
            aside = known is not None and known.state == "failed" and known.kind == PUT_ASIDE
            if aside and only is None and not self._cohort.overwrite:
                self._begin(case.name)
                said = "It was put aside, since its workers died. To try it again: classscaleseg cohort retry"
                self._reporter.error(ClassScaleError(f"{said} {self._cohort.job.output}"))
                self.failures.append(case.name)
                self._aside += 1
                continue
            if finding.reason:
                again[finding.reason] = again.get(finding.reason, 0) + 1
            todo.append((case, finding.replace))
        self._reporter.leave()
        self._records.tidy(self._cohort.folders(self._cases.values()))
        for reason, count in again.items():
            self._reporter.message(f"{count} case{'s' * (count != 1)} will be segmented again, {reason}")
        self._todo = len(todo)
        return todo

    def on(self, cluster: Cluster, todo: Sequence[tuple[Case, bool]], sent: bool) -> None:
        """Segment cases on a cluster."""
        page = f"; the dashboard is {cluster.dashboard}" if cluster.dashboard else ""
        self._reporter.message(f"segmenting on {cluster.what}{page}")
        setup = Setup(self._cohort, self._records.recipe, self._ledger.run, cluster.seconds, sent)
        files = SentFiles(cluster.client, self._cohort) if sent else None

        def arguments(case: Case, overwrite: bool) -> tuple[Any, ...]:
            if files is None:
                return setup, case, overwrite
            self._records_of_sent[case.name] = self._records.begin(case.name, case.files, self._ledger.run)
            return (setup, case, *files.of(case))

        function = segment_case if files is None else segment_sent_case
        work = [(case.name, partial(arguments, case, overwrite)) for case, overwrite in todo]
        self._replace = {case.name: overwrite for case, overwrite in todo}
        self._records_of_sent: dict[str, dict[str, Any]] = {}  # of the images as they were when they were sent
        try:
            dispatch(cluster, function, work, self, self._ledger.run, _another_try)
        except BaseException:
            if not cluster.own:
                client = cluster.client
                with suppress(Exception):  # the workers' own time limits remain
                    client.sync(client._run, cancel_run, self._ledger.run, callback_timeout=_SECONDS_TO_CANCEL)
            raise

    def running(self, name: str, host: str, worker: str) -> None:
        self._at_work[name] = host
        self._ledger.add("running", case=name, host=host, worker=worker)
        self._show()

    def died(self, name: str, host: str, worker: str, why: str) -> None:
        self._at_work.pop(name, None)
        self._unreported.add(name)  # it may have died before it added the case
        self._ledger.add("died", case=name, host=host, worker=worker, error=why)
        where = f" on {host}" if host else ""
        self._reporter.message(f"{name} is tried again on another worker: {why}{where}")
        self._show()

    def unfit(self, name: str, error: str) -> None:
        self._at_work.pop(name, None)
        if error not in self._told:
            self._told.add(error)
            self._reporter.message(f"{error} It gets no more cases.")

    def finished(self, name: str, answer: Mapping[str, Any]) -> None:
        self._at_work.pop(name, None)
        if answer.get("kind") == OUTDATED:
            raise ClassScaleError(answer["error"])
        self._begin(name)
        for message in answer["messages"]:
            self._reporter.message(f"{name}: {message}")
        host = answer["host"]
        if "error" in answer:
            self._fail(name, answer["kind"], answer["error"], host)
            return
        facts = {**answer["facts"], "host": host}
        if "files" in answer:
            try:
                self._write(self._cases[name], answer["files"], facts)
            except ClassScaleError as error:
                self._fail(name, type(error).__name__, str(error), host)
                return
        self._ledger.add(
            "done", case=name, host=host, seconds=answer["seconds"], structures=answer["facts"]["structures"]
        )
        self.done += 1
        self._times.append(time.monotonic())
        self._reporter.result(**facts)
        self._show()

    def failed(self, name: str, kind: str, error: str) -> None:
        self._begin(name)
        self._fail(name, kind, error, self._at_work.pop(name, ""))

    def waiting(self, workers: int, hint: str) -> None:
        now = time.monotonic()
        if workers:
            self._tell_alone = now + _SECONDS_ALONE
        elif now > self._tell_alone:
            self._tell_alone = now + _SECONDS_UNTIL_AGAIN
            self._reporter.message(f"No worker is there{f': {hint}' if hint else ''}.")
        self._show()

    def _begin(self, name: str) -> None:
        self._reporter.begin(name, self._number[name], len(self._cases))

    def _fail(self, name: str, kind: str, error: str, host: str) -> None:
        self._ledger.add("failed", case=name, host=host, kind=kind, error=error)
        self.failures.append(name)
        self._unreported.discard(name)
        sentence = _error(kind, error)
        self._reporter.error(sentence)
        add_failed(self._report, self._cases[name], sentence, self._reporter)
        self._show()

    def complete_report(self) -> None:
        """Add cases to the report that earlier runs have segmented, or workers that died before they added them."""
        if self._report is None:
            return
        if self.done:
            self._report.changed()
        for name in filter(self._unreported.__contains__, self._cases):
            self._begin(name)
            try:
                self._report.add_finished(self._cases[name], self._reporter)
            except ClassScaleError as error:
                self._reporter.error(error)

    def _show(self) -> None:
        """Show how far the cohort is."""
        self._reporter.leave()
        per_hour = pace(self._started, self._times)
        left = self._todo + self._aside - self.done - len(self.failures)
        self._reporter.cohort(
            CohortState(
                done=self.skipped + self.done,
                failed=len(self.failures),
                total=len(self._cases),
                hosts=Counter(self._at_work.values()),
                per_hour=per_hour,
                remaining=None if per_hour is None else 3600 * left / per_hour,
            )
        )

    def _write(self, case: Case, files: Mapping[tuple[str, str], bytes], facts: dict[str, Any]) -> None:
        """Write results that were sent; the segmentation gets its name last."""
        job = self._cohort.job
        folders = {"results": case.output.parent}
        folders |= {side: Path(place) for side in ("confidence", "statistics") if (place := getattr(job, side))}
        targets = {(side, name): folders[side] / name for side, name in files}
        main, overwrite = ("results", case.output.name), self._replace[case.name]
        results, record = self._cohort.results(case), self._records_of_sent.pop(case.name)
        named = {**results.by_kind, **results.beside(case.source)}
        results.check(overwrite)
        if not self._cohort.overwrite:
            self._records.refuse_edited(case.name, named)
        self._records.announce(record)
        try:
            with ExitStack() as stack:
                for one in sorted(targets, key=lambda one: one != main):  # renamed in reverse order
                    stack.enter_context(replacing(targets[one], overwrite)).write_bytes(files[one])
        except BaseException:
            self._records.withdraw(record, named)
            raise
        self._records.commit(record, named, facts["structures"])
        facts |= results.paths()


def _another_try(answer: Mapping[str, Any]) -> str | None:
    """Say why a case should be tried on another worker: memory that ran out here may suffice there."""
    return answer["error"] if answer.get("kind") == OutOfMemoryError.__name__ else None


def _error(kind: str, sentence: str) -> ClassScaleError:
    """Return the error of a case whose class is known by name."""
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, ClassScaleError):
        return known(sentence)
    return ClassScaleError(sentence)
