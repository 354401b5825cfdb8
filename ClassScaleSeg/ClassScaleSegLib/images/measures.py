"""Measure all classes of a label map together: volume, surface, position, and the intensities of an image inside."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..errors import ImageError
from .geometry import Geometry

_VOXELS_AT_ONCE = 1 << 17  # what is computed for so many voxels stays in the cache of the processor
_POINTS = 1 << 16  # on a sphere, to tell how much of it is nearest to each direction
# x, y, z to half of a voxel's 26 neighbours, the half that comes later in memory; the first is the next voxel of a row
_NEIGHBOURS = [(x, y, z) for z in (0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0)]
_PERCENTS = (0, 5, 25, 50, 75, 95, 100)


class Intensities(NamedTuple):
    """The intensities of an image inside one class.

    :ivar standard_deviation: of a sample, as in Slicer and ITK: divided by the voxels less one. 0 for a single voxel.
    :ivar percentile_5: this, the other percentiles and the median are interpolated between the two nearest voxels.
    """

    mean: float
    standard_deviation: float
    minimum: float
    percentile_5: float
    percentile_25: float
    median: float
    percentile_75: float
    percentile_95: float
    maximum: float


@dataclass(frozen=True)
class LabelMeasures:
    """What is measured of one class.

    :ivar voxels: number of voxels, at least 1.
    :ivar volume_ml: volume in millilitres.
    :ivar surface_mm2: area of its surface in square millimetres, as :func:`measure` defines it.
    :ivar centroid: mean position of its voxels in RAS coordinates, as Slicer shows them, mm.
    :ivar first: the smallest voxel index along each of the axes i, j, k that the class reaches, from 0.
    :ivar last: the largest such index; the class lies in the box from ``first`` to ``last``, both included.
    :ivar touches_edge: whether it reaches an end of an axis with several voxels, and may therefore be cut off.
    :ivar intensities: ``None`` without an image.
    :ivar confidence: mean of the confidence in its voxels, 0 to 1; ``None`` if none was computed.
    """

    voxels: int
    volume_ml: float
    surface_mm2: float
    centroid: tuple[float, float, float]
    first: tuple[int, int, int]
    last: tuple[int, int, int]
    touches_edge: bool
    intensities: Intensities | None = None
    confidence: float | None = None


def measure(
    labels: np.ndarray,
    geometry: Geometry,
    intensities: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
) -> dict[int, LabelMeasures]:
    """Measure all classes that occur, whatever their number, in one pass over the labels and one over the image.

    The surface is estimated by Crofton's formula, from how often lines in the 13 directions to neighbouring voxels
    cross it (Legland, Kieu, Devaux: Computation of Minkowski measures on 2D and 3D binary images, Image Analysis and
    Stereology 26, 2007; as in MorphoLibJ). Each direction counts as much as the part of a sphere that is nearest to it,
    for the spacing of the image. This is right on average over all orientations of a surface, unlike the area of the
    voxels' faces, which is half too large for a sphere. Planes that lie exactly along the grid come out too small:
    by 7 % if the voxels are cubes, by more the thicker the slices are. The edge of the image counts as surface.

    Besides the labels and the image this holds one copy of the intensities of the labelled voxels.

    :param labels: uint16 ``(z, y, x)``; 0 is not measured.
    :param geometry: the grid of the labels.
    :param intensities: integers or floating-point numbers ``(z, y, x)``.
    :param confidence: probability of each voxel's class, float32 ``(z, y, x)``.
    :returns: for each label value that occurs, in ascending order, its measures.
    :raises ImageError: if shapes disagree, or an intensity in a class is NaN or infinite.

    >>> labels = np.zeros((3, 4, 5), np.uint16)
    >>> labels[1, 1:3, 1:4] = 7
    >>> image = np.arange(60).reshape(3, 4, 5)
    >>> found = measure(labels, Geometry((5, 4, 3), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0)), image)[7]
    >>> found.voxels, round(found.volume_ml, 3), found.centroid, found.first, found.last, found.touches_edge
    (6, 6.0, (-20.0, -15.0, 10.0), (1, 1, 1), (3, 2, 1), False)
    >>> found.intensities.mean, found.intensities.median, found.intensities.maximum
    (29.5, 29.5, 33.0)
    """
    for what, array in (("label map", labels), ("image", intensities), ("confidence", confidence)):
        if array is not None and array.shape != tuple(geometry.size)[::-1]:
            shape = tuple(geometry.size)[::-1]
            raise ImageError(f"The {what} has the shape {array.shape}, the label map has the grid {shape} (z, y, x).")
    largest = labels.max(axis=0)
    rows, columns = (np.flatnonzero(largest.any(axis)) for axis in (1, 0))
    if not len(rows):
        return {}
    box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))  # the rest is background
    shapes = _Shapes(int(largest.max()) + 1, geometry, int(columns[0]), int(rows[0]))
    for start, slab in _slabs(labels[box]):
        shapes.add(start, slab)
    inside = {} if intensities is None else _intensities(labels[box], shapes.voxels, intensities[box])
    found = {value: shapes.of(value, inside.get(value)) for value in np.flatnonzero(shapes.voxels).tolist()}
    if confidence is None:
        return found
    sums = sums_by_label(labels[box], confidence[box], len(shapes.voxels))
    return {value: replace(one, confidence=float(sums[value] / one.voxels)) for value, one in found.items()}


class _Shapes:
    """Sums over the voxels of each label value, of an image that is added slab by slab.

    :param values: the largest label value, plus 1.
    :param geometry: the grid of the whole image, of which the slabs begin at index ``x`` and ``y``.
    """

    def __init__(self, values: int, geometry: Geometry, x: int, y: int) -> None:
        self._x, self._y = x, y
        self._axes, self._origin, self._end = geometry.axes, np.array(geometry.origin), np.subtract(geometry.size, 1)
        self._millilitres = geometry.voxel_volume / 1000
        self._low, self._high = _surface_of_neighbours(geometry)
        self.voxels = np.zeros(values, np.int64)
        self._surface = np.zeros(values)
        self._sums = np.zeros((3, values), np.int64)  # of the index along x, y, z
        self._first = np.full((3, values), np.iinfo(np.int64).max)
        self._last = np.full((3, values), -1)

    def add(self, start: int, slab: np.ndarray) -> None:
        """Add ``slab``, uint16 ``(slices + 1, y, x)`` from the slice ``start``; its last slice is only looked at."""
        slices, rows, columns = np.add(slab.shape, (-1, 2, 2)).tolist()
        size = slices * rows * columns
        # background around each slice, so that the neighbours of all voxels are at the same distances in memory
        padded = np.zeros((slices + 2, rows, columns), np.uint16)
        padded[:-1, 1:-1, 1:-1] = slab
        flat = padded.reshape(-1)
        here = flat[:size]
        codes = np.zeros((2, size), np.uint8)  # a bit for each neighbour of another class
        differs = np.empty(size, bool)
        for neighbour, (x, y, z) in enumerate(_NEIGHBOURS):
            byte, bit = divmod(neighbour, 8)
            step = (z * rows + y) * columns + x
            np.not_equal(here, flat[step : step + size], out=differs)
            if neighbour == 0:
                self._add_runs(start, here, np.flatnonzero(differs), rows, columns)
            codes[byte] |= np.left_shift(differs.view(np.uint8), bit, out=differs.view(np.uint8))
        at = np.flatnonzero((codes[0] | codes[1]) * (here > 0))
        areas = self._low[codes[0][at]] + self._high[codes[1][at]]
        self._surface += np.bincount(here[at], areas, minlength=len(self._surface))

    def _add_runs(self, start: int, here: np.ndarray, ends: np.ndarray, rows: int, columns: int) -> None:
        """Add the runs of one label along x; ``ends`` is where they end in the padded slab ``here``."""
        labels = here[ends]
        order = np.argsort(labels, kind="stable")[np.count_nonzero(labels == 0) :]
        labels = labels[order]
        groups = np.append(0, np.flatnonzero(labels[1:] != labels[:-1]) + 1)
        found = labels[groups]
        lengths = np.diff(ends, prepend=-1)[order]
        last = ends[order]
        line = last // columns
        z = line // rows
        last -= line * columns + 1 - self._x
        y = line - z * rows - 1 + self._y
        z += start
        first = last - lengths + 1
        self.voxels[found] += np.add.reduceat(lengths, groups)
        # the mean index of a run times 2, to stay with whole numbers
        for axis, low, high, twice in ((0, first, last, first + last), (1, y, y, 2 * y), (2, z, z, 2 * z)):
            self._sums[axis, found] += np.add.reduceat(lengths * twice, groups) // 2
            self._first[axis, found] = np.minimum(self._first[axis, found], np.minimum.reduceat(low, groups))
            self._last[axis, found] = np.maximum(self._last[axis, found], np.maximum.reduceat(high, groups))

    def of(self, value: int, intensities: Intensities | None) -> LabelMeasures:
        """Return the measures of one label value that occurs."""
        voxels = int(self.voxels[value])
        x, y, z = (self._axes @ (self._sums[:, value] / voxels) + self._origin).tolist()
        first, last = self._first[:, value], self._last[:, value]
        return LabelMeasures(
            voxels=voxels,
            volume_ml=voxels * self._millilitres,
            surface_mm2=float(self._surface[value]),
            centroid=(0.0 - x, 0.0 - y, z),  # never -0
            first=tuple(first.tolist()),
            last=tuple(last.tolist()),
            touches_edge=bool((((first == 0) | (last == self._end)) & (self._end > 0)).any()),
            intensities=intensities,
        )


def _slabs(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield slabs with labels, each with the slice that follows it, or one of 0; and the index of the first slice."""
    depth = max(1, _VOXELS_AT_ONCE // labels[0].size)
    for start in range(0, len(labels), depth):
        slab = labels[start : start + depth + 1]
        if slab[:depth].any():
            end = start + depth >= len(labels)
            yield start, np.concatenate([slab, np.zeros_like(slab[:1])]) if end else slab


def _surface_of_neighbours(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the surface, mm^2, that belongs to a voxel whose neighbours in some directions are of another class.

    A line that enters a class also leaves it, so it is enough to count where lines leave.

    :returns: two ``(256,)`` float64, whose sum is the surface: for the set of bits of neighbours 0 to 7, and 8 to 12.
    """
    axes = np.linalg.cholesky(geometry.axes.T @ geometry.axes).T  # without the rotation, which must not matter
    steps = np.array(_NEIGHBOURS) @ axes.T
    lengths = np.linalg.norm(steps, axis=1)
    turn = np.arange(_POINTS) + 0.5
    height, angle = 1 - 2 * turn / _POINTS, turn * math.pi * (1 + math.sqrt(5))  # evenly spread along a spiral
    radius = np.sqrt(1 - height**2)
    sphere = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1)
    nearest = np.argmax(np.abs(sphere @ (steps / lengths[:, None]).T), axis=1)
    share = np.bincount(nearest, minlength=len(steps)) / _POINTS
    area = np.append(4 * geometry.voxel_volume * share / lengths, np.zeros(3))
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return bits @ area[:8], bits @ area[8:]


def sums_by_label(labels: np.ndarray, numbers: np.ndarray, values: int) -> np.ndarray:
    """Return the sum of numbers in the voxels of each label value, float64 ``(values,)``.

    :param labels: uint16 ``(z, y, x)``.
    :param numbers: such as the confidence, float32 ``(z, y, x)``.
    :param values: the largest label value, plus 1.

    >>> sums_by_label(np.array([[[1, 1, 3]]], np.uint16), np.array([[[0.5, 1, 0.25]]], np.float32), 4).tolist()
    [0.0, 1.5, 0.0, 0.25]
    """
    depth, sums = max(1, _VOXELS_AT_ONCE // labels[0].size), np.zeros(values)
    for start in range(0, len(labels), depth):
        slab = labels[start : start + depth].reshape(-1)
        if slab.any():
            sums += np.bincount(slab, numbers[start : start + depth].reshape(-1), minlength=values)
    return sums


def _intensities(labels: np.ndarray, voxels: np.ndarray, image: np.ndarray) -> dict[int, Intensities]:
    """Return the intensities of each label value but 0 that occurs; ``voxels`` is the number of each."""
    ends = np.cumsum(voxels)
    sorted_by_label = np.empty(ends[-1], image.dtype.newbyteorder("="))
    free = ends - voxels  # where the next voxel of each value goes
    depth = max(1, _VOXELS_AT_ONCE // labels[0].size)
    for start in range(0, len(labels), depth):
        slab = labels[start : start + depth].reshape(-1)
        if not slab.any():
            continue
        counts = np.bincount(slab, minlength=len(voxels))
        order = np.argsort(slab, kind="stable")[counts[0] :]
        counts[0] = 0
        goal = np.arange(len(order)) + np.repeat(free - (np.cumsum(counts) - counts), counts)
        sorted_by_label[goal] = image[start : start + depth].reshape(-1)[order]
        free += counts
    found = np.flatnonzero(voxels)
    return {value: _summary(sorted_by_label[ends[value] - voxels[value] : ends[value]]) for value in found.tolist()}


def _summary(values: np.ndarray) -> Intensities:
    """Summarize the intensities of one class, ``(n,)``, and sort them."""
    values.sort()
    count = len(values)
    with np.errstate(invalid="ignore"):
        mean = float(values.mean(dtype=np.float64))
    if not math.isfinite(mean):
        raise ImageError("The image has voxels that are NaN or infinite. Replace them first, for example with air.")
    total = squares = 0.0
    for start in range(0, count, _VOXELS_AT_ONCE):
        deviation = np.subtract(values[start : start + _VOXELS_AT_ONCE], mean, dtype=np.float64)
        total, squares = total + float(deviation.sum()), squares + float(deviation @ deviation)
    spread = math.sqrt(max(squares - total**2 / count, 0) / max(count - 1, 1))
    low, p5, p25, median, p75, p95, high = (_percentile(values, percent) for percent in _PERCENTS)
    return Intensities(mean + total / count, spread, low, p5, p25, median, p75, p95, high)


def _percentile(values: np.ndarray, percent: int) -> float:
    """Return a percentile of sorted values, as ``numpy.percentile`` defines it."""
    place, rest = divmod(percent * (len(values) - 1), 100)
    low = float(values[place])
    return low + (float(values[place + 1]) - low) * rest / 100 if rest else low
