"""Bring an image to the model grid as MONAI's Auto3DSeg does for its SegResNet, and describe the way back.

The steps, their order and their constants are those of SlicerMONAIAuto3DSeg, which uses MONAI's transforms: normalise
the whole image, crop to what is above zero with a margin, and resample linearly so that the first voxels coincide. An
axis whose voxels have nearly the wanted size is not resampled. For overlapping regions the order is another one: crop,
resample, normalise. Where that program crops a turned image by the box of the image as stored, here the box is turned
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError
from ..models.preprocessing import TOLERANCE, Auto3DSeg
from .axis_resize import AxisResize
from .image_slabs import ROWS, SlabAxes, rows_in_slabs
from .interpolation import AxisSampling
from .normalization import unsuitable
from .prepared import Prepared, enclosing_box, whole_box
from .progress import Monitor, Steps

if TYPE_CHECKING:
    import torch

    from ..images.reading import InputImage
    from ..models.model import Model
    from .image_rows import ImageRows

MARGIN = 10  # voxels around the foreground
_PART = 1 << 24  # voxels whose statistics are computed at a time
_PASSES = {"range": 0, "meanstd": 3, "meanstdtanh": 3, "pet": 3, "none": 0}  # over a channel, of its statistics


def model_length(length: int, spacing: float, target: float) -> int:
    """Return the number of voxels along an axis on the model grid.

    :param length: voxels of the image along it.
    :param spacing: mm; ``target`` is that of the model.

    >>> model_length(100, 1.0, 1.5), model_length(100, 1.3, 1.5)
    (67, 100)
    """
    return length if _kept(spacing, target) else round((length - 1) * spacing / target) + 1


def _kept(spacing: float, target: float) -> bool:
    return (1 - TOLERANCE) * target - 1e-3 <= spacing <= (1 + TOLERANCE) * target + 1e-3  # as MONAI compares


def prepare(
    image: InputImage, model: Model, device: Callable[[], str] = lambda: "cpu", monitor: Monitor | None = None
) -> Prepared:
    """Normalise, crop and resample; parameters and errors are those of :func:`.preprocess.prepare`."""
    assert image.voxels is not None and isinstance(model.preprocessing, Auto3DSeg)
    how, backward = model.preprocessing, tuple(model.plans_manager.transpose_backward)
    forward = model.plans_manager.transpose_forward
    voxels = image.voxels.transpose([0, *(axis + 1 for axis in forward)])
    spacing, target = [image.spacing[axis] for axis in forward], model.configuration.spacing
    parts = -(-math.prod(voxels.shape[1:]) // _PART) * sum(_PASSES[scheme] for scheme in how.normalization)
    steps = Steps(monitor, "preprocess", parts + 2 * voxels.shape[1])
    if how.normalize_last:
        channels = [_Channel(channel) for channel in voxels]
    else:
        channels = [_normalized(c, scheme, how, steps) for c, scheme in zip(voxels, how.normalization, strict=True)]
    box = whole_box(voxels.shape[1:])
    if how.crop_foreground:
        seen = channels if how.normalize_last else channels[:1] if len(channels) > 1 else [_Channel(voxels[0])]
        box = _foreground(seen, image, steps)
    channels = [channel.cropped(box) for channel in channels]
    crop = [part.stop - part.start for part in box]
    grid = [model_length(n, s, t) for n, s, t in zip(crop, spacing, target, strict=True)]
    ratios = [1.0 if _kept(s, t) else s / t for s, t in zip(spacing, target, strict=True)]  # in voxels of the grid
    x, y, z = (_resize(n, m, ratio, ROWS) for n, m, ratio in zip(crop, grid, ratios, strict=True))
    axes = SlabAxes((0, 1, 2), (x, y, z), False)

    def check(rows: torch.Tensor) -> None:
        if rows.numel() and not bool(rows.isfinite().all()):
            raise ImageError(unsuitable(image, how.normalization, "the result is not finite"))

    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        rows = rows_in_slabs(channels, axes, grid, device, steps, check)
        if how.normalize_last:
            rows = _normalized_rows(rows.whole(), how, check, steps)
    a, b, c = (AxisSampling.at(np.arange(n) * ratio, m) for n, m, ratio in zip(crop, grid, ratios, strict=True))
    return Prepared(rows, (a, b, c), voxels.shape[1:], box, backward, whole_box(rows.shape[1:]))


def _resize(length: int, new_length: int, step: float, rows: int) -> AxisResize | None:
    """Return how an axis becomes that of the model grid, or ``None`` if it stays.

    :param step: voxels of the grid in one of the image.
    """
    if step == 1:
        return None
    return AxisResize.sampled(length, AxisSampling.at(np.arange(new_length) / step, length), rows)


@dataclass(frozen=True)
class _Channel:
    """One channel: ``function((voxel - shift) / scale)``; with ``nonzero``, zeros stay zero."""

    voxels: np.ndarray
    shift: float = 0.0
    scale: float = 1.0
    nonzero: bool = False
    function: Callable[[torch.Tensor], torch.Tensor] | None = None

    def cropped(self, box: tuple[slice, slice, slice]) -> _Channel:
        return _Channel(self.voxels[box], self.shift, self.scale, self.nonzero, self.function)

    def bounds(self) -> None:
        return None  # linear interpolation does not overshoot

    def slices(self, first: int, last: int) -> torch.Tensor:
        import torch

        raw = torch.from_numpy(np.array(self.voxels[first:last], np.float32, order="C"))
        values = (raw - self.shift) / self.scale if (self.shift, self.scale) != (0.0, 1.0) else raw
        if self.nonzero:
            values = torch.where(raw == 0, raw, values)
        return values if self.function is None else self.function(values)


def _normalized(voxels: np.ndarray, scheme: str, how: Auto3DSeg, steps: Steps) -> _Channel:
    """Return a channel, or rows of the model grid, with its normalisation.

    :param voxels: ``(X, Y, Z)``; statistics are those of all of it.
    :param scheme: one of :data:`~ClassScaleSegLib.models.preprocessing.NORMALIZATIONS`.
    """
    import torch

    if scheme == "none":
        return _Channel(voxels)
    if scheme == "range":  # to -1 and 1 at the bounds
        low, high = how.bounds
        return _Channel(voxels, (low + high) / 2, (high - low) / 2, function=torch.sigmoid)
    if scheme == "pet":
        _mean, deviation, least = _statistics(voxels, False, 1, steps)
        return _Channel(voxels, least, deviation or 1.0, function=torch.sigmoid)
    mean, deviation, _least = _statistics(voxels, True, 0, steps)
    squash = (lambda values: 3 * torch.tanh(values / 3)) if scheme == "meanstdtanh" else None
    return _Channel(voxels, mean, deviation or 1.0, True, squash)


def _statistics(voxels: np.ndarray, nonzero: bool, less: int, steps: Steps) -> tuple[float, float, float]:
    """Return mean, standard deviation and the least of the values, or of those that are not zero.

    :param less: what is subtracted from their number in the mean of the squares.
    """
    flat = voxels.transpose(np.argsort(voxels.strides)[::-1]).reshape(-1)  # as stored; a copy only of odd views
    parts = [flat[first : first + _PART] for first in range(0, flat.size, _PART)]

    def each(values: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        for part in values:
            yield part
            steps.step()

    chosen = [part[part != 0] if nonzero else part for part in each(parts)]
    count = sum(part.size for part in chosen)
    if count == 0:
        return 0.0, 1.0, 0.0
    mean = sum(float(part.sum(dtype=np.float64)) for part in each(chosen)) / count
    squares = sum(float(np.square(part.astype(np.float64) - mean).sum()) for part in each(chosen))
    least = min(float(part.min()) for part in chosen if part.size)
    return mean, (squares / max(count - less, 1)) ** 0.5, least


def _foreground(channels: Sequence[_Channel], image: InputImage, steps: Steps) -> tuple[slice, slice, slice]:
    """Return the box of all voxels that are above zero in any channel, with the margin, inside the image."""
    shape = channels[0].voxels.shape

    def planes() -> Iterator[np.ndarray]:
        for index in range(shape[0]):
            steps.step()
            yield np.any([(channel.slices(index, index + 1)[0] > 0).numpy() for channel in channels], 0)

    box = enclosing_box(planes(), shape, MARGIN)
    if box is None:
        raise ImageError(
            f"{image.name} has no voxel above zero, so there is nothing to segment. Is it an image of the kind that "
            "the model was trained on?"
        )
    return box


def _normalized_rows(
    rows: torch.Tensor, how: Auto3DSeg, check: Callable[[torch.Tensor], object], steps: Steps
) -> ImageRows:
    """Normalise an image ``(channels, X, Y, Z)`` on the model grid, in place."""
    from .image_rows import ImageRows

    for channel, scheme in zip(rows, how.normalization, strict=True):
        normalized = _normalized(channel.numpy(), scheme, how, steps)
        for index in range(len(channel)):
            steps.monitor.check()
            channel[index] = normalized.slices(index, index + 1)[0]
    check(rows)
    return ImageRows.of(rows)
