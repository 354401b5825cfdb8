"""What is searched for in an archive: as a query to it, and as a check of what it answers.

An archive may pass over what it does not know, and says so at best in a header. So everything that it finds is checked
again here. What differs between archives, such as upper and lower case in descriptions, is decided here alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import ArchiveError
from .elements import is_uid, text_of

PATIENT_ID, PATIENT_NAME, STUDY_DATE = "00100020", "00100010", "00080020"
STUDY_UID, STUDY_DESCRIPTION, MODALITIES = "0020000D", "00081030", "00080061"
_LONGEST = 64  # letters, as of most elements in the standard


@dataclass(frozen=True)
class Criteria:
    """What studies must have. What is not given may be anything.

    :ivar patient: the patient ID, letter by letter; ``*`` and ``?`` stand for other letters.
    :ivar name: parts of the patient's name, in any case and with or without accents, in the order of the name.
    :ivar dates: first and last day of the study, as eight digits; each may be empty.
    :ivar modality: of a series in the study, such as "CT".
    :ivar description: a part of the description of the study, in any case.
    :ivar study: StudyInstanceUID.
    :raises ArchiveError: if one of them cannot be searched for.

    >>> Criteria(name="Smith, John").queries()
    [[('PatientName', '*Smith*John*')], [('PatientName', 'Smith John'), ('fuzzymatching', 'true')]]
    """

    patient: str | None = None
    name: str | None = None
    dates: tuple[str, str] = ("", "")
    modality: str | None = None
    description: str | None = None
    study: str | None = None

    def __post_init__(self) -> None:
        for what in ("patient", "name", "modality", "description"):
            text = getattr(self, what)
            if text is not None and (
                not text.strip() or not text.isprintable() or "\\" in text or len(text) > _LONGEST
            ):
                raise ArchiveError(
                    f"{text[:_LONGEST]!r} cannot be searched for (--{what}). Give 1 to {_LONGEST} letters without a "
                    "backslash, or leave it out."
                )
        if self.study is not None:
            check_uid(self.study)
        if self.modality is not None:
            object.__setattr__(self, "modality", check_modality(self.modality))

    def queries(self) -> list[list[tuple[str, str | int]]]:
        """Return the parameters of a search for studies, and those of another one if the first finds nothing.

        All archives must know these parameters (PS3.18, 10.6). But that of Microsoft knows no ``*``, only what it calls
        fuzzy: beginnings of parts of a name. The description is not among them, and would be compared with upper and
        lower case.
        """
        first, last = self.dates
        common = {
            "StudyDate": first if first == last else f"{first}-{last}",
            "ModalitiesInStudy": self.modality,
            "StudyInstanceUID": self.study,
        }
        patient = self.patient.strip() if self.patient else None
        ways: list[dict[str, str | None]] = [
            {"PatientID": patient and _widened(patient), "PatientName": self.name and _widened(_pattern(self.name))}
        ]
        if self.name or patient != ways[0]["PatientID"]:
            words = " ".join(_words(self.name)) if self.name else None
            ways.append({"PatientID": patient, "PatientName": words, "fuzzymatching": words and "true"})
        return [[(name, value) for name, value in {**way, **common}.items() if value] for way in ways]

    def fit(self, row: Mapping[str, Any], untold: set[str]) -> bool:
        """Return whether a study fits, as far as the archive tells.

        :param row: the elements of the study.
        :param untold: gets a word for each element that the archive does not tell, and that was to be compared.
        """
        for what, tag, fits in self._checks():
            value = text_of(row, tag)
            if value is None or (value == "" and tag == MODALITIES):  # of which those of the series tell more
                untold.add(what)
            elif not fits(value):
                return False
        return True

    def _checks(self) -> Iterator[tuple[str, str, Any]]:
        first, last = self.dates
        if self.patient is not None:
            yield "the patient ID", PATIENT_ID, _Pattern(self.patient.strip())
        if self.name is not None:
            yield "the patient's name", PATIENT_NAME, _Pattern(_pattern(self.name), exact=False)
        if first or last:
            yield "the date", STUDY_DATE, lambda date: date and first <= date.replace(".", "") <= (last or "99999999")
        if self.modality is not None:
            yield "the modalities", MODALITIES, lambda all_of_them: self.modality in all_of_them.split("\\")
        if self.description is not None:
            yield "the description", STUDY_DESCRIPTION, _Pattern(f"*{self.description.strip('*')}*", exact=False)
        if self.study is not None:
            yield "the study", STUDY_UID, self.study.__eq__


def _widened(pattern: str) -> str:
    """Return a pattern of letters that are the same in an address, which fits all that this one fits.

    Orthanc 1.10 does not decode the others.

    >>> _widened("*Müller*"), _widened("a/1?")
    ('*M*ller*', 'a*1*')
    """
    return re.sub(r"[^A-Za-z0-9._~-]+", "*", pattern)


def _pattern(name: str) -> str:
    """Return a name as archives compare it: its parts may be separated by anything."""
    return "*".join(["", *_words(name), ""])


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\s,^*]+", name) if word]


class _Pattern:
    """Whether a text is as a pattern says, in which ``*`` stands for any letters, and ``?`` for one."""

    def __init__(self, pattern: str, exact: bool = True) -> None:
        self._exact = exact
        # no regular expression: many * would take it for ever
        self._parts = self._folded(pattern).split("*")

    def _folded(self, text: str) -> str:
        if self._exact:
            return text
        letters = unicodedata.normalize("NFKD", text.casefold())
        return "".join(letter for letter in letters if not unicodedata.combining(letter))

    def __call__(self, text: str) -> bool:
        text = self._folded(text)
        first, *middle = self._parts
        if not middle:
            return len(text) == len(first) and _at(text, 0, first)
        *middle, last = middle
        place, end = len(first), len(text) - len(last)
        if place > end or not (_at(text, 0, first) and _at(text, end, last)):
            return False
        for part in middle:
            found = next((start for start in range(place, end - len(part) + 1) if _at(text, start, part)), None)
            if found is None:
                return False
            place = found + len(part)
        return True


def _at(text: str, start: int, part: str) -> bool:
    return all(letter in ("?", text[start + index]) for index, letter in enumerate(part))


def check_uid(text: str) -> str:
    """Return a unique identifier.

    :raises ArchiveError: if it is none.
    """
    if not is_uid(text):
        raise ArchiveError(
            f"{text[:80]!r} is not a unique identifier (UID) of a study or series: numbers with points between them, "
            "64 letters at most. classscaleseg dicom find lists them."
        )
    return text


def check_modality(text: str) -> str:
    """Return a modality in the letters of the standard.

    :raises ArchiveError: if it is none.
    """
    found = text.strip().upper()
    if re.fullmatch(r"[A-Z0-9_ ]{1,16}", found) is None:
        raise ArchiveError(f"{text[:80]!r} is not a modality. Give one as DICOM abbreviates it, such as CT, MR or SEG.")
    return found


def parse_dates(text: str) -> tuple[str, str]:
    """Return the first and the last day that a text means, as eight digits each; empty where there is no limit.

    :raises ArchiveError: if it is neither a day nor from one day to another.

    >>> parse_dates("20260101-20260301"), parse_dates("20260101"), parse_dates("20260101-")
    (('20260101', '20260301'), ('20260101', '20260101'), ('20260101', ''))
    """
    first, dash, last = text.strip().partition("-")
    try:
        days = [day for day in (first, last) if day]
        valid = bool(days) and all(re.fullmatch("[0-9]{8}", day) and datetime.strptime(day, "%Y%m%d") for day in days)
    except ValueError:  # such as the 30th of February
        valid = False
    if not valid:
        raise ArchiveError(
            f"{text[:40]!r} is neither a day nor a range of days. Write 20260131, 20260101-20260331, or 20260101- for "
            "all since then."
        )
    if not dash:
        return first, first
    if first and last and first > last:
        raise ArchiveError(f"{text!r} ends before it begins. Write the earlier day first.")
    return first, last
