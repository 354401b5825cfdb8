"""A preprocessed image, and the way back: how its segmentation maps to the image as it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .interpolation import AxisSampling

if TYPE_CHECKING:
    from .image_rows import ImageRows


@dataclass(frozen=True)
class Prepared:
    """A preprocessed image, and how its segmentation maps back to the input.

    :ivar image: the rows of the image on the model grid, made when they are read.
    :ivar axes: sampling of the three axes from the model grid to the cropped input grid.
    :ivar shape: shape ``(X', Y', Z')`` of the uncropped input in the model's axis order.
    :ivar box: the crop in ``shape``, to which the result is limited.
    :ivar backward: for each axis (z, y, x) of the input, the axis of the model.
    :ivar needed: the part of ``image`` that ``axes`` sample; what is around it is there for the windows.
    :ivar at_once: one window, of the size of the image, covers it, whatever the size of the patch.
    """

    image: ImageRows
    axes: tuple[AxisSampling, AxisSampling, AxisSampling]
    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    backward: tuple[int, int, int]
    needed: tuple[slice, slice, slice]
    at_once: bool = False

    def window(self, patch: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of a window, which is that of a patch unless the network sees the image at once."""
        return self.image.shape[1:] if self.at_once else patch

    def within(self, box: Sequence[slice], patch: Sequence[int]) -> Prepared:
        """Limit the result to a box, which is empty if it has nothing in common with the crop.

        Of the image, the part is left that the box needs, and as much around it as makes a patch. Normalisation and
        resampling stay those of the whole image. No row may have been read.

        :param box: in ``shape``, in the model's axis order.
        :param patch: voxels of a patch, along two or three axes.
        """
        full, whole = (1,) * (3 - len(patch)) + tuple(patch), self.image.shape[1:]
        sides = [_limited(*of_axis) for of_axis in zip(box, self.box, self.axes, full, whole, strict=True)]
        if any(side is None for side in sides):
            return replace(self, box=(slice(0, 0), slice(0, 0), slice(0, 0)))
        x, y, z = (side for side in sides if side is not None)
        return replace(
            self,
            image=self.image.within((x.image, y.image, z.image)),
            axes=(x.axis, y.axis, z.axis),
            box=(x.box, y.box, z.box),
            needed=(x.needed, y.needed, z.needed),
        )

    def with_nearest(self) -> Prepared:
        """Copy each label from the nearest voxel of the model grid, instead of interpolating between voxels."""
        x, y, z = (axis.rounded() for axis in self.axes)
        return replace(self, axes=(x, y, z))

    def on_model_grid(self) -> Prepared:
        """Leave the result on the model grid."""
        box = whole_box(self.image.shape[1:])
        x, y, z = (AxisSampling.nearest(part.stop, part.stop) for part in box)
        return replace(self, axes=(x, y, z), shape=(box[0].stop, box[1].stop, box[2].stop), box=box)

    def empty(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return an array of zeros for the result, and a view of its crop to fill row by row.

        :returns: ``(z, y, x)`` for the whole input, and the view in the model's axis order.
        """
        full = np.zeros([self.shape[i] for i in self.backward], dtype)
        return full, full.transpose(np.argsort(self.backward))[self.box]


def whole_box(shape: Sequence[int]) -> tuple[slice, slice, slice]:
    """Return the box of a whole image of this shape."""
    x, y, z = (slice(0, length) for length in shape)
    return x, y, z


class _Side(NamedTuple):
    """What is left of one axis: of the image on the model grid, its sampling, the result, and what is sampled."""

    image: slice
    axis: AxisSampling
    box: slice
    needed: slice


def _limited(part: slice, crop: slice, axis: AxisSampling, patch: int, length: int) -> _Side | None:
    """Limit an axis of this length on the model grid to a part; ``None`` if it has nothing in common with the crop."""
    box = slice(max(part.start, crop.start), min(part.stop, crop.stop))
    if box.start >= box.stop:
        return None
    output = slice(box.start - crop.start, box.stop - crop.start)
    first, last = int(axis.lower[output.start]), int(axis.upper[output.stop - 1]) + 1
    size = max(last - first, min(patch, length))  # grown evenly to a patch, if there is one
    start = min(max(first - (size - (last - first)) // 2, 0), length - size)
    image, needed = slice(start, start + size), slice(first - start, last - start)
    return _Side(image, axis.part(output, first), box, needed)


def enclosing_box(
    planes: Iterable[np.ndarray], shape: Sequence[int], margin: int = 0
) -> tuple[slice, slice, slice] | None:
    """Return the box that encloses all true voxels, or ``None`` if there are none.

    :param planes: ``(Y, Z)`` bool, one after another along the first axis.
    :param shape: ``(X, Y, Z)``.
    :param margin: voxels around them, as far as there are any.

    >>> enclosing_box(np.eye(4, dtype=bool)[:, None] * np.array([[False, True, False]]).T, (4, 3, 4), margin=1)
    (slice(0, 4, None), slice(0, 3, None), slice(0, 4, None))
    """
    occupied = [np.zeros(length, bool) for length in shape]
    for index, plane in enumerate(planes):
        occupied[0][index] = plane.any()
        occupied[1] |= plane.any(1)
        occupied[2] |= plane.any(0)
    if not occupied[0].any():
        return None
    x, y, z = (
        slice(max(int(line.argmax()) - margin, 0), min(len(line) - int(line[::-1].argmax()) + margin, len(line)))
        for line in occupied
    )
    return x, y, z
