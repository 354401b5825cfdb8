"""Find the segmentations of the same cases in two folders, and read one with the names that lie beside it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import ImageError
from ..files import given_stem
from ..labels.table import LabelTable
from .dicom_rtstruct import RTSTRUCT_SUFFIX
from .dicom_seg import DICOM_SUFFIX
from .formats import IMAGE_SUFFIXES, colour_table_path
from .image_file import READ_SUFFIXES
from .segmentation import Segmentation

_NAMED = (".seg.nrrd", DICOM_SUFFIX)  # formats that know the names of their labels; of one result, the first is read
_SUFFIXES = (*_NAMED, *READ_SUFFIXES)


class Pair(NamedTuple):
    """Two segmentations of one case.

    :ivar name: of the files, without suffix.
    """

    name: str
    reference: Path
    other: Path


class Pairs(NamedTuple):
    """What `find_pairs` has found.

    :ivar pairs: in the order of names.
    :ivar without_other: names of cases of the reference that the other folder lacks.
    :ivar without_reference: names of cases that only the other folder has.
    :ivar several: whether folders were given, even if they hold a single case.
    """

    pairs: tuple[Pair, ...]
    without_other: tuple[str, ...] = ()
    without_reference: tuple[str, ...] = ()
    several: bool = True


def find_pairs(reference: str | Path, other: str | Path) -> Pairs:
    """Find the segmentations to compare: two files, or those of the same name in two folders, in whatever formats.

    A result that a folder has in several formats is one case: that with names counts, a ``.seg.nrrd`` first.

    :raises ImageError: if only one of both is a folder, one does not exist, a folder has no segmentation, or several
        files of one name of which none has names.
    """
    first, second = Path(reference), Path(other)
    for path in (first, second):
        if not path.exists():
            raise ImageError(f"{path} does not exist.")
    if first.is_dir() != second.is_dir():
        folder, file = (first, second) if first.is_dir() else (second, first)
        raise ImageError(f"{folder} is a folder and {file} is a file: give two files, or two folders.")
    if not first.is_dir():
        return Pairs((Pair(_name(first), first, second),), several=False)
    ones, others = _cases(first), _cases(second)
    pairs = tuple(Pair(name, ones[name], others[name]) for name in sorted(ones.keys() & others.keys()))
    return Pairs(pairs, tuple(sorted(ones.keys() - others.keys())), tuple(sorted(others.keys() - ones.keys())))


def read_named(path: Path, table: LabelTable | None = None) -> Segmentation:
    """Read a segmentation, with the names of its labels: given ones, its own, or those of the colour table beside it.

    :param table: names of the labels; by default, a label image has those of ``ct.labels.csv`` beside ``ct.nii.gz``,
        as `Segmentation.write` writes it, or else names such as ``label 1``.
    :raises ImageError: as `Segmentation.from_image`; or for a structure set, whose contours are not read.
    :raises LabelTableError: if the table cannot be read, or lacks a label.
    """
    name = path.name.lower()
    if name.endswith(RTSTRUCT_SUFFIX):
        raise ImageError(f"{path} is a structure set, of which only contours are stored: give another format.")
    if table is None and name.endswith(IMAGE_SUFFIXES) and not name.endswith(_NAMED):
        beside = colour_table_path(path)
        table = LabelTable.from_csv(beside) if beside.is_file() else None
    return Segmentation.from_image(path, table)


def _cases(folder: Path) -> dict[str, Path]:
    """Return the segmentation of each case in a folder, by its name."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.name.lower().endswith(_SUFFIXES):
            found.setdefault(_name(file), []).append(file)
    if not found:
        raise ImageError(f"{folder} has no segmentation: none of its files ends with {', '.join(_SUFFIXES)}.")
    return {name: _chosen(files) for name, files in found.items()}


def _chosen(files: list[Path]) -> Path:
    for suffix in _NAMED:
        for file in files:
            if file.name.lower().endswith(suffix):
                return file
    if len(files) > 1:
        raise ImageError(f"{files[0]} and {files[1]} are of one case: move one of them elsewhere.")
    return files[0]


def _name(path: Path) -> str:
    return given_stem(path, _SUFFIXES)
