"""Report progress and results of ``classscaleseg``: a progress bar for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ClassScaleError
from ..inference.progress import Progress
from ..process.fault_log import FaultLog
from ..process.terminal import on_one_line, printable

_SECONDS_BETWEEN_LINES = 60  # that say how far a cohort is, where there is no bar, or nothing has changed
_MOST_NAMES = 20  # of cases that failed; each was told before


class CohortState(NamedTuple):
    """How far a cohort is.

    :ivar done: cases that are done, also by earlier runs.
    :ivar hosts: how many cases are at work on each host.
    :ivar per_hour: cases that are done in an hour; ``None`` while unknown.
    :ivar remaining: estimated seconds until the end; likewise.
    """

    done: int
    failed: int
    total: int
    hosts: Mapping[str, int]
    per_hour: float | None
    remaining: float | None

    def __str__(self) -> str:
        """All but the number of cases that are done.

        >>> print(CohortState(12, 1, 200, {"n2": 1, "n1": 4}, 412.6, 1630))
        1 failed, 413 an hour, 27 min left, at work: n1 4, n2 1
        """
        parts = [f"{self.failed} failed"] * bool(self.failed)
        parts += [] if self.per_hour is None else [f"{self.per_hour:.0f} an hour"]
        parts += [] if self.remaining is None else [f"{_duration(self.remaining)} left"]
        hosts = [f"{host} {count}" for host, count in sorted(self.hosts.items())]
        shown = hosts if len(hosts) <= 4 else [*hosts[:3], f"{len(hosts) - 3} more hosts"]
        return ", ".join(parts + [f"at work: {', '.join(shown)}"] * bool(shown))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Reporter:
    """What subcommands report to; this one says nothing.

    :ivar faults: for exceptions that nobody foresaw.
    """

    def __init__(self, faults: FaultLog | None = None) -> None:
        self.faults = faults or FaultLog("classscaleseg")

    def begin(self, case: str, index: int, count: int) -> None:
        """Report that a case begins, the image number ``index`` (from 1) of ``count``."""

    def progress(self, report: Progress) -> None:
        """Report the progress of the current case."""

    def result(self, **facts: Any) -> None:
        """Report that the case is done; the facts include the files written, ``structures`` and ``seconds``.

        If the result was cleaned up, they also include ``changes``, a dictionary for each class that changed.
        """

    def skipped(self, reason: str) -> None:
        """Report that the case is skipped."""

    def again(self, reason: str) -> None:
        """Report that the case is segmented again, and why."""

    def message(self, sentence: str) -> None:
        """Tell something of many cases."""

    def cohort(self, state: CohortState) -> None:
        """Report how far many cases on a cluster are."""

    def error(self, error: ClassScaleError) -> None:
        """Report an error of the case, or of the command if none has begun."""

    def leave(self) -> None:
        """Report that what follows belongs to no case."""

    def end(
        self,
        done: int,
        skipped: int,
        failed: Sequence[str],
        kept: int = 0,
        written: Mapping[str, Any] | None = None,
    ) -> None:
        """Report how many of several cases are done and were skipped, and which failed.

        :param kept: how many of the skipped ones have results that are not as wanted, and must not be replaced.
        :param written: what there is of all cases: ``report``, the page, and ``statistics``, the tables.
        """

    def close(self) -> None:
        """Remove the progress bar."""


class TerminalReporter(Reporter):
    """Shows a progress bar on standard error, and prints a line for each case on standard output."""

    def __init__(self, faults: FaultLog | None = None) -> None:
        super().__init__(faults)
        self._bar: Any = None
        self._label = ""
        self._told = time.monotonic()

    def begin(self, case: str, index: int, count: int) -> None:
        name = on_one_line(case)
        self._label = name if count == 1 else f"[{index}/{count}] {name}"

    def progress(self, report: Progress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=1, unit="window", file=sys.stderr, leave=False, disable=not sys.stderr.isatty())
        if report.message:
            tqdm.write(f"{self._label}: {on_one_line(report.message)}", file=sys.stderr)
        self._bar.total = report.total
        self._bar.n = report.done
        self._bar.set_description(f"{self._label}: {report.title}")

    def result(self, **facts: Any) -> None:
        self.close()
        kinds = ("confidence", "statistics", "picture", "report")
        files = [facts["output"], *facts.get("more_outputs", ()), *(facts[kind] for kind in kinds if kind in facts)]
        files += facts.get("more_statistics", ())
        written = ", ".join(map(on_one_line, files))
        dice = f", mean Dice {facts['dice']:.3f}" if "dice" in facts else ""
        host = f" on {facts['host']}" if "host" in facts else ""
        structures = f"{facts['structures']} structure{'s' * (facts['structures'] != 1)}"
        done = f"{structures} in {facts['seconds']:.1f} s{dice}{host}"
        print(f"{self._label}: {done} -> {written}", flush=True)

    def skipped(self, reason: str) -> None:
        print(f"{self._label}: skipped, {on_one_line(reason)}", flush=True)

    def again(self, reason: str) -> None:
        print(f"{self._label}: segmented again, {on_one_line(reason)}", flush=True)

    def message(self, sentence: str) -> None:
        self.close()
        print(on_one_line(sentence), file=sys.stderr, flush=True)

    def cohort(self, state: CohortState) -> None:
        from tqdm import tqdm

        if not sys.stderr.isatty():
            if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
                self._told = time.monotonic()
                said = ", ".join(filter(None, [f"{state.done} of {state.total} cases done", str(state)]))
                print(said, file=sys.stderr, flush=True)
            return
        if self._bar is None:
            form = "{n_fmt}/{total_fmt} cases |{bar:20}| {desc}"
            self._bar = tqdm(
                total=state.total, initial=state.done, file=sys.stderr, leave=False, bar_format=form, desc=str(state)
            )
        self._bar.n = state.done
        self._bar.set_description_str(str(state))

    def leave(self) -> None:
        self.close()
        self._label = ""

    def end(
        self,
        done: int,
        skipped: int,
        failed: Sequence[str],
        kept: int = 0,
        written: Mapping[str, Any] | None = None,
    ) -> None:
        self.close()
        of_all = written or {}
        files = [*of_all.get("statistics", ()), *filter(None, [of_all.get("report")])]
        place = f" -> {', '.join(map(on_one_line, files))}" if files else ""
        if skipped and not (done or failed or kept):
            said = f"{'All' if skipped > 1 else 'The'} {skipped} case{'s are' if skipped > 1 else ' is'} done already"
            print(f"{said}{place}", flush=True)
            return
        counts = [f"{done} of {done + skipped + len(failed)} cases segmented"]
        counts += [f"{skipped - kept} skipped"] * (skipped > kept)
        counts += [f"{kept} kept as {'they are' if kept > 1 else 'it is'}, though made otherwise"] * bool(kept)
        if failed:
            more = [f"and {len(failed) - _MOST_NAMES} more"] * (len(failed) > _MOST_NAMES)
            counts.append(f"{len(failed)} failed: {', '.join([*map(on_one_line, failed[:_MOST_NAMES]), *more])}")
        print(", ".join(counts) + place, flush=True)

    def error(self, error: ClassScaleError) -> None:
        self.close()
        said = on_one_line(error)
        print(f"{self._label}: {said}" if self._label else said, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class JsonReporter(Reporter):
    """Prints JSON objects on standard output, one per line.

    The member ``event`` is "begin", "progress", "result", "skipped", "again" or "error", after several cases "end",
    and on a cluster also "message" and "cohort". The lines are ASCII.
    Bytes of file names that are not UTF-8 are kept in ``case`` and in paths, as lone surrogates.
    """

    def __init__(self, faults: FaultLog | None = None) -> None:
        super().__init__(faults)
        self._case, self._told = "", 0.0
        self._state: dict[str, Any] = {}

    def _line(self, event: str, **facts: Any) -> None:
        print(json.dumps({"event": event, "case": self._case, **facts}, default=str), flush=True)

    def begin(self, case: str, index: int, count: int) -> None:
        self._case = case
        self._line("begin", index=index, count=count)

    def progress(self, report: Progress) -> None:
        remaining = None if report.remaining is None else round(report.remaining, 1)
        self._line("progress", **{**vars(report), "remaining": remaining})

    def result(self, **facts: Any) -> None:
        self._line("result", **facts)

    def skipped(self, reason: str) -> None:
        self._line("skipped", reason=printable(reason))

    def again(self, reason: str) -> None:
        self._line("again", reason=printable(reason))

    def message(self, sentence: str) -> None:
        self._line("message", message=printable(sentence))

    def cohort(self, state: CohortState) -> None:
        now, facts = time.monotonic(), state._asdict()
        known = {name: facts[name] for name in ("done", "failed", "hosts")}
        if known != self._state or now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told, self._state = now, known
            self._line("cohort", **facts)

    def leave(self) -> None:
        self._case = ""

    def end(
        self,
        done: int,
        skipped: int,
        failed: Sequence[str],
        kept: int = 0,
        written: Mapping[str, Any] | None = None,
    ) -> None:
        self._case = ""
        more = {**({"kept": kept} if kept else {}), **(written or {})}
        self._line("end", done=done, skipped=skipped, failed=list(failed), **more)

    def error(self, error: ClassScaleError) -> None:
        self._line("error", kind=type(error).__name__, message=printable(error))
