"""Find the cases that a command line means, and the result file of each: one case, several, or a folder of cases."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError, OutputError
from ..files import given_stem
from ..images.dicom.headers import is_dicom
from ..images.dicom.series import same_series
from ..images.suffixes import READ_SUFFIXES, VOXEL_SUFFIXES

_RESULT_SUFFIX = ".seg.nrrd"  # results may be in the folder of the images; they are not images
_SLASHES = tuple(filter(None, (os.sep, os.altsep)))  # at the end of the name of a folder
_MOST_ENTRIES = 1000  # of the folders below one, in which images are looked for
_CHANNEL = re.compile(r"(.+)_(\d{4})$")  # nnU-Net's CASE_0000.nii.gz


@dataclass(frozen=True)
class Case:
    """One image to segment.

    :ivar name: file name without suffix and channel number.
    :ivar files: its channels in order, or one DICOM folder.
    :ivar output: file of the result.
    :ivar stem: name of the result without its suffix; if not given, the name of the case.
    :ivar source: of an image of a BIDS dataset, its path there, with ``/``.
    """

    name: str
    files: tuple[Path, ...]
    output: Path
    stem: str | None = None
    source: str | None = None

    def in_format(self, suffix: str) -> Path:
        """Return the file of the same result in another format, in the folder of the first one."""
        return self.output.with_name(f"{self.name if self.stem is None else self.stem}{suffix}")


@dataclass(frozen=True)
class Cases:
    """What :func:`find_cases` has found, in the order of names."""

    cases: tuple[Case, ...]
    many: bool  # whether a folder of cases or several images were given, even if the folder contains only one
    in_folder: bool = True  # whether results are in a folder, where they are named after the cases
    left_out: tuple[str, ...] = ()  # a sentence for each file that may have been meant, and cannot be used


def find_cases(
    images: Sequence[str | Path], channels: int, output: str | Path, suffix: str, flat: bool = False
) -> Cases:
    """Find the cases that the image arguments mean.

    A folder with image files contains many cases, where ``NAME_0000``, ``NAME_0001`` and so on are the channels of one.
    So does a folder of folders with a DICOM series each. Any other folder is a DICOM series. If the model has one
    channel, several files are a case each; otherwise they are the channels of one case.

    :param images: files, or one folder.
    :param channels: number of channels that the model needs.
    :param output: for one case a file, or a folder that exists or whose name ends with a slash; for many cases a
        folder.
    :param suffix: suffix of results that are written into a folder, such as ``.seg.nrrd``.
    :param flat: the model is 2D; a slice of a DICOM series is then a case.
    :raises ImageError: if a folder has no image, the files do not match the channels, two images would have the same
        result, or slices of a DICOM series are given for a model that is not 2D.
    :raises OutputError: if there are many cases and ``output`` is a file.

    >>> [(case.name, case.output.name) for case in find_cases(["b.nii.gz", "a_0000.nrrd"], 1, "out", ".mha").cases]
    [('a_0000', 'a_0000.mha'), ('b', 'b.mha')]
    """
    paths, target = [Path(image) for image in images], Path(output)
    if not flat:
        _refuse_slices(paths)
    folder = len(paths) == 1 and paths[0].is_dir() and (_image_files(paths[0]) or _series_in(paths[0]))
    if folder == []:
        _refuse_without_image(paths[0], channels)
    if folder and any(not _has_suffix(file) and file.is_file() and is_dicom(file) for file in paths[0].iterdir()):
        raise ImageError(f"{paths[0]} holds image files and DICOM files. Name the image file, or move it elsewhere.")
    many = bool(folder) or (len(paths) > 1 and channels == 1)
    if many:
        groups = _group(folder or paths, channels)
        if not is_folder(output):
            refuse_file(target, VOXEL_SUFFIXES, "Name a folder.")
    else:
        groups = {_case_name(paths, channels): tuple(paths)}
        if not is_folder(output):
            return Cases(tuple(Case(name, files, target) for name, files in groups.items()), False, False)
    cases = (Case(name, files, target / f"{name}{suffix}") for name, files in sorted(groups.items()))
    return Cases(tuple(cases), many)


def is_folder(name: str | Path) -> bool:
    """Return whether a name of results is that of a folder: there is one, or it ends with a slash."""
    return str(name).endswith(_SLASHES) or Path(name).is_dir()


def refuse_file(target: Path, suffixes: tuple[str, ...], remedy: str) -> None:
    """Refuse a name that is meant as that of a file where a folder is needed, unless there is a folder of that name.

    :raises OutputError: with the remedy at its end.
    """
    if target.name.lower().endswith(suffixes) and not target.is_dir():
        raise OutputError(f"{target} looks like a file, but there may be many results. {remedy}")


def _image_files(folder: Path) -> list[Path]:
    images = (file for file in folder.iterdir() if _has_suffix(file) and not file.name.startswith("."))
    return sorted(file for file in images if not file.name.lower().endswith(_RESULT_SUFFIX))


def _series_in(folder: Path) -> list[Path]:
    """Return the folders in a folder that has no file of its own, if each of them holds a DICOM series."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if any(entry.is_file() for entry in entries) or not all(map(_has_dicom, entries)):
        return []
    return entries


def _has_dicom(folder: Path) -> bool:
    if not folder.is_dir():  # such as a link without a target
        return False
    files = (file for file in sorted(folder.iterdir()) if file.is_file())
    return any(is_dicom(file) for file in itertools.islice(files, 10))


def _refuse_without_image(folder: Path, channels: int) -> None:
    """Refuse a folder that has neither image files nor DICOM files, and say where images are.

    :raises ImageError: unless there is a DICOM file, or what cannot be read, of which the reader says more.
    """
    try:
        if any(not entry.exists() or (entry.is_file() and is_dicom(entry)) for entry in folder.iterdir()):
            return
        below = [entry for entry in itertools.islice(folder.rglob("*"), _MOST_ENTRIES) if entry.is_dir()]
        images = [file for place in below for file in _image_files(place)]
        places = {file.parent for file in images} or {place for place in below if _has_dicom(place)}
    except OSError:
        return
    if not places:
        kinds = ", ".join(READ_SUFFIXES)
        raise ImageError(f"{folder} has no image: no DICOM series, and no file {kinds}. Name an image, or its folder.")
    if len(places) == 1:
        raise ImageError(f"{folder} has no image, but {places.pop()} below it has. Name that folder.")
    flat = all(place.parent == folder for place in places)
    different = len({file.name for file in images}) == len(images)
    remedy = f"Name one of them, such as {min(places)}."
    if images and not (flat and different and channels == 1):
        remedy = f"Link the images into one folder, under different names, or name one of them, such as {min(images)}."
    elif flat and channels == 1:
        pattern = Path("*", f"*{_ending(min(images))}") if images else f"*{os.sep}"
        remedy = f"Name them: {os.path.join(folder, pattern)}"
    elif not images:
        remedy = f"classscaleseg dicom sort {folder} -o sorted/ makes a folder of each series: then name that one."
    raise ImageError(f"{folder} has no image, but {len(places)} folders below it hold images. {remedy}")


def _ending(file: Path) -> str:
    return next(suffix for suffix in READ_SUFFIXES if file.name.lower().endswith(suffix))


def _group(files: Sequence[Path], channels: int) -> dict[str, tuple[Path, ...]]:
    """Return the files of each case, in the order of the channels."""
    matches = {file: _CHANNEL.match(_stem(file)) for file in files}
    # with one channel, a name such as amos_0001 is kept whole unless every file ends with the number of channel 0
    strip = channels > 1 or all(match and match[2] == "0000" for match in matches.values())
    groups: dict[str, dict[Path, str]] = {}  # for each case its files, and their channel numbers
    for file, match in matches.items():
        if match is None and channels > 1:
            raise ImageError(
                f"{file}: the model needs {channels} channels, so the files of a folder must be named NAME_0000, "
                "NAME_0001 and so on, one per channel."
            )
        name, number = (match[1], match[2]) if match and strip else (_stem(file), "0000")
        groups.setdefault(name, {})[file] = number
    wanted = [f"{channel:04}" for channel in range(channels)]
    for name, members in groups.items():
        if len(set(members.values())) < len(members):
            first, second = list(members)[:2]
            raise ImageError(
                f"{first} and {second} would both be the case {name}, and their results have one name. Rename one of "
                "them, or segment them one by one."
            )
        if list(members.values()) != wanted:
            found = ", ".join(file.name for file in members)
            raise ImageError(
                f"Case {name} has the files {found}, but the model needs {channels} channel(s). Give one file for each."
            )
    return {name: tuple(members) for name, members in groups.items()}


def _case_name(paths: Sequence[Path], channels: int) -> str:
    name = _stem(paths[0])
    match = _CHANNEL.match(name)
    return match[1] if match and (channels > 1 or match[2] == "0000") else name


def _has_suffix(path: Path) -> bool:
    return path.name.lower().endswith(READ_SUFFIXES)


def _refuse_slices(paths: Sequence[Path]) -> None:
    """Refuse what ``*.dcm`` gives for a model that needs the whole series.

    :raises ImageError: if two files in succession are slices of one DICOM series.
    """
    for pair in itertools.pairwise(paths):
        try:
            slices = all(path.is_file() for path in pair) and same_series(pair)
        except (OSError, ImageError):  # a damaged file is the fault of its case
            continue
        if slices:
            raise ImageError(
                f"{pair[0]} and {pair[1]} are slices of one DICOM series, and the model needs the whole series. Name "
                f"the folder that holds it, such as {pair[0].parent}."
            )


def _stem(path: Path) -> str:
    return given_stem(path, READ_SUFFIXES)
