"""Read and write label maps and images, with the checks that SimpleITK omits.

ITK's NIfTI reader and writer do not report files that end early: on a full disk they write a truncated file, and when
they read it, the missing voxels are zeros or garbage. Here both are errors.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ClassScaleSegLib.errors import ImageError, reason
from ClassScaleSegLib.files import replacing, unwritable
from ClassScaleSegLib.images.nifti import check_nifti

if TYPE_CHECKING:
    import SimpleITK

FILE_ENDINGS = (".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".mha", ".mhd")
_TOLERANCE = 1e-3  # of positions (mm) and direction cosines; NIfTI stores the geometry as float32


def case_name(file: Path) -> str | None:
    """Return the name of ``file`` without its ending, or ``None`` if this is not the ending of an image file.

    >>> case_name(Path("labelsTr/s0001.nii.gz"))
    's0001'
    >>> case_name(Path("dataset.json")) is None
    True
    """
    return next((file.name.removesuffix(ending) for ending in FILE_ENDINGS if file.name.endswith(ending)), None)


def read_labels(file: Path) -> tuple[np.ndarray, SimpleITK.Image]:
    """Read a label map.

    :returns: the labels ``(z, y, x)``, uint8 or uint16, and the image with its geometry.
    :raises ImageError: if the file is missing, truncated or not an image, or holds anything except whole numbers from 0
        to 65535.
    """
    import SimpleITK

    if not file.is_file():
        raise ImageError(f"{file} does not exist.")
    if file.name.endswith((".nii", ".nii.gz")):
        check_nifti(file)
    try:
        image = SimpleITK.ReadImage(str(file))
    except RuntimeError as error:
        raise ImageError(f"{file} cannot be read as an image ({reason(error, -1)}).") from error
    array = SimpleITK.GetArrayFromImage(image)
    if array.ndim not in (2, 3) or array.size == 0:
        raise ImageError(f"{file} has shape {array.shape}; a label map has 2 or 3 dimensions and one value per voxel.")
    if array.dtype in (np.uint8, np.uint16):
        return array, image
    low, high = array.min(), array.max()
    labels = array.astype(np.uint16) if 0 <= low and high <= 65535 else None
    if labels is None or (array.dtype.kind == "f" and not np.array_equal(labels, array)):
        raise ImageError(
            f"{file} is not a label map: whole numbers from 0 to 65535 were expected, not {low} to {high}."
        )
    return labels, image


def write_volume(image: SimpleITK.Image, file: Path) -> None:
    """Write ``image`` compressed; ``file`` appears only when it is complete.

    :raises OutputError: if it cannot be written completely.
    """
    import SimpleITK

    with replacing(file, overwrite=True) as temporary:
        try:
            SimpleITK.WriteImage(image, str(temporary), useCompression=True)
            check_nifti(temporary)
        except (RuntimeError, ImageError) as error:
            raise unwritable(file, reason(error, -1)) from error


def geometry_difference(first: SimpleITK.Image, second: SimpleITK.Image) -> str | None:
    """Return the first of size, spacing, origin and direction that differs between two images.

    >>> import SimpleITK
    >>> first, second = SimpleITK.Image(4, 4, 4, SimpleITK.sitkUInt8), SimpleITK.Image(4, 4, 4, SimpleITK.sitkUInt8)
    >>> second.SetSpacing([1, 1, 2])
    >>> geometry_difference(first, second)
    'spacing (1, 1, 1) and (1, 1, 2)'

    :returns: its name and both values, or ``None`` if the geometries agree within 1e-3 (mm).
    """
    if first.GetSize() != second.GetSize():
        return f"size {first.GetSize()} and {second.GetSize()}"
    for name in ("Spacing", "Origin", "Direction"):
        a, b = (getattr(image, f"Get{name}")() for image in (first, second))
        if not all(math.isclose(p, q, rel_tol=1e-5, abs_tol=_TOLERANCE) for p, q in zip(a, b, strict=True)):
            numbers = (f"({', '.join(f'{v:g}' for v in values)})" for values in (a, b))
            return f"{name.lower()} {' and '.join(numbers)}"
    return None
