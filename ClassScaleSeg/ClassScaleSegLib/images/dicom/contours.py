"""Encode outlines as the contours of an RT Structure Set, in Implicit VR Little Endian.

Hundreds of structures have tens of thousands of contours; as pydicom's data sets they would take many times the memory
and the time.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

import numpy as np

from ...errors import OutputError
from ..contours import Outline
from .headers import Slice
from .object import instance_reference
from .source import SourceSeries

_LONGEST_NUMBER = 16  # characters of a decimal string
_MOST_BYTES = 1 << 31  # of all contours; a sequence of DICOM holds 4 GiB


class EncodedContours:
    """Encodes outlines for one series, each in the plane of its slice and with a reference to it.

    :raises OutputError: if coordinates would need more digits than DICOM has.
    """

    def __init__(self, series: SourceSeries) -> None:
        self._places = [_place(piece) for piece in series.slices]
        self._references = [_reference(piece) for piece in series.slices]
        # rounded to a thousandth of a voxel, which is less than outlines are inside of the edges of voxels
        self._digits = max(0, math.ceil(3 - math.log10(min(series.geometry.spacing[:2]))))
        largest = float(np.abs(series.geometry.corners).max() + max(series.geometry.spacing))
        if len(f"{-largest:.{self._digits}f}") > _LONGEST_NUMBER:
            raise OutputError(
                f"The slices of {series.name} are up to {largest:.3g} mm from the origin, and DICOM has too few digits "
                "for contours there. Write .seg.nrrd."
            )
        self._bytes = 0

    def encoded(self, outlines: Iterable[Outline]) -> bytes:
        """Return the items of a ContourSequence, numbered from 1.

        :raises OutputError: if all contours so far are larger than a structure set can sensibly be.
        """
        items = []
        for number, outline in enumerate(outlines, start=1):
            items.append(self._item(number, outline))
            self._bytes += len(items[-1])
            if self._bytes > _MOST_BYTES:
                raise OutputError(
                    f"The contours of the structures take more than {_MOST_BYTES / 2**30:.0f} GiB, too much for a "
                    "structure set. Smooth them, choose fewer classes, or write .seg.dcm."
                )
        return b"".join(items)

    def _item(self, number: int, outline: Outline) -> bytes:
        origin, steps = self._places[outline.row]
        content = (
            self._references[outline.row]
            + _element(0x3006, 0x0042, b"CLOSED_PLANAR")  # ContourGeometricType
            + _element(0x3006, 0x0046, b"%d" % len(outline.points))  # NumberOfContourPoints
            + _element(0x3006, 0x0048, b"%d" % number)  # ContourNumber
            + _element(0x3006, 0x0050, self._text(origin + outline.points @ steps))  # ContourData
        )
        return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content

    def _text(self, points: np.ndarray) -> bytes:
        """Return points ``(n, 3)`` as decimal strings; a coordinate that all have in common is written shorter."""
        points = np.round(points, self._digits) + 0.0  # never -0
        same = (points == points[0]).all(axis=0)
        number = f"%.{self._digits}f"
        shared = [(number % value).rstrip("0").rstrip(".") if self._digits else number % value for value in points[0]]
        point = "\\".join(text if fixed else number for text, fixed in zip(shared, same, strict=True))
        return ("\\".join([point] * len(points)) % tuple(points[:, ~same].ravel().tolist())).encode()


def _element(group: int, element: int, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return struct.pack("<HHL", group, element, len(value)) + value


def _reference(piece: Slice) -> bytes:
    """Return the ContourImageSequence of the contours in a slice."""
    from pydicom.dataset import Dataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    holder, image, encoded = Dataset(), instance_reference(piece), DicomBytesIO()
    if piece.frames > 1:
        image.ReferencedFrameNumber = piece.frame + 1
    holder.ContourImageSequence = [image]
    encoded.is_implicit_VR, encoded.is_little_endian = True, True
    write_dataset(encoded, holder)
    return encoded.getvalue()


def _place(piece: Slice) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the first pixel of a slice, LPS in mm, and the steps to the next column and row, (2, 3)."""
    assert piece.position is not None and piece.directions is not None and piece.spacing is not None
    steps = np.reshape(piece.directions, (2, 3)) * np.reshape(piece.spacing[::-1], (2, 1))
    return np.array(piece.position), steps
