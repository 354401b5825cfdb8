"""Read label images: the layers of a file or a SimpleITK image, and the labels that its header names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, named, reason
from ..labels.label import MAX_VALUE
from ..labels.table import LabelTable
from .geometry import Geometry
from .image_file import refuse_name
from .layers import layer_counts
from .nifti import check_nifti, is_nifti
from .seg_nrrd import layered, read_segments

if TYPE_CHECKING:
    import SimpleITK as sitk


def read_layers(
    label_image: sitk.Image | str | Path,
) -> tuple[tuple[np.ndarray, ...], LabelTable, Geometry, np.ndarray]:
    """Read a label image or file as `Segmentation.from_image` does.

    :returns: the layers, uint16 ``(z, y, x)``; the table in the header of a ``.seg.nrrd``, for other images one that
        names the labels that occur; the grid; the voxels of each value in all layers, ``(65536,)``.
    :raises ImageError: as `Segmentation.from_image`.
    :raises LabelTableError: if the segments in the header have no valid values, names or colours.
    """
    import SimpleITK as sitk

    what = "The label image"
    if not isinstance(label_image, sitk.Image):
        what = str(label_image)
        refuse_name(Path(what))
        try:
            if is_nifti(Path(what)) and Path(what).is_file():
                check_nifti(Path(what))  # of a damaged file ITK returns zeros
            label_image = sitk.ReadImage(what)
        except RuntimeError as error:
            raise ImageError(f"{what} cannot be read as an image ({reason(error, -1)}).") from error
    with named(what):
        return _layers_of(label_image)


def _layers_of(image: sitk.Image) -> tuple[tuple[np.ndarray, ...], LabelTable, Geometry, np.ndarray]:
    """Return what `read_layers` returns. The sentences of its exceptions do not name the image."""
    import SimpleITK as sitk

    components, segments = image.GetNumberOfComponentsPerPixel(), read_segments(image)
    if components != 1 and not segments:
        raise ImageError(
            f"It has {components} values in each voxel and does not say which segments these are; one label is needed."
        )
    geometry = Geometry.from_image(image)
    array = _whole(sitk.GetArrayFromImage(image))
    if components == 1:
        layers: tuple[np.ndarray, ...] = (as_uint16(array),)
    else:
        layers = tuple(as_uint16(array[..., component]) for component in range(components))
        layers, segments = layered(layers, segments)
    counts = layer_counts(layers).sum(0)
    if segments:
        return layers, LabelTable(tuple(segment.label for segment in segments)), geometry, counts
    names = {value: f"label {value}" for value in np.flatnonzero(counts).tolist()}
    return layers, LabelTable.from_names({**names, 0: "background"}), geometry, counts


def _whole(labels: np.ndarray) -> np.ndarray:
    """Return labels as integers, also those that a program has stored as floating-point numbers.

    :param labels: ``(z, y, x)``, or with a further axis of components.
    :raises ImageError: if they are not whole numbers.
    """
    if labels.dtype.kind != "f":
        return labels
    result = np.empty(labels.shape, np.int32)
    for plane, stored in zip(result, labels, strict=True):
        odd = ~((np.abs(stored) < 2**31) & (stored == np.rint(stored)))  # NaN is neither
        if odd.any():
            raise ImageError(f"Labels must be whole numbers; these have {stored[odd][0]:g}.")
        plane[:] = stored
    return result


def as_uint16(labels: np.ndarray) -> np.ndarray:
    """Return ``labels`` as a contiguous uint16 array, without a copy if possible.

    :raises ImageError: if the values are not integers from 0 to 65535.
    """
    if labels.dtype.kind not in "biu":
        raise ImageError(f"Labels must be integers; these are {labels.dtype}.")
    if labels.size and labels.dtype.kind != "b" and labels.dtype not in (np.uint8, np.uint16):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > MAX_VALUE:
            raise ImageError(f"Labels must lie between 0 and {MAX_VALUE}; these range from {low} to {high}.")
    return np.ascontiguousarray(labels, np.uint16)
