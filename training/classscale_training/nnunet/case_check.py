"""Check images and label map of one training case: what nnU-Net would stop at, or silently train on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError, ImageError, LabelTableError, reason
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.image_file import itk_reader, read_file
from ClassScaleSegLib.images.nifti import is_nifti, read_header

from ..data.findings import Finding
from ..data.raw_cases import RawCase
from ..data.volumes import SAME_PLACE

_ITK, _NIBABEL = ("SimpleITKIO", "SimpleITKIOWithReorient"), ("NibabelIO", "NibabelIOWithReorient")
_MAX_VALUES = 5  # unexpected values that are named


@dataclass(frozen=True)
class CaseCheck:
    """What was found in a case.

    :ivar labels: bool, whether each label from 0 on occurs; ``None`` if the label map cannot be used.
    :ivar spacing: of the first image, mm; ``None`` if it cannot be read, or its format has none.
    :ivar orientation: anatomical, of the first image, such as "LPS"; ``None`` as for the spacing.
    :ivar image: the same for two cases if their first files have the same voxels; ``None`` if it cannot be read.
    """

    findings: tuple[Finding, ...]
    labels: np.ndarray | None
    spacing: tuple[float, float, float] | None = None
    orientation: str | None = None
    image: bytes | None = None


@dataclass(frozen=True)
class _Volume:
    """An image file as nnU-Net's reader sees it: voxels ``(channels, z, y, x)``; the grid if the format has one."""

    voxels: np.ndarray
    grid: Geometry | None
    owner: Any = None


def check_case(reader: type, channels: tuple[str, ...], highest: int, case: RawCase) -> CaseCheck:
    """Read every file of a case once, and compare them with each other and with ``dataset.json``.

    :param reader: nnU-Net's class that reads the files.
    :param channels: their names.
    :param highest: label that may occur.
    """
    findings: list[Finding] = []
    grids: list[tuple[Path, tuple[int, ...], Geometry | None]] = []
    count, zeros, image = 0, [], None
    for file in case.images:
        volume = _read(reader, file, False, findings)
        if volume is None:
            continue
        if file == case.images[0]:
            image = _digest(volume.voxels)
        count += len(volume.voxels)
        grids.append((file, volume.voxels.shape[1:], volume.grid))
        zeros.append(_check_voxels(file, volume.voxels, findings))
    complete = len(grids) == len(case.images)
    if complete and count != len(channels):
        findings.append(Finding(_wrong_count(case, count, channels), ImageError))
    if complete and all(zeros):
        verb = "holds" if len(case.images) == 1 else "hold"
        files = f"{' and '.join(map(str, case.images))} of the case {case.name}"
        sentence = f"{files} {verb} zeros alone. Export the image again, or remove the case."
        findings.append(Finding(sentence, ImageError))
    else:
        empty = [file for (file, _, _), zero in zip(grids, zeros, strict=True) if zero]
        findings += [Finding(f"{file} holds zeros alone. Check whether it was exported as a whole.") for file in empty]
    for other in grids[1:]:
        findings += _compare(case, grids[0], other, "the first channel", ImageError)
        if _spacing_differs(grids[0][2], other[2]):
            sentence = f"{other[0]} and {grids[0][0]} have different spacings. Resample one onto the grid of the other."
            findings.append(Finding(sentence, ImageError))
    labels = None
    volume = None if case.label is None else _read(reader, case.label, True, findings)
    if case.label is not None and volume is not None:
        if len(volume.voxels) != 1:
            sentence = f"{case.label} holds {len(volume.voxels)} volumes; a label map has one value per voxel."
            findings.append(Finding(f"{sentence} Split or merge them.", LabelTableError))
        else:
            labels, sentence = _labels(case.label, volume.voxels, highest)
            findings += [Finding(sentence, LabelTableError)] if sentence else []
        if grids:
            found = (case.label, volume.voxels.shape[1:], volume.grid)
            findings += _compare(case, grids[0], found, "its image", LabelTableError)
    grid = grids[0][2] if grids else None
    spacing, orientation = (None, None) if grid is None else (grid.spacing, grid.orientation)
    return CaseCheck(tuple(findings), labels, spacing, orientation, image)


def _digest(voxels: np.ndarray) -> bytes:
    digest = hashlib.blake2b(f"{voxels.shape}".encode(), digest_size=16)
    for plane in _planes(voxels):
        digest.update(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).data)
    return digest.digest()


def _read(reader: type, file: Path, label: bool, findings: list[Finding]) -> _Volume | None:
    """Read a file; what is wrong with it is added to the findings."""
    kind: type[ClassScaleError] = LabelTableError if label else ImageError
    try:
        if reader.__name__ in _ITK + _NIBABEL:
            return _read_volume(reader, file)
        instance: Any = reader()
        voxels, _ = instance.read_seg(str(file)) if label else instance.read_images((str(file),))
        return _Volume(voxels, None)
    except ClassScaleError as error:
        findings.append(Finding(str(error), kind))
    except MemoryError:
        findings.append(Finding(f"{file} does not fit into memory. Crop it, or use fewer processes.", kind))
    except Exception as error:  # a reader of nnU-Net or of the user may raise anything
        sentence = f"{file} cannot be read by {reader.__name__} ({reason(error)}). Convert or export it again."
        findings.append(Finding(sentence, kind))
    return None


def _read_volume(reader: type, file: Path) -> _Volume:
    nibabel = reader.__name__ in _NIBABEL
    header = read_header(file) if is_nifti(file) else None
    if nibabel and header is not None and len(header.shape) != 3:
        raise ImageError(
            f"{file} has {len(header.shape)} dimensions ({header.dimensions}); {reader.__name__}, which reads this "
            "dataset, takes 3. Remove axes of one voxel, or split it into one file per channel."
        )
    if not nibabel:
        _check_itk(file)
    read = read_file(file, nibabel)
    voxels = read.voxels if read.voxels.ndim > 3 else read.voxels[None]
    components = read.owner is not None and read.owner.GetNumberOfComponentsPerPixel() > 1
    if components or voxels.ndim != 4:
        shape = "x".join(map(str, read.voxels.shape[::-1]))
        raise ImageError(
            f"{file} has {shape} values, several for each voxel or more than 4 dimensions. Save every channel as a "
            "file of its own."
        )
    return _Volume(voxels, read.geometry, read)


def _check_itk(file: Path) -> None:
    """Read the header with ITK, which nnU-Net's reader is made of.

    :raises ImageError: if ITK refuses it, although the file is right otherwise.
    """
    try:
        itk_reader(file)
    except RuntimeError as error:
        raise ImageError(
            f"{file} is not an image that ITK, which reads this dataset, can read ({reason(error, -1)}). Convert it, "
            "or for NIfTI set overwrite_image_reader_writer in dataset.json to NibabelIOWithReorient."
        ) from None


def _check_voxels(file: Path, voxels: np.ndarray, findings: list[Finding]) -> bool:
    """Find voxels that are not finite. Return whether the image holds zeros alone."""
    low, high = voxels.min(), voxels.max()
    if voxels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray([low, high]).astype(np.float32)).all()  # nnU-Net computes in float32
        if not finite:
            with np.errstate(over="ignore"):
                odd = sum(int(np.count_nonzero(~np.isfinite(plane.astype(np.float32)))) for plane in _planes(voxels))
            findings.append(
                Finding(
                    f"{file} has {odd:,} voxels that are NaN or infinite. Replace them by the value of air or of the "
                    "background, or remove the case.",
                    ImageError,
                )
            )
            return False
    if low == high != 0:
        findings.append(Finding(f"{file} has the same value, {low:g}, everywhere. Check whether it is the right file."))
    return bool(low == high == 0)


def _labels(file: Path, voxels: np.ndarray, highest: int) -> tuple[np.ndarray | None, str]:
    """Return which labels occur, and a sentence if others than the whole numbers 0 to ``highest`` do."""
    present, odd = np.zeros(highest + 1, bool), set[Any]()
    for plane in _planes(voxels):
        fine = (plane >= 0) & (plane <= highest)
        if plane.dtype.kind == "f":
            fine &= plane == np.round(plane)
        if fine.all():
            present[plane.astype(np.int64)] = True
        elif len(odd) <= _MAX_VALUES:
            odd.update(np.unique(plane[~fine])[: _MAX_VALUES + 1].tolist() if plane.dtype.kind != "f" else ())
            odd.update(np.unique(plane[~fine])[: _MAX_VALUES + 1] if plane.dtype.kind == "f" else ())
    if not odd:
        return present, ""
    values = sorted(odd, key=lambda value: (value != value, value))
    named = ", ".join(_number(value) for value in values[:_MAX_VALUES]) + (" ..." if len(values) > _MAX_VALUES else "")
    advice = "Correct the label map or dataset.json."
    if highest == 1 and values == [255]:
        advice = "If 255 marks the foreground, write 1 in its place."
    elif any(value != value or value != round(value) for value in values):
        advice = "Save the label map as whole numbers, and resample label maps without interpolation."
    return None, (
        f"{file} holds label{'s' if len(values) > 1 else ''} {named}; dataset.json has integer labels 0 to {highest}. "
        f"{advice}"
    )


def _number(value: Any) -> str:
    return np.format_float_positional(value, trim="-") if isinstance(value, np.floating) else str(value)


def _planes(voxels: np.ndarray) -> Iterable[np.ndarray]:
    return voxels.reshape(-1, *voxels.shape[-2:])


def _wrong_count(case: RawCase, count: int, channels: tuple[str, ...]) -> str:
    files = f"{case.images[0]}{f' and {len(case.images) - 1} more' if len(case.images) > 1 else ''}"
    advice = "Add the missing files" if count < len(channels) else "Remove the others, or name them in dataset.json"
    return (
        f"The case {case.name} has {count} channel{'s' if count > 1 else ''} ({files}), but dataset.json names "
        f"{len(channels)} ({', '.join(channels)}). {advice}."
    )


def _compare(
    case: RawCase,
    first: tuple[Path, tuple[int, ...], Geometry | None],
    second: tuple[Path, tuple[int, ...], Geometry | None],
    what: str,
    error: type[ClassScaleError],
) -> list[Finding]:
    """Compare sizes and places of two files of a case; ``what`` is the first."""
    (image, size, grid), (file, found, other) = first, second
    if size != found:
        a, b = ("x".join(map(str, shape[::-1])) for shape in (found, size))
        sentence = f"{file} of the case {case.name} has {a} voxels, {what} {image} has {b}."
        return [Finding(f"{sentence} Resample it onto the grid of {image.name}.", error)]
    if grid is None or other is None:
        return []
    distance = grid.distance(other)
    if distance <= SAME_PLACE * min(grid.spacing):
        return []
    sentence = f"{file} of the case {case.name} lies up to {distance:.3g} mm away from {what} {image}"
    if _apart(grid, other):
        return [
            Finding(
                f"{sentence}: the two do not even touch. Correct the header of one of them, or pair the right files.",
                error,
            )
        ]
    return [Finding(f"{sentence}. nnU-Net would take voxels of the same index for the same place: check the headers.")]


def _apart(grid: Geometry, other: Geometry) -> bool:
    """Tell whether two grids have no common place, by the boxes around them."""
    boxes = []
    for each in (grid, other):
        half = np.abs(each.axes).sum(1) / 2
        boxes.append((each.corners.min(0) - half, each.corners.max(0) + half))
    (low, high), (other_low, other_high) = boxes
    return bool((low > other_high).any() or (other_low > high).any())


def _spacing_differs(grid: Geometry | None, other: Geometry | None) -> bool:
    return grid is not None and other is not None and not np.allclose(grid.spacing, other.spacing)
