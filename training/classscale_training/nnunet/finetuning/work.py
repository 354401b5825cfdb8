"""The folders of a fine-tuning, and its steps: commands in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ClassScaleSegLib.process.exit_codes import ExitCode, explain_exit

from ...processes.subcommand import Ended, run_subcommand
from ..environment import PLANS
from .report import Report

ID = 1
DATASET = f"Dataset{ID:03d}_Cases"  # short, as it is twice in paths, which Windows limits


@dataclass(frozen=True)
class Work:
    """The folders of a fine-tuning.

    :ivar root: holds everything.
    :ivar report: what the steps print goes there.
    """

    root: Path
    report: Report

    @property
    def raw(self) -> Path:
        return self.root / "raw" / DATASET

    @property
    def plans(self) -> Path:
        return self.root / "preprocessed" / DATASET / f"{PLANS}.json"

    def step(self, name: str, arguments: Sequence[str], results: Path | None = None) -> None:
        """Run one of the commands, and report what matters of its output.

        :param results: folder of nnU-Net's results, if the command needs it.
        :raises StepFailed: if its exit code is not 0.
        """
        ended = self.ended(name, arguments, results)
        if ended.code:
            self.report.failed(
                f"{killed(ended)}The step {name} has failed. Settle what it says (the rest of its output is in "
                f"{self._log(name)}), and run the same command again: it goes on there.",
                ended.error,
            )
            raise StepFailed(ended.code if ended.code > 0 else ExitCode.FAULT)

    def ended(self, name: str, arguments: Sequence[str], results: Path | None = None) -> Ended:
        """Do what :meth:`step` does, and return how the command has ended."""
        self.report.step(name)
        folders = {"raw": self.root / "raw", "preprocessed": self.root / "preprocessed", "results": results}
        variables = {f"nnUNet_{key}": str(folder) for key, folder in folders.items() if folder is not None}
        log = self._log(name)
        log.parent.mkdir(exist_ok=True)
        return run_subcommand([name, *arguments], variables, log, self.report.output, self.report.errors)

    def _log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.txt"


def killed(ended: Ended) -> str:
    """Return why a command has ended without a word, in a sentence; empty if it has said why."""
    return "" if ended.error else explain_exit(ended.code, (), "Close other programs.") + " "


class StepFailed(Exception):
    """A step has failed, and has said why.

    :ivar code: its exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code
