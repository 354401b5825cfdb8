"""Volumes of 3D Slicer's scene as files for the child process, and arrays back as volumes.

Where a volume lies is asked once, here: its own matrix and the linear transforms above it. So what the network gets
and what comes back lie in the world, and nothing has to be hardened in the user's scene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError
from ..files import unwritable
from ..images.geometry import Geometry
from ..images.segmentation import Segmentation
from .segmentation_node import index_to_ras


@dataclass(frozen=True)
class Region:
    """The part of a grid that a region of interest covers.

    :ivar box: slices along z, y, x that hold it.
    :ivar inside: bool ``(z, y, x)`` of that box: voxels whose centre lies in the region.
    """

    box: tuple[slice, slice, slice]
    inside: np.ndarray


def check_volume(volume: Any) -> None:
    """:raises ImageError: a sentence, if ``volume`` is missing, empty, of colours, or bent by its transform."""
    if volume is None:
        raise ImageError("No volume is chosen. Choose the image to segment.")
    name, image = volume.GetName(), volume.GetImageData()
    if image is None or not all(image.GetDimensions()) or image.GetPointData().GetScalars() is None:
        raise ImageError(f"{name} has no voxels. Load the image again, or choose another volume.")
    if image.GetNumberOfScalarComponents() != 1:
        count = image.GetNumberOfScalarComponents()
        raise ImageError(f"{name} has {count} values a voxel. A scalar volume is needed; extract one channel first.")
    transform = volume.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise ImageError(
            f"{name} is bent by the transform {transform.GetName()}. Harden it (in Slicer's Data module, right-click "
            "the transform icon, Harden transform) and segment the volume that this gives."
        )


def voxels(volume: Any) -> np.ndarray:
    """Voxels ``(z, y, x)`` of a scalar volume, shared with it."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = volume.GetImageData()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def index_to_world(volume: Any) -> np.ndarray:
    """``(4, 4)`` float64: voxel index i, j, k to millimetres, right-anterior-superior, transforms included."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    transform = volume.GetParentTransformNode()
    if transform is not None:
        above = vtk.vtkMatrix4x4()
        transform.GetMatrixTransformToWorld(above)
        vtk.vtkMatrix4x4.Multiply4x4(above, matrix, matrix)
    return matrix_array(matrix)


def image_to_world(image: Any) -> np.ndarray:
    """The same of a ``vtkOrientedImageData``."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return matrix_array(matrix)


def grid(matrix: np.ndarray, size: tuple[int, int, int]) -> Geometry:
    """The grid of ``size`` (x, y, z) whose voxel indices ``matrix`` takes to right-anterior-superior, mm.

    :raises ImageError: if it spans no volume.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    direction = tuple((lps[:3, :3] / np.where(spacing, spacing, 1)).ravel().tolist())
    return Geometry(size, tuple(spacing.tolist()), tuple(lps[:3, 3].tolist()), direction)


def geometry_of(volume: Any) -> Geometry:
    """The grid of a volume in the world, in the library's convention.

    :raises ImageError: if the volume, or a transform above it, has collapsed an axis.
    """
    try:
        return grid(index_to_world(volume), volume.GetImageData().GetDimensions())
    except ImageError as error:
        raise ImageError(f"{volume.GetName()}: {error} Correct its spacing, or the transform above it.") from error


def box_of(volume: Any, roi: Any) -> tuple[slice, slice, slice]:
    """Slices along z, y, x of ``volume`` that hold a ``vtkMRMLMarkupsROINode``, turned in any way.

    :raises ImageError: if it holds no voxel.
    """
    index_to_object, half = _to_object(volume, roi)
    corners = np.array([[x, y, z, 1] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * [*half, 1]
    reached = (np.linalg.inv(index_to_object) @ corners.T)[:3]
    first = np.maximum(np.ceil(reached.min(1) - 1e-6), 0).astype(int)
    last = np.minimum(np.floor(reached.max(1) + 1e-6), np.subtract(volume.GetImageData().GetDimensions(), 1)).astype(
        int
    )
    if (first > last).any():
        raise _outside(volume, roi)
    return tuple(slice(a, b + 1) for a, b in zip(first[::-1].tolist(), last[::-1].tolist(), strict=True))


def region_of(volume: Any, roi: Any) -> Region:
    """Voxels of ``volume`` whose centre lies in a ``vtkMRMLMarkupsROINode``, turned in any way.

    :raises ImageError: if there is none.
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


def _to_object(volume: Any, roi: Any) -> tuple[np.ndarray, np.ndarray]:
    """``(4, 4)`` from voxel index to the region's own axes, mm from its centre, and half its size along each."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(roi.GetObjectToWorldMatrix())
    object_to_world, half = matrix_array(matrix), np.asarray(roi.GetSize(), float) / 2
    if not half.all() or abs(np.linalg.det(object_to_world)) < 1e-12:
        raise _outside(volume, roi)
    return np.linalg.inv(object_to_world) @ index_to_world(volume), half


def _outside(volume: Any, roi: Any) -> ImageError:
    return ImageError(f"The region {roi.GetName()} holds no voxel of {volume.GetName()}. Move it, or choose none.")


def fit_region(roi: Any, volume: Any) -> None:
    """Lay a new ``vtkMRMLMarkupsROINode`` around ``volume`` as a box without fill, with handles to be dragged.

    Without a volume it is 100 mm wide: one that is added by ``AddNode`` has no size, and cannot be seen or caught.
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


def write_volume(volume: Any, path: Path, region: Region | None = None) -> None:
    """Write the voxels, or those in the box of ``region``, as an uncompressed NRRD in the world.

    :raises OutputError: if the disk is full or the folder cannot be written.
    """
    import SimpleITK as sitk

    array, geometry = voxels(volume), geometry_of(volume)
    if region is not None:
        array, geometry = array[region.box], crop(geometry, region.box)
    image = sitk.GetImageFromArray(array)
    geometry.apply(image)
    try:
        sitk.WriteImage(image, str(path), useCompression=False)
    except RuntimeError as error:
        path.unlink(missing_ok=True)
        raise unwritable(path, str(error).strip().splitlines()[-1]) from error
    if path.stat().st_size < array.nbytes:  # ITK does not always tell
        path.unlink()
        raise unwritable(path, "the disk took only part of the file")


def crop(geometry: Geometry, box: tuple[slice, slice, slice]) -> Geometry:
    """The grid of a box, given as slices along z, y, x."""
    size = tuple(part.stop - part.start for part in reversed(box))
    start = np.array([part.start for part in reversed(box)], float)
    return replace(geometry, size=size, origin=tuple((np.asarray(geometry.origin) + geometry.axes @ start).tolist()))


def uncrop(segmentation: Segmentation, region: Region, geometry: Geometry) -> Segmentation:
    """A segmentation of the box on the grid ``geometry`` of the whole image; outside of the region is background."""
    whole = []
    for array in (segmentation.labels, segmentation.confidence):
        if array is not None:
            full = np.zeros(geometry.size[::-1], array.dtype)
            full[region.box] = np.where(region.inside, array, array.dtype.type(0))
            array = full
        whole.append(array)
    return Segmentation(whole[0], segmentation.table, geometry, whole[1])


def fill_volume_node(node: Any, array: np.ndarray, geometry: Geometry) -> None:
    """Put ``array`` ``(z, y, x)`` and its place in the world into a scalar volume node without transform."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(*geometry.size)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    modifying = node.StartModify()
    node.SetAndObserveTransformNodeID(None)
    node.SetIJKToRASMatrix(index_to_ras(geometry))
    node.SetAndObserveImageData(image)
    node.EndModify(modifying)


def matrix_array(matrix: Any) -> np.ndarray:
    """``(4, 4)`` of a ``vtkMatrix4x4``."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def modality_of(volume: Any) -> str | None:
    """Modality as DICOM has it, if the volume came from there."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    item = hierarchy.GetItemByDataNode(volume) if hierarchy is not None else 0
    return hierarchy.GetAttributeFromItemAncestor(item, "DICOM.Modality", "") or None if item else None
