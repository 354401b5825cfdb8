"""Read label images: the layers of a file or a SimpleITK image, and the labels that its header names."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ImageError, named, reason
from ..labels.table import LabelTable
from .geometry import Geometry
from .image_file import ReadVolume, are_colours, read_file
from .layers import as_uint16, layer_counts
from .nifti import is_nifti
from .nifti_labels import NamedValues, read_named_values
from .reading import refuse_missing
from .seg_nrrd import layered, read_segments

if TYPE_CHECKING:
    import SimpleITK as sitk


class ReadLayers(NamedTuple):
    """A label image.

    :ivar layers: uint16 ``(z, y, x)``.
    :ivar table: in the header of a ``.seg.nrrd`` or NIfTI file; for other images one that names the labels that occur.
    :ivar geometry: the grid.
    :ivar counts: the voxels of each value in all layers, ``(65536,)``.
    :ivar notices: sentences that the user should see, which name the file: how it was understood.
    :ivar of_names: the same on the names in its header.
    """

    layers: tuple[np.ndarray, ...]
    table: LabelTable
    geometry: Geometry
    counts: np.ndarray
    notices: tuple[str, ...]
    of_names: tuple[str, ...]


def read_layers(label_image: sitk.Image | str | Path) -> ReadLayers:
    """Read a label image or file as `Segmentation.from_image` does.

    :raises ImageError: as `Segmentation.from_image`.
    :raises LabelTableError: if the segments in the header have no valid values, names or colours.
    """
    import SimpleITK as sitk

    if isinstance(label_image, sitk.Image):
        with named("The label image"):
            return _layers_of(ReadVolume.of_image(label_image), NamedValues({}, {}, ()))
    path = Path(label_image)
    try:
        volume, names = _read(path), read_named_values(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or reason(error)}).") from error
    with named(path):
        return _layers_of(volume, names)


def _read(path: Path) -> ReadVolume:
    """Read a file; NIfTI as ITK does, or as nibabel does if ITK refuses it, because its axes are not perpendicular."""
    refuse_missing(path)
    try:
        return read_file(path, labels=True)
    except ImageError:
        if not is_nifti(path):
            raise
        return read_file(path, nibabel=True, labels=True)


def _layers_of(volume: ReadVolume, own: NamedValues) -> ReadLayers:
    """Return what `read_layers` returns. The sentences of its exceptions do not name the image."""
    segments = [] if volume.owner is None else read_segments(volume.owner)
    components = math.prod(volume.voxels.shape[:-3])
    if components != 1 and not segments:
        if are_colours(volume.voxels):
            raise ImageError(
                f"It has {components} values in each voxel, as a colour image has, and does not say which segments "
                "these are. Export the label map, not a picture of it."
            )
        raise ImageError(
            f"It has {components} values in each voxel and does not say which segments these are; one label is needed."
        )
    if volume.owner is not None and volume.dimensions != 3:
        raise ImageError(f"The image has {volume.dimensions} dimensions; three are needed.")
    array = _whole(volume.voxels)
    array = array.reshape(components, *array.shape[-3:])
    # a view of the memory of ITK ends with its image
    layers = tuple(np.copy(layer) if volume.owner is not None else layer for layer in map(as_uint16, array))
    if components > 1:
        layers, segments = layered(layers, segments)
    counts = layer_counts(layers).sum(0)
    said = volume.notices, own.notices
    if segments:
        return ReadLayers(layers, LabelTable(tuple(one.label for one in segments)), volume.geometry, counts, *said)
    names = {value: f"label {value}" for value in np.flatnonzero(counts).tolist()}
    table = LabelTable.from_names({**names, **own.names, 0: "background"})
    colored = tuple(replace(label, color=own.colors.get(label.value, label.color)) for label in table)
    return ReadLayers(layers, LabelTable(colored), volume.geometry, counts, *said)


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
