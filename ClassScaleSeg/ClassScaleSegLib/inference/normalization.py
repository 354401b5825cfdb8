"""Normalise the intensities of an image slice by slice, as nnU-Net does for the whole image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..images.geometry import Turn

if TYPE_CHECKING:
    import torch

    from ..images.reading import InputImage

_CT, _Z_SCORE, _NONE = "CTNormalization", "ZScoreNormalization", "NoNormalization"
_RESCALE, _RGB = "RescaleTo01Normalization", "RGBTo01Normalization"
SCHEMES = frozenset({_CT, _Z_SCORE, _NONE, _RESCALE, _RGB})  # nnU-Net's own
_LEAST = 1e-8  # what is divided by is at least this


def passes(scheme: str) -> int:
    """Return how often the voxels of a channel are read to find its normalisation."""
    return 3 if scheme == _Z_SCORE else 1


def nonzero_mask(voxels: np.ndarray) -> np.ndarray:
    """Return nnU-Net's mask of an image ``(channels, X, Y, Z)``: where any channel is not zero, with holes filled."""
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

    turn = Turn.as_stored(voxels)
    return turn.undo(create_nonzero_mask(turn.apply(voxels)))


@dataclass(frozen=True)
class Normalized:
    """One channel of an image, and its normalisation: ``(min(max(voxel, clip[0]), clip[1]) - shift) / scale``.

    :ivar voxels: ``(X, Y, Z)`` as stored.
    :ivar clip: least and greatest value; ``None``: not clipped.
    :ivar shift: subtracted; ``scale`` is what is divided by.
    :ivar mask: ``(X, Y, Z)`` bool; voxels outside are left as they are. ``None``: all voxels are normalised.
    :ivar least: smallest value inside the mask; ``greatest`` is the largest.
    """

    voxels: np.ndarray
    clip: tuple[float, float] | None
    shift: float
    scale: float
    mask: np.ndarray | None
    least: float
    greatest: float

    @classmethod
    def of(
        cls,
        voxels: np.ndarray,
        scheme: str,
        properties: dict,
        mask: np.ndarray | None,
        slab: int,
        step: Callable[[], object] = lambda: None,
    ) -> Normalized:
        """Find the normalisation of a channel.

        :param scheme: name of nnU-Net's class, one of `SCHEMES`.
        :param properties: intensities of the training data: "mean", "std", "percentile_00_5", "percentile_99_5".
        :param mask: used by the Z score alone.
        :param slab: slices to look at together.
        :param step: called after each slab of each :func:`passes`; an exception that it raises ends the work.
        :raises ValueError: if the voxels are no RGB values, as the plans want them.
        """
        inside = mask if scheme == _Z_SCORE else None
        parts = _Parts.of(voxels, inside, slab, step)
        least, greatest = parts.range()
        clip, shift, scale = None, 0.0, 1.0
        if scheme == _CT:
            clip = (float(properties["percentile_00_5"]), float(properties["percentile_99_5"]))
            shift, scale = float(properties["mean"]), max(float(properties["std"]), _LEAST)
        elif scheme == _Z_SCORE:
            shift = parts.mean(0.0, 1)
            scale = max(parts.mean(shift, 2) ** 0.5, _LEAST)
        elif scheme == _RESCALE:
            shift, scale = least, max(float(np.float32(greatest) - np.float32(least)), _LEAST)
        elif scheme == _RGB:
            if least < 0 or greatest > 255:
                raise ValueError(f"RGB values are 0 to 255, not {least:g} to {greatest:g}")
            scale = 255.0
        return cls(voxels, clip, shift, scale, inside, least, greatest)

    def slices(self, first: int, last: int) -> torch.Tensor:
        """Return the normalised slices from ``first`` to before ``last``, ``(n, Y, Z)`` float32."""
        import torch

        raw = torch.from_numpy(np.array(self.voxels[first:last], np.float32, order="C"))
        if self.mask is None:
            return self._apply(raw)
        inside = torch.from_numpy(np.ascontiguousarray(self.mask[first:last]))
        return torch.where(inside, self._apply(raw.clone()), raw)

    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest normalised value."""
        import torch

        low, high = self._apply(torch.tensor([self.least, self.greatest], dtype=torch.float32)).tolist()
        if self.mask is not None and not self.mask.all():  # the others are 0
            low, high = min(low, 0.0), max(high, 0.0)
        return low, high

    def _apply(self, values: torch.Tensor) -> torch.Tensor:
        if self.clip is not None:
            values.clamp_(*self.clip)
        if self.shift:
            values.sub_(self.shift)
        return values.div_(self.scale) if self.scale != 1 else values


@dataclass(frozen=True)
class _Parts:
    """The voxels of a channel inside a mask, slab by slab, in their order in memory: as fast as they can be read."""

    voxels: np.ndarray
    mask: np.ndarray | None
    slab: int
    step: Callable[[], object]

    @classmethod
    def of(cls, voxels: np.ndarray, mask: np.ndarray | None, slab: int, step: Callable[[], object]) -> _Parts:
        """Return slabs of about as many voxels as ``slab`` slices of ``voxels``."""
        turn = Turn.as_stored(voxels)
        stored = turn.apply(voxels)
        thick = max(1, slab * len(stored) // len(voxels))
        return cls(stored, None if mask is None else turn.apply(mask), thick, step)

    def _all(self) -> Iterator[slice]:
        for first in range(0, len(self.voxels), self.slab):
            yield slice(first, first + self.slab)
            self.step()

    def _values(self, part: slice) -> np.ndarray:
        return self.voxels[part] if self.mask is None else self.voxels[part][self.mask[part]]

    def range(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        ranges = [(values.min(), values.max()) for values in map(self._values, self._all()) if values.size]
        return float(min(low for low, _high in ranges)), float(max(high for _low, high in ranges))

    def mean(self, shift: float, power: int) -> float:
        """Return the mean of ``(voxel - shift) ** power`` in float64."""
        total, count = 0.0, 0
        for values in map(self._values, self._all()):
            shifted = values.astype(np.float64) - shift
            total, count = total + float((shifted if power == 1 else np.square(shifted)).sum()), count + values.size
        return total / count


def unsuitable(image: InputImage, schemes: Sequence[str], why: str) -> str:
    """Say that the intensities of an image do not suit a normalisation, with its names for each channel."""
    assert image.voxels is not None
    named = ", ".join(dict.fromkeys(schemes))
    return (
        f"{image.name}, with intensities from {image.voxels.min():g} to {image.voxels.max():g}, does not suit the "
        f"preprocessing of the model, {named} ({why}). Give an image of the kind that the model was trained on."
    )
