"""Compare two folders of segmentations in a child process: ``classscaleseg compare``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .child import ChildProcess
from .job import Event


class Agreement(NamedTuple):
    """How two segmentations of a case agree.

    :ivar structure: in which they agree least; "" if none is in both folders.
    :ivar dice: of this structure, 0 if only one of the two has it; ``None`` if there is none.
    """

    structure: str
    dice: float | None


class FolderComparison(ChildProcess):
    """A comparison of the segmentations in two folders that have the same names.

    :ivar agreements: how those of each case agree, by its name, once all are compared. It has finished if any could be.
    :param reference: the folder of those that count as right. Both paths must be absolute.
    :param python: path of an interpreter; by default that of :func:`.child.default_python`.
    :raises OutputError: if the work folder cannot be made.
    :raises ClassScaleError: if psutil is not installed.
    """

    memory = "Close other programs."

    def __init__(self, reference: Path, other: Path, python: str | None = None) -> None:
        super().__init__(python)
        self.agreements: dict[str, Agreement] = {}
        self._folders_compared = reference, other

    def __str__(self) -> str:
        return " ".join(("classscaleseg", "compare", *map(str, self._folders_compared)))

    def _command(self) -> list[str]:
        return ["-m", "ClassScaleSegLib", "compare", *map(str, self._folders_compared), "--json-progress"]

    def _note(self, event: Event) -> None:
        super()._note(event)
        if event.kind == "result":
            case, structure, dice = (event.facts.get(key) for key in ("case", "structure", "dice"))
            self.agreements[str(case)] = Agreement(str(structure or ""), None if dice is None else float(dice))

    def _conclude(self, code: int) -> None:
        if self.agreements:  # single cases that could not be compared, or are in one folder alone, do not count
            self.state = "finished"
        else:
            super()._conclude(code)
