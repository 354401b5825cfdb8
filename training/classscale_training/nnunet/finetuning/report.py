"""What ``finetune`` prints: lines for people, or JSON lines for programs, such as the panel in Slicer."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from ClassScaleSegLib.process.terminal import printable

from ...processes.json_progress import tell, tell_error

# The steps, and which of their lines are shown, by a group of a pattern; warnings and faults come another way.
STEPS = {
    "fill": re.compile(r"(.*)"),  # only if the model fills in what cases lack
    "collect": re.compile(r"(?!Next: )(.*)"),
    "plan": re.compile(r"(The plans of .*)"),
    "preprocess": re.compile(r"(?!)"),
    "train": re.compile(
        r"[-\d]{10} [\d:.]+: ((?:Epoch|train_loss|val_loss|WARNING|The network|Of \d|Training done).*)"
    ),
    "export": re.compile(r"(.*)"),
    "compare-models": re.compile(r"(.*)"),  # only if cases are left out
}
_EPOCH, _SECONDS = re.compile(r"Epoch (\d+)$"), re.compile(r"Epoch time: ([\d.]+) s")
_BAR = re.compile(r"\| (\d+)/(\d+) \[")  # of tqdm
_FILLED = re.compile(r"\[(\d+)/(\d+)\] ")
_CASE = re.compile(r".* \((\d+) of (\d+)\)$")  # which compare-models begins to segment
_WEIGHT = 0.3  # of the last epoch in the mean time of an epoch


class Report:
    """Shows people what happens.

    :param epochs: how many there will be; ``None`` if that is not known.
    :param compares: whether the new model is compared with the other one at the end.
    :param fills: whether the model fills in what cases lack.
    """

    def __init__(self, epochs: int | None, compares: bool = False, fills: bool = False) -> None:
        self._epochs, self._step = epochs, ""
        left_out = {name for name, done in (("fill", fills), ("compare-models", compares)) if not done}
        self._steps = [name for name in STEPS if name not in left_out]

    def step(self, name: str) -> None:
        """Report that a step begins."""
        self._step = name
        print(f"[{self._steps.index(name) + 1}/{len(self._steps)}] {name}", flush=True)

    def output(self, line: str) -> None:
        """Report a line that the step has printed."""
        if found := STEPS[self._step].match(line):
            self.line(found[1])

    def errors(self, text: str) -> None:
        """Report a piece of what the step has printed on standard error."""
        sys.stderr.write(text)
        sys.stderr.flush()

    def line(self, text: str) -> None:
        """Report something that people should know."""
        print(text, flush=True)

    def failed(self, sentence: str, error: str) -> None:
        """Report that the step has failed.

        :param sentence: what to do then.
        :param error: with which it has ended, and which it has printed already.
        """
        print(sentence, file=sys.stderr)

    def compared(self, facts: dict[str, Any], table: Path) -> None:
        """Report how well both models know the cases that the training has not seen.

        :param facts: of ``compare-models``, which has printed them.
        :param table: a file with the figures of all cases.
        """
        self.line(f"The training has not seen these cases. All figures: {table}")

    def finished(self, bundle: Path, following: str) -> None:
        """Report that there is a bundle, and what to do with it."""
        print(following)


class JsonReport(Report):
    """Prints JSON lines, as ``classscaleseg segment --json-progress`` does; stages are the names of the steps."""

    def __init__(self, epochs: int | None, compares: bool = False, fills: bool = False) -> None:
        super().__init__(epochs, compares, fills)
        self._epoch, self._mean = 0, 0.0
        self._comparison: dict[str, Any] = {}

    def step(self, name: str) -> None:
        self._step = name
        tell("progress", stage=name, done=0, total=self._epochs or 1 if name == "train" else 1)

    def output(self, line: str) -> None:
        found = STEPS[self._step].match(line)
        if found and self._step == "train":
            self._train(found[1])
        elif self._step == "compare-models" and (case := _CASE.match(line)):
            tell("progress", stage=self._step, done=int(case[1]) - 1, total=int(case[2]))
        elif found and self._step == "fill" and (case := _FILLED.match(line)):
            tell("progress", stage=self._step, done=int(case[1]), total=int(case[2]))
        elif found:
            self.line(found[1])

    def errors(self, text: str) -> None:
        super().errors(text)
        if self._step == "preprocess" and (bars := _BAR.findall(text)):
            done, total = map(int, bars[-1])
            tell("progress", stage=self._step, done=done, total=total)

    def line(self, text: str) -> None:
        tell("message", message=printable(text))

    def failed(self, sentence: str, error: str) -> None:
        tell_error(error or sentence)

    def compared(self, facts: dict[str, Any], table: Path) -> None:
        self._comparison = {name: fact for name, fact in facts.items() if name != "names"} | {"table": printable(table)}

    def finished(self, bundle: Path, following: str) -> None:
        tell("result", output=printable(bundle), **self._comparison)

    def _train(self, line: str) -> None:
        """Report a line of nnU-Net's log."""
        if begun := _EPOCH.match(line):
            self._epoch = int(begun[1])
            self._epochs_done(self._epoch)
        elif took := _SECONDS.match(line):
            seconds = float(took[1])
            self._mean = seconds if not self._mean else (1 - _WEIGHT) * self._mean + _WEIGHT * seconds
            self._epochs_done(self._epoch + 1)
        self.line(line)

    def _epochs_done(self, done: int) -> None:
        if self._epochs:
            left = {"remaining": round((self._epochs - done) * self._mean, 1)} if self._mean else {}
            tell("progress", stage=self._step, done=done, total=self._epochs, **left)
