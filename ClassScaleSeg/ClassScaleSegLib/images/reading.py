"""Read an image file, channel files, a DICOM folder or a SimpleITK image into the voxels that a model needs.

Faults that would otherwise give a wrong result without an error raise :class:`ImageError` here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from ..errors import ImageError, reason
from .geometry import Geometry
from .nifti import check_nifti

if TYPE_CHECKING:
    import SimpleITK as sitk

ImageSource = Union[str, Path, Sequence[str | Path], "sitk.Image"]

_DETACHED_HEADERS = (".mhd", ".nhdr", ".hdr")  # the voxels are in a second file
_DEFLATE_LIMIT = 1032  # largest compression ratio that deflate can reach


@dataclass(frozen=True)
class InputImage:
    """An image in the orientation that a model needs, and the way back to the user's grid.

    :ivar name: the file or files, for messages.
    :ivar voxels: ``(channels, z, y, x)`` in the model's orientation; ``None`` after `without_voxels`.
    :ivar spacing: mm along z, y, x, in the model's orientation.
    :ivar geometry: grid of the user's image, which is also the grid of the results.
    """

    name: str
    voxels: np.ndarray | None
    spacing: tuple[float, float, float]
    geometry: Geometry
    _oriented: Geometry
    _owners: tuple[Any, ...]  # SimpleITK images: ``voxels`` may be a view of their memory

    def without_voxels(self) -> InputImage:
        """Return a copy without voxels, so that their memory can be freed once the network has used them."""
        return replace(self, voxels=None, _owners=())

    def restore(self, array: np.ndarray) -> np.ndarray:
        """Turn an array from the model's orientation back to the user's grid.

        :param array: ``(z, y, x)`` in the model's orientation.
        :returns: ``(z, y, x)`` on ``geometry``; ``array`` itself if the orientations are the same.
        """
        if self._oriented == self.geometry:
            return array
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array)
        self._oriented.apply(image)
        del array
        code = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(self.geometry.direction)
        image = sitk.DICOMOrient(image, code)
        return sitk.GetArrayFromImage(image)


def read_image(source: ImageSource, channels: int, orientation: str | None = None, flat: bool = False) -> InputImage:
    """Read and check an image.

    :param source: an image file, one file for each channel, a folder with one DICOM series, or a SimpleITK image.
    :param channels: number of input channels of the model: one file each, or one file with this many components.
    :param orientation: turn the voxels to this anatomical orientation, such as ``"RAS"``; ``None`` leaves them as
        stored.
    :param flat: the model is 2D; a 2D image is then read as one slice.
    :raises ImageError: if the image cannot be read or does not fit the model; the message names the file, the fault
        and what to do.

    >>> import SimpleITK as sitk
    >>> image = read_image(sitk.Image([4, 3, 2], sitk.sitkInt16), channels=1)
    >>> image.voxels.shape, image.spacing
    ((1, 2, 3, 4), (1.0, 1.0, 1.0))
    """
    import SimpleITK as sitk

    if isinstance(source, sitk.Image):
        name, images = "The image", [source]
    else:
        files = [source] if isinstance(source, (str, Path)) else list(source)
        name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        images = [_read(Path(file)) for file in files]
    if len(images) == 1 and images[0].GetDimension() == 4 and images[0].GetSize()[3] == channels:
        whole = images[0]  # like nnU-Net's reader, take the fourth axis as channels
        images = [whole[:, :, :, channel] for channel in range(channels)]
    images = [_as_volume(name, image, flat) for image in images]
    _check_channels(name, images, channels)
    geometry = Geometry.from_image(images[0])
    if orientation is not None:
        images = [sitk.DICOMOrient(image, orientation) for image in images]
    oriented = Geometry.from_image(images[0])
    owners = tuple(images)
    if len(images) > 1:
        voxels = np.stack([sitk.GetArrayViewFromImage(image) for image in images])
        images, owners = images[:1], ()
    elif channels > 1:
        voxels = np.moveaxis(sitk.GetArrayViewFromImage(images[0]), -1, 0)
    else:
        voxels = sitk.GetArrayViewFromImage(images[0])[None]
    _check_finite(name, voxels)
    spacing = images[0].GetSpacing()[::-1]
    if images[0].GetSize()[2] == 1 and flat:
        spacing = (999 * max(spacing[1:]), *spacing[1:])  # as nnU-Net's SimpleITKIO does for one slice
    return InputImage(name, voxels, spacing, geometry, oriented, owners)


def _read(path: Path) -> sitk.Image:
    if path.is_dir():
        return _read_dicom(path)
    import SimpleITK as sitk

    if not path.exists():
        raise ImageError(f"{path} does not exist.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes).")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        check_nifti(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(f"{path} is not an image that SimpleITK can read ({reason(error, -1)}).") from None
    _check_header(path, reader)
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise ImageError(f"{path} cannot be read; it may be truncated ({reason(error, -1)}).") from None


def _check_header(path: Path, reader: Any) -> None:
    """Refuse headers that ITK would silently correct, or that would make it allocate too much memory."""
    import psutil
    import SimpleITK as sitk

    size, spacing, direction = reader.GetSize(), reader.GetSpacing(), reader.GetDirection()
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise ImageError(f"{path} has spacing {spacing} mm; every spacing must be positive. Correct its header.")
    axes = np.reshape(direction, (len(size), len(size)))
    if not np.isfinite(axes).all() or abs(np.linalg.det(axes)) < 1e-3:
        raise ImageError(f"{path} has a direction matrix that is not a rotation: {direction}. Correct its header.")
    pixel = sitk.Image([1] * len(size), reader.GetPixelID(), reader.GetNumberOfComponents())
    count = math.prod(size) * reader.GetNumberOfComponents() * pixel.GetSizeOfPixelComponent()
    dimensions = "x".join(map(str, size))
    held = path.stat().st_size
    if path.suffix not in _DETACHED_HEADERS and count > held * _DEFLATE_LIMIT:
        raise ImageError(
            f"{path} declares {dimensions} voxels, more than its {held:,} bytes can hold: its header is broken."
        )
    available = psutil.virtual_memory().available
    if count > available:
        raise ImageError(
            f"{path} has {dimensions} voxels, {count / 2**30:.1f} GiB; {available / 2**30:.1f} GiB of memory are free. "
            "Crop or resample it first."
        )


def _read_dicom(folder: Path) -> sitk.Image:
    import SimpleITK as sitk

    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise ImageError(f"{folder} has no DICOM series. Give the folder with the slices, or an image file.")
    files = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in series}
    if len(series) > 1:
        found = ", ".join(f"{uid} ({len(names)} files)" for uid, names in files.items())
        raise ImageError(
            f"{folder} has {len(series)} DICOM series: {found}. Move the one you need to a separate folder."
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files[series[0]])
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ImageError(f"The DICOM series in {folder} cannot be read ({reason(error, -1)}).") from None
    _check_slices(folder, reader, len(files[series[0]]))
    return image


def _check_slices(folder: Path, reader: Any, count: int) -> None:
    """Require equal distances between slices, within 1 %. ITK only warns and puts the slices in the wrong places."""
    position = "0020|0032"
    if count < 3 or not all(reader.HasMetaDataKey(i, position) for i in range(count)):
        return
    places = [[float(x) for x in reader.GetMetaData(i, position).split("\\")] for i in range(count)]
    gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    if gaps.max() - gaps.min() > 0.01 * np.median(gaps) + 0.01:
        raise ImageError(
            f"The slices in {folder} are {gaps.min():.2f} to {gaps.max():.2f} mm apart: some are missing, or several "
            "volumes are mixed. Export the series again, or resample it to equal distances."
        )


def _as_volume(name: str, image: sitk.Image, flat: bool) -> sitk.Image:
    import SimpleITK as sitk

    if image.GetDimension() == 2 and flat:
        return sitk.JoinSeries(image)
    if image.GetDimension() != 3:
        hint = "Extract one of its frames." if image.GetDimension() == 4 else "Give the whole volume, not a slice."
        raise ImageError(f"{name} is a {image.GetDimension()}D image; the model segments 3D images. {hint}")
    return image


def _check_channels(name: str, images: list, channels: int) -> None:
    components = [image.GetNumberOfComponentsPerPixel() for image in images]
    if sum(components) != channels or (len(images) > 1 and max(components) > 1):
        raise ImageError(
            f"{name}: {len(images)} file(s) with {'+'.join(map(str, components))} channel(s) were given, but the model "
            f"needs {channels}. Give one file for each channel, in the model's order."
        )
    first = images[0]
    for image in images[1:]:
        same = np.allclose(image.GetSpacing(), first.GetSpacing(), rtol=1e-3)
        same &= np.allclose(image.GetDirection(), first.GetDirection(), atol=1e-3)
        same &= np.allclose(image.GetOrigin(), first.GetOrigin(), atol=1e-2)
        if image.GetSize() != first.GetSize() or not same:
            raise ImageError(
                f"{name}: the channels have different grids. Resample them to the grid of the first channel."
            )


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
