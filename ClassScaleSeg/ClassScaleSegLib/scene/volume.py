"""Convert volume nodes of 3D Slicer's scene to files for the child process, and arrays back to volume nodes.

The position of a volume is read in this file only: its own matrix and the linear transforms above it. Input and result
are therefore both in world coordinates, and users need not harden any transform of their scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, OutputError
from ..files import unwritable
from ..images.geometry import Geometry, same_lattice
from ..images.nrrd import write_nrrd

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkOrientedImageData


@dataclass(frozen=True)
class Region:
    """The part of a voxel grid that a region of interest covers.

    :ivar box: slices along z, y, x that enclose the region.
    :ivar inside: bool ``(z, y, x)``, the shape of ``box``: ``True`` for voxels whose centre is in the region.
    """

    box: tuple[slice, slice, slice]
    inside: np.ndarray


def first_volume(scene: vtkMRMLScene, other_than: vtkMRMLScalarVolumeNode | None) -> vtkMRMLScalarVolumeNode | None:
    """Return the first image of a scene, or ``None``. Label maps and vector volumes are not images in this sense.

    :param other_than: a volume for a result, which is none either.
    """
    volumes = (node for node in scene.GetNodes() if node.GetClassName() == "vtkMRMLScalarVolumeNode")
    return next((volume for volume in volumes if not volume.GetHideFromEditors() and volume is not other_than), None)


def check_volume(volume: vtkMRMLScalarVolumeNode | None) -> None:
    """Check that a volume can be segmented.

    :raises ImageError: if ``volume`` is ``None``, is a label map, has no voxels or more than one value per voxel, or is
        under a non-linear transform.
    """
    if volume is None:
        raise ImageError("No volume is selected. Select the volume to segment.")
    name, image = volume.GetName(), volume.GetImageData()
    if volume.IsA("vtkMRMLLabelMapVolumeNode"):
        raise ImageError(f"{name} is a label map. Select the image that it belongs to.")
    if image is None or not all(image.GetDimensions()) or image.GetPointData().GetScalars() is None:
        raise ImageError(f"{name} has no voxels. Load the image again, or select another volume.")
    if image.GetNumberOfScalarComponents() != 1:
        count = image.GetNumberOfScalarComponents()
        raise ImageError(
            f"{name} has {count} values per voxel, and a scalar volume with one is needed. Convert it with Slicer's "
            "module Vector to Scalar Volume."
        )
    transform = volume.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise ImageError(
            f"{name} is under the non-linear transform {transform.GetName()}. Harden the transform (in Slicer's Data "
            "module, right-click the transform icon and choose Harden transform), then segment the hardened volume."
        )


def refuse_overwriting(
    volumes: Sequence[vtkMRMLScalarVolumeNode | None], confidence: vtkMRMLScalarVolumeNode | None
) -> None:
    """Refuse a volume for the confidence that is one of the ``volumes`` to segment.

    :raises OutputError: if it is.
    """
    if confidence is not None and any(volume is confidence for volume in volumes):
        raise OutputError(
            f"{confidence.GetName()} is the volume to segment, and the confidence would overwrite it. Select another "
            "volume for the confidence."
        )


def index_to_world(volume: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Return the ``(4, 4)`` matrix from voxel index i, j, k to RAS, in mm, with the transforms above the volume."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    index_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    transform = volume.GetParentTransformNode()
    if transform is None:
        return index_to_ras
    return slicer.util.arrayFromTransformMatrix(transform, toWorld=True) @ index_to_ras


def image_to_world(image: vtkOrientedImageData) -> np.ndarray:
    """Return the ``(4, 4)`` float64 matrix from voxel index to the coordinates of an oriented image, RAS, in mm."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def grid(matrix: np.ndarray, size: tuple[int, int, int]) -> Geometry:
    """Return the geometry of a voxel grid from its index-to-world matrix.

    :param matrix: ``(4, 4)``, from voxel index i, j, k to RAS, in mm.
    :param size: voxels along x, y, z.
    :returns: the same grid in the library's convention, LPS.
    :raises ImageError: if the matrix has collapsed an axis.

    >>> grid(np.diag([2.0, 2.0, 3.0, 1.0]), (4, 5, 6)).spacing
    (2.0, 2.0, 3.0)
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    direction = tuple((lps[:3, :3] / np.where(spacing, spacing, 1)).ravel().tolist())
    return Geometry(size, tuple(spacing.tolist()), tuple(lps[:3, 3].tolist()), direction)


def geometry_of(volume: vtkMRMLScalarVolumeNode) -> Geometry:
    """Return the grid of a volume in world coordinates, in the library's convention (LPS, mm).

    :raises ImageError: if the volume, or a transform above it, has collapsed an axis.
    """
    try:
        return grid(index_to_world(volume), volume.GetImageData().GetDimensions())
    except ImageError as error:
        raise ImageError(f"{volume.GetName()}: {error} Correct its spacing, or the transform above it.") from error


def is_on_grid(volume: vtkMRMLScalarVolumeNode, geometry: Geometry) -> bool:
    """Return whether a volume can be segmented and has this grid, in world coordinates, but for half a voxel."""
    own = _grid_of(volume)
    return own is not None and own.size == geometry.size and own.distance(geometry) < min(geometry.spacing) / 2


def is_cut_from(volume: vtkMRMLScalarVolumeNode, geometry: Geometry) -> bool:
    """Return whether a volume can be segmented and has all voxels of this grid, perhaps among others."""
    own = _grid_of(volume)
    if own is None:
        return False
    corners = (geometry.corners - own.origin) @ np.linalg.inv(own.axes).T
    return same_lattice(own, geometry) and bool((corners > -0.5).all() and (corners < np.array(own.size) - 0.5).all())


def _grid_of(volume: vtkMRMLScalarVolumeNode) -> Geometry | None:
    """Return the grid of a volume, ``None`` if it cannot be segmented."""
    try:
        check_volume(volume)
        return geometry_of(volume)
    except ImageError:
        return None


def box_of(volume: vtkMRMLScalarVolumeNode, roi: vtkMRMLMarkupsROINode) -> tuple[slice, slice, slice]:
    """Return the slices of ``volume`` along z, y, x that enclose ``roi``, which may be rotated.

    :raises ImageError: if the region and the volume do not overlap.
    """
    index_to_object, half = _to_object(volume, roi)
    corners = np.array([[x, y, z, 1] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * [*half, 1]
    reached = (np.linalg.inv(index_to_object) @ corners.T)[:3]
    first = np.maximum(np.ceil(reached.min(1) - 1e-6), 0).astype(int)
    end = np.subtract(volume.GetImageData().GetDimensions(), 1)
    last = np.minimum(np.floor(reached.max(1) + 1e-6), end).astype(int)
    if (first > last).any():
        raise _outside(volume, roi)
    z, y, x = (slice(a, b + 1) for a, b in zip(first[::-1].tolist(), last[::-1].tolist(), strict=True))
    return z, y, x


def region_of(volume: vtkMRMLScalarVolumeNode, roi: vtkMRMLMarkupsROINode) -> Region:
    """Return the voxels of ``volume`` whose centre is in ``roi``, which may be rotated.

    :raises ImageError: if there are none.
    """
    box = box_of(volume, roi)
    index_to_object, half = _to_object(volume, roi)
    k, j, i = (np.arange(part.start, part.stop, dtype=float) for part in box)
    inside = np.ones((len(k), len(j), len(i)), bool)
    for row, limit in zip(index_to_object[:3], half, strict=True):
        distance = row[0] * i + (row[1] * j)[:, None] + (row[2] * k)[:, None, None] + row[3]
        inside &= np.abs(distance) <= limit + 1e-6
    if not inside.any():
        raise _outside(volume, roi)
    return Region(box, inside)


def _to_object(volume: vtkMRMLScalarVolumeNode, roi: vtkMRMLMarkupsROINode) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``(4, 4)`` matrix from voxel index to the region's axes and centre, and half its size, in mm."""
    import slicer

    object_to_world = slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix())
    half = np.asarray(roi.GetSize(), float) / 2
    if not half.all() or abs(np.linalg.det(object_to_world)) < 1e-12:
        raise _outside(volume, roi)
    return np.linalg.inv(object_to_world) @ index_to_world(volume), half


def _outside(volume: vtkMRMLScalarVolumeNode, roi: vtkMRMLMarkupsROINode) -> ImageError:
    return ImageError(
        f"The region {roi.GetName()} contains no voxel of {volume.GetName()}. Move or enlarge it, or select no region."
    )


def fit_region(roi: vtkMRMLMarkupsROINode, volume: vtkMRMLScalarVolumeNode | None) -> None:
    """Fit a new region of interest around ``volume``, and show it as an outline with handles to drag.

    Without a volume it becomes a cube of 100 mm, because a new node has no size: it could be neither seen nor dragged.
    """
    bounds = [-50.0, 50.0] * 3
    if volume is not None and volume.GetImageData() is not None:
        volume.GetRASBounds(bounds)
    low, high = np.array(bounds[::2]), np.array(bounds[1::2])
    roi.SetCenter(*((low + high) / 2).tolist())
    roi.SetSize(*(high - low).tolist())
    if roi.GetDisplayNode() is None:
        roi.CreateDefaultDisplayNodes()
    display = roi.GetDisplayNode()
    display.SetFillVisibility(False)
    display.SetHandlesInteractive(True)


def write_volume(volume: vtkMRMLScalarVolumeNode, path: Path, region: Region | None = None) -> None:
    """Write a volume as an uncompressed NRRD in world coordinates.

    :param region: write only the voxels in its box.
    :raises OutputError: if the disk is full or the folder is not writable.
    """
    import slicer

    array, geometry = slicer.util.arrayFromVolume(volume), geometry_of(volume)
    if region is not None:
        array, geometry = array[region.box], crop(geometry, region.box)
    try:
        write_nrrd(path, array, geometry, compress=False)  # SimpleITK would copy all voxels first, in Slicer's thread
    except OSError as error:
        path.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def crop(geometry: Geometry, box: tuple[slice, slice, slice]) -> Geometry:
    """Return the grid of a box of ``geometry``.

    :param box: slices along z, y, x.

    >>> part = crop(Geometry((8, 8, 8), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0)), (slice(3, 8), slice(0, 8), slice(1, 8)))
    >>> part.size, part.origin
    ((7, 8, 5), (1.0, 0.0, 6.0))
    """
    size = tuple(part.stop - part.start for part in reversed(box))
    start = np.array([part.start for part in reversed(box)], float)
    return replace(geometry, size=size, origin=tuple((np.asarray(geometry.origin) + geometry.axes @ start).tolist()))


def uncrop(array: np.ndarray, region: Region, shape: tuple[int, ...]) -> np.ndarray:
    """Put an array of ``region.box`` into an array of the whole image, ``(z, y, x)``, with 0 outside of the region."""
    full = np.zeros(shape, array.dtype)
    full[region.box] = np.where(region.inside, array, array.dtype.type(0))
    return full


def modality_of(volume: vtkMRMLScalarVolumeNode) -> str | None:
    """Return the DICOM modality of a volume, such as "CT", or ``None`` if it was not loaded from DICOM."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    item = hierarchy.GetItemByDataNode(volume) if hierarchy is not None else 0
    return hierarchy.GetAttributeFromItemAncestor(item, "DICOM.Modality", "") or None if item else None
