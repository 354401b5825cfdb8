"""Which images, and which results, a command line means: one case, several, or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError, OutputError

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".hdr")
_RESULT_SUFFIX = ".seg.nrrd"  # results may lie in the same folder; they are no images
_CHANNEL = re.compile(r"(.+)_(\d{4})$")  # nnU-Net's CASE_0000.nii.gz


@dataclass(frozen=True)
class Case:
    """One image to segment. ``files`` holds its channels, or one DICOM folder."""

    name: str
    files: tuple[Path, ...]
    output: Path


@dataclass(frozen=True)
class Cases:
    """:ivar many: a folder of cases, or several images, was given, be it that there is only one in it."""

    cases: tuple[Case, ...]
    many: bool


def find_cases(images: Sequence[str], channels: int, output: str, suffix: str) -> Cases:
    """Cases in the order of their names.

    One folder with image files holds many cases, ``NAME_0000``, ``NAME_0001`` ... being the channels of one; a folder
    without any is a DICOM series. Several files are the channels of one case if the model has that many channels, and
    a case each if it has one.

    :param output: a file, or a folder that exists, for one case; a folder for several.
    :param suffix: of results that are written into a folder, such as ``.seg.nrrd``.
    :raises ImageError: if files and channels do not match, or two images would have the same result.
    :raises OutputError: if many cases shall go into one file.
    """
    paths, target = [Path(image) for image in images], Path(output)
    folder = len(paths) == 1 and paths[0].is_dir() and _image_files(paths[0])
    many = bool(folder) or (len(paths) > 1 and channels == 1)
    if many:
        groups = _group(folder or paths, channels)
        if _has_suffix(target) and not target.is_dir():
            raise OutputError(f"{target} looks like a file, and there may be many results: name a folder.")
    else:
        groups = {_case_name(paths, channels): tuple(paths)}
        if not target.is_dir():
            return Cases(tuple(Case(name, files, target) for name, files in groups.items()), False)
    cases = (Case(name, files, target / f"{name}{suffix}") for name, files in sorted(groups.items()))
    return Cases(tuple(cases), many)


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if _has_suffix(p) and not p.name.lower().endswith(_RESULT_SUFFIX) and not p.name.startswith(".")
    )


def _group(files: Sequence[Path], channels: int) -> dict[str, tuple[Path, ...]]:
    """Files of each case, channel by channel."""
    matches = {file: _CHANNEL.match(_stem(file)) for file in files}
    if channels == 1:  # amos_0001 is a name unless every file has the suffix of the first channel
        strip = all(match and match.group(2) == "0000" for match in matches.values())
        pairs = [(match.group(1) if strip else _stem(file), file) for file, match in matches.items()]
    else:
        bad = next((file for file, match in matches.items() if match is None), None)
        if bad is not None:
            raise ImageError(
                f"{bad}: the model wants {channels} channels, so the files of a folder must be named NAME_0000, "
                "NAME_0001 and so on, one a channel."
            )
        pairs = [(match.group(1), file) for file, match in matches.items()]
    groups: dict[str, list[Path]] = {}
    for name, file in pairs:
        groups.setdefault(name, []).append(file)
    for name, members in groups.items():
        wanted = [f"{channel:04}" for channel in range(channels)]
        if len(members) != channels or (channels > 1 and [matches[f].group(2) for f in members] != wanted):
            found = ", ".join(file.name for file in members)
            raise ImageError(f"Case {name} has the files {found}, and the model wants {channels} channel(s).")
    return {name: tuple(members) for name, members in groups.items()}


def _case_name(paths: Sequence[Path], channels: int) -> str:
    name = _stem(paths[0])
    match = _CHANNEL.match(name)
    return match.group(1) if match and (channels > 1 or match.group(2) == "0000") else name


def _has_suffix(path: Path) -> bool:
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def _stem(path: Path) -> str:
    name = path.resolve().name
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]
