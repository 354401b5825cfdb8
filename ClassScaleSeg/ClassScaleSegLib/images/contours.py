"""Outline the classes of a label map slice by slice: closed polygons around voxels, from which these come back.

The polygons run along the edges of the voxels, a five-hundredth of a voxel inside. So the area of a polygon is nearly
that of its voxels, polygons never touch, and no centre of a voxel is near a line: readers find the same voxels whether
they fill at the centres, or round the points to voxels and fill up to the line.

Voxels that only have a corner in common are separate islands, each with a polygon of its own. A hole belongs to the
polygon around it, which reaches it through a channel without width ("keyhole" in the DICOM standard): every reader
fills such a polygon rightly, by the even-odd rule or by the nonzero one. The other way, holes as polygons of their own
(CLOSEDPLANAR_XOR), is younger than many readers, which then ignore the structure or fill its holes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import OutputError

INSET = 0.002  # voxels
_CHANNEL = 0.25  # voxels from the centre: a channel crosses no centre, and no edge but those at its ends


class Outline(NamedTuple):
    """A closed polygon in one slice. It does not repeat its first point.

    :ivar row: index of the slice.
    :ivar points: ``(n, 2)`` float64, n >= 4: index along the columns (x) and the rows (y) of the slice, in voxels,
        whose centres are whole numbers.
    """

    row: int
    points: np.ndarray


class Outlines:
    """The outlines of the classes of a label map. They are made when they are asked for.

    :param labels: uint16 ``(z, y, x)``.
    :param values: the label values to outline, each above 0.
    :raises OutputError: if contourpy is not installed, which traces the outlines.

    >>> labels = np.zeros((1, 5, 5), np.uint16)
    >>> labels[0, 1:4, 1:3] = 7
    >>> [outline] = Outlines(labels, [7]).of(7)
    >>> outline.row, sorted(outline.points.tolist())
    (0, [[0.502, 0.502], [0.502, 3.498], [2.498, 0.502], [2.498, 3.498]])
    """

    def __init__(self, labels: np.ndarray, values: Sequence[int]) -> None:
        refuse_missing_contourpy()
        from scipy.ndimage import find_objects

        self._labels = labels
        self._boxes: dict[int, list[tuple[int, tuple[slice, slice]]]] = {value: [] for value in values}
        number = np.zeros(max((*values, int(labels.max(initial=0)))) + 1, np.uint16)
        number[list(values)] = np.arange(1, len(values) + 1)
        for row, plane in enumerate(labels):
            for value, box in zip(values, find_objects(number[plane], len(values)), strict=True):
                if box is not None:
                    self._boxes[value].append((row, box))

    def of(self, value: int) -> Iterator[Outline]:
        """Yield the outlines of one class in the order of the slices."""
        for row, box in self._boxes[value]:
            place = np.array([box[1].start, box[0].start])
            for points in self._polygons(self._labels[row][box] == value):
                yield Outline(row, points + place)

    def _polygons(self, mask: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the polygons of a mask ``(y, x)``, with their holes."""
        padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2))
        padded[1:-1, 1:-1] = mask
        polygons, ends = _traced(padded)
        for points, offsets in zip(polygons, ends, strict=True):
            around, *holes = (
                _corners(points[start : end - 1] - 1) for start, end in zip(offsets, offsets[1:], strict=False)
            )
            # from the top: what the channel of a hole meets above has its channel already
            for hole in sorted(holes, key=lambda hole: hole[:, 1].min()):
                around = _with_hole(around, hole)
            yield around


def refuse_missing_contourpy() -> None:
    """Import the package that traces outlines, or raise an exception.

    :raises OutputError: whose message names the command that installs it.
    """
    try:
        import contourpy  # noqa: F401
    except ImportError as error:
        raise OutputError(
            "To write contours, the Python package contourpy is needed, which matplotlib usually brings. Install it "
            "with: python -m pip install contourpy"
        ) from error


def _traced(mask: np.ndarray) -> Any:
    """Return the lines between the voxels of a mask and the others: polygons, and where in them each hole begins.

    Between four voxels of which two opposite ones are inside, contourpy decides by their mean, which is below: so these
    two are not connected.
    """
    from contourpy import FillType, contour_generator

    lines = contour_generator(z=mask, name="serial", fill_type=FillType.OuterOffset)
    return lines.filled(0.5 + INSET, 2)


def _corners(middles: np.ndarray) -> np.ndarray:
    """Return the corners of a polygon, of which the middle of the side of each voxel is given, ``(n, 2)``."""
    upright = np.abs(middles[:, 0] - np.rint(middles[:, 0])) > 0.25  # sides to the left or right of a voxel
    (x, y), (next_x, next_y) = middles.T, np.roll(middles, -1, 0).T
    corners = np.stack([np.where(upright, x, next_x), np.where(upright, next_y, y)], 1)
    return corners[upright != np.roll(upright, -1)]


def _with_hole(around: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return a polygon that goes from the upper edge of a hole straight up and back, to be one with ``around``."""
    start = _upper_edge(hole)
    ends = hole[[start, (start + 1) % len(hole)]]
    column = np.rint(ends[:, 0].min() + INSET + 0.5) - _CHANNEL  # inside of the first voxel below the edge
    low = np.array([column, ends[0, 1]])
    first, second = around, np.roll(around, -1, 0)
    meets = (first[:, 1] == second[:, 1]) & (first[:, 1] < low[1])
    meets &= (np.minimum(first[:, 0], second[:, 0]) < column) & (np.maximum(first[:, 0], second[:, 0]) > column)
    found = int(np.argmax(np.where(meets, first[:, 1], -np.inf)))
    high = np.array([column, first[found, 1]])
    inner = np.roll(hole, -(start + 1), 0)
    return np.concatenate([around[: found + 1], [high, low], inner, [low, high], around[found + 1 :]])


def _upper_edge(polygon: np.ndarray) -> int:
    """Return the index of the first end of the upper edge, of those the leftmost."""
    following = np.roll(polygon, -1, 0)
    flat = polygon[:, 1] == following[:, 1]
    top = flat & (polygon[:, 1] == polygon[:, 1].min())
    return int(np.argmin(np.where(top, np.minimum(polygon[:, 0], following[:, 0]), np.inf)))
