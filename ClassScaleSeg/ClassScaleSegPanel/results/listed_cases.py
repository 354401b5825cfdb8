"""The cases that the dialog "Review cases" lists: how far each one is, and who has it open."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import stamp_of
from slicer.i18n import tr as _

from ..widgets.search_table import Row

if TYPE_CHECKING:
    from ClassScaleSegLib.images.case_claim import Claim
    from ClassScaleSegLib.images.review_state import ReviewState
    from ClassScaleSegLib.process import Agreement
    from ClassScaleSegLib.scene.case_files import CaseFiles

_Stamps = tuple["tuple[int, int] | None", ...]  # of two files
_GREEN, _BLUE, _GREY = (60, 160, 60), (60, 110, 200), (128, 128, 128)  # all checked; open here; the others
_ORANGE = (220, 130, 40)  # somebody else has it open


class ListedCases:
    """Cases by their names. Their files are on a drive that others may write too, so they are looked at again."""

    def __init__(self) -> None:
        self._cases: dict[str, CaseFiles] = {}
        self._states: dict[str, ReviewState | None] = {}  # None: the file cannot be read, which is told on opening it
        self._claims: dict[str, Claim | None] = {}
        self._read: dict[Path, tuple[tuple[int, int] | None, ReviewState]] = {}  # of the file as it was
        self._agreements: dict[str, tuple[Agreement, _Stamps]] = {}  # of the files as they were
        self._compared: dict[str, tuple[CaseFiles, _Stamps]] = {}  # what a comparison began with

    def __bool__(self) -> bool:
        return bool(self._cases)

    def __iter__(self) -> Iterator[CaseFiles]:
        return iter(self._cases.values())

    def get(self, name: str) -> CaseFiles | None:
        """Return a case; ``None`` if none has this name."""
        return self._cases.get(name)

    def find(self, images: str, segmentations: str, confidences: str, others: str) -> str:
        """List the cases of folders, as the user has written them, and return what is to be told of them."""
        from ClassScaleSegLib.scene.case_files import find_cases

        paths = [Path(os.path.expanduser(folder)) if folder else None for folder in (confidences, others)]
        cases, text = list["CaseFiles"](), _("Choose both folders. A folder of cases for training has both.")
        if images and segmentations:
            first, second = Path(os.path.expanduser(images)), Path(os.path.expanduser(segmentations))
            try:
                cases, text = find_cases(first, second, *paths)
            except (ClassScaleError, OSError) as error:
                text = str(error)
        known, self._cases = self._cases, {case.name: case for case in cases}
        self._states, self._claims = {}, {}
        for name in list(self._agreements):
            if self.get(name) != known[name]:
                del self._agreements[name]
        for name in self._cases:
            self.look(name)
        return text

    def look(self, name: str) -> None:
        """Look again how far a case is, and who has it open."""
        from ClassScaleSegLib.images.case_claim import claimed_by

        case = self._cases[name]
        self._states[name], self._claims[name] = self._state(case.segmentation), claimed_by(case.segmentation)
        if name in self._agreements and self._agreements[name][1] != _stamps(case):
            del self._agreements[name]

    def begin_comparison(self) -> None:
        """Note what the files of all cases are now, because they are about to be compared with the other ones."""
        self._compared = {case.name: (case, _stamps(case)) for case in self}

    def set_agreements(self, found: Mapping[str, Agreement]) -> None:
        """Take over how the two segmentations of cases agree. Files that have changed since are left out."""
        self._agreements = {}
        for name, agreement in found.items():
            case, stamps = self._compared.get(name, (None, ()))
            if case is not None and case == self.get(name) and stamps == _stamps(case):
                self._agreements[name] = agreement, stamps

    @property
    def most_agreement(self) -> str:
        """The longest text of the column "Agreement"; "" if nothing has been compared."""
        return max((f"0.00 {each.structure}" for each, _stamps in self._agreements.values()), key=len, default="")

    def holder(self, name: str) -> Claim | None:
        """Return who else had a case open when it was looked at."""
        return self._claims[name]

    def is_left(self, name: str) -> bool:
        """Return whether a case is left to be checked, and nobody else has it open."""
        state = self._states[name]
        return self._claims[name] is None and (state is None or state.checked < state.structures)

    def row(self, case: CaseFiles, is_open: bool) -> Row:
        """Return the row of a case in the table, whose columns are those of :func:`titles`."""
        state, held = self._states[case.name], self._claims[case.name]
        done = state is not None and state.checked == state.structures
        color = _BLUE if is_open else _ORANGE if held is not None else _GREEN if done else _GREY
        checked = "?" if state is None else f"{state.checked}/{state.structures}"
        sure = None if state is None else state.least_sure
        left = -1.0 if state is None else float(state.structures - state.checked)
        reader = ", ".join(state.readers) if state is not None else ""
        if held is not None:
            reader = _("{reader} (open)").format(reader=held.reader or held.machine)
        structure, dice = self._agreements[case.name][0] if case.name in self._agreements else ("", None)
        differs = "" if dice is None else f"{dice:.2f} {structure}"
        cells = (case.name, checked, "" if sure is None else f"{sure:.2f}", reader, differs)
        # what is unknown comes last
        numbers = [2.0 if number is None else number for number in (sure, dice)]
        order = (case.name.casefold(), left, numbers[0], reader.casefold(), numbers[1])
        return Row(case.name, color, cells, order, f"{case.name} {reader}")

    def _state(self, file: Path) -> ReviewState | None:
        """Return what the header of a file says, which is read only if the file has changed."""
        from ClassScaleSegLib.images.review_state import review_state

        stamp, known = stamp_of(file), self._read.get(file)
        try:
            if known is None or known[0] != stamp:
                known = self._read[file] = (stamp, review_state(file))
        except ClassScaleError:
            return None
        return known[1]


def _stamps(case: CaseFiles) -> _Stamps:
    """Return what changes when one of the two segmentations of a case is saved."""
    files = (case.segmentation, case.other)
    return tuple(None if file is None else stamp_of(file) for file in files)


def titles() -> list[str]:
    """Return the titles of the columns."""
    return [_("Case"), _("Checked"), _("Confidence"), _("Reader"), _("Agreement")]


def held_text(name: str, held: Claim) -> str:
    """Return a sentence on who has a case open."""
    since = f"{held.since:%Y-%m-%d %H:%M}"
    if held.reader:
        text = _("{reader} has {name} open on the computer {machine}, since {since}.")
        return text.format(reader=held.reader, name=name, machine=held.machine, since=since)
    return _("{name} is open on the computer {machine}, since {since}.").format(
        name=name, machine=held.machine, since=since
    )
