"""Bring the structures of a structure set onto the grid of an image: contours in planes become label maps.

A structure set has no voxels. In space, each of its contours stands for a slab (PS3.3, C.8.8.6.2), here as thick as the
planes of its structure are apart: so contours on every third slice leave no holes, and do not fill real gaps. Nothing
is interpolated between planes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..errors import ImageError
from ..labels.table import LabelTable
from .contour_filling import fill, steps_of
from .dicom.rtstruct_reader import Structure, StructureSet
from .geometry import Geometry
from .image_file import check_memory
from .layers import LayerBuilder

_FLAT = 0.25  # slices that a contour may reach through the grid, by rounded coordinates
_SAME_PLANE = (0.05, 0.1)  # mm, and slices
_BESIDE = 0.1  # slices between a contour and the slice for which it counts: more is told
_WIDEST_GAP = 10.01  # mm; planes that are more than 10 mm apart are no neighbours
_ROUNDED = 1.25  # times the distance of planes: as much is no gap
_TIE = 1e-3  # voxels: halfway between two slices, or on a line, rounding must not decide
_FARTHEST = 2000.0  # mm beyond the grid
_MOST_STEPS = 1 << 34  # of filling, 80 s; 200 structures of the size of a body
_MOST_NAMES = 3


class OnGrid(NamedTuple):
    """Structures as voxels.

    :ivar layers: label maps, uint16 ``(z, y, x)``, several if structures overlap.
    :ivar table: their labels, without those of structures that were left out.
    :ivar geometry: their grid: the one that was wanted, with more voxels if contours reach beyond it.
    :ivar notices: sentences that the user should see.
    """

    layers: tuple[np.ndarray, ...]
    table: LabelTable
    geometry: Geometry
    notices: tuple[str, ...]


@dataclass(eq=False)
class _Placed:
    """A structure in the voxels of the grid.

    :ivar axis: of the grid, 0 for x, across which its contours lie.
    :ivar heights: of its planes along this axis, ascending, in slices.
    :ivar polygons: of each plane; column and row, along the other two axes in their order.
    :ivar distance: of neighbouring planes, in slices; 0 until it is known.
    :ivar slices: those of each plane: the nearest ones, as far as its slab reaches; empty until then.
    """

    structure: Structure
    axis: int
    heights: np.ndarray
    polygons: list[list[np.ndarray]]
    distance: float = 0.0
    slices: list[range] = field(default_factory=list)

    def find_slices(self, distance: float, count: int) -> None:
        """Set the distance of planes, and from it their slices.

        :param count: slices of the grid, beyond which slabs reach only with planes that lie there.
        """
        self.distance, half = distance, distance / 2
        middles = [
            (low + high) / 2 if high - low <= distance * _ROUNDED else None for low, high in pairwise(self.heights)
        ]
        for height, before, after in zip(self.heights, [None, *middles], [*middles, None], strict=True):
            ends = (height - half if before is None else before, height + half if after is None else after)
            nearest = int(np.rint(height))
            first, last = (int(np.ceil(end - _TIE)) for end in ends)
            self.slices.append(range(max(first, min(0, nearest)), min(last, max(count, nearest + 1))))

    @property
    def steps(self) -> float:
        """How many steps it takes to fill it, as of `steps_of`."""
        return sum(steps_of(polygons) for polygons, some in zip(self.polygons, self.slices, strict=True) if some)

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """The first voxel and the one after the last, x, y, z, of a box that holds it."""
        points = np.concatenate([polygon for plane in self.polygons for polygon in plane])
        low, high = np.ceil(points.min(0)), np.floor(points.max(0)) + 1
        filled = [some for some in self.slices if some]
        ends = (filled[0].start, filled[-1].stop) if filled else (0, 0)
        first, last = (np.insert(end, self.axis, own).astype(int) for end, own in zip((low, high), ends, strict=True))
        return first, np.maximum(first, last)


def structures_on_grid(found: StructureSet, geometry: Geometry, grid: str, frame_of_reference: str = "") -> OnGrid:
    """Return the voxels whose centres are inside of the contours.

    :param geometry: the grid.
    :param grid: what has this grid, for messages.
    :param frame_of_reference: FrameOfReferenceUID of the grid; "" if it is not known. Structures of another one have
        other coordinates, and are left out.
    :raises ImageError: if no structure has this frame of reference, or the structures have several and that of the grid
        is not known; if contours do not lie in slices of the grid, are far away from it, or do not fit into memory.
    """
    notices: list[str] = []
    structures = _of_frame(found.structures, grid, frame_of_reference)
    if left_out := len(found.structures) - len(structures):
        notices.append(f"Structures of another frame of reference than {grid} are left out: {left_out}.")
    placed = [_placed(structure, geometry, grid) for structure in structures if structure.contours]
    _find_distances(placed, geometry)
    notices += _notices(placed, geometry, grid)
    first, larger = _grown(placed, geometry, grid, notices)
    shape = larger.size[::-1]
    builder = LayerBuilder(shape, lambda: check_memory("It", "x".join(map(str, larger.size)), 2 * int(np.prod(shape))))
    nested, crossing = list[_Placed](), list[_Placed]()
    if sum(one.steps for one in placed) > _MOST_STEPS:
        raise ImageError("Its contours are so many, or have so many points, that filling them would take minutes.")
    for one in placed:
        start, end = one.box
        mask, marks = _filled(one, start, end)
        z, y, x = (slice(low, high) for low, high in zip((start - first)[::-1], (end - first)[::-1], strict=True))
        if mask.any():
            builder.add_box((z, y, x), mask * np.uint16(one.structure.label.value))
        if not one.structure.exclusive:
            nested += [one] * marks[0]
            crossing += [one] * marks[1]
    if nested:
        notices.append(f"Contours of {_names(nested)} lie inside of others; they are taken as holes.")
    if crossing:
        notices.append(f"Contours of {_names(crossing)} overlap in part; what is in both of two is left out.")
    table = LabelTable(tuple(structure.label for structure in structures))
    return OnGrid(tuple(builder.layers), table, larger, tuple(notices))


def _of_frame(structures: Sequence[Structure], grid: str, frame_of_reference: str) -> list[Structure]:
    """Return the structures whose coordinates are those of the grid."""
    frames = {structure.frame_of_reference for structure in structures if structure.contours} - {""}
    if not frame_of_reference and len(frames) > 1:
        raise ImageError(
            f"It has structures of {len(frames)} frames of reference (FrameOfReferenceUID), and {grid} does not say "
            "which is its own. Name the DICOM series on which they were drawn."
        )
    if not frame_of_reference:
        return list(structures)
    kept = [one for one in structures if one.frame_of_reference in ("", frame_of_reference)]
    if frames and frame_of_reference not in frames and not any(one.contours for one in kept):
        raise ImageError(
            f"It has another frame of reference (FrameOfReferenceUID) than {grid}: they are of different images, whose "
            "places cannot be compared."
        )
    return kept


def _placed(structure: Structure, geometry: Geometry, grid: str) -> _Placed:
    """Return a structure in voxels, its contours sorted into planes.

    :raises ImageError: if its contours do not lie in slices of the grid.
    """
    lengths = [len(contour) for contour in structure.contours]
    starts = np.cumsum([0, *lengths[:-1]])
    points = (np.concatenate(structure.contours) - geometry.origin) @ np.linalg.inv(geometry.axes).T
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    reach = (high - low).max(0)
    axis = int(reach.argmin())
    if reach[axis] > _FLAT:
        raise ImageError(
            f"Contours of {structure.label.name} do not lie in slices of {grid}: they reach through "
            f"{reach[axis]:.3g} of them. Name the image on which they were drawn."
        )
    heights = (low + high)[:, axis] / 2
    order = np.argsort(heights, kind="stable")
    same = min(_SAME_PLANE[0] / _step(geometry, axis), _SAME_PLANE[1])
    # many systems draw through the centres of voxels, where rounding would decide
    flat = [np.delete(part, axis, 1) - _TIE for part in np.split(points, starts[1:])]
    planes: list[list[int]] = []
    for index in order.tolist():
        if planes and heights[index] - heights[planes[-1][0]] <= same:
            planes[-1].append(index)
        else:
            planes.append([index])
    means = np.array([heights[plane].mean() for plane in planes])
    return _Placed(structure, axis, means, [[flat[index] for index in plane] for plane in planes])


def _step(geometry: Geometry, axis: int) -> float:
    """Return the distance of slices across an axis, mm."""
    return geometry.voxel_volume / float(np.linalg.norm(np.cross(*np.delete(geometry.axes, axis, 1).T)))


def _find_distances(placed: Sequence[_Placed], geometry: Geometry) -> None:
    """Find how far the planes of each structure are apart: by its most frequent gap, else by that of all structures."""
    for axis in range(3):
        some = [one for one in placed if one.axis == axis]
        widest = max(_WIDEST_GAP / _step(geometry, axis), _ROUNDED)
        gaps = [np.diff(one.heights) for one in some]
        gaps = [own[own <= widest] for own in gaps]
        common, _times = _most_frequent(np.concatenate(gaps)) if some else (0.0, 0)
        for one, own in zip(some, gaps, strict=True):
            distance, times = _most_frequent(own)
            one.find_slices((distance if times > 1 else common) or 1.0, geometry.size[axis])


def _most_frequent(gaps: np.ndarray) -> tuple[float, int]:
    """Return the most frequent gap, and how often it occurs; of several the largest, and 0 if there are none."""
    if not len(gaps):
        return 0.0, 0
    rounded, inverse, times = np.unique(np.rint(gaps * 8), return_inverse=True, return_counts=True)
    most = int(np.flatnonzero(times == times.max())[-1])
    return float(gaps[inverse == most].mean()), int(times[most])


def _notices(placed: Sequence[_Placed], geometry: Geometry, grid: str) -> list[str]:
    """Return sentences on structures whose planes are not the slices of the grid one by one."""
    sparse = [one for one in placed if one.distance > _ROUNDED]
    dense = [one for one in placed if one.distance < 1 / _ROUNDED or not all(one.slices)]
    others = [one for one in placed if one not in sparse and one not in dense]
    beside = [one for one in others if np.abs(one.heights - np.rint(one.heights)).max() > _BESIDE]
    gaps = [one for one in placed if _has_gaps(one.slices)]
    found = []
    if sparse:
        widest = max(sparse, key=lambda one: one.distance * _step(geometry, one.axis))
        apart = f"{widest.distance * _step(geometry, widest.axis):.3g} mm apart, {widest.distance:.3g} slices"
        found.append(
            f"Contours of {_names(sparse)} are up to {apart} of {grid}: each counts for the slices nearest to it."
        )
    if dense:
        found.append(f"Contours of {_names(dense)} are denser than the slices of {grid}, which take the nearest ones.")
    if beside:
        found.append(f"Contours of {_names(beside)} lie between the slices of {grid}: each counts for the nearest one.")
    if gaps:
        found.append(f"Slices between contours of {_names(gaps)} have none, and are taken as empty.")
    return found


def _has_gaps(slices: Sequence[range]) -> bool:
    filled = [some for some in slices if some]
    return any(before.stop < after.start for before, after in pairwise(filled))


def _grown(placed: Sequence[_Placed], geometry: Geometry, grid: str, notices: list[str]) -> tuple[np.ndarray, Geometry]:
    """Return the first voxel, x, y, z, of the grid with as many more voxels as the contours need, and this grid."""
    first, end, beyond = np.zeros(3, int), np.array(geometry.size), []
    for one in placed:
        start, stop = one.box
        if (stop > start).all() and ((start < 0).any() or (stop > geometry.size).any()):
            beyond.append(one)
            first, end = np.minimum(first, start), np.maximum(end, stop)
    if not beyond:
        return first, geometry
    farthest = float((np.maximum(-first, end - geometry.size) * geometry.spacing).max())
    if farthest > _FARTHEST:
        raise ImageError(
            f"Contours of {_names(beyond)} are up to {farthest:,.0f} mm outside of {grid}: they are of another image, "
            "or damaged."
        )
    notices.append(f"Contours of {_names(beyond)} reach up to {farthest:,.1f} mm beyond {grid}, and count there too.")
    x, y, z = (end - first).tolist()
    check_memory("It", f"{x}x{y}x{z}", 2 * x * y * z)
    origin = tuple((geometry.origin + geometry.axes @ first).tolist())
    return first, replace(geometry, size=(x, y, z), origin=origin)


def _filled(one: _Placed, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, tuple[bool, bool]]:
    """Return the mask of a structure in a box, bool ``(z, y, x)``, and whether contours are nested, or cross.

    :param start: first voxel of the box, x, y, z.
    :param end: the voxel after the last one.
    """
    shape = tuple((end - start)[::-1].tolist())
    check_memory("It", "x".join(map(str, shape[::-1])), 3 * int(np.prod(shape)))
    mask = np.zeros(shape, bool)
    across = np.moveaxis(mask, 2 - one.axis, 0)
    left, top = np.delete(start, one.axis).tolist()
    nested = crossing = False
    for polygons, slices in zip(one.polygons, one.slices, strict=True):
        if slices and mask.size:
            found = fill(polygons, (top, left), across.shape[1:])
            across[slices.start - start[one.axis] : slices.stop - start[one.axis]] = found.mask
            nested, crossing = nested or found.nested, crossing or found.crossing
    return mask, (nested, crossing)


def _names(placed: Iterable[_Placed]) -> str:
    names = [one.structure.label.name for one in placed]
    more = f" and {len(names) - _MOST_NAMES} more" * (len(names) > _MOST_NAMES)
    return ", ".join(names[:_MOST_NAMES]) + more
