"""Convert the public TotalSegmentator dataset, one file per class, to an nnU-Net dataset, one label map per subject.

The expected layout (version 2) is ``meta.csv`` with the columns ``image_id`` and ``split`` (train, val, test), and for
each subject ``sXXXX/ct.nii.gz`` and ``sXXXX/segmentations/<class>.nii.gz``. Files are read with nibabel, as in
TotalSegmentator's own converter: ITK refuses headers whose axes are not exactly orthogonal, and CT archives have them.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError, ImageError, LabelTableError, OutputExistsError, reason
from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.images.nifti import check_nifti
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.resources import resource

from ..files import read_json, write_json
from .parallel import map_cases
from .raw_dataset import being_written, dataset_folder, write_dataset_json

if TYPE_CHECKING:
    import nibabel

SPLITS = {"train": "Tr", "val": "Tr", "test": "Ts"}
_LOG = "conversion.json"  # what was found in each subject
_TOLERANCE = 1e-3  # of the entries of an affine, in mm


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    :ivar labels: colour-table CSV with the class names in order; TotalSegmentator's 117 classes if ``None``.
    :ivar allow_missing: whether a class without a file counts as absent from that subject. Otherwise it is an error,
        because its voxels would be learned as background.
    :ivar workers: number of processes.
    """

    labels: Path | None = None
    allow_missing: bool = False
    workers: int = 0


@dataclass(frozen=True)
class _Subject:
    """One subject to convert: its folder, the files to write, and the names of the labels 1, 2, 3 and so on."""

    folder: Path
    image_file: Path
    label_file: Path
    names: tuple[str, ...]
    allow_missing: bool


@dataclass(frozen=True)
class _Converted:
    """The entry of a subject in ``conversion.json``."""

    subject: str  # name of its folder
    # voxels in several masks have the label of the last of these classes, as in TotalSegmentator's own converter
    overlapping_voxels: int = 0
    missing: tuple[str, ...] = ()  # classes without a file
    unknown: tuple[str, ...] = ()  # files that belong to no class
    fault: str | None = None  # why the subject could not be converted


def convert(
    source: Path,
    dataset_id: int,
    nnunet_raw: Path | None = None,
    options: ConvertOptions = ConvertOptions(),
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Convert all subjects. Those already converted are kept, so an interrupted call can be repeated.

    Subjects of ``train`` and ``val`` go to ``imagesTr`` and ``labelsTr``, those of ``test`` to ``imagesTs`` and
    ``labelsTs``. ``splits_final.json`` holds the official split as fold 0; ``conversion.json`` holds what was found in
    each subject.

    :param source: folder of the unpacked TotalSegmentator dataset.
    :param dataset_id: number of the nnU-Net dataset, 1..999.
    :param nnunet_raw: folder of all raw datasets; if ``None``, the environment variable ``nnUNet_raw`` names it.
    :param report: called with a line after each subject.
    :returns: the folder ``DatasetXXX_TotalSegmentator``.
    :raises ImageError: if subjects could not be converted; raised after all others were converted.
    :raises OutputExistsError: if the folder holds a conversion with other classes, or another dataset has the number.
    :raises ClassScaleError: if ``meta.csv`` cannot be used.
    """
    names = _class_names(options.labels or resource("LabelTables", "totalsegmentator.csv"))
    split = _read_split(source / "meta.csv")
    folder = dataset_folder(dataset_id, "TotalSegmentator", nnunet_raw)
    subjects = [
        _Subject(
            source / name,
            folder / f"images{SPLITS[part]}" / f"{name}_0000.nii.gz",
            folder / f"labels{SPLITS[part]}" / f"{name}.nii.gz",
            names,
            options.allow_missing,
        )
        for name, part in split.items()
    ]
    with being_written(folder, _LOG):
        log_file = folder / _LOG
        log = _read_log(log_file, names)
        write_json(log_file, {"classes": names, "subjects": log})
        rest = [s for s in subjects if not (s.image_file.exists() and s.label_file.exists())]
        try:
            for number, converted in enumerate(map_cases(_convert, rest, options.workers), 1):
                log[converted.subject] = asdict(converted)
                report(
                    f"{converted.subject} ({number} of {len(rest)}){': ' + converted.fault if converted.fault else ''}"
                )
        finally:
            write_json(log_file, {"classes": names, "subjects": log})
        faults = [log[name]["fault"] for name in split if log.get(name, {}).get("fault")]
        if faults:
            raise ImageError(f"{len(faults)} of {len(split)} subjects could not be converted ({log_file}): {faults[0]}")
        parts = {part: sorted(name for name, where in split.items() if where == part) for part in SPLITS}
        write_json(folder / "splits_final.json", [{"train": parts["train"], "val": parts["val"]}])
        table = {0: "background", **dict(enumerate(names, 1))}
        write_dataset_json(folder, "CT", table, len(parts["train"]) + len(parts["val"]), "NibabelIOWithReorient")
    return folder


def _convert(subject: _Subject) -> _Converted:
    """Write image and label map of a subject; a fault in its files is returned, so that other subjects can follow."""
    try:
        return _write(subject)
    except ImageError as error:
        return _Converted(subject.folder.name, fault=str(error))


def _write(subject: _Subject) -> _Converted:
    import nibabel

    ct_file = subject.folder / "ct.nii.gz"
    ct = _load(ct_file)
    check_nifti(ct_file)
    masks = {file.name.removesuffix(".nii.gz"): file for file in (subject.folder / "segmentations").glob("*.nii.gz")}
    missing = tuple(name for name in subject.names if name not in masks)
    if missing and not subject.allow_missing:
        raise ImageError(
            f"{subject.folder / 'segmentations'} lacks {len(missing)} of {len(subject.names)} classes, among them "
            f"{missing[0]}.nii.gz: download the subject again, or pass --allow-missing to count them as absent."
        )
    labels = np.zeros(ct.shape, np.uint8 if len(subject.names) <= 255 else np.uint16)
    overlapping = 0
    for value, name in enumerate(subject.names, 1):
        if name in masks:
            mask = _read_mask(masks[name], ct, ct_file)
            overlapping += int(np.count_nonzero(labels[mask]))
            labels[mask] = value
    label_image = nibabel.Nifti1Image(labels, ct.affine, ct.header)
    label_image.header.set_data_dtype(labels.dtype)
    label_image.header.set_slope_inter(1, 0)
    with replacing(subject.label_file, overwrite=True) as temporary:
        nibabel.save(label_image, temporary)
    with replacing(subject.image_file, overwrite=True) as temporary:
        shutil.copyfile(ct_file, temporary)
    unknown = tuple(sorted(set(masks) - set(subject.names)))
    return _Converted(subject.folder.name, overlapping, missing, unknown)


def _load(file: Path) -> nibabel.Nifti1Image:
    import nibabel

    try:
        image = nibabel.load(file)
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise ImageError(f"{file} cannot be read as a NIfTI image ({error}).") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise ImageError(f"{file} cannot be read as a NIfTI image (it is a {type(image).__name__}).")
    if len(image.shape) != 3:
        raise ImageError(f"{file} has shape {image.shape}; a volume with three dimensions was expected.")
    return image


def _read_mask(file: Path, ct: nibabel.Nifti1Image, ct_file: Path) -> np.ndarray:
    """Return the mask ``(X, Y, Z)`` bool."""
    image = _load(file)
    if image.shape != ct.shape or not np.allclose(image.affine, ct.affine, atol=_TOLERANCE):
        what = "shape" if image.shape != ct.shape else "position or spacing"
        raise ImageError(f"{file} and {ct_file} differ in {what}: the mask was not made on this image.")
    try:
        return np.asanyarray(image.dataobj) > 0
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ImageError(f"{file} is damaged or truncated ({error}): download the subject again.") from error


def _class_names(file: Path) -> tuple[str, ...]:
    table = LabelTable.from_csv(file)
    values = [label.value for label in table.foreground]
    if values != list(range(1, len(values) + 1)):
        raise LabelTableError(f"{file}: label values must be 1 to {len(values)} without gaps.")
    return tuple(label.name for label in table.foreground)


def _read_log(file: Path, names: tuple[str, ...]) -> dict[str, dict]:
    """Return the entries of an earlier call by subject; raise an error if it had other classes."""
    if not file.exists():
        return {}
    advice = f"Delete {file.parent}, or choose another number."
    content = read_json(file, {"classes": list, "subjects": dict}, advice, OutputExistsError)
    if content["classes"] != list(names):
        raise OutputExistsError(
            f"{file.parent} was made with {len(content['classes'])} other classes: delete it or choose another dataset "
            "number."
        )
    return content["subjects"]


def _read_split(file: Path) -> dict[str, str]:
    """Return ``train``, ``val`` or ``test`` for each subject, as ``meta.csv`` states it."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            rows = list(csv.DictReader(stream, delimiter=";" if ";" in first else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ClassScaleError(
            f"{file} cannot be read as CSV in UTF-8 ({reason(error)}): give the folder of the unpacked dataset."
        ) from error
    if not rows or not {"image_id", "split"} <= set(rows[0]):
        raise ClassScaleError(f"{file} lacks the columns image_id and split of the TotalSegmentator dataset.")
    split: dict[str, str] = {}
    for row in rows:
        name, part = row["image_id"].strip(), (row["split"] or "").strip()
        if split.setdefault(name, part) != part:
            raise ClassScaleError(f"{file}: subject {name} has the splits {split[name]} and {part}. Remove one row.")
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ClassScaleError(f"{file}: {name!r} is not the name of a subject's folder, such as s0001.")
    for name, part in split.items():
        if part not in SPLITS:
            raise ClassScaleError(f"{file}: subject {name} has split {part!r}; {', '.join(SPLITS)} were expected.")
    return split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg-train convert``."""
    parser.add_argument("source", type=Path, help="folder of the unpacked TotalSegmentator dataset, with meta.csv")
    parser.add_argument("--dataset-id", type=int, required=True, metavar="D", help="number of the nnU-Net dataset")
    parser.add_argument("--labels", type=Path, help="colour-table CSV with the classes (default: the 117 of version 2)")
    parser.add_argument("--allow-missing", action="store_true", help="count classes without a file as absent")
    parser.add_argument("--workers", type=int, default=0, help="number of worker processes; 0 or 1: none (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    """Run ``classscaleseg-train convert`` and return its exit code.

    :raises ClassScaleError: as :func:`convert`.
    """
    options = ConvertOptions(arguments.labels, arguments.allow_missing, arguments.workers)
    print(convert(arguments.source, arguments.dataset_id, options=options, report=print))
    return 0
