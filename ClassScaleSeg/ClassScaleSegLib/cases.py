"""Which images, and which results, a command line means: one case, several, or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ImageError

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".hdr")
_CHANNEL = re.compile(r"(.+)_(\d{4})$")  # nnU-Net's CASE_0000.nii.gz


@dataclass(frozen=True)
class Case:
    """One image to segment. ``files`` holds its channels, or one DICOM folder."""

    name: str
    files: tuple[Path, ...]
    output: Path


def find_cases(images: Sequence[str], channels: int, output: str, suffix: str) -> list[Case]:
    """Cases in the order of their names.

    One folder with image files holds many cases, ``NAME_0000``, ``NAME_0001`` ... being the channels of one; a folder
    without any is a DICOM series. Several files are the channels of one case if the model has that many channels, and
    a case each if it has one.

    :param output: a file for one case; a folder where it is one already or there may be several cases.
    :param suffix: of results that are written into a folder, such as ``.seg.nrrd``.
    :raises ImageError: if there is nothing to segment, or files and channels do not match.
    """
    paths = [Path(image) for image in images]
    target = Path(output)
    if len(paths) == 1 and paths[0].is_dir() and (files := _image_files(paths[0])):
        groups = _group_channels(paths[0], files, channels)
    elif len(paths) > 1 and channels == 1:
        groups = {_stem(path): (path,) for path in paths}
        if len(groups) < len(paths):
            raise ImageError("Two of the images have the same name, so their results would too. Segment them apart.")
    else:
        name = _stem(paths[0])
        match = _CHANNEL.match(name)
        groups = {match.group(1) if match else name: tuple(paths)}
        if not target.is_dir() and target.name.endswith(IMAGE_SUFFIXES):
            return [Case(name, tuple(paths), target) for name in groups]
    return [Case(name, files, target / f"{name}{suffix}") for name, files in sorted(groups.items())]


def _image_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name.endswith(IMAGE_SUFFIXES) and not p.name.startswith("."))


def _group_channels(folder: Path, files: list[Path], channels: int) -> dict[str, tuple[Path, ...]]:
    matches = {file: _CHANNEL.match(_stem(file)) for file in files}
    if channels == 1 and not all(matches.values()):
        return {_stem(file): (file,) for file in files}
    groups: dict[str, list[Path]] = {}
    for file, match in matches.items():
        if match is None:
            raise ImageError(
                f"{file}: the model wants {channels} channels, so the files in {folder} must be named NAME_0000, "
                "NAME_0001 and so on, one a channel."
            )
        groups.setdefault(match.group(1), []).append(file)
    return {name: tuple(members) for name, members in groups.items()}


def _stem(path: Path) -> str:
    for suffix in IMAGE_SUFFIXES:
        if path.name.endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem if path.is_file() else path.name
