"""Find the series among the files that a scanner or an archive has exported, whatever the folders, and sort them.

`segment` takes a folder for each series. Exports have folders of patients and studies above them, several series in one
folder, or one series in several.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ImageError, OutputError, reason, shown
from ...files import unwritable
from .headers import Slice, is_dicom, read_slices, visible_files
from .series import not_a_volume, read_places

_LONGEST = 40  # letters of a part of a name
# Bytes of a part of a name, so that the name of a folder, and those of the results that are called like it, have less
# than the 255 that file systems take.
_MOST_BYTES = 60
_LONGEST_FILE = 250  # bytes of the name of a file, before which a point may come
_OWNER = ".series"  # the file in the folder of a series that has its UID


@dataclass(frozen=True)
class ExportedSeries:
    """A DICOM series among the files of an export.

    :ivar uid: SeriesInstanceUID.
    :ivar name: of the folder that it gets: patient ID, date of the study, number and description of the series.
    :ivar other_name: the same with the UID of the series, or without it if the name has it: the folder may be called
        so if the export has grown since, or has fewer series.
    :ivar files: those of its images, in the order of their paths.
    :ivar images: number of slices or frames.
    :ivar needless: why nobody would segment it, such as "it is a localizer"; "" otherwise.
    :ivar fault: a sentence on why it is no volume, as if slices are missing; "" otherwise.
    """

    uid: str
    name: str
    other_name: str
    modality: str
    description: str
    files: tuple[Path, ...]
    images: int
    needless: str = ""
    fault: str = ""

    @property
    def usable(self) -> bool:
        """Whether it can be segmented."""
        return not (self.needless or self.fault)


@dataclass(frozen=True)
class Export:
    """What `read_export` has found.

    :ivar series: in the order of their names.
    :ivar faults: a sentence for each file that cannot be read.
    """

    series: tuple[ExportedSeries, ...]
    faults: tuple[str, ...]


def read_export(
    places: Sequence[Path],
    modality: str | None = None,
    without: Path | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Export:
    """Find the DICOM series in files, and in folders and all folders below. Pixels are not read.

    :param modality: only series of this modality, such as ``CT``.
    :param without: a folder that is passed over, such as that of an earlier run.
    :param progress: called after each file.
    :raises ImageError: if a place does not exist.
    """
    pieces: dict[str, list[Slice]] = {}
    faults: list[str] = []
    for file in _files(places, without, faults):
        try:
            for piece in read_slices(file) if is_dicom(file) else []:
                if modality is None or piece.modality == modality:
                    pieces.setdefault(piece.series, []).append(piece)
        except OSError as error:
            faults.append(f"{file} cannot be read ({reason(error)}).")
        except ImageError as error:
            faults.append(str(error))
        progress()
    names = {uid: _name(slices[0].file) for uid, slices in pieces.items()}
    count = Counter(name.casefold() for name in names.values())  # some file systems take A and a for the same
    both: dict[str, tuple[str, str]] = {}
    for uid, name in names.items():
        whole = "-".join(filter(None, (name, _part(uid[-_LONGEST:])))) or "series"
        alone = name and count[name.casefold()] == 1  # and not such as two studies of one day
        both[uid] = (name, whole) if alone else (whole, name)
    found = (_described(uid, *both[uid], slices) for uid, slices in pieces.items())
    return Export(tuple(sorted(found, key=lambda series: (series.name, series.uid))), tuple(faults))


def link_series(series: ExportedSeries, folder: Path) -> Path:
    """Make a folder with links to the files of a series, or copies where the file system has no links.

    What an earlier run has put there stays, but links whose target is missing. If that run gave the folder the other
    name, it keeps it: a second folder would be segmented as a second case. A hidden file in the folder tells whose it
    is, also if the export was moved, and has other files than before.

    :param folder: in which the folder of the series is.
    :returns: the folder of the series.
    :raises OutputError: if it is of another series, has other files, also of the same names, or cannot be written.
    """
    target, earlier = folder / series.name, folder / series.other_name
    wanted = dict(zip(_file_names(series.files), series.files, strict=True))
    try:
        if series.other_name and _is_of(series, earlier, wanted) and not _is_of(series, target, wanted):
            target = earlier
        target.mkdir(parents=True, exist_ok=True)
        if (owner := _owner(target)) not in ("", series.uid):  # as of another patient, whose results have this name
            raise OutputError(
                f"{target} is the folder of another series ({shown(owner)[:64]}) than {series.uid}. Remove the folder, "
                "or name another one for the sorted series."
            )
        for entry in visible_files(target):
            if _is_dead(entry):  # the export was somewhere else
                entry.unlink()
        there = {entry.name for entry in visible_files(target)}
        if others := sorted(there - wanted.keys()):
            raise OutputError(
                f"{target} holds {others[0]}, which is not of the series {series.uid}. Remove the folder, or name "
                "another one for the sorted series."
            )
        for name, file in wanted.items():
            if name not in there:
                _link(file.resolve(), target / name)
            elif not _same(file, target / name):  # as of another export whose series has the same name
                raise OutputError(
                    f"{target / name} is another file than {file}. Remove the folder, or name another one for the "
                    "sorted series."
                )
        if not owner:
            (target / _OWNER).write_text(series.uid, encoding="utf-8")
    except OSError as error:
        raise unwritable(target, error) from error
    return target


def dead_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that have links whose target is missing.

    :raises OutputError: if one of them cannot be read.
    """
    try:
        folders = [entry for entry in visible_files(folder) if entry.is_dir()] if folder.is_dir() else []
        return [one for one in folders if any(map(_is_dead, visible_files(one)))]
    except OSError as error:
        raise unwritable(folder, error) from error


def _is_dead(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _is_of(series: ExportedSeries, folder: Path, files: dict[str, Path]) -> bool:
    """Return whether a folder was made for a series: it says so, or has one of its files.

    :param files: of the series, by the names that they have there.
    """
    return _owner(folder) == series.uid or _holds_some(folder, files)


def _owner(folder: Path) -> str:
    """Return the UID of the series for which a folder was made; "" if it does not say so."""
    file = folder / _OWNER
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _holds_some(folder: Path, files: dict[str, Path]) -> bool:
    """Return whether a folder has one of some files, by the names that they have there."""
    return any((folder / name).exists() and _same(file, folder / name) for name, file in files.items())


def _same(file: Path, other: Path) -> bool:
    return file.samefile(other) or filecmp.cmp(file, other, shallow=False)


def _link(file: Path, target: Path) -> None:
    try:
        target.symlink_to(file)
    except (OSError, NotImplementedError):  # as on Windows without the right to make links
        part = target.with_name(f".{target.name}")
        shutil.copyfile(file, part)
        part.replace(target)


def _files(places: Sequence[Path], without: Path | None, faults: list[str]) -> Iterator[Path]:
    """Yield the visible files in places and below, in the order of their paths, also those behind links.

    :raises ImageError: if a place does not exist.
    """
    if missing := [place for place in places if not place.exists()]:
        raise ImageError(f"{missing[0]} does not exist.")
    passed_over = without.resolve() if without is not None else None
    seen = {place.resolve() for place in places}

    def unreadable(error: OSError) -> None:
        faults.append(f"{error.filename} cannot be read ({error.strerror}).")

    for place in places:
        if place.is_file():
            yield place
            continue
        for root, folders, files in os.walk(place, onerror=unreadable, followlinks=True):
            visible_folders = {name: Path(root, name).resolve() for name in sorted(folders) if not name.startswith(".")}
            folders.clear()
            for name, real in visible_folders.items():
                if real not in seen and passed_over not in (real, *real.parents):
                    seen.add(real)  # links may lead to a folder twice, or in a circle
                    folders.append(name)
            for file in (Path(root, name) for name in sorted(files) if not name.startswith(".")):
                if file.is_file():
                    yield file
                elif not file.exists():
                    faults.append(f"{file} is a link whose target is missing.")


def _described(uid: str, name: str, other_name: str, slices: list[Slice]) -> ExportedSeries:
    once = {(piece.instance, piece.frame, piece.position): piece for piece in reversed(slices)}  # the first of copies
    slices = list(reversed(once.values()))
    files = tuple(dict.fromkeys(piece.file for piece in slices))
    needless, fault = not_a_volume(slices) or "", ""
    if not needless and len({piece.position for piece in slices}) == 1:
        needless = "it has a single slice"
    if not needless:
        try:
            read_places(Path(name), files)
        except ImageError as error:
            fault = str(error).removeprefix(f"{name}: ")
    first = slices[0]
    facts = first.modality, first.description, files, len(slices)
    return ExportedSeries(uid, name, other_name, *facts, needless, fault)


def _name(file: Path) -> str:
    """Return the name of the folder of a series: patient ID, date of the study, number and description."""
    import pydicom

    keywords = ["PatientID", "StudyDate", "SeriesNumber", "SeriesDescription"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on values that it accepts in spite of the standard
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(keywords))
            values = [str(header.get(keyword) or "") for keyword in keywords]
        except Exception:  # pydicom raises whatever a damaged value makes Python raise
            return ""
    return "-".join(filter(None, map(_part, values)))


def _part(text: str) -> str:
    r"""Return a text with letters, digits, points and ``-`` alone, which every file system takes.

    >>> _part("../Abdomen pv 1.5")
    'Abdomen_pv_1.5'
    >>> _part("Mu\N{COMBINING DIAERESIS}ller") == "M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller"
    True
    """
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(letter if letter.isalnum() or letter in ".-" else " " for letter in composed)
    return _cut("_".join(kept.split())[:_LONGEST], _MOST_BYTES).strip("._-")


def _cut(text: str, most: int) -> str:
    """Return the beginning of a text that has no more than some bytes in UTF-8, and whole letters."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _file_names(files: Iterable[Path]) -> list[str]:
    """Return a name for each file in one folder: its own, with that of its folder if another file has the same.

    None is hidden, and none differs from another by capital letters alone, which some file systems do not tell apart.

    >>> _file_names([Path("disc1/IM1"), Path("disc2/im1"), Path("disc2/IM2")])
    ['disc1-IM1', 'disc2-im1', 'IM2']
    """
    files = list(files)
    count = Counter(file.name.casefold() for file in files)
    names = [
        file.name if count[file.name.casefold()] == 1 else f"{file.parent.name.lstrip('.')}-{file.name}"
        for file in files
    ]
    if len({name.casefold() for name in names}) < len(names) or any(map(_too_long, names)):
        names = [f"{number}-{file.name}" for number, file in enumerate(files, 1)]
    if any(map(_too_long, names)):
        names = [f"{number}.dcm" for number in range(1, len(files) + 1)]
    return names


def _too_long(name: str) -> bool:
    return len(os.fsencode(name)) > _LONGEST_FILE
