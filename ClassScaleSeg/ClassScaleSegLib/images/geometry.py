"""Describe the position of a voxel grid in space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError

if TYPE_CHECKING:
    import SimpleITK as sitk


Box = tuple[slice, slice, slice]  # of voxels, along z, y, x
ROUNDED_SHEAR = 0.1  # mm: as much comes from headers that round their directions
# Beyond these an image is none, but float64 no longer places its voxels: the rounding would look like a tilted gantry.
_SPACINGS = (1e-7, 1e5)  # mm: from the size of an atom to 100 m
_FARTHEST = 1e9  # mm
_ROUNDED_LENGTH = 0.05  # of directions, which should be 1
_SAME_VOXEL = 0.05  # voxels by which centres may lie apart: headers are rounded
_FLATTEST = 1e-3  # determinant of the directions of axes that nearly lie in one plane


_OPPOSITE = [set(pair) for pair in (*("LR", "PA", "SI"), *("L", "R", "P", "A", "S", "I"))]


@dataclass(frozen=True)
class Turn:
    """Another order of the voxels of an array ``(..., z, y, x)``.

    :ivar order: for each new axis z, y, x, the old one.
    :ivar flips: whether the new axes z, y, x run backwards.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def as_stored(cls, array: np.ndarray) -> Turn:
        """Return the turn that brings the axes of a view to their order in memory, in which it is worked on fastest.

        >>> turned = np.zeros((2, 3, 4))[::-1].transpose(2, 0, 1)
        >>> Turn.as_stored(turned).apply(turned).shape
        (2, 3, 4)
        """
        strides = array.strides[-3:]
        z, y, x = sorted(range(3), key=lambda axis: -abs(strides[axis]))
        return cls((z, y, x), (strides[z] < 0, strides[y] < 0, strides[x] < 0))

    @property
    def inverse(self) -> Turn:
        """The turn from the new order to the old one.

        >>> box = (slice(0, 2), slice(1, 2), slice(0, 3))
        >>> turn = Turn((2, 0, 1), (True, False, False))
        >>> turn.inverse.box(turn.box(box, (4, 5, 6)), (6, 4, 5)) == box
        True
        """
        z, y, x = (self.order.index(axis) for axis in range(3))
        return Turn((z, y, x), (self.flips[z], self.flips[y], self.flips[x]))

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return a view of ``array`` in the new order."""
        first = array.ndim - 3
        turned = array.transpose(*range(first), *(first + axis for axis in self.order))
        return self._flipped(turned)

    def undo(self, array: np.ndarray) -> np.ndarray:
        """Return a view of ``array``, which is in the new order, in the old one."""
        return self.inverse.apply(array)

    def box(self, box: Box, size: Sequence[int]) -> Box:
        """Return where a box of an array in the old order is in the new one.

        :param size: voxels of the array in the old order, z, y, x.
        """
        z, y, x = (
            slice(size[old] - box[old].stop, size[old] - box[old].start) if flip else box[old]
            for old, flip in zip(self.order, self.flips, strict=True)
        )
        return z, y, x

    def _flipped(self, array: np.ndarray) -> np.ndarray:
        z, y, x = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return array[..., z, y, x]


@dataclass(frozen=True)
class Geometry:
    """A voxel grid in SimpleITK's convention: axes x, y, z; millimetres; left-posterior-superior.

    :ivar size: voxels along x, y, z.
    :ivar spacing: mm along x, y, z.
    :ivar origin: centre of the first voxel, mm.
    :ivar direction: 3 x 3 matrix, row by row; its columns are the directions of the x, y and z axis.
    :raises ImageError: if a size or spacing is not positive, a number is not finite or beyond what an image can have,
        or the directions do not span a volume, or are not as long as they should be.

    >>> grid = Geometry(size=(512, 512, 40), spacing=(0.5, 0.5, 2.0), origin=(-128.0, -128.0, 0.0))
    >>> grid.voxel_volume
    0.5
    >>> grid.axes[:, 2].tolist()
    [0.0, 0.0, 2.0]
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if not (len(self.size) == len(self.spacing) == len(self.origin) == 3 and len(self.direction) == 9):
            raise ImageError(f"A geometry needs three axes; size {self.size} and spacing {self.spacing} were given.")
        if not all(number > 0 for number in (*self.size, *self.spacing)):
            raise ImageError(f"Size {self.size} or spacing {self.spacing} is not positive along every axis.")
        volume = self.voxel_volume
        if not (math.isfinite(volume) and volume > 0 and all(math.isfinite(x) for x in self.origin)):
            raise ImageError(
                f"The geometry does not span a volume: spacing {self.spacing}, origin {self.origin}, "
                f"direction {self.direction}."
            )
        self._refuse_absurd()

    def _refuse_absurd(self) -> None:
        """Refuse numbers that are finite, but not of an image. "It" of the sentences is the image."""
        least, most = _SPACINGS
        if not all(least <= spacing <= most for spacing in self.spacing):
            raise ImageError(
                f"It has spacing {self.spacing} mm; from {least:g} to {most:g} mm are possible. Correct its header, or "
                "the unit there."
            )
        if max(map(abs, self.origin)) > _FARTHEST:
            raise ImageError(
                f"It has the origin {self.origin} mm; up to {_FARTHEST:g} mm are possible. Correct its header."
            )
        axes = np.reshape(self.direction, (3, 3))
        lengths = np.linalg.norm(axes, axis=0)
        if abs(lengths - 1).max() > _ROUNDED_LENGTH or abs(np.linalg.det(axes / lengths)) < _FLATTEST:
            raise ImageError(
                f"It has a direction matrix that is not a rotation: {tuple(self.direction)}. Correct its header."
            )

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return abs(float(np.linalg.det(self.axes)))

    @property
    def axes(self) -> np.ndarray:
        """``(3, 3)`` float64: column i is the step from one voxel to the next along axis i, in mm."""
        return np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)

    @property
    def corners(self) -> np.ndarray:
        """``(8, 3)`` float64: centres of the voxels in the corners, mm."""
        ends = np.stack(np.meshgrid(*[(0, n - 1) for n in self.size], indexing="ij"), -1).reshape(-1, 3)
        return ends @ self.axes.T + self.origin

    def distance(self, other: Geometry) -> float:
        """Return how far the same voxel of two grids of one size can be apart, mm.

        :param other: a geometry of the same size.
        """
        return float(np.linalg.norm(self.corners - other.corners, axis=1).max())

    @property
    def perpendicular(self) -> Geometry:
        """The nearest grid with perpendicular axes: of the same voxels, around the same centre."""
        left, _, right = np.linalg.svd(np.reshape(self.direction, (3, 3)))
        near = replace(self, direction=tuple((left @ right).ravel().tolist()))
        shift = self.corners.mean(0) - near.corners.mean(0)
        return replace(near, origin=tuple((near.origin + shift).tolist()))

    @property
    def shear(self) -> float:
        """How far voxels are from a grid with perpendicular axes, mm: 0 but for rounding, unless a gantry is tilted."""
        return self.distance(self.perpendicular)

    @property
    def orientation(self) -> str:
        """The anatomical directions to which the axes x, y and z point most, such as ``"LPS"``."""
        import SimpleITK as sitk

        return sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(self.direction)

    def turned(self, orientation: str) -> tuple[Geometry, Turn]:
        """Return the grid with its axes in the order and the directions nearest to an anatomical orientation.

        :param orientation: the directions to which the axes x, y and z point, such as ``"RAS"``.
        :returns: the same voxels in another order, and how to turn arrays.

        >>> grid, turn = Geometry((4, 3, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)).turned("RSA")
        >>> grid.size, turn.apply(np.zeros((2, 3, 4))).shape
        ((4, 2, 3), (3, 2, 4))
        """
        now = self.orientation
        axes = [next(i for i, letter in enumerate(now) if {letter, wanted} in _OPPOSITE) for wanted in orientation]
        flips = [now[axis] != wanted for axis, wanted in zip(axes, orientation, strict=True)]
        return self._in_order(axes, flips)

    def turned_like(self, other: Geometry) -> tuple[Geometry, Turn]:
        """Return the grid with its axes in the order and the directions nearest to those of another grid.

        :returns: as :meth:`turned`.

        >>> grid = Geometry((4, 3, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        >>> upside_down = Geometry((4, 3, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (1, 0, 0, 0, 1, 0, 0, 0, -1))
        >>> upside_down.turned_like(grid)[0].origin, upside_down.turned_like(grid)[1].flips
        ((0.0, 0.0, 0.0), (True, False, False))
        """
        from scipy.optimize import linear_sum_assignment

        steps = np.linalg.solve(other.axes, self.axes)  # of each own axis, in voxels of the other grid
        own, others = linear_sum_assignment(-np.abs(steps.T))
        axes = [int(own[list(others).index(axis)]) for axis in range(3)]
        return self._in_order(axes, [bool(steps[axis, own_axis] < 0) for axis, own_axis in enumerate(axes)])

    def _in_order(self, axes: Sequence[int], flips: Sequence[bool]) -> tuple[Geometry, Turn]:
        """Return the grid whose axes x, y, z are these own ones, and whether they run backwards."""
        directions = np.reshape(self.direction, (3, 3))[:, axes] * np.where(flips, -1, 1)
        ends = [(self.size[axis] - 1) * flip for axis, flip in zip(axes, flips, strict=True)]
        x, y, z = axes
        grid = Geometry(
            size=(self.size[x], self.size[y], self.size[z]),
            spacing=(self.spacing[x], self.spacing[y], self.spacing[z]),
            origin=tuple((np.array(self.origin) + self.axes[:, axes] @ ends).tolist()),
            direction=tuple(directions.ravel().tolist()),
        )
        return grid, Turn((2 - z, 2 - y, 2 - x), (flips[2], flips[1], flips[0]))

    @classmethod
    def first_axes(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """Return the geometry of the first three axes of an image; an axis that it lacks has one voxel, 1 mm long."""
        axes = len(image.GetSize())
        direction = np.eye(max(axes, 3))
        direction[:axes, :axes] = np.reshape(image.GetDirection(), (axes, axes))
        x, y, z = (*image.GetSize(), 1)[:3]
        return cls(
            size=(x, y, z),
            spacing=(*image.GetSpacing(), 1.0)[:3],
            origin=(*image.GetOrigin(), 0.0)[:3],
            direction=tuple(direction[:3, :3].ravel().tolist()),
        )

    @classmethod
    def from_image(cls, image: sitk.Image) -> Geometry:
        """Return the geometry of a SimpleITK image.

        :param image: a 3D image.
        :raises ImageError: if the image is not three-dimensional or its geometry is not valid.
        """
        if image.GetDimension() != 3:
            raise ImageError(f"The image has {image.GetDimension()} dimensions; three are needed.")
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def apply(self, image: sitk.Image) -> None:
        """Set spacing, origin and direction of an image to those of this geometry.

        :param image: a 3D image of the same size; it is changed.
        :raises ImageError: if its size differs.
        """
        if image.GetSize() != tuple(self.size):
            raise ImageError(f"The image has {image.GetSize()} voxels, the geometry has {tuple(self.size)}.")
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)


def same_lattice(first: Geometry, second: Geometry) -> bool:
    """Tell whether the voxels of two grids have their centres at the same places, where both have voxels.

    >>> grid = Geometry((4, 4, 4), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    >>> same_lattice(grid, replace(grid, size=(2, 2, 2), origin=(1.0, 2.0, -4.0)))
    True
    >>> same_lattice(grid, replace(grid, origin=(0.5, 0.0, 0.0)))
    False
    """
    to_first = np.linalg.inv(first.axes)
    steps, start = to_first @ second.axes, to_first @ np.subtract(second.origin, first.origin)
    whole = np.rint(steps)
    if not (np.abs(whole).sum(0) == 1).all() or not (np.abs(whole).sum(1) == 1).all():
        return False
    drift = np.abs(steps - whole) @ np.array(second.size)
    return bool(drift.max() < _SAME_VOXEL and np.abs(start - np.rint(start)).max() < _SAME_VOXEL)
