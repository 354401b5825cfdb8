"""Find the segmentations of the same cases in two folders, and the files that belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import ImageError, LabelTableError
from ..files import given_stem
from ..labels.table import LabelTable
from .dicom.headers import is_dicom_seg, is_structure_set
from .formats import colour_table_path
from .nifti_labels import read_named_values
from .suffixes import DICOM_SUFFIX, IMAGE_SUFFIXES, READ_SUFFIXES, RTSTRUCT_SUFFIX, VOXEL_SUFFIXES

_OWN_NAMES = (".seg.nrrd", DICOM_SUFFIX)  # label maps with names; of one result, the first is read
_ANY_DICOM = ".dcm"
_LABELS_OF_DATASET = ("labels", "gt_segmentations")  # nnU-Net's folders below dataset.json: labelsTr, labelsTs
_IMAGES = (*READ_SUFFIXES, _ANY_DICOM)
_SUFFIXES = (*VOXEL_SUFFIXES, _ANY_DICOM)


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
    refuse_missing(first)
    refuse_missing(second)
    if first.is_dir() != second.is_dir():
        folder, file = (first, second) if first.is_dir() else (second, first)
        raise ImageError(f"{folder} is a folder and {file} is a file: give two files, or two folders.")
    if not first.is_dir():
        return Pairs((Pair(_name(first), first, second),), several=False)
    ones, others = find_segmentations(first), find_segmentations(second)
    pairs = tuple(Pair(name, ones[name], others[name]) for name in sorted(ones.keys() & others.keys()))
    return Pairs(pairs, tuple(sorted(ones.keys() - others.keys())), tuple(sorted(others.keys() - ones.keys())))


def refuse_missing(path: Path) -> None:
    """Refuse what is neither a file nor a folder.

    :raises ImageError: naming it.
    """
    if not path.exists():
        raise ImageError(f"{path} does not exist.")
    if not (path.is_file() or path.is_dir()):  # of a pipe, ITK would wait for ever for somebody to write
        raise ImageError(f"{path} is neither a file nor a folder.")


def find_images(folder: str | Path) -> dict[str, list[Path]]:
    """Return the images in a folder by their names without suffix: files, and folders with a DICOM series each.

    :raises ImageError: if it is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder: of many cases, name the folder of their images.")
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        lower = entry.name.lower()
        is_file = lower.endswith(_IMAGES) and not lower.endswith((*_OWN_NAMES, RTSTRUCT_SUFFIX))
        if not entry.name.startswith(".") and (is_file or entry.is_dir()):
            found.setdefault(given_stem(entry, _IMAGES if is_file else ()), []).append(entry)
    return found


def table_beside(path: Path) -> Path | None:
    """Return the colour table that lies beside a label image, such as ``ct.labels.csv`` of ``ct.nii.gz``.

    In BIDS, ``sub-01_dseg.tsv`` has the names of ``sub-01_dseg.nii.gz``. nnU-Net has ``dataset.json`` beside its
    predictions and above ``labelsTr``; it counts if the labels are no regions, and the image itself has no names.

    :returns: ``None`` if there is none, or the file is no label image.
    """
    name = path.name.lower()
    if not name.endswith(IMAGE_SUFFIXES) or name.endswith(_OWN_NAMES):
        return None
    beside = [colour_table_path(path)]
    if (stem := given_stem(path, _SUFFIXES)).endswith("_dseg"):
        beside.append(path.with_name(f"{stem}.tsv"))
    return next((file for file in beside if file.is_file()), None) or _dataset_json_of(path)


def _dataset_json_of(path: Path) -> Path | None:
    folder = path.parent
    folders = (folder, folder.parent) if folder.name.startswith(_LABELS_OF_DATASET) else (folder,)
    file = next((file for above in folders if (file := above / "dataset.json").is_file()), None)
    try:
        if file is None or read_named_values(path).names:
            return None
        LabelTable.from_file(file)
    except (LabelTableError, ImageError, OSError):  # such as regions; what is wrong with the image, its reader tells
        return None
    return file


def find_segmentations(folder: Path) -> dict[str, Path]:
    """Return the segmentation of each case in a folder, by its name without suffix, as `find_pairs` finds them.

    :raises ImageError: if there is none, or a case has several files of which none has names.
    """
    found = segmentation_files(folder)
    if not found:
        suffixes = ", ".join(VOXEL_SUFFIXES)
        raise ImageError(f"{folder} has no segmentation: none of its files ends with {suffixes}, or is in DICOM.")
    return {name: _chosen(files) for name, files in found.items()}


def segmentation_files(folder: Path) -> dict[str, list[Path]]:
    """Return all files of segmentations in a folder by the names of their cases, in whatever formats."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith(".") and _is_segmentation(file):
            found.setdefault(_name(file), []).append(file)
    return found


def _is_segmentation(file: Path) -> bool:
    name = file.name.lower()
    if name.endswith(_ANY_DICOM) and not name.endswith((DICOM_SUFFIX, RTSTRUCT_SUFFIX)):
        return is_structure_set(file) or is_dicom_seg(file)  # it may as well be a slice
    return name.endswith(_SUFFIXES)


def _chosen(files: list[Path]) -> Path:
    """Return the file of a case that is read: one that has names, and rather voxels than contours."""
    for ranked in (
        *([file for file in files if file.name.lower().endswith(suffix)] for suffix in _OWN_NAMES),
        [file for file in files if table_beside(file) is not None],
        [file for file in files if file.name.lower().endswith(_ANY_DICOM)],
    ):
        if ranked:
            files = ranked
            break
    if len(files) > 1:
        raise ImageError(f"{files[0]} and {files[1]} are of one case: move one of them elsewhere.")
    return files[0]


def _name(path: Path) -> str:
    return given_stem(path, _SUFFIXES)
