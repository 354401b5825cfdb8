"""Read and write label maps and images, with the checks that SimpleITK omits.

ITK's NIfTI reader and writer do not report files that end early: on a full disk they write a truncated file, and when
they read it, the missing voxels are zeros or garbage. Here both are errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ClassScaleSegLib.errors import ImageError, named, reason
from ClassScaleSegLib.files import replacing, unwritable
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.image_file import ReadVolume, read_file
from ClassScaleSegLib.images.nifti import check_nifti, is_nifti
from ClassScaleSegLib.images.nifti_labels import read_named_values
from ClassScaleSegLib.images.seg_nrrd import read_segments
from ClassScaleSegLib.labels.table import LabelTable

if TYPE_CHECKING:
    import SimpleITK

FILE_ENDINGS = (".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".mha", ".mhd")
SAME_PLACE = 0.05  # of the smallest spacing: headers are rounded


def case_name(file: Path) -> str | None:
    """Return the name of ``file`` without its ending, or ``None`` if this is not the ending of an image file.

    >>> case_name(Path("labelsTr/s0001.nii.gz"))
    's0001'
    >>> case_name(Path("dataset.json")) is None
    True
    """
    return next((file.name.removesuffix(ending) for ending in FILE_ENDINGS if file.name.endswith(ending)), None)


def read_volume(file: Path) -> ReadVolume:
    """Read an image file of any format; NIfTI also if ITK refuses it, because its axes are not perpendicular.

    :raises ImageError: if the file is missing, truncated or not an image.
    """
    if not file.is_file():
        raise ImageError(f"{file} does not exist.")
    try:
        return read_file(file)
    except ImageError:
        if not is_nifti(file):
            raise
        return read_file(file, nibabel=True)


def labels_of(volume: ReadVolume, file: Path) -> np.ndarray:
    """Return the voxels of a label map as uint8 or uint16 ``(z, y, x)``.

    :param volume: must be kept as long as the labels, which may be a view of its memory.
    :param file: what messages call it.
    :raises ImageError: if there are several values for each voxel, or other ones than whole numbers from 0 to 65535.
    """
    array = volume.voxels
    if array.ndim != 3:
        shape = "x".join(map(str, array.shape[::-1]))
        raise ImageError(f"{file} has {shape} values; a label map has 2 or 3 dimensions and one value per voxel.")
    if array.dtype in (np.uint8, np.uint16):
        return array
    low, high = array.min(), array.max()
    labels = array.astype(np.uint16) if 0 <= low and high <= 65535 else None
    if labels is None or (array.dtype.kind == "f" and not np.array_equal(labels, array)):
        found = f"{low} to {high}" if labels is None else f"fractions such as {array[labels != array][0]:g}"
        raise ImageError(f"{file} is not a label map: whole numbers from 0 to 65535 were expected, not {found}.")
    return labels


def label_names(file: Path, volume: ReadVolume) -> dict[int, str]:
    """Return the names that a label map itself has for its values; none if it has none.

    They are in the colour table ``NAME.labels.csv`` that `classscaleseg segment` writes beside files, or in the header
    of a ``.seg.nrrd``, or of a NIfTI file, as TotalSegmentator writes it.

    :raises LabelTableError: if they cannot be read.
    """
    table = file.with_name(f"{case_name(file)}.labels.csv")
    if table.is_file():
        return LabelTable.from_csv(table).names
    if (named_values := read_named_values(file).names) or volume.owner is None:
        return named_values
    with named(file):
        return {segment.label.value: segment.label.name for segment in read_segments(volume.owner)}


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


def geometry_difference(first: Geometry, second: Geometry) -> str | None:
    """Return the first of size, spacing, origin and direction that differs between two grids.

    >>> first, second = Geometry((4, 4, 4), (1, 1, 1), (0, 0, 0)), Geometry((4, 4, 4), (1, 1, 2), (0, 0, 0))
    >>> geometry_difference(first, second)
    'spacing (1, 1, 1) and (1, 1, 2)'

    :returns: its name and both values, or ``None`` if no voxel is farther from its place in the other grid than
        :data:`SAME_PLACE`.
    """
    if first.size != second.size:
        return f"size {first.size} and {second.size}"
    apart = first.distance(second)
    if apart <= SAME_PLACE * min(*first.spacing, *second.spacing):
        return None
    for name in ("spacing", "origin", "direction"):
        a, b = (getattr(grid, name) for grid in (first, second))
        tolerance = SAME_PLACE * min(first.spacing) / (max(first.size) if name != "origin" else 1)
        tolerance /= max(first.spacing) if name == "direction" else 1
        if not np.allclose(a, b, rtol=0, atol=tolerance):
            numbers = (f"({', '.join(f'{v:g}' for v in values)})" for values in (a, b))
            return f"{name} {' and '.join(numbers)}"
    return f"voxels are up to {apart:.3g} mm apart"
