"""Every file a segmentation can become: segmentation, image with colour table, confidence, statistics."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..errors import OutputError
from ..files import refuse_existing, refuse_unwritable_folder, replacing, unwritable
from ..labels.csv import CODE_COLUMNS, code_cells
from ..labels.table import LabelTable
from .counts import LabelVolume
from .geometry import Geometry
from .seg_nrrd import write_seg_nrrd

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")
SEGMENTATION_SUFFIXES = (".seg.nrrd", *IMAGE_SUFFIXES)
TABLE_SUFFIXES = (".csv",)
ALL_SUFFIXES = (*SEGMENTATION_SUFFIXES, *TABLE_SUFFIXES)


def check_writable(
    path: str | Path, overwrite: bool = False, suffixes: tuple[str, ...] = SEGMENTATION_SUFFIXES
) -> None:
    """Find out before the work whether its result can be written; leaves nothing behind.

    :param suffixes: the formats allowed, one of the constants of this file.
    :raises OutputExistsError: if the file, or the colour table that will stand beside it, exists already.
    :raises OutputError: if the suffix is not supported or no file can be made in the folder.
    """
    path = Path(path)
    suffix = _suffix(path, suffixes)
    refuse_existing(path, overwrite)
    if suffixes is SEGMENTATION_SUFFIXES and suffix != ".seg.nrrd":
        refuse_existing(colour_table_path(path), overwrite)
    refuse_unwritable_folder(path)


def colour_table_path(path: Path) -> Path:
    """``ct.nii.gz`` -> ``ct.labels.csv``, the name under which Slicer's own export puts a colour table."""
    return path.with_name(path.name[: -len(_suffix(path, IMAGE_SUFFIXES))] + ".labels.csv")


def write_segmentation(
    path: Path, labels: np.ndarray, table: LabelTable, geometry: Geometry, overwrite: bool, keep_empty: bool
) -> None:
    """Write a label map, uint16 ``(z, y, x)``, and its table: see `Segmentation.write`."""
    suffix = _suffix(path, SEGMENTATION_SUFFIXES)
    # One byte a voxel wherever it holds all classes: half the memory for whoever reads it, and what older tools expect.
    # Decided by the table and not by the classes found, so that all cases of a model have the same type.
    largest = max((label.value for label in table), default=0)
    dtype = np.dtype(np.uint8 if largest < 256 else np.uint16)
    if suffix == ".seg.nrrd":
        with replacing(path, overwrite) as temporary:
            write_seg_nrrd(temporary, labels, table, geometry, dtype, keep_empty)
        return
    with ExitStack() as stack:  # both are written before either gets its name
        colours = stack.enter_context(replacing(colour_table_path(path), overwrite))
        temporary = stack.enter_context(replacing(path, overwrite))
        colours.write_text(table.to_csv(), encoding="utf-8", newline="")
        _write_image(temporary, path, labels.astype(dtype, copy=False), geometry)


def write_confidence(path: Path, confidence: np.ndarray | None, geometry: Geometry, overwrite: bool) -> None:
    """Write a confidence map ``(z, y, x)`` as float32: see `Segmentation.write_confidence`."""
    _suffix(path, IMAGE_SUFFIXES)
    if confidence is None:
        raise OutputError(f"{path} was not written: no confidence was computed. Ask for it when segmenting.")
    with replacing(path, overwrite) as temporary:
        _write_image(temporary, path, confidence.astype(np.float32, copy=False), geometry)


def write_statistics(path: Path, rows: Iterable[LabelVolume], table: LabelTable, overwrite: bool) -> None:
    """Write the rows of `Segmentation.statistics` with the codes of the table: see `Segmentation.write_statistics`."""
    _suffix(path, TABLE_SUFFIXES)
    columns = ["LabelValue", "Name", "Voxels", "Volume_mL", *itertools.chain(*CODE_COLUMNS.values())]
    with replacing(path, overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            volume = f"{row.volume_ml:.6g}"
            writer.writerow([row.value, row.name, row.voxels, volume, *code_cells(table[row.value])])


def _suffix(path: Path, suffixes: tuple[str, ...]) -> str:
    name = path.name.lower()
    endings = (ending for ending in ALL_SUFFIXES if name.endswith(ending) and len(name) > len(ending))
    suffix = next(endings, None)  # the longer ones come first: a .seg.nrrd is no plain .nrrd
    if suffix not in suffixes:
        raise OutputError(f"{path}: this kind of file cannot be written here; supported are {', '.join(suffixes)}.")
    return suffix


def _write_image(temporary: Path, path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write ``array`` (z, y, x) through SimpleITK, compressed where the format can be.

    :raises OutputError: also if ITK lost part of the file without saying so, as its NIfTI writer does on a full disk.
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    geometry.apply(image)
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
    except RuntimeError as error:
        raise unwritable(path, str(error).strip().splitlines()[-1]) from error
    if path.name.lower().endswith((".nii", ".nii.gz")) and _nifti_bytes(temporary) != (352 + array.nbytes) % 2**32:
        raise unwritable(path, "the disk took only part of the file")


def _nifti_bytes(path: Path) -> int:
    """Length of a NIfTI file in bytes, uncompressed, modulo 2^32: all that a gzip file records."""
    with path.open("rb") as file:
        if path.name.lower().endswith(".nii"):
            return file.seek(0, 2) % 2**32
        file.seek(-4, 2)
        return int.from_bytes(file.read(4), "little")
