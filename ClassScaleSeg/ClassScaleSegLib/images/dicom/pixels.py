"""Decode the pixels of DICOM slices with ITK, and rescale each slice as its own header says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DamagedImageError, ImageError, reason
from ..image_file import check_memory
from .headers import Slice

if TYPE_CHECKING:
    import SimpleITK as sitk


def decode(slices: list[Slice]) -> sitk.Image:
    """Return the real values of the slices, in their order.

    :raises ImageError: if pixels are missing, cannot be read, are in several objects with many frames, or do not fit
        into memory.
    """
    import SimpleITK as sitk

    for piece in slices:
        if piece.missing:
            raise DamagedImageError(
                f"{piece.file.name} is damaged: {piece.missing:,} bytes of its pixels are missing. Export the series "
                "again."
            )
    files = list(dict.fromkeys(piece.file for piece in slices))
    several = max(piece.frames for piece in slices) > 1
    if several and len(files) > 1:
        raise ImageError(
            f"It has {len(files)} objects with many frames. Name one of them: {', '.join(f.name for f in files[:3])}."
        )
    wanted = _pixel_type(slices)
    (rows, columns), count = slices[0].size, len(slices)
    as_itk = all(piece.rescale == piece.itk_rescale and not piece.inverted for piece in slices)
    check_memory("It", f"{columns}x{rows}x{count}", columns * rows * count * (4 if as_itk else 24))
    reader: Any = sitk.ImageFileReader() if several else sitk.ImageSeriesReader()
    if several:
        reader.SetFileName(str(files[0]))
    else:
        reader.SetFileNames([str(file) for file in files])
    reader.SetOutputPixelType(wanted if as_itk else sitk.sitkFloat64)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise DamagedImageError(f"Its pixels cannot be read ({reason(error, -1)}). Export the series again.") from None
    order = [piece.frame for piece in slices] if several else list(range(len(slices)))
    if as_itk and order == list(range(image.GetDepth())):
        return image
    # ITK stacks slices of one row along y, and those of one pixel along x
    planes = sitk.GetArrayFromImage(image).reshape(-1, rows, columns)[order]
    if not as_itk:
        for plane, piece in zip(planes, slices, strict=True):
            stored = np.rint((plane - piece.itk_rescale.intercept) / piece.itk_rescale.slope)
            stored = sum(piece.stored) - stored if piece.inverted else stored
            plane[:] = piece.rescale.slope * stored + piece.rescale.intercept
    return sitk.Cast(sitk.GetImageFromArray(planes), wanted)


def _pixel_type(slices: Sequence[Slice]) -> int:
    """Return SimpleITK's smallest type for the real values of all slices; float32, in which networks compute, if none
    of whole numbers will do."""
    import SimpleITK as sitk

    ends = [piece.rescale.slope * end + piece.rescale.intercept for piece in slices for end in piece.stored]
    if all(piece.rescale.slope.is_integer() and piece.rescale.intercept.is_integer() for piece in slices):
        for kind in ("UInt8", "Int16", "UInt16", "Int32"):
            limits = np.iinfo(kind.lower())
            if limits.min <= min(ends) and max(ends) <= limits.max:
                return getattr(sitk, f"sitk{kind}")
    return sitk.sitkFloat32
