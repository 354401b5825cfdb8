"""Bring a head to 256 x 256 x 256 voxels of 1 mm, as FreeSurfer conforms it, and describe the way back.

The steps and constants are those of Brainchop, which lets NiiVue conform the image: resample linearly around the centre
of the image, scale the intensities so that the histogram ends at 255, cut off decimals, normalise, and crop to the box
of what is above a threshold. The network then sees this box all at once.

What differs: an oblique image is not rotated. The axes of the model are those of the image that are nearest to the
wanted anatomical directions, so that each is resampled on its own. Where the image is longer than the 256 mm, the rest
is background. Brainchop keeps only the largest connected piece of the result; here that is left to the user
(``remove_islands``). Some of its models can be cropped by the mask of another model, which is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError
from ..images.geometry import Turn
from ..models.preprocessing import Conform
from .axis_resize import AxisResize, resize_slabs
from .image_slabs import ROWS, slices_in_slab
from .interpolation import AxisSampling
from .prepared import Prepared, enclosing_box, whole_box
from .progress import Monitor, Steps

if TYPE_CHECKING:
    import torch

    from ..images.reading import InputImage
    from ..models.model import Model
    from .image_rows import ImageRows

LEVELS = 256
_BINS = 1000  # of the histogram of the image
_ABOVE = 1 - 0.999  # of all voxels that are not zero, this fraction may be brighter than the brightest level
_ZERO = 1e-15
_QUANTILES = (0.05, 0.95)


def conformed_length(length: int, spacing: float, target: float, most: int) -> int:
    """Return the number of voxels of the conformed grid, along an axis, that lie inside the image, or one more.

    :param length: voxels of the image along it.
    :param spacing: mm; ``target`` is that of the model.
    :param most: voxels of the conformed grid.

    >>> conformed_length(180, 1.0, 1.0, 256), conformed_length(512, 1.0, 1.0, 256)
    (180, 256)
    """
    return max(1, min(most, math.floor((length - 1) * spacing / target) + 1))


@dataclass(frozen=True)
class _Axis:
    """One axis of the image and of the conformed grid.

    :ivar length: voxels of the image; ``size`` are those of the grid.
    :ivar ratio: size of a voxel of the grid in voxels of the image.
    :ivar centre: voxel of the image that the middle of the grid, ``size / 2``, is put on.
    """

    length: int
    size: int
    ratio: float
    centre: float

    @classmethod
    def of(cls, length: int, size: int, spacing: float, target: float, backwards: bool) -> _Axis:
        """Return an axis; the centre is counted along the axis as it is stored, ``backwards`` to that of the model."""
        return cls(length, size, target / spacing, length / 2 - backwards)

    @property
    def inside(self) -> slice:
        """The voxels of the grid between the first and the last voxel of the image."""
        places = self.places()
        found = np.flatnonzero((places >= 0) & (places <= self.length - 1))
        return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)

    def places(self) -> np.ndarray:
        """Return where the voxels of the grid are in the image, in its voxels."""
        return self.centre + (np.arange(self.size) - self.size / 2) * self.ratio

    def resize(self) -> AxisResize | None:
        """Return how the image becomes the part of the grid inside; ``None`` if that is the image itself."""
        places = self.places()[self.inside]
        if np.array_equal(places, np.arange(self.length)):
            return None
        return AxisResize.sampled(self.length, AxisSampling.at(places, self.length), ROWS)

    def way_back(self, crop: slice) -> tuple[AxisSampling, slice]:
        """Return the sampling from a crop of the grid to the voxels of the image inside it, and these voxels."""
        places = self.size / 2 + (np.arange(self.length) - self.centre) / self.ratio
        found = np.flatnonzero((places >= crop.start - 0.5) & (places < crop.stop - 0.5))
        box = slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)
        return AxisSampling.at(places[box] - crop.start, crop.stop - crop.start), box


def prepare(
    image: InputImage, model: Model, device: Callable[[], str] = lambda: "cpu", monitor: Monitor | None = None
) -> Prepared:
    """Conform, normalise and crop; parameters and errors are those of :func:`.preprocess.prepare`.

    The conformed head is made here, 16 MiB. It becomes float32 when its rows are read.
    """
    assert image.voxels is not None and isinstance(model.preprocessing, Conform)
    forward, target = model.plans_manager.transpose_forward, model.configuration.spacing
    voxels = image.voxels[0].transpose(forward)
    spacing, backwards = [image.spacing[axis] for axis in forward], [image.reversed[axis] for axis in forward]
    sides = zip(voxels.shape, model.configuration.patch_size, spacing, target, backwards, strict=True)
    axes = [_Axis.of(*side) for side in sides]
    if not all(axis.inside.stop for axis in axes):
        size = " x ".join(str(n) for n in voxels.shape)
        raise ImageError(
            f"{image.name} has {size} voxels: between the centres of so few voxels lies none of the model's grid. Give "
            "the whole head, not a slice."
        )
    if monitor is not None and any(axis.length > axis.size * axis.ratio + 1 for axis in axes):
        size = " x ".join(f"{n * mm:.0f}" for n, mm in zip(voxels.shape, spacing, strict=True))
        monitor.tell(
            f"The image has {size} mm; what lies more than {axes[0].size // 2} mm from its centre is background."
        )
    stored = Turn.as_stored(voxels).apply(voxels).shape
    steps = Steps(monitor, "preprocess", 2 * -(-stored[0] // slices_in_slab(stored[1:])) + axes[0].size // ROWS)
    head = conformed(voxels, axes, device(), steps)
    counts = np.sum([np.bincount(plane.ravel(), minlength=LEVELS) for plane in head], 0)
    values = normalized_levels(counts, model.preprocessing.normalization)
    if values is None or voxels.min() == voxels.max():  # a constant image differs only from what is around it
        raise ImageError(
            f"{image.name}, with intensities from {voxels.min():g} to {voxels.max():g}, has no contrast after it was "
            f"scaled to {LEVELS} levels. Give an image of the kind that the model was trained on."
        )
    crop = _head_box(head, values, counts, model.preprocessing)
    image_rows = _rows(np.ascontiguousarray(head[crop]), values, steps)
    samplings, box = zip(*(axis.way_back(part) for axis, part in zip(axes, crop, strict=True)), strict=True)
    backward = tuple(model.plans_manager.transpose_backward)
    needed = whole_box(image_rows.shape[1:])
    return Prepared(image_rows, samplings, voxels.shape, box, backward, needed, at_once=True)


def intensity_scale(voxels: np.ndarray, step: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """Return what is subtracted from the intensities, and by what they are then multiplied, to fit into 0 to 255.

    An image of bytes is not scaled. Of any other, the least value becomes 0, and the value that 0.1 % of the voxels
    other than zero exceed becomes 255, as far as a histogram of 1000 bins can tell.

    :param step: called after each slab of the image; an exception that it raises ends the work.
    """
    stored = Turn.as_stored(voxels).apply(voxels)
    low, high = float(stored.min()), float(stored.max())
    if voxels.dtype == np.uint8 or low == high:
        return low, 1.0
    width, histogram, nonzero = (high - low) / _BINS, np.zeros(_BINS, np.int64), 0
    thick = slices_in_slab(stored.shape[1:])
    for first in range(0, len(stored), thick):
        part = stored[first : first + thick].astype(np.float64).ravel()
        bins = np.minimum(np.floor((part - low) / width).astype(np.int64), _BINS - 1)
        histogram += np.bincount(bins, minlength=_BINS)
        nonzero += int((np.abs(part) >= _ZERO).sum())
        step()
    below = stored.size - math.floor(_ABOVE * nonzero)
    reached = np.flatnonzero(np.cumsum(histogram)[1:] >= below)
    top = (int(reached[0]) if reached.size else _BINS - 1) * width + low
    return low, (LEVELS - 1) / (top - low) if top != low else 1.0


def conformed(voxels: np.ndarray, axes: Sequence[_Axis], device: str, steps: Steps) -> np.ndarray:
    """Return the head on the conformed grid, uint8.

    :param voxels: ``(X, Y, Z)`` as stored, with any strides.
    :param axes: of the voxels.
    :param device: torch device of the arithmetic, which is float64.
    """
    import torch

    low, scale = intensity_scale(voxels, steps.step)

    def levels(values: np.ndarray) -> np.ndarray:
        return np.clip(scale * (values.astype(np.float64) - low), 0, LEVELS - 1).astype(np.uint8)  # cuts decimals off

    outside = levels(np.zeros(1, np.float32))[0]  # the intensity outside is 0, also if the image has lesser ones
    head = np.full([axis.size for axis in axes], outside, np.uint8)
    order = Turn.as_stored(voxels).order
    stored, inside = voxels.transpose(order), [axes[axis].inside for axis in order]
    result = head.transpose(order)[tuple(inside)]
    if not result.size:
        return head

    def read(first: int, last: int) -> torch.Tensor:
        steps.step()
        return torch.from_numpy(np.array(stored[first:last], np.float32, order="C")).to(device, torch.float64)

    x, y, z = (axes[axis].resize() for axis in order)
    row = 0
    for rows in resize_slabs(read, (x, y, z), stored.shape[0], slices_in_slab(stored.shape[1:])):
        result[row : row + len(rows)] = levels(rows.to("cpu", torch.float32).numpy())
        row += len(rows)
    return head


def normalized_levels(counts: np.ndarray, normalization: str) -> np.ndarray | None:
    """Return what the levels 0 to 255 become, float32; ``None`` if the image has no contrast.

    :param counts: voxels of each level.
    :param normalization: ``range`` or ``quantiles``, which are not clipped.

    >>> normalized_levels(np.bincount([0, 4], minlength=256), "range")[[0, 1, 4]].tolist()
    [0.0, 0.25, 1.0]
    """
    total, cumulative = int(counts.sum()), np.cumsum(counts)
    first, last = 0, total - 1
    if normalization == "quantiles":
        first, last = math.floor(total * _QUANTILES[0]), math.ceil(total * _QUANTILES[1]) - 1
    low, high = (int(np.searchsorted(cumulative, index, side="right")) for index in (first, last))
    if low == high:
        return None
    return (np.arange(LEVELS, dtype=np.float32) - np.float32(low)) / np.float32(high - low)


def _head_box(head: np.ndarray, values: np.ndarray, counts: np.ndarray, how: Conform) -> tuple[slice, slice, slice]:
    """Return the box, with its margin, of what is above the threshold: something is, because there is contrast."""
    greatest = values[np.flatnonzero(counts)[-1]]
    seen = values > np.float32(greatest * np.float32(how.threshold))
    box = enclosing_box((seen[plane] for plane in head), head.shape, how.margin)
    assert box is not None
    return box


def _rows(head: np.ndarray, values: np.ndarray, steps: Steps) -> ImageRows:
    """Return the rows of the normalised head."""
    import torch

    from .image_rows import ImageRows

    def slabs(start: int) -> Iterator[torch.Tensor]:
        for first in range(start, len(head), ROWS):
            yield torch.from_numpy(values[head[first : first + ROWS]])[None]

    return ImageRows((1, *head.shape), slabs, steps.follow)
