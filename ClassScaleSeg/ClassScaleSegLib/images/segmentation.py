"""The result of a segmentation: a label map, what its values mean, and where it lies in space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, LabelTableError
from ..labels.label import MAX_VALUE
from ..labels.table import LabelTable
from .counts import LabelVolume, voxel_counts
from .formats import write_confidence, write_segmentation, write_statistics
from .geometry import Geometry
from .seg_nrrd import read_segments

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map with its meaning.

    :ivar labels: uint16 ``(z, y, x)``; other integer types are converted.
    :ivar table: a row for every value but 0 that occurs.
    :ivar geometry: the grid of the input image.
    :ivar confidence: float32 ``(z, y, x)`` 0..1, or None.
    :raises ImageError: if shapes disagree or a value does not fit into 16 bits.
    :raises LabelTableError: if a value occurs that is not in the table.
    """

    labels: np.ndarray
    table: LabelTable
    geometry: Geometry
    confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.geometry.size)[::-1]
        for what, array in (("label map", self.labels), ("confidence map", self.confidence)):
            if array is not None and array.shape != shape:
                raise ImageError(f"The {what} has the shape {array.shape}, the geometry has {shape} (z, y, x).")
        object.__setattr__(self, "labels", _as_uint16(self.labels))
        present = np.flatnonzero(voxel_counts(self.labels)).tolist()
        unknown = [value for value in present if value and value not in self.table]
        if unknown:
            listed = ", ".join(map(str, unknown[:10])) + (" and others" if len(unknown) > 10 else "")
            raise LabelTableError(f"The label map contains {listed}, which the label table does not name.")

    def write(self, path: str | Path, overwrite: bool = False, keep_empty: bool = False) -> None:
        """Write ``.seg.nrrd``, or ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd`` with a ``.labels.csv`` beside it.

        :param keep_empty: also list classes without a single voxel as segments of the ``.seg.nrrd``.
        :raises OutputError: a sentence; nothing partial is left and an existing file untouched.
        """
        write_segmentation(Path(path), self.labels, self.table, self.geometry, overwrite, keep_empty)

    def write_confidence(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the confidence as a float32 volume (``.nii.gz``, ``.nii``, ``.mha``, ``.nrrd``).

        :raises OutputError: also if there is no confidence.
        """
        write_confidence(Path(path), self.confidence, self.geometry, overwrite)

    def write_statistics(self, path: str | Path, overwrite: bool = False) -> None:
        """Write voxels, millilitres and codes of every class as CSV.

        :raises OutputError: if it cannot be written.
        """
        write_statistics(Path(path), self.statistics(), self.table, overwrite)

    def statistics(self) -> list[LabelVolume]:
        """Voxels and volume of every class of the table but the background, absent classes with 0, in table order."""
        counts, millilitres = voxel_counts(self.labels), self.geometry.voxel_volume / 1000
        return [
            LabelVolume(label.value, label.name, int(counts[label.value]), float(counts[label.value]) * millilitres)
            for label in self.table.foreground
        ]

    def to_image(self) -> sitk.Image:
        """The label map as a SimpleITK image of 16-bit integers."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(self.labels)
        self.geometry.apply(image)
        return image

    @classmethod
    def from_image(cls, label_image: sitk.Image | str | Path, table: LabelTable | None = None) -> Segmentation:
        """Segmentation from a label image, in memory or in a file; any integer type.

        Without a table the names are those in the file if it is a ``.seg.nrrd``, else ``label 1``, ``label 2``.

        :raises ImageError: if it cannot be read, is not a 3D image of integers, or has values outside 0..65535.
        :raises LabelTableError: if a value is not in the table.
        """
        import SimpleITK as sitk

        what = "The label image"
        if not isinstance(label_image, sitk.Image):
            what = str(label_image)
            try:
                label_image = sitk.ReadImage(what)
            except RuntimeError as error:
                raise ImageError(f"{what} cannot be read as an image ({str(error).splitlines()[-1]}).") from error
        if label_image.GetNumberOfComponentsPerPixel() != 1:
            components = label_image.GetNumberOfComponentsPerPixel()
            raise ImageError(
                f"{what} has {components} values a voxel (overlapping segments in layers?); one label is needed."
            )
        try:
            geometry = Geometry.from_image(label_image)
            labels = _as_uint16(sitk.GetArrayFromImage(label_image))
        except ImageError as error:
            raise ImageError(f"{what}: {error}") from error
        if table is None:
            values = np.flatnonzero(voxel_counts(labels)).tolist()
            table = read_segments(label_image) or LabelTable.from_names(
                {0: "background", **{value: f"label {value}" for value in values if value}}
            )
        return cls(labels, table, geometry)


def _as_uint16(labels: np.ndarray) -> np.ndarray:
    """``labels`` as a contiguous uint16 array, itself if it is one.

    :raises ImageError: if they are not integers from 0 to 65535.
    """
    if labels.dtype.kind not in "biu":
        raise ImageError(f"Labels must be integers; these are {labels.dtype}.")
    if labels.size and labels.dtype.kind != "b" and labels.dtype not in (np.uint8, np.uint16):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > MAX_VALUE:
            raise ImageError(f"Labels must lie between 0 and {MAX_VALUE}; these reach from {low} to {high}.")
    return np.ascontiguousarray(labels, np.uint16)
