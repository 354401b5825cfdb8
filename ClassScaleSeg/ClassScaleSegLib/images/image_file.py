"""Read one image file: NIfTI by `nifti.py`, all others with ITK, after a check of what ITK would silently change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, LargeImageError, named, reason
from .geometry import ROUNDED_SHEAR, Geometry
from .nifti import NiftiHeader, is_nifti, read_header, read_voxels
from .suffixes import DETACHED_HEADERS
from .text_headers import check_text_header, readable_header, refuse_long_header, says_spacing

if TYPE_CHECKING:
    import SimpleITK as sitk

_LIBRARIES = {
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
}
_TIFF = (".tif", ".tiff")
_DEFLATE_LIMIT = 1032  # largest compression ratio that deflate can reach
_SAME_PLACE = 0.01  # mm


@dataclass(frozen=True)
class ReadVolume:
    """An image as it is stored.

    :ivar voxels: ``(z, y, x)``, with axes for components, and for a fourth dimension, before these; a 2D image is one
        slice.
    :ivar geometry: grid of the axes x, y and z.
    :ivar dimensions: of the image, not counting components.
    :ivar notices: sentences that the user should see: where the file was ambiguous, and how it was understood.
    :ivar owner: the SimpleITK image of whose memory ``voxels`` is a view; the view is valid as long as it exists.
    """

    voxels: np.ndarray
    geometry: Geometry
    dimensions: int
    notices: tuple[str, ...] = ()
    owner: sitk.Image | None = None

    @classmethod
    def of_image(cls, image: sitk.Image, notices: tuple[str, ...] = ()) -> ReadVolume:
        """Return a SimpleITK image without a copy of its voxels."""
        import SimpleITK as sitk

        voxels = sitk.GetArrayViewFromImage(image)
        if image.GetNumberOfComponentsPerPixel() > 1:
            voxels = np.moveaxis(voxels, -1, 0)
        if image.GetDimension() == 2:
            voxels = voxels[..., None, :, :]
        return cls(voxels, Geometry.first_axes(image), image.GetDimension(), notices, image)


def refuse_name(path: Path) -> None:
    """Refuse a name that is not in UTF-8: ITK would end the process.

    :raises ImageError: naming the file.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ImageError(f"{str(path)!a} is not a name in UTF-8, which ITK needs. Rename the file.") from None


def read_file(path: Path, nibabel: bool = False, labels: bool = False) -> ReadVolume:
    """Read an image file: NIfTI, or any format that ITK knows.

    :param nibabel: understand ambiguous NIfTI headers as nibabel does, not as ITK does.
    :param labels: they are labels, and no image for a model.
    :raises ImageError: if the file is damaged, contradicts itself, or does not fit into memory.
    """
    header = read_header(path) if is_nifti(path) else None
    return _read_with_itk(path) if header is None else _read_nifti(path, header, nibabel, labels)


def _read_nifti(path: Path, header: NiftiHeader, nibabel: bool, labels: bool) -> ReadVolume:
    """Read a NIfTI file by itself, at the place that nibabel or ITK would give to it.

    :raises ImageError: if the model's own reader, nibabel or ITK, finds no place.
    """
    if header.dtype.names:
        raise ImageError(colour_image(path, len(header.dtype.names)))
    if header.dtype.kind not in "iuf":
        raise ImageError(f"{path} has voxels of the type {header.dtype}; the model needs numbers. Convert it.")
    geometry, by_itk = _nifti_grid(path, header, nibabel)
    if by_itk is None and header.version == 1 and not nibabel and geometry.shear > ROUNDED_SHEAR:
        raise ImageError(
            f"{path} has axes that are not perpendicular, which ITK, the reader of this model, refuses. Resample it to "
            "perpendicular axes, or correct the sform of its header."
        )
    apart = 0.0 if by_itk is None else math.inf if header.geometry is None else header.geometry.distance(by_itk)
    doubts = []
    if header.scaling != header.itk_scaling:
        doubts.append("has an intercept without a valid slope, which ITK adds and nibabel does not")
    if max(apart, header.two_places) > _SAME_PLACE:
        distance = f", {max(apart, header.two_places):.2f} mm apart" if math.isfinite(apart) else ""
        doubts.append(f"leaves open where its voxels are: its header can be understood in two ways{distance}")
    reader = "nibabel" if nibabel else "ITK"
    read = f"It is read as {reader} does, as in the training of this model."
    if labels:
        read = f"It is read as {reader} does."
    _check_size(path, header.dimensions, header.voxel_bytes, path.stat().st_size)
    voxels = read_voxels(path, header, header.scaling if nibabel else header.itk_scaling)
    return ReadVolume(voxels, geometry, voxels.ndim, tuple(f"{path} {doubt}. {read}" for doubt in doubts))


def are_colours(voxels: np.ndarray) -> bool:
    """Return whether voxels are probably colours: three or four values of 8 bits each.

    :param voxels: as of `ReadVolume`.
    """
    return voxels.dtype == np.uint8 and voxels.ndim == 4 and len(voxels) in (3, 4)


def colour_image(name: Path | str, values: int) -> str:
    """Return what to say of a colour image that a model is to segment.

    :param values: in each voxel.
    """
    return (
        f"{name} is a colour image: each voxel has {values} values, as for red, green and blue. The model needs grey "
        "values: convert it, as the module Vector to Scalar Volume of 3D Slicer does."
    )


def read_grid(path: Path, nibabel: bool = False) -> Geometry | None:
    """Return the grid of an image file from its header, without its voxels, as :func:`read_file` would give it.

    :returns: ``None`` if it is no volume of one channel.
    :raises ImageError: if the header contradicts itself.
    """
    header = read_header(path) if is_nifti(path) else None
    if header is not None:
        volume = header.dtype.kind in "iuf" and len(header.shape) >= 3 and all(n == 1 for n in header.shape[:-3])
        return _nifti_grid(path, header, nibabel)[0] if volume else None
    try:
        reader = itk_reader(path)
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    _check_header(path, reader)
    volume = reader.GetDimension() == 3 and reader.GetNumberOfComponents() == 1
    with named(path):
        return Geometry.first_axes(reader) if volume else None


def _nifti_grid(path: Path, header: NiftiHeader, nibabel: bool) -> tuple[Geometry, Geometry | None]:
    """Return the grid of a NIfTI file, and the one that ITK reads from it."""
    with named(path):
        by_itk = _geometry_by_itk(path) if header.version == 1 else None  # of NIfTI-2, it complains on the terminal
    geometry = header.geometry if nibabel or by_itk is None else by_itk
    if geometry is None:
        raise ImageError(f"{path} has axes that do not span a volume. Correct the sform or qform of its header.")
    return geometry, by_itk


def _geometry_by_itk(path: Path) -> Geometry | None:
    """Return the geometry that ITK reads from a NIfTI header; ``None`` if it refuses it, or drops axes of one voxel."""
    try:
        reader = itk_reader(path)
    except RuntimeError:
        return None
    return Geometry.first_axes(reader) if reader.GetDimension() >= 3 else None


def itk_reader(path: Path) -> sitk.ImageFileReader:
    """Return a reader of SimpleITK that has read the header of a file.

    A file that is named after one of the usual formats is read as that. Otherwise ITK would choose by the content, also
    formats that read further files of the folder, or that the content names.

    :raises RuntimeError: if ITK refuses it.
    :raises ImageError: if its header has too many entries.
    """
    import SimpleITK as sitk

    refuse_long_header(path)
    reader = sitk.ImageFileReader()
    suffix = next((suffix for suffix in _LIBRARIES if path.name.lower().endswith(suffix)), None)
    if suffix is not None:
        reader.SetImageIO(_LIBRARIES[suffix])
    with readable_header(path) as header:
        reader.SetFileName(str(header))
        reader.ReadImageInformation()
    reader.SetFileName(str(path))
    return reader


def _read_with_itk(path: Path) -> ReadVolume:
    try:
        reader = itk_reader(path)
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    _check_header(path, reader)
    try:
        with named(path), readable_header(path) as header:
            reader.SetFileName(str(header))
            return ReadVolume.of_image(reader.Execute(), _missing_spacing(path, reader))
    except RuntimeError as error:
        raise ImageError(f"{path} cannot be read; it may be truncated ({reason(error, -1)}).") from None


def _missing_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[str, ...]:
    """Return a sentence if the header of a file does not say how far its voxels, or its slices, are apart."""
    if path.name.lower().endswith(_TIFF) and reader.GetDimension() > 2:
        spacing = " x ".join(f"{side:.4g}" for side in reader.GetSpacing())
        return (
            f"{path} is a TIFF file, which does not say how far its slices are apart: voxels of {spacing} mm are "
            "assumed. If they are others, set the spacing in 3D Slicer (module Volumes), and save it as NRRD.",
        )
    if says_spacing(path):
        return ()
    return (f"{path} does not say how far its voxels are apart: 1 mm is assumed. Add the spacing to its header.",)


def _unreadable(path: Path, error: RuntimeError) -> ImageError:
    if path.name.lower().endswith((".mgz", ".mgh")):
        return ImageError(
            f"{path} is an image of FreeSurfer, which is not read. Convert it: mri_convert IMAGE.mgz IMAGE.nii.gz"
        )
    return ImageError(
        f"{path} is not an image that SimpleITK can read ({reason(error, -1)}). Convert it to NIfTI or NRRD."
    )


def _check_header(path: Path, reader: Any) -> None:
    """Refuse headers that ITK would silently correct, or that would make it allocate too much memory."""
    import SimpleITK as sitk

    size, spacing, direction = reader.GetSize(), reader.GetSpacing(), reader.GetDirection()
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise ImageError(f"{path} has spacing {spacing} mm; every spacing must be positive. Correct its header.")
    if not 2 <= len(size) <= 5:
        raise ImageError(f"{path} is a {len(size)}D image; the model segments 3D images.")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise ImageError(f"{path} has complex voxels; the model needs real numbers. Convert them to magnitudes.")
    axes = np.reshape(direction, (len(size), len(size)))
    if not np.isfinite(axes).all() or abs(np.linalg.det(axes)) < 1e-3:
        raise ImageError(f"{path} has a direction matrix that is not a rotation: {direction}. Correct its header.")
    check_text_header(path, len(size))
    pixel = sitk.Image([1] * len(size), reader.GetPixelID(), reader.GetNumberOfComponents())
    count = math.prod(size) * reader.GetNumberOfComponents() * pixel.GetSizeOfPixelComponent()
    dimensions = "x".join(map(str, size))
    if path.name.lower().endswith(DETACHED_HEADERS):
        check_memory(path, dimensions, count)
    else:
        _check_size(path, dimensions, count, path.stat().st_size)


def _check_size(path: Path, dimensions: str, count: int, held: int) -> None:
    """Refuse ``count`` bytes if a file of ``held`` bytes cannot hold them, even compressed, or memory cannot."""
    if count > held * _DEFLATE_LIMIT:
        raise ImageError(
            f"{path} declares {dimensions} voxels, more than its {held:,} bytes can hold: its header is broken."
        )
    check_memory(path, dimensions, count)


def check_memory(name: Path | str, dimensions: str, count: int) -> None:
    """Refuse an image of ``count`` bytes that does not fit into the free memory.

    Nothing is refused where psutil is not installed, as in a Slicer in which nothing was segmented yet.

    :raises LargeImageError: naming the image, its dimensions and the free memory.
    """
    try:
        import psutil
    except ModuleNotFoundError:
        return
    available = psutil.virtual_memory().available
    if count > available:
        raise LargeImageError(
            f"{name} has {dimensions} voxels, {count / 2**30:.1f} GiB; {available / 2**30:.1f} GiB of memory are free. "
            "Crop or resample it first."
        )
