"""Report progress and results of ``classscaleseg``: a progress bar for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from ..errors import ClassScaleError
from ..inference.progress import Progress
from ..process.fault_log import FaultLog
from ..process.terminal import printable


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

    def error(self, error: ClassScaleError) -> None:
        """Report an error of the case, or of the command if none has begun."""

    def end(self, done: int, skipped: int, failed: Sequence[str]) -> None:
        """Report how many of several cases are done and were skipped, and which failed."""

    def close(self) -> None:
        """Remove the progress bar."""


class TerminalReporter(Reporter):
    """Shows a progress bar on standard error, and prints a line for each case on standard output."""

    def __init__(self, faults: FaultLog | None = None) -> None:
        super().__init__(faults)
        self._bar: Any = None
        self._label = ""

    def begin(self, case: str, index: int, count: int) -> None:
        self._label = case if count == 1 else f"[{index}/{count}] {case}"

    def progress(self, report: Progress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=1, unit="window", file=sys.stderr, leave=False, disable=not sys.stderr.isatty())
        if report.message:
            tqdm.write(f"{self._label}: {report.message}", file=sys.stderr)
        self._bar.total = report.total
        self._bar.n = report.done
        self._bar.set_description(f"{self._label}: {report.title}")

    def result(self, **facts: Any) -> None:
        self.close()
        kinds = ("confidence", "statistics", "picture", "report")
        files = [facts["output"], *facts.get("more_outputs", ()), *(facts[kind] for kind in kinds if kind in facts)]
        files += facts.get("more_statistics", ())
        written = ", ".join(map(str, files))
        dice = f", mean Dice {facts['dice']:.3f}" if "dice" in facts else ""
        done = f"{facts['structures']} structures in {facts['seconds']:.1f} s{dice}"
        print(f"{self._label}: {done} -> {written}", flush=True)

    def skipped(self, reason: str) -> None:
        print(f"{self._label}: skipped, {reason}", flush=True)

    def end(self, done: int, skipped: int, failed: Sequence[str]) -> None:
        counts = [f"{done} of {done + skipped + len(failed)} cases segmented"]
        counts += [f"{skipped} skipped"] * bool(skipped) + [f"{len(failed)} failed: {', '.join(failed)}"] * bool(failed)
        print(", ".join(counts), flush=True)

    def error(self, error: ClassScaleError) -> None:
        self.close()
        print(f"{self._label}: {error}" if self._label else str(error), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class JsonReporter(Reporter):
    """Prints JSON objects on standard output, one per line.

    The member ``event`` is "begin", "progress", "result", "skipped" or "error", and after several cases "end". The
    lines are ASCII.
    Bytes of file names that are not UTF-8 are kept in ``case`` and in paths, as lone surrogates.
    """

    def __init__(self, faults: FaultLog | None = None) -> None:
        super().__init__(faults)
        self._case = ""

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

    def end(self, done: int, skipped: int, failed: Sequence[str]) -> None:
        self._case = ""
        self._line("end", done=done, skipped=skipped, failed=list(failed))

    def error(self, error: ClassScaleError) -> None:
        self._line("error", kind=type(error).__name__, message=printable(error))
