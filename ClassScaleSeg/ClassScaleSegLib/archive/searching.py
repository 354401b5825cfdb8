"""Find studies, series and images in an archive (QIDO-RS), however the archive pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ArchiveError
from .asking import Asking, NotGiven
from .criteria import (
    MODALITIES,
    PATIENT_ID,
    PATIENT_NAME,
    STUDY_DATE,
    STUDY_DESCRIPTION,
    STUDY_UID,
    Criteria,
)
from .elements import number_of, text_of, uid_of

PAGE = 200  # how much is asked for at once: more, Microsoft's archive refuses
MOST_LOOKED_THROUGH = 20_000  # studies or series, before a search is given up
MOST_IMAGES = 100_000  # of a series
_MOST_FAILURES = 3  # studies one after the other of which the archive does not tell the series
_SERIES_UID, _MODALITY, _SERIES_DESCRIPTION, _SERIES_NUMBER = "0020000E", "00080060", "0008103E", "00200011"
_IMAGE_UID, _IMAGES_OF_STUDY, _IMAGES_OF_SERIES = "00080018", "00201208", "00201209"
# which archives tell if they are asked to
_OF_STUDY = (STUDY_DESCRIPTION, MODALITIES, _IMAGES_OF_STUDY)
_OF_SERIES = (_SERIES_DESCRIPTION, _SERIES_NUMBER, _IMAGES_OF_SERIES)


@dataclass(frozen=True)
class Series:
    """A series, as an archive describes it. Texts are not safe for a terminal.

    :ivar uid: SeriesInstanceUID, a valid one.
    :ivar study: StudyInstanceUID, likewise.
    :ivar images: their number; ``None`` if the archive does not tell.
    """

    uid: str
    study: str
    modality: str = ""
    description: str = ""
    number: int | None = None
    images: int | None = None


@dataclass(frozen=True)
class Study:
    """A study, as an archive describes it. Texts are not safe for a terminal.

    :ivar uid: StudyInstanceUID, a valid one.
    :ivar date: eight digits, or whatever the archive says.
    :ivar images: their number; ``None`` if the archive does not tell.
    :ivar series: those that were searched for, by their numbers.
    """

    uid: str
    patient: str = ""
    name: str = ""
    date: str = ""
    description: str = ""
    modalities: tuple[str, ...] = ()
    images: int | None = None
    series: tuple[Series, ...] = ()


@dataclass
class Search:
    """Searches in an archive.

    :ivar notices: sentences on what may be missing from what was found, or may not belong to it.
    """

    ask: Asking
    notices: list[str] = field(default_factory=list)
    _plain: bool = False  # the archive refuses to tell more elements than it does by itself

    def studies(self, criteria: Criteria, limit: int) -> list[Study]:
        """Return the studies that fit, with the series of the wanted modality.

        :param limit: the most studies.
        :raises ArchiveError: if the archive cannot be reached, does not search, or does not tell the series of any
            study, or of several one after the other.
        """
        found: list[Study] = []
        for number, query in enumerate(criteria.queries()):
            try:
                found = found or self._studies(criteria, query, limit)
            except NotGiven as error:
                if number == 0 or error.status != 400:  # the other way is not one that all archives know
                    raise
        return found

    def _studies(self, criteria: Criteria, query: Sequence[tuple[str, str | int]], limit: int) -> list[Study]:
        found: list[Study] = []
        untold: set[str] = set()
        fault: NotGiven | None = None
        failures = 0  # one after the other
        for uid, row in self._all("/studies", STUDY_UID, query, _OF_STUDY, "studies"):
            of_this: set[str] = set()
            if not criteria.fit(row, of_this):
                continue
            try:
                series = self.series(uid, criteria.modality)
            except NotGiven as error:  # one that is damaged there, or was deleted meanwhile, does not hide the others
                fault, failures = error, failures + 1
                if error.status in (401, 403) or failures == _MOST_FAILURES:
                    raise
                self._note(f"The study {uid} is left out, as the archive does not tell its series. {error}")
                continue
            failures = 0
            if not series and criteria.modality is not None:  # the archive passed over the modality
                continue
            if len(found) == limit:
                self._note(f"There are more such studies than {limit}. Narrow the search, or give a larger --limit.")
                break
            found.append(_study(uid, row, series))
            untold |= of_this
        if fault is not None and not found:
            raise fault
        for what in sorted(untold - {"the modalities"}):  # those of the series count
            self._note(f"The archive does not tell {what} of every study, so not all of these may fit.")
        return found

    def series(self, study: str, modality: str | None = None) -> list[Series]:
        """Return the series of a study, in the order of their numbers.

        :param modality: that they must have.
        """
        query: list[tuple[str, str | int]] = [("Modality", modality)] if modality is not None else []
        path = f"/studies/{study}/series"
        rows = self._all(path, _SERIES_UID, query, _OF_SERIES, f"series of the study {study}")
        found = [series for uid, row in rows if self._fits(series := _series(uid, study, row), row, modality)]
        return sorted(found, key=lambda series: (series.number is None, series.number or 0))

    def _fits(self, series: Series, row: Mapping[str, Any], modality: str | None) -> bool:
        if modality is not None and not series.modality:
            self._note("The archive does not tell the modality of every series, so not all of these may fit.")
        told = uid_of(row, STUDY_UID)
        return (told is None or told == series.study) and (modality is None or series.modality in ("", modality))

    def series_by_uid(self, uid: str) -> Series:
        """Return a series of which the study is not known.

        :raises ArchiveError: if the archive has none, or does not tell its study.
        """
        for found, row in self._all("/series", _SERIES_UID, [("SeriesInstanceUID", uid)], _OF_SERIES, "series"):
            if found == uid:
                study = uid_of(row, STUDY_UID)
                if study is None:
                    raise ArchiveError(f"The archive does not say to which study {uid} belongs. Give --study too.")
                return _series(uid, study, row)
        raise ArchiveError(
            f"The archive has no series {uid}, or does not find series without their study. Correct the UID, or give "
            "--study too."
        )

    def images(self, series: Series) -> list[str] | None:
        """Return the identifiers of the images of a series, SOPInstanceUID; ``None`` if the archive lists none.

        :raises ArchiveError: if the archive cannot be reached, or refuses this user.
        """
        path = f"/studies/{series.study}/series/{series.uid}/instances"
        try:
            rows = list(self._all(path, _IMAGE_UID, (), (), f"images of {series.uid}", MOST_IMAGES))
        except NotGiven as error:
            if error.status in (401, 403):
                raise
            return None
        return [uid for uid, row in rows if uid_of(row, _SERIES_UID) in (None, series.uid)] or None

    def _all(
        self,
        path: str,
        tag: str,
        query: Sequence[tuple[str, str | int]],
        more: Sequence[str],
        what: str,
        most: int | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield everything that the archive finds, page by page, each thing once: its identifier and its elements.

        :param tag: of the identifier.
        :param more: tags of elements that archives may not tell unless they are asked to.
        :param what: is found, for a sentence.
        :param most: after so many it gives up, by default after ``MOST_LOOKED_THROUGH``.
        """
        seen: set[str] = set()
        offset = 0
        while True:
            rows = self._page(path, [*query, ("limit", PAGE), ("offset", offset)], more)
            valid = {uid: row for row in rows if (uid := uid_of(row, tag)) is not None}
            if any(uid_of(row, tag) is None for row in rows):
                self._note(f"Some {what} are left out: the archive does not give them a valid identifier (UID).")
            fresh = {uid: row for uid, row in valid.items() if uid not in seen}
            seen |= fresh.keys()
            yield from fresh.items()
            offset += len(rows)
            if len(rows) > PAGE or not rows:  # it does not page and has told all at once, or this is the end
                return
            if not fresh:  # the same page again; it is all that there is, if it is not a full one
                if len(rows) == PAGE:
                    self._note(f"The archive gives its first {len(seen)} {what} only. There may be more.")
                return
            if offset >= (most or MOST_LOOKED_THROUGH):
                self._note(f"After {offset} {what} the search was given up. There may be more: narrow it.")
                return

    def _page(self, path: str, query: Sequence[tuple[str, str | int]], more: Sequence[str]) -> list[dict[str, Any]]:
        extended = [*query, *(("includefield", tag) for tag in more)] if more and not self._plain else query
        try:
            return self.ask.rows(path, extended)
        except NotGiven as error:
            if error.status == 404 and ("offset", 0) not in query:  # nothing beyond the last page
                return []
            if error.status != 400 or extended is query:
                raise
            self._plain = True
            return self.ask.rows(path, query)

    def _note(self, sentence: str) -> None:
        if sentence not in self.notices:
            self.notices.append(sentence)


def _study(uid: str, row: Mapping[str, Any], series: Sequence[Series]) -> Study:
    return Study(
        uid,
        text_of(row, PATIENT_ID) or "",
        text_of(row, PATIENT_NAME) or "",
        (text_of(row, STUDY_DATE) or "").replace(".", ""),
        text_of(row, STUDY_DESCRIPTION) or "",
        tuple(filter(None, (text_of(row, MODALITIES) or "").split("\\"))),
        number_of(row, _IMAGES_OF_STUDY),
        tuple(series),
    )


def _series(uid: str, study: str, row: Mapping[str, Any]) -> Series:
    return Series(
        uid,
        study,
        text_of(row, _MODALITY) or "",
        text_of(row, _SERIES_DESCRIPTION) or "",
        number_of(row, _SERIES_NUMBER),
        number_of(row, _IMAGES_OF_SERIES),
    )
