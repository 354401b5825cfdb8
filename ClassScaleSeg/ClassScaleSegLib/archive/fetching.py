"""Fetch series from an archive (WADO-RS), image by image to a folder, so that an interrupted run can go on.

A file gets its name once it is whole, and is then not fetched again. Nothing grows with the length of a series but the
list of its images.
"""

from __future__ import annotations

import filecmp
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ArchiveError, OutputError
from ..files import unwritable
from .answers import content_type, read
from .asking import Asking, NotGiven
from .connection import NotReached
from .multipart import Incomplete, Parts, boundary_of
from .received import UNCOMPRESSED, Received, cannot_be_read, look_at
from .searching import MOST_IMAGES, Search, Series

LARGEST_IMAGE = 16 << 30  # bytes of a file
DISK_RESERVE = 1 << 30  # bytes that stay free on the disk
_BYTES_BETWEEN_LOOKS = 64 << 20  # at the free disk
_PIECE = 1 << 16  # bytes that are received at once
_MOST_FAILURES = 3  # images one after the other, after which the others of the series are not tried
_MOST_REASONS = 5  # that are told of a series
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_DECOMPRESSED = 'multipart/related; type="application/dicom"'  # which means Explicit VR Little Endian
Progress = Callable[[int, "int | None"], None]  # images that are there, and how many there should be if that is known


@dataclass
class Fetched:
    """A series in a folder.

    :ivar new: images that were fetched.
    :ivar kept: images that were there already.
    :ivar missing: identifiers of images that the archive lists and did not give.
    :ivar expected: number of images, as the archive says; ``None`` if it does not.
    :ivar faults: sentences on what was not given, or was not taken.
    :ivar notices: sentences on what was fetched.
    :ivar others: files of the folder that are none of the images that the archive has now: damaged ones, and those of
        an earlier fetch that it does not list any more.
    :ivar unreadable: names of the transfer syntaxes of images whose pixels cannot be read here.
    """

    series: Series
    folder: Path
    new: int = 0
    kept: int = 0
    missing: tuple[str, ...] = ()
    expected: int | None = None
    faults: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    others: tuple[Path, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        return self.new + self.kept

    @property
    def whole(self) -> bool:
        """Whether all images are there that the archive has, as far as it says, and at least one."""
        return not (self.faults or self.missing) and self.images > 0


class SeriesFetch:
    """Fetches a series into a folder of its own, which is named after it.

    :ivar said: what is known of it so far, also if fetching has ended by an exception.
    """

    def __init__(
        self,
        ask: Asking,
        series: Series,
        folder: Path,
        decompress: bool = False,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """
        :param folder: in which the folder of the series is made.
        :param decompress: let the archive decompress the pixels.
        """
        self.said = Fetched(series, folder / series.uid)
        self._ask, self._decompress, self._progress = ask, decompress, progress
        self._path = f"/studies/{series.study}/series/{series.uid}"
        self._forms = [_DECOMPRESSED] if decompress else [_AS_STORED, _DECOMPRESSED]
        self._there: dict[str, str] = {}  # the transfer syntax of each image that is there
        self._unusable: set[str] = set()  # names of files without suffix
        self._listed: list[str] = []
        self._reasons: list[str] = []

    def run(self) -> Fetched:
        """Fetch what is not there yet.

        :raises ArchiveError: if the archive cannot be reached, or asks who this is.
        :raises OutputError: if files cannot be written, or the disk is full.
        """
        said, series = self.said, self.said.series
        with _writing(said.folder):
            said.folder.mkdir(parents=True, exist_ok=True)
        try:
            search = Search(self._ask)
            self._listed = search.images(series) or []
            said.notices += search.notices
            counts = [count for count in (len(self._listed), series.images) if count]
            said.expected = max(counts, default=None)
            self._look_at_folder()
            self._fetch()
        finally:
            self._conclude()
            with suppress(OSError):
                said.folder.rmdir()  # if there is nothing in it
        return said

    def _missing(self) -> list[str]:
        return [uid for uid in self._listed if uid not in self._there]

    def _count(self) -> int:
        """Return how many images are there of those that the archive has."""
        return len(self._of_the_archive())

    def _of_the_archive(self) -> set[str]:
        """Return the images that are there and that the archive has, as far as it says."""
        if len(self._listed) < (self.said.expected or 1):  # it does not list all
            return set(self._there)
        return self._there.keys() & set(self._listed)

    def _look_at_folder(self) -> None:
        """Find out which images are there and whole. What is damaged is replaced when it comes again."""
        with _writing(self.said.folder):
            files = [file for file in sorted(self.said.folder.glob("[0-9]*.dcm")) if file.is_file()]
        for file in files:
            try:
                found = look_at(file)
                usable = found.instance == file.stem and self._belongs(found)
            except (ArchiveError, OSError):
                usable = False
            if not usable:
                self._unusable.add(file.stem)
            elif not self._decompress or found.syntax in UNCOMPRESSED:
                self._there[found.instance] = found.syntax
        self.said.kept = len(self._there)
        if self._listed and (others := self._there.keys() - set(self._listed)):
            self.said.notices.append(f"The folder has images that the archive does not list: {len(others)}.")

    def _belongs(self, found: Received) -> bool:
        return (found.study, found.series) == (self.said.series.study, self.said.series.uid)

    def _fetch(self) -> None:
        """Fetch the series at once, and one by one the images that did not come, or if there are few."""
        self._tell()
        missing = self._missing()
        if not missing and self.said.expected is not None and self._count() >= self.said.expected:
            return
        if not missing or 2 * len(missing) >= len(self._listed):
            try:
                self._ask_for(self._path, MOST_IMAGES)
            except NotReached:
                raise
            except ArchiveError as error:
                self._give_up(error)
                if getattr(error, "status", None) == 403:
                    return
        failures = 0
        for number, uid in enumerate(missing := self._missing()):
            if failures == _MOST_FAILURES:
                self._reasons.append(f"The other images were not tried: {len(missing) - number}.")
                break
            try:
                self._ask_for(f"{self._path}/instances/{uid}", 1)
            except NotReached:
                raise
            except ArchiveError as error:
                self._give_up(error)
            failures = 0 if uid in self._there else failures + 1

    def _give_up(self, error: ArchiveError) -> None:
        """Note why something did not come.

        :raises ArchiveError: again, if nothing else will come either.
        """
        if getattr(error, "status", None) == 401:
            raise error
        self._reasons.append(str(error))

    def _ask_for(self, path: str, most: int) -> None:
        """Take all files that the archive gives at a path.

        :param most: how many.
        """
        with self._answer(path) as answer:
            boundary = boundary_of(answer.headers.get("Content-Type", ""))
            if boundary is None and content_type(answer) != "application/dicom":
                read(answer)
                raise self._ask.archive.no_answer(answer)
            pieces = self._ask.pieces(answer, _PIECE)
            for number, part in enumerate([pieces] if boundary is None else Parts(pieces, boundary)):
                if number == most:
                    raise Incomplete(f"The archive gives more than {most} files where {most} would do.")
                self._take(part)

    @contextmanager
    def _answer(self, path: str) -> Iterator[Any]:
        """Yield the answer in the first form in which the archive gives it."""
        with ExitStack() as stack:
            for form in self._forms:
                try:
                    answer = stack.enter_context(self._ask.answer(path, form, plain=True))
                    break
                except NotGiven as error:
                    if error.status not in (400, 406, 415) or form == self._forms[-1]:
                        raise
            if len(self._forms) > 1 and form == _DECOMPRESSED:
                self.said.notices.append("The archive does not give files as they are stored, and decompresses them.")
            self._forms = [form]
            yield answer

    def _take(self, content: Iterable[bytes]) -> None:
        """Receive a file, and keep it if it is an image of the series that is not there."""
        folder = self.said.folder
        temporary = folder / f".{secrets.token_hex(6)}.dcm"
        try:
            size, looked = 0, -1
            with _writing(folder), temporary.open("xb") as file:
                for piece in content:
                    size += len(piece)
                    if size > LARGEST_IMAGE:
                        raise Incomplete(f"The archive gives a file of more than {LARGEST_IMAGE >> 30} GiB.")
                    if size // _BYTES_BETWEEN_LOOKS > looked:
                        looked = size // _BYTES_BETWEEN_LOOKS
                        _refuse_full_disk(folder)
                    file.write(piece)
            with _writing(folder):
                self._keep(temporary)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _keep(self, temporary: Path) -> None:
        try:
            found = look_at(temporary)
        except ArchiveError as error:
            self._reasons.append(f"A file that the archive gave is left out: {error}.")
            return
        if not self._belongs(found):
            self._reasons.append("A file that the archive gave is left out: it belongs to another series.")
            return
        target = self.said.folder / f"{found.instance}.dcm"
        if found.instance in self._there:
            if found.syntax == self._there[found.instance] and not filecmp.cmp(temporary, target, shallow=False):
                self._reasons.append(
                    f"{target} is kept, though the archive gives another file with its identifier. Delete it to get "
                    "that one."
                )
            return
        os.replace(temporary, target)
        self._there[found.instance] = found.syntax
        self.said.new += 1
        self._tell()

    def _tell(self) -> None:
        self._progress(len(self._there), self.said.expected)

    def _conclude(self) -> None:
        """Say what is missing and why, and what the pixels are."""
        said = self.said
        said.missing = tuple(self._missing())
        others = (self._unusable | self._there.keys()) - self._of_the_archive()
        said.others = tuple(said.folder / f"{name}.dcm" for name in sorted(others))
        if odd := self._unusable - self._there.keys():
            said.notices.append(f"The folder has files that are damaged, or not of this series: {len(odd)}.")
        reasons = list(dict.fromkeys(self._reasons))
        if len(reasons) > _MOST_REASONS:
            reasons[_MOST_REASONS:] = [f"{len(reasons) - _MOST_REASONS} more faults are not listed."]
        here = self._count()
        if said.expected is not None and here >= said.expected:
            said.notices += reasons  # all came in the end
        else:
            said.faults += reasons
            if said.expected is not None:
                said.faults.append(f"{here} of {said.expected} images are there.")
            elif not (reasons or said.images):
                said.faults.append("The archive gave no image.")
        said.unreadable = tuple(sorted({name for syntax in self._there.values() if (name := cannot_be_read(syntax))}))
        for name in said.unreadable:
            remedy = "The archive does not decompress them." if self._decompress else "Fetch them with --decompress."
            said.notices.append(f"Pixels are compressed in a way that cannot be read here ({name}). {remedy}")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the system says on files of a folder into a sentence.

    :raises OutputError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from error


def _refuse_full_disk(folder: Path) -> None:
    if shutil.disk_usage(folder).free < DISK_RESERVE:
        raise OutputError(
            f"{folder}: less than {DISK_RESERVE >> 30} GiB is free on the disk. Make room there, or choose another "
            "folder. What is there already is not fetched again."
        )
