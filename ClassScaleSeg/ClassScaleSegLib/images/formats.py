"""Write the volumes of a result: the segmentation, in the format that its suffix says, and the confidence map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..errors import OutputError, named, reason
from ..files import refuse_existing, refuse_unwritable_folder, replacing, unwritable
from ..labels.table import LabelTable
from .case_notes import CaseNotes
from .dicom.rtstruct import write_dicom_rtstruct
from .dicom.seg import KINDS, DicomSeg, write_dicom_seg
from .geometry import ROUNDED_SHEAR, Geometry
from .seg_nrrd import CONFIDENCE_TAG, confidence_text, stored_type, write_seg_nrrd
from .suffixes import (
    ALL_SUFFIXES,
    DICOM_SUFFIX,
    IMAGE_SUFFIXES,
    RTSTRUCT_SUFFIX,
    SEGMENTATION_SUFFIXES,
)
from .tables import EXCEL_SUFFIX, refuse_missing_xlsxwriter

_DICOM = {
    DICOM_SUFFIX: ("a DICOM segmentation", write_dicom_seg),
    RTSTRUCT_SUFFIX: ("a structure set", write_dicom_rtstruct),
}


def check_writable(
    path: str | Path, overwrite: bool = False, suffixes: tuple[str, ...] = SEGMENTATION_SUFFIXES
) -> None:
    """Check before a long computation that its result can be written.

    Creates a temporary file in the folder of ``path`` and deletes it again.

    :param path: the file to be written.
    :param overwrite: allow an existing file.
    :param suffixes: the allowed formats, one of the constants of :mod:`.suffixes`.
    :raises OutputExistsError: if ``overwrite`` is false and the file, or the colour table that accompanies it, exists.
    :raises OutputError: if the suffix is not supported or no file can be created in the folder.
    """
    path = Path(path)
    if suffix_of(path, suffixes) == EXCEL_SUFFIX:
        refuse_missing_xlsxwriter()
    refuse_existing(path, overwrite)
    if suffixes is SEGMENTATION_SUFFIXES:
        for file in files_of(path)[1:]:
            refuse_existing(file, overwrite)
    refuse_unwritable_folder(path)


def colour_table_path(path: Path) -> Path:
    """Return the path of the colour table of a label image, named as in Slicer's own export.

    :param path: a label image, such as ``ct.nii.gz``.
    :returns: for this example ``ct.labels.csv`` in the same folder.
    :raises OutputError: if the suffix is not one of ``IMAGE_SUFFIXES``.

    >>> colour_table_path(Path("ct.nii.gz")).name
    'ct.labels.csv'
    """
    return path.with_name(path.name[: -len(suffix_of(path, IMAGE_SUFFIXES))] + ".labels.csv")


def files_of(path: Path) -> list[Path]:
    """Return the files that `write_segmentation` writes: the segmentation, and the colour table of an image.

    :raises OutputError: if the suffix is not supported.
    """
    image = suffix_of(path, SEGMENTATION_SUFFIXES) in IMAGE_SUFFIXES
    return [path, colour_table_path(path)] if image else [path]


def refuse_overlaps(path: str | Path, dicom_seg: str = KINDS[0]) -> None:
    """Refuse a file for classes that overlap, if its format has one class in each voxel.

    Call it before a long computation whose result may have further layers.

    :param path: the file to be written.
    :param dicom_seg: the kind of a ``.seg.dcm``, "labelmap" or "binary".
    :raises OutputError: naming the formats that can hold overlaps; or if the suffix is not supported.

    >>> refuse_overlaps("ct.seg.nrrd")
    >>> refuse_overlaps("ct.seg.dcm", "binary")
    """
    suffix = suffix_of(Path(path), SEGMENTATION_SUFFIXES)
    if suffix in (".seg.nrrd", RTSTRUCT_SUFFIX) or (suffix == DICOM_SUFFIX and dicom_seg == "binary"):
        return
    what = "A DICOM segmentation of the kind labelmap" if suffix == DICOM_SUFFIX else f"A file {suffix}"
    raise OutputError(
        f"{path}: {what} holds one class in each voxel, and classes that overlap are to be kept. Write .seg.nrrd, "
        f"{RTSTRUCT_SUFFIX}, or a {DICOM_SUFFIX} of the kind binary (--dicom-seg binary); or let later classes win."
    )


def write_segmentation(
    path: Path,
    layers: Sequence[np.ndarray],
    table: LabelTable,
    geometry: Geometry,
    overwrite: bool,
    keep_empty: bool,
    dicom: DicomSeg | None = None,
    confidences: Mapping[int, float] = MappingProxyType({}),
    found_by: Sequence[str] = (),
) -> None:
    """Write a label map, or several, and their table; see `Segmentation.write`.

    :param path: the file; its suffix, one of ``SEGMENTATION_SUFFIXES``, selects the format.
    :param layers: one or more label maps, uint16 ``(z, y, x)``.
    :param table: a label for every value but 0 that occurs.
    :param geometry: grid of the label map.
    :param overwrite: replace existing files.
    :param keep_empty: list classes without voxels too, in formats other than images.
    :param dicom: for ``.seg.dcm`` and ``.rtstruct.dcm``: the series that was segmented, and choices.
    :param confidences: for ``.seg.nrrd``: the mean confidence in each class, by label value, as far as known.
    :param found_by: for ``.seg.nrrd``: names of the models, if nobody has looked at what they found.
    :raises OutputError: if the suffix is not supported, the series is missing, there are several layers and the format
        holds one, or a file cannot be written.
    :raises ImageError: if the series cannot be read.
    """
    suffix = suffix_of(path, SEGMENTATION_SUFFIXES)
    if len(layers) > 1:
        refuse_overlaps(path, KINDS[0] if dicom is None else dicom.kind)
    if suffix in _DICOM:
        what, write = _DICOM[suffix]
        if dicom is None:
            raise OutputError(
                f"{path}: {what} needs the DICOM series that was segmented, for the patient, the study "
                "and the frame of reference. Give its folder (source=...), or write .seg.nrrd."
            )
        with replacing(path, overwrite) as temporary, named(path):
            write(temporary, layers, table, geometry, dicom, keep_empty)
        return
    dtype = stored_type(table)
    if suffix == ".seg.nrrd":
        with replacing(path, overwrite) as temporary:
            tags = {value: {CONFIDENCE_TAG: confidence_text(sure)} for value, sure in confidences.items()}
            notes = CaseNotes(unchecked=tuple(found_by)).fields()
            write_seg_nrrd(temporary, layers, table, geometry, dtype, keep_empty, notes, tags)
        return
    with ExitStack() as stack:  # both files are complete before either gets its name
        colours = stack.enter_context(replacing(colour_table_path(path), overwrite))
        temporary = stack.enter_context(replacing(path, overwrite))
        colours.write_text(table.to_csv(), encoding="utf-8", newline="")
        _write_image(temporary, path, layers[0].astype(dtype, copy=False), geometry)


def write_confidence(path: Path, confidence: np.ndarray | None, geometry: Geometry, overwrite: bool) -> None:
    """Write a confidence map as float32; see `Segmentation.write_confidence`.

    :param path: the file; its suffix, one of ``IMAGE_SUFFIXES``, selects the format.
    :param confidence: float ``(z, y, x)``, 0..1.
    :param geometry: grid of the map.
    :param overwrite: replace an existing file.
    :raises OutputError: if there is no confidence, the suffix is not supported, or the file cannot be written.
    """
    suffix_of(path, IMAGE_SUFFIXES)
    if confidence is None:
        raise OutputError(
            f"{path} was not written: no confidence was computed. Ask for the confidence when segmenting."
        )
    with replacing(path, overwrite) as temporary:
        _write_image(temporary, path, confidence.astype(np.float32, copy=False), geometry)


def suffix_of(path: Path, suffixes: tuple[str, ...]) -> str:
    """Return the suffix of a file that is to be written, in lower case.

    :param suffixes: those that are allowed, some of ``ALL_SUFFIXES``.
    :raises OutputError: if the file has none of them, or nothing before it.

    >>> suffix_of(Path("ct.SEG.NRRD"), SEGMENTATION_SUFFIXES)
    '.seg.nrrd'
    """
    name = path.name.lower()
    suffix = next((ending for ending in ALL_SUFFIXES if name.endswith(ending) and len(name) > len(ending)), None)
    if suffix is None or suffix not in suffixes:
        raise OutputError(f"{path}: this file format cannot be written here. Use one of {', '.join(suffixes)}.")
    return suffix


def _write_image(temporary: Path, path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write ``array`` (z, y, x) with SimpleITK, compressed if the format supports it.

    :raises OutputError: also if part of the file is missing: on a full disk ITK's NIfTI writer reports no error.
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    writable_geometry(path, geometry).apply(image)
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
    except RuntimeError as error:
        raise unwritable(path, reason(error, -1)) from error
    if path.name.lower().endswith((".nii", ".nii.gz")) and _nifti_bytes(temporary) != (352 + array.nbytes) % 2**32:
        raise unwritable(path, "the disk took only part of the file")


def writable_geometry(path: Path, geometry: Geometry) -> Geometry:
    """Return a geometry as the format of a file can hold it: ITK neither writes nor reads NIfTI with skewed axes.

    :param path: the file to write.
    :raises OutputError: if the format cannot hold it but for rounding: after a scan with a tilted gantry.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return geometry
    if geometry.shear > ROUNDED_SHEAR:
        raise OutputError(
            f"{path}: the slices of the image are tilted (gantry tilt), which NIfTI files for ITK and 3D Slicer cannot "
            "hold. Write .seg.nrrd or .nrrd instead."
        )
    return geometry.perpendicular if geometry.shear else geometry


def _nifti_bytes(path: Path) -> int:
    """Return the uncompressed length of a NIfTI file in bytes, modulo 2^32 because gzip records no more."""
    with path.open("rb") as file:
        if path.name.lower().endswith(".nii"):
            return file.seek(0, 2) % 2**32
        file.seek(-4, 2)
        return int.from_bytes(file.read(4), "little")
