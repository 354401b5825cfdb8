"""Write a volume node as NIfTI, in world coordinates, and find it again in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, reason
from ..files import unwritable
from ..images.geometry import ROUNDED_SHEAR
from .volume import geometry_of

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

_HEADER = 352  # bytes before the voxels


def check_nifti_grid(volume: vtkMRMLScalarVolumeNode) -> None:
    """Refuse a volume whose grid NIfTI cannot hold: ITK neither writes nor reads skewed axes.

    :raises ImageError: if it is one.
    """
    if geometry_of(volume).shear > ROUNDED_SHEAR:
        raise ImageError(
            f"The slices of {volume.GetName()} are tilted (gantry tilt), which NIfTI files cannot hold. Resample it "
            "with Slicer's module Resample Scalar/Vector/DWI Volume, and segment the volume that you get."
        )


def write_nifti(volume: vtkMRMLScalarVolumeNode, path: Path) -> None:
    """Write a volume as a compressed NIfTI file in world coordinates, with the voxels as they are stored.

    :param path: ``.nii.gz``.
    :raises ImageError: if NIfTI cannot hold its grid.
    :raises OutputError: if the file cannot be written as a whole.
    """
    import SimpleITK as sitk
    import slicer

    check_nifti_grid(volume)
    geometry, voxels = geometry_of(volume), slicer.util.arrayFromVolume(volume)
    image = sitk.GetImageFromArray(voxels)
    (geometry.perpendicular if geometry.shear else geometry).apply(image)
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        with path.open("rb") as file:
            file.seek(-4, 2)
            written = int.from_bytes(file.read(4), "little")  # bytes before they were compressed, modulo 2^32
    except RuntimeError as error:
        raise unwritable(path, reason(error, -1)) from error
    if written != (_HEADER + voxels.nbytes) % 2**32:  # on a full disk ITK reports no error
        raise unwritable(path, "the disk took only part of the file")


def same_voxels(volume: vtkMRMLScalarVolumeNode, path: Path) -> bool:
    """Return whether a file holds an image with the voxels of a volume, wherever that is.

    The file is read as a whole only if its header fits the volume. One that cannot be read is another image.
    """
    import SimpleITK as sitk
    import slicer

    voxels = slicer.util.arrayFromVolume(volume)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        if reader.GetSize() != voxels.shape[::-1] or reader.GetNumberOfComponents() != 1:
            return False
        image = reader.Execute()
    except RuntimeError:
        return False
    found = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f":  # ITK reads what is no number as 0
        voxels = np.nan_to_num(voxels, nan=0, posinf=0, neginf=0)
    return found.dtype == voxels.dtype and np.array_equal(found, voxels)
