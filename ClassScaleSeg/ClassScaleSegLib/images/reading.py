"""Read an image file, channel files, a DICOM folder or a SimpleITK image into the voxels that a model needs.

Faults that would otherwise give a wrong result without an error raise :class:`ImageError` here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from ..errors import ImageError, named, reason
from .dicom.headers import is_dicom
from .dicom.series import doubts_of_slice, read_object, read_places, read_series
from .geometry import Box, Geometry, Turn
from .image_file import ReadVolume, are_colours, colour_image, read_file, read_grid, refuse_name

if TYPE_CHECKING:
    import SimpleITK as sitk

_WHOLE_IN_FLOAT32 = 1 << 24  # up to here, float32 has every one
ImageSource = Union[str, Path, Sequence[str | Path], "sitk.Image"]


@dataclass(frozen=True)
class InputImage:
    """An image in the orientation that a model needs, and the way back to the user's grid.

    :ivar name: the file or files, for messages.
    :ivar voxels: ``(channels, z, y, x)`` in the model's orientation, a view of the voxels as stored, whose axes may
        have any order and run backwards; ``None`` after `without_voxels`.
    :ivar spacing: mm along z, y, x, in the model's orientation.
    :ivar geometry: grid of the user's image, which is also the grid of the results.
    :ivar notices: sentences that the user should see: what was left out, and how ambiguous headers were understood.
    """

    name: str
    voxels: np.ndarray | None
    spacing: tuple[float, float, float]
    geometry: Geometry
    notices: tuple[str, ...]
    _turn: Turn | None
    _owner: sitk.Image | None  # ``voxels`` are a view of its memory

    def without_voxels(self) -> InputImage:
        """Return a copy without voxels, so that their memory can be freed once the network has used them."""
        return replace(self, voxels=None, _owner=None)

    def turned_box(self, box: Box) -> Box:
        """Return where a box of the user's grid, along z, y, x, is in the model's orientation."""
        return box if self._turn is None else self._turn.box(box, self.geometry.size[::-1])

    def restored_box(self, box: Box) -> Box:
        """Return where a box of the model's orientation, along z, y, x, is on the user's grid."""
        if self._turn is None:
            return box
        return self._turn.inverse.box(box, [self.geometry.size[::-1][axis] for axis in self._turn.order])

    @property
    def reversed(self) -> tuple[bool, bool, bool]:
        """Whether the axes z, y, x of ``voxels`` run backwards along those of the user's image."""
        return (False, False, False) if self._turn is None else self._turn.flips

    def restore(self, array: np.ndarray) -> np.ndarray:
        """Turn an array from the model's orientation back to the user's grid.

        :param array: ``(z, y, x)`` in the model's orientation.
        :returns: ``(z, y, x)`` on ``geometry``; ``array`` itself if the orientations are the same.
        """
        return array if self._turn is None else np.ascontiguousarray(self._turn.undo(array))


def read_image(
    source: ImageSource, channels: int, orientation: str | None = None, flat: bool = False, nibabel: bool = False
) -> InputImage:
    """Read and check an image.

    :param source: an image file, one file for each channel, a folder with one DICOM series, or a SimpleITK image.
    :param channels: number of input channels of the model: one file each, or one file with this many components.
    :param orientation: turn the voxels to this anatomical orientation, such as ``"RAS"``; ``None`` leaves them as
        stored.
    :param flat: the model is 2D; a 2D image is then read as one slice.
    :param nibabel: the model was trained on images that nibabel had read, so NIfTI headers that nibabel and ITK
        understand differently are understood as nibabel does.
    :raises ImageError: if the image cannot be read or does not fit the model; the message names the file, the fault
        and what to do.

    >>> import SimpleITK as sitk
    >>> image = read_image(sitk.Image([4, 3, 2], sitk.sitkInt16), channels=1)
    >>> image.voxels.shape, image.spacing
    ((1, 2, 3, 4), (1.0, 1.0, 1.0))
    """
    import SimpleITK as sitk

    if isinstance(source, sitk.Image):
        name = "The image"
        with named(name):
            read = ReadVolume.of_image(source)
        _check_volume(name, read, 1, channels, flat)
    else:
        files = [source] if isinstance(source, (str, Path)) else list(source)
        name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        read = _read_files(name, files, channels, flat, nibabel)
    voxels = read.voxels.reshape(channels, *read.voxels.shape[-3:])
    oriented, turn = read.geometry, None
    if orientation is not None:
        oriented, turn = read.geometry.turned(orientation)
        voxels = turn.apply(voxels)
    _check_finite(name, voxels)
    notices = (*read.notices, *_rounding(name, voxels))
    spacing = oriented.spacing[::-1]
    if flat and oriented.size[2] == 1:
        spacing = (999 * max(spacing[1:]), *spacing[1:])  # as nnU-Net's SimpleITKIO does for one slice
    return InputImage(name, voxels, spacing, read.geometry, notices, turn, read.owner)


def _read_files(name: str, files: Sequence[str | Path], channels: int, flat: bool, nibabel: bool) -> ReadVolume:
    """Read and check files. Of several, each is copied to the result and freed before the next is read.

    :returns: the only volume as it is stored, or the channels ``(channels, z, y, x)`` on the grid of the first.
    """
    first = read_volume(Path(files[0]), flat, nibabel)
    _check_volume(name, first, len(files), channels, flat)
    if len(files) == 1:
        return first
    geometry, notices = first.geometry, first.notices
    voxels = np.empty((channels, *first.voxels.shape[-3:]), first.voxels.dtype)
    voxels[0] = first.voxels.reshape(voxels.shape[1:])
    del first
    for number, file in enumerate(files[1:], 1):
        other = read_volume(Path(file), flat, nibabel)
        _check_volume(name, other, len(files), channels, flat)
        _check_grid(name, other.geometry, geometry)
        voxels = voxels.astype(np.result_type(voxels.dtype, other.voxels.dtype), copy=False)
        voxels[number] = other.voxels.reshape(voxels.shape[1:])
        notices += other.notices
        del other
    return ReadVolume(voxels, geometry, 3, notices)


def refuse_missing(path: Path) -> None:
    """Refuse what is not there, as `read_volume` does, before the model is opened that is to segment it.

    :raises ImageError: if there is no such file or folder, it is an empty file or no file, or this cannot be told.
    """
    refuse_name(path)
    try:
        if not path.exists():
            if path.is_symlink():
                raise ImageError(f"{path} is a link whose target is missing.")
            raise ImageError(f"{path} does not exist.")
        if path.is_dir():
            return
        if not path.is_file():  # of a pipe, ITK would wait for ever for somebody to write
            raise ImageError(f"{path} is neither a file nor a folder.")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes).")
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or reason(error)}).") from error


def read_volume(path: Path, flat: bool = False, nibabel: bool = False) -> ReadVolume:
    """Read an image file or a DICOM folder as it is stored, whatever its dimensions are.

    :param flat: as of :func:`read_image`, like ``nibabel``.
    :raises ImageError: if it cannot be read.
    """
    refuse_missing(path)
    try:
        if path.is_dir():
            return read_series(path)
        if not is_dicom(path):
            return read_file(path, nibabel)
        if not flat:
            return read_object(path)
        doubts = doubts_of_slice(path)
        read = read_file(path, nibabel)
        return replace(read, notices=read.notices + doubts)
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or reason(error)}).") from error


def check_headers(files: Sequence[Path], nibabel: bool = False) -> None:
    """Check what can be known of an image without its voxels: headers can be read, and all channels have one grid.

    :param files: one for each channel, or the folder of a DICOM series.
    :param nibabel: as of :func:`read_image`.
    :raises ImageError: if one cannot be used.
    """
    grids = [_grid_in_header(file, nibabel) for file in files]
    for grid in grids[1:]:
        if grid is not None and grids[0] is not None:
            _check_grid(f"{files[0]} and {len(files) - 1} more", grid, grids[0])


def _grid_in_header(path: Path, nibabel: bool) -> Geometry | None:
    """Return the grid of a volume of one channel; ``None`` of what is something else, which may be an image too."""
    refuse_missing(path)
    try:
        if path.is_dir():
            return read_places(path)[1]
        return None if is_dicom(path) else read_grid(path, nibabel)
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or reason(error)}).") from error


def _check_volume(name: str, volume: ReadVolume, files: int, channels: int, flat: bool) -> None:
    """Require one volume for each channel, as a file, a component or, as nnU-Net's reader does, along a fourth axis."""
    fourth = volume.dimensions == 4 and volume.voxels.ndim == 4 and files == 1
    if not (volume.dimensions == 3 or (flat and volume.dimensions == 2) or (fourth and len(volume.voxels) == channels)):
        hint = "Extract one of its frames." if volume.dimensions == 4 else "Give the whole volume, not a slice."
        raise ImageError(f"{name} is a {volume.dimensions}D image; the model segments 3D images. {hint}")
    components = math.prod(volume.voxels.shape[:-3])
    if files * components != channels or (files > 1 and components > 1):
        if files == 1 and are_colours(volume.voxels) and volume.dimensions < 4:
            raise ImageError(colour_image(name, components))
        inside = f"{' with' if files == 1 else ', one with'} {components} channels" if components > 1 else ""
        raise ImageError(
            f"{name}: {files} file(s){inside} were given, but the model needs {channels} channel(s). "
            "Give one file for each channel, in the model's order."
        )


def _check_grid(name: str, other: Geometry, first: Geometry) -> None:
    same = np.allclose(other.spacing, first.spacing, rtol=1e-3)
    same &= np.allclose(other.direction, first.direction, atol=1e-3)
    same &= np.allclose(other.origin, first.origin, atol=1e-2)
    if other.size != first.size or not same:
        raise ImageError(f"{name}: the channels have different grids. Resample them to the grid of the first channel.")


def _check_finite(name: str, voxels: np.ndarray) -> None:
    """Refuse NaN and infinite voxels. Networks compute in float32; values beyond its range count as infinite."""
    if voxels.dtype.kind != "f":
        return
    low, high = float(voxels.min()), float(voxels.max())  # NaN if there is one
    limit = float(np.finfo(np.float32).max)
    if not (-limit <= low and high <= limit):
        broken = int((~(np.abs(voxels) <= limit)).sum())
        raise ImageError(
            f"{name} has {broken:,} voxels that are NaN or infinite. Replace them first, for example with air."
        )


def _rounding(name: str, voxels: np.ndarray) -> tuple[str, ...]:
    """Return what to say of whole numbers that float32, in which networks compute, cannot tell apart."""
    if voxels.dtype.kind == "f" or voxels.dtype.itemsize < 4:
        return ()
    largest = max(-int(voxels.min()), int(voxels.max()))
    if largest <= _WHOLE_IN_FLOAT32:
        return ()
    planes = voxels.reshape(-1, *voxels.shape[-2:])
    rounded = sum(np.count_nonzero(plane.astype(np.float32).astype(np.float64) != plane) for plane in planes)
    if not rounded:
        return ()
    most = float(np.spacing(np.float32(largest))) / 2
    return (
        f"{name} has {rounded:,} voxels that are rounded, by up to {most:,.0f}: the network computes in float32, which "
        f"holds all whole numbers up to {_WHOLE_IN_FLOAT32:,}. If a constant was added to the image, subtract it.",
    )
