"""What ``compare-models`` prints: lines for people, or JSON lines for programs, such as the panel in Slicer."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from ClassScaleSegLib.commands.compare_lines import comparison_lines, several_lines
from ClassScaleSegLib.process.terminal import printable

from ..processes.json_progress import tell
from .drawn_cases import Comparisons


class Report:
    """Shows people what happens."""

    def case(self, done: int, total: int, what: str) -> None:
        """Report that a model begins to segment a case.

        :param done: how many segmentations are there.
        :param total: of all models.
        :param what: the model and the case.
        """
        print(f"{what} ({done + 1} of {total})", flush=True)

    def line(self, sentence: str) -> None:
        """Report something that people should know."""
        print(sentence, file=sys.stderr, flush=True)

    def compared(self, compared: Comparisons, apart: Sequence[tuple[str, str]]) -> None:
        """Report how well the models know the structures.

        :param apart: the models that have no class in common, two by two.
        """
        names, rows = compared.names, compared.rows
        print("\n".join(comparison_lines(rows[0], True) if len(rows) == 1 else several_lines(names, rows, True)))


class JsonReport(Report):
    """Prints JSON lines, as ``classscaleseg segment --json-progress`` does; the only stage is "segment"."""

    def __init__(self) -> None:
        self._begun: tuple[float, int] | None = None  # when, and how many segmentations were there then

    def case(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        began, there = self._begun = self._begun or (now, done)
        left = {"remaining": round((now - began) / (done - there) * (total - done), 1)} if done > there else {}
        tell("progress", stage="segment", done=done, total=total, **left)
        self.line(what)

    def line(self, sentence: str) -> None:
        tell("message", message=printable(sentence))

    def compared(self, compared: Comparisons, apart: Sequence[tuple[str, str]]) -> None:
        faults = list(map(printable, compared.faults))
        tell("result", **compared.facts(), faults=faults, without_common_classes=[list(pair) for pair in apart])
