"""Save a segmentation with its volumes as a case of a training folder, from which a network can be trained.

A training folder has the images as ``images/NAME_0000.nii.gz``, ``_0001`` and so on, one per channel of the model, and
the segmentation on their grid as ``segmentations/NAME.seg.nrrd``. Nothing else is in it: what the structures are, their
names, codes and colours in the segmentations say, which of them were corrected, and
whether nobody has looked at them.

    case = training_case(node, folder)
    if not case.replaced:
        write_case(case)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ImageError, OutputError, OutputExistsError
from ..files import replacing
from ..images.case_notes import CaseNotes
from ..images.comparison import onto_grid
from ..images.geometry import Geometry, same_lattice
from ..images.layers import layer_counts
from ..images.occupied import occupied_box
from ..images.seg_nrrd import stored_type, write_seg_nrrd
from ..images.segmentation import Segmentation
from .nifti_volume import check_nifti_grid, same_voxels, write_nifti
from .saved_notes import notes_of
from .segmentation_reader import labels_of, open_segmentation
from .sequence import browser_of
from .source_volumes import is_of_region, source_volumes
from .training_folder import IMAGES, SEGMENTATIONS, SUFFIX, count_cases, is_of
from .volume import check_volume, geometry_of, is_on_grid

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

    from .segmentation_reader import Opened

_LONGEST = 80  # characters of the name of a case; file systems take 255 bytes with all suffixes
_APART = 0.01  # voxels, by which a grid may be off
_MOST_NAMES = 3  # structures that a sentence names


class TrainingCase(NamedTuple):
    """A case that can be written.

    :ivar folder: the training folder.
    :ivar name: of the case, in the names of its files.
    :ivar volumes: one per channel.
    :ivar segmentation: on the grid of the first volume, with all structures, also those without a voxel.
    :ivar notes: which structures were corrected, and which models found them if nobody has looked at them since.
    :ivar replaced: whether the folder has a case of the same image, of that name.
    :ivar notices: sentences on what the user should know about the segmentation.
    """

    folder: Path
    name: str
    volumes: tuple[vtkMRMLScalarVolumeNode, ...]
    segmentation: Segmentation
    notes: CaseNotes
    replaced: bool
    notices: tuple[str, ...]


def training_case(
    node: vtkMRMLSegmentationNode,
    folder: str | Path,
    volumes: Sequence[vtkMRMLScalarVolumeNode | None] = (),
) -> TrainingCase:
    """Return what a segmentation node becomes in a training folder. Nothing is written.

    The case is called like the first volume. If the folder has a case of that name with the same voxels, this one is to
    replace it; if that is of another image, this one gets a number.

    :param folder: need not exist.
    :param volumes: one per channel; nothing: those of which the segmentation was made.
    :raises ImageError: if these are not known, one of them cannot be segmented, they have several grids, NIfTI cannot
        hold their grid, or the segmentation has no segment, cannot be read, or lies outside of the volume.
    """
    used = tuple(volumes) or source_volumes(node)
    if not used:
        raise ImageError(
            f"It is not known from which volume {node.GetName()} was made. Select that volume under Inputs, or give it "
            "as volume=."
        )
    kept = _checked(used)
    first, path = kept[0], Path(folder)
    opened = open_segmentation(node)
    segmentation, notices = _on_grid_of(node, opened, first)
    if is_of_region(node):
        notices += (
            f"{node.GetName()} was made in a region of {first.GetName()}. Outside of it nothing was looked for, so the "
            "case says that there is none of the structures, but for what you have drawn.",
        )
    browser = browser_of(first)
    frame = "" if browser is None else f"_frame{browser.GetSelectedItemNumber():03}"
    name, replaced = _free_name(path, case_name(first.GetName() or "", len(kept)) + frame, first)
    notes = notes_of(node, () if opened is None else opened.statistics)
    return TrainingCase(path, name, kept, segmentation, notes, replaced, notices)


def _checked(volumes: Sequence[vtkMRMLScalarVolumeNode | None]) -> tuple[vtkMRMLScalarVolumeNode, ...]:
    """Return the volumes of all channels.

    :raises ImageError: if one cannot be segmented, NIfTI cannot hold its grid, or they have several grids.
    """
    for volume in volumes:
        check_volume(volume)
        check_nifti_grid(volume)
    kept = tuple(volume for volume in volumes if volume is not None)
    for volume in kept[1:]:
        if not is_on_grid(volume, geometry_of(kept[0])):
            raise ImageError(
                f"{volume.GetName()} is on another grid than {kept[0].GetName()}. All channels need the same grid. "
                "Resample one of the volumes, for example with Slicer's module Resample Scalar/Vector/DWI Volume."
            )
    return kept


def write_case(case: TrainingCase, replace: bool = False) -> int:
    """Write a case into its folder: the images, and last the segmentation.

    :param replace: the case of the same image is replaced, if there is one.
    :returns: how many cases the folder has now.
    :raises OutputExistsError: if there is such a case, and ``replace`` is false.
    :raises OutputError: if a file cannot be written. None is left incomplete, and a case that was there is unchanged.
    """
    if case.replaced and not replace:
        raise OutputExistsError(
            f"{case.folder} has the case {case.name} of this volume. Replace it (replace=True), or choose another "
            "folder."
        )
    images, segmentations = case.folder / IMAGES, case.folder / SEGMENTATIONS
    files = [images / f"{case.name}_{number:04}.nii.gz" for number in range(len(case.volumes))]
    with ExitStack() as stack:  # all files are complete before the first one gets its name
        drawn = stack.enter_context(replacing(segmentations / f"{case.name}{SUFFIX}", replace))
        parts = [stack.enter_context(replacing(file, replace)) for file in reversed(files)]
        for volume, part in zip(case.volumes, reversed(parts), strict=True):
            write_nifti(volume, part)
        found = case.segmentation
        dtype = stored_type(found.table)
        write_seg_nrrd(drawn, found.layers, found.table, found.geometry, dtype, True, case.notes.fields())
    for file in images.glob("*"):  # of an earlier case with more channels
        if case.replaced and is_of(file, case.name) and file not in files:
            file.unlink(missing_ok=True)
    return count_cases(case.folder)


def case_name(name: str, channels: int = 1) -> str:
    """Return the name of a volume as that of a case, which every system takes as the name of a file.

    :param channels: of several volumes that are numbered as nnU-Net does, the case has the name without the number.

    >>> case_name("2: Thorax / 1.0"), case_name("BraTS_7_0000", 4), case_name("..")
    ('2_Thorax_1.0', 'BraTS_7', 'Case')
    """
    if channels > 1:
        name = name.removesuffix("_0000")
    plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name))
    return plain[:_LONGEST].strip("._-") or "Case"


def _free_name(folder: Path, name: str, volume: vtkMRMLScalarVolumeNode) -> tuple[str, bool]:
    """Return the name of the case, and whether the folder has one of the same voxels that is called so."""
    try:
        files = [file for inner in (IMAGES, SEGMENTATIONS) for file in sorted((folder / inner).glob("*"))]
    except OSError as error:
        raise OutputError(f"{folder} cannot be read ({error.strerror or error}). Choose another folder.") from error
    number, candidate = 1, name
    while own := [file for file in files if is_of(file, candidate)]:
        image = next((file for file in own if file.parent.name == IMAGES and file.name.endswith("_0000.nii.gz")), None)
        if image is not None and same_voxels(volume, image):
            # on a file system that knows no capital letters, the files may be called otherwise
            return image.name.removesuffix("_0000.nii.gz"), True
        number += 1
        candidate = f"{name}_{number}"
    return candidate, False


def _on_grid_of(
    node: vtkMRMLSegmentationNode, opened: Opened | None, volume: vtkMRMLScalarVolumeNode
) -> tuple[Segmentation, tuple[str, ...]]:
    """Return what a segmentation node holds on the grid of a volume, and sentences on what this has changed.

    :param opened: what it holds.
    :raises ImageError: as :func:`training_case`.
    """
    geometry, name = geometry_of(volume), volume.GetName()
    if opened is None or not any(row.voxels for row in opened.statistics):
        table = labels_of(node)
        if not table.foreground:
            raise ImageError(f"There is no structure in {node.GetName()}.")
        return Segmentation(np.zeros(geometry.size[::-1], np.uint16), table, geometry), ()
    found = opened.segmentation
    place = onto_grid(found.geometry, geometry)
    if place is None:
        return Segmentation(found.labels, found.table, geometry, more_layers=found.more_layers), ()
    labels, *more = (place(layer) for layer in found.layers)
    placed = Segmentation(labels, found.table, geometry, more_layers=tuple(more))
    counts = layer_counts(placed.layers).sum(0)
    if not counts[1:].any():
        raise ImageError(f"{node.GetName()} has no voxel in {name}. Choose the volume on which it was made.")
    notices = []
    lost = [row.name for row in opened.statistics if row.voxels and not counts[row.value]]
    if lost:
        listed = ", ".join(lost[:_MOST_NAMES]) + (" and others" if len(lost) > _MOST_NAMES else "")
        notices.append(f"No voxel of {name} is in {listed}, so the case says that it has none of them.")
    if not _is_inside(found, geometry):
        notices.append(f"What of {node.GetName()} is outside of {name} was left out.")
    if not same_lattice(found.geometry, geometry):
        notices.append(f"{node.GetName()} is on another grid than {name}, so its nearest voxels were taken.")
    return placed, tuple(notices)


def _is_inside(found: Segmentation, geometry: Geometry) -> bool:
    """Return whether all voxels of structures lie inside of a grid."""
    to_index = np.linalg.inv(geometry.axes)
    steps, start = to_index @ found.geometry.axes, to_index @ np.subtract(found.geometry.origin, geometry.origin)
    z, y, x = occupied_box(np.any(found.layers, axis=0))
    ends = [(part.start, part.stop - 1) for part in (x, y, z)]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    reached = corners @ steps.T + start
    return bool((reached > -0.5 - _APART).all() and (reached < np.array(geometry.size) - 0.5 + _APART).all())
