"""Read two segmentations of one case. Structure sets have contours, which are filled on the grid of the other one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ImageError, named, reason
from ..labels.table import LabelTable
from .comparison import onto_grid
from .dicom.deflate import read_header
from .dicom.headers import is_dicom, is_dicom_seg, is_structure_set
from .dicom.rtstruct_reader import read_structure_set
from .dicom.seg_steps import says_distance
from .dicom.series import read_places
from .geometry import Geometry
from .image_file import read_grid
from .paired_cases import Pair, refuse_missing, table_beside
from .segmentation import Segmentation
from .structures_on_grid import structures_on_grid
from .suffixes import RTSTRUCT_SUFFIX

_IGNORE = "ignore"  # the name in dataset.json of voxels that were not annotated


class ReadPair(NamedTuple):
    """Two segmentations of one case, read.

    :ivar notices: sentences that the user should see: how contours were understood, what of them was left out, and
        whether the files hardly belong together.
    """

    reference: Segmentation
    other: Segmentation
    notices: tuple[str, ...]


class _Grid(NamedTuple):
    """A grid on which contours can be filled.

    :ivar name: what has this grid, for messages.
    :ivar frame_of_reference: FrameOfReferenceUID; "" if it is not known.
    """

    name: str
    geometry: Geometry
    frame_of_reference: str


def read_pair(
    pair: Pair,
    tables: tuple[LabelTable | None, LabelTable | None] = (None, None),
    grid: str | Path | None = None,
) -> ReadPair:
    """Read two segmentations, with the names of their labels: given ones, their own, or those in a file beside them.

    Structure sets are filled on the grid of the other segmentation, or on that of an image. As in nnU-Net's evaluation,
    where the reference has the label "ignore" of a ``dataset.json``, neither has anything.

    :param tables: names of the labels of both; by default, a label image has those of ``ct.labels.csv`` beside
        ``ct.nii.gz``, as `Segmentation.write` writes it, of a ``.tsv`` of BIDS, of its NIfTI header, or else names such
        as ``label 1``.
    :param grid: an image, or the folder of a DICOM series. It also tells the distance of slices, where a DICOM
        segmentation leaves out some and does not say it; by default, the other segmentation does.
    :raises ImageError: as `Segmentation.from_image`; if a structure set cannot be read, or brought onto the grid; or if
        both are structure sets and there is no image.
    :raises LabelTableError: if a table cannot be read, or lacks a label.
    """
    files = pair.reference, pair.other
    contours = [is_drawn(file) for file in files]
    if all(contours) and grid is None:
        raise ImageError(
            f"{files[0]} and {files[1]} are structure sets, which have contours and no voxels: name an image, or the "
            "folder of a DICOM series, on whose grid they are compared (--grid)."
        )
    notices: list[str] = []
    needed = any(contours) or any(map(is_dicom_seg, files))
    wanted = _grid_of_image(Path(grid)) if grid is not None and needed else None
    read: list[Segmentation | None] = [None, None]
    # a DICOM segmentation that does not say how far apart its slices are has those of the image, or of the other one
    for index in sorted(
        (index for index in (0, 1) if not contours[index]), key=lambda index: not says_distance(files[index])
    ):
        beside = read[1 - index]
        image = None if wanted is None else wanted.geometry
        other = beside.geometry if wanted is None and beside is not None else None
        read[index] = found = _read_named(files[index], tables[index], image, other)
        notices += found.notices
    both, frames = list[Segmentation](), list[set[str]]()
    for index, (file, own) in enumerate(zip(files, tables, strict=True)):
        segmentation, beside = read[index], read[1 - index]
        if segmentation is None:
            place = _grid_of(files[1 - index], beside) if wanted is None else wanted
            segmentation, own_frames = _filled(file, own, place, notices)
        else:
            own_frames = {_frame_of_reference(file)}
        both.append(segmentation)
        frames.append(own_frames - {""})
    notices += _strangers(files, frames, both[0].geometry, both[1].geometry)
    return ReadPair(*_without_ignored(both[0], both[1]), tuple(dict.fromkeys(notices)))  # both may be one file


def read_segmentation(path: Path, image: Path) -> tuple[Segmentation, tuple[str, ...]]:
    """Read the segmentation of an image, with the names that `read_pair` finds. Contours are filled on its grid.

    :param image: a file, or the folder of a DICOM series.
    :returns: the segmentation on its own grid, or that of the image with more voxels if contours reach beyond it; and
        sentences that the user should see.
    :raises ImageError: as `read_pair`.
    :raises LabelTableError: as `read_pair`.
    """
    grid, notices = _grid_of_image(image), list[str]()
    if is_drawn(path):
        return _filled(path, None, grid, notices)[0], tuple(notices)
    own = _frame_of_reference(path)
    if own and grid.frame_of_reference and own != grid.frame_of_reference:
        notices.append(
            f"{path} and {image} have different frames of reference (FrameOfReferenceUID). They are taken as if it "
            "were the same."
        )
    found = _read_named(path, None, grid.geometry)
    return found, (*notices, *found.notices)


def read_drawn(path: Path, table: LabelTable | None, image: Path) -> Segmentation:
    """Read the reference of an image alone, as `read_pair` reads it beside another one.

    :param table: names of its labels, instead of its own.
    :param image: a file, or the folder of a DICOM series.
    :raises ImageError: as `read_pair`.
    :raises LabelTableError: as `read_pair`.
    """
    if is_drawn(path):
        return _filled(path, table, _grid_of_image(image), [])[0]
    found = _read_named(path, table, _grid_of_image(image).geometry if is_dicom_seg(path) else None)
    return _without(found, _ignored(found.table))


def _without_ignored(reference: Segmentation, other: Segmentation) -> tuple[Segmentation, Segmentation]:
    """Empty both where the reference has the label "ignore" of nnU-Net, and forget the label."""
    value = _ignored(reference.table)
    ignored = None if value is None else sum(layer == value for layer in reference.layers)
    if ignored is not None and ignored.any():
        to_other = onto_grid(reference.geometry, other.geometry)
        there = ignored if to_other is None else to_other(ignored.astype(np.uint16)) > 0
        reference, other = _emptied(reference, ignored), _emptied(other, there)
    if (of_other := _ignored(other.table)) is not None:
        other = _emptied(other, sum(layer == of_other for layer in other.layers))
    return _without(reference, value), _without(other, of_other)


def _without(segmentation: Segmentation, value: int | None) -> Segmentation:
    """Return a segmentation whose table lacks a label, of which it has no voxel."""
    table = segmentation.table
    labels = tuple(label for label in table if label.value != value)
    return replace(segmentation, table=LabelTable(labels, table.file))


def _ignored(table: LabelTable) -> int | None:
    """Return the value of the label "ignore", if the table is a ``dataset.json`` that has it."""
    if table.file is None or table.file.suffix.lower() != ".json":
        return None
    return next((label.value for label in table if label.name == _IGNORE), None)


def _emptied(segmentation: Segmentation, where: np.ndarray) -> Segmentation:
    """Return a segmentation without its voxels in some places, given as booleans ``(z, y, x)``."""
    first, *others = (np.where(where, np.uint16(0), layer) for layer in segmentation.layers)
    return replace(segmentation, labels=first, more_layers=tuple(others))


def _strangers(files: tuple[Path, Path], frames: list[set[str]], first: Geometry, second: Geometry) -> Iterator[str]:
    """Yield sentences on files that hardly belong together.

    :param frames: of reference that both have, as far as known.
    """
    if all(frames) and not frames[0] & frames[1]:
        yield (
            f"{files[0]} and {files[1]} have different frames of reference (FrameOfReferenceUID). They are compared as "
            "if it were the same."
        )
    corners = (second.corners - first.origin) @ np.linalg.inv(first.axes).T
    if (corners.max(0) < -0.5).any() or (corners.min(0) > np.array(first.size) - 0.5).any():
        yield f"{files[1]} lies outside of {files[0]}: they have no place in common. Compare the origins of both."


def _frame_of_reference(path: Path) -> str:
    """Return the FrameOfReferenceUID of a DICOM segmentation; "" of other files."""
    return str(read_header(path).get("FrameOfReferenceUID") or "") if is_dicom_seg(path) else ""


def is_drawn(path: Path) -> bool:
    """Return whether a file is read as a structure set, which has contours and no grid."""
    return path.name.lower().endswith(RTSTRUCT_SUFFIX) or is_structure_set(path)


def _read_named(
    path: Path, table: LabelTable | None, image: Geometry | None, other: Geometry | None = None
) -> Segmentation:
    """Read a segmentation with voxels.

    :param image: as of `Segmentation.from_dicom_seg`, and so is ``other``.
    """
    if table is None and (beside := table_beside(path)) is not None:
        table = LabelTable.from_file(beside)
    if is_dicom_seg(path):
        return Segmentation.from_dicom_seg(path, table, image, other)
    return Segmentation.from_image(path, table)


def _filled(path: Path, table: LabelTable | None, grid: _Grid, notices: list[str]) -> tuple[Segmentation, set[str]]:
    """Read a structure set, and fill its contours.

    :returns: the result, and the frames of reference of what was filled.
    """
    found = read_structure_set(path)
    with named(path):
        layers, own, geometry, said = structures_on_grid(found, grid.geometry, grid.name, grid.frame_of_reference)
        filled = Segmentation(layers[0], own if table is None else table, geometry, more_layers=layers[1:])
    notices += [f"{path}: {sentence}" for sentence in (*found.notices, *said)]
    frames = {structure.frame_of_reference for structure in found.structures if structure.contours}
    if grid.frame_of_reference:
        frames &= {grid.frame_of_reference, ""}  # the others are left out
    return filled, frames


def _grid_of(path: Path, segmentation: Segmentation | None) -> _Grid:
    """Return the grid of a segmentation that was read from a file."""
    assert segmentation is not None  # two structure sets need an image
    return _Grid(str(path), segmentation.geometry, _frame_of_reference(path))


def _grid_of_image(path: Path) -> _Grid:
    """Return the grid of an image, of which the voxels are not read."""
    refuse_missing(path)
    try:
        if path.is_dir() or is_dicom(path):
            slices, geometry = read_places(path)
            return _Grid(str(path), geometry, slices[0].frame_of_reference)
        found = read_grid(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or reason(error)}).") from error
    if found is None:
        raise ImageError(f"{path} is no volume, on whose grid contours could be filled.")
    return _Grid(str(path), found, "")
