"""Describe the position of a voxel grid in space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True)
class Geometry:
    """A voxel grid in SimpleITK's convention: axes x, y, z; millimetres; left-posterior-superior.

    :ivar size: voxels along x, y, z.
    :ivar spacing: mm along x, y, z.
    :ivar origin: centre of the first voxel, mm.
    :ivar direction: 3 x 3 matrix, row by row; its columns are the directions of the x, y and z axis.
    :raises ImageError: if a size or spacing is not positive, a number is not finite, or the directions do not span a
        volume.

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

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return abs(float(np.linalg.det(self.axes)))

    @property
    def axes(self) -> np.ndarray:
        """``(3, 3)`` float64: column i is the step from one voxel to the next along axis i, in mm."""
        return np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)

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
