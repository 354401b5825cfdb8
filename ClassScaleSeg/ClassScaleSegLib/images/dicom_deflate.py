"""Write a DICOM file in Deflated Explicit VR Little Endian, with the pixels as a stream.

pydicom compresses the whole data set at once and holds the pixels of all frames three times, which are gigabytes in a
binary segmentation of 1000 classes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset


def write_deflated(path: Path, dataset: FileDataset, pixels: Iterable[bytes], size: int) -> None:
    """Write a data set and, as its last element, its pixels.

    :param dataset: without PixelData; with the file meta information of its transfer syntax.
    :param pixels: parts of the pixels, uncompressed.
    :param size: of all parts together, bytes.
    :raises OSError: if the file cannot be written.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset, write_file_meta_info

    head, elements = DicomBytesIO(), DicomBytesIO()
    elements.is_implicit_VR, elements.is_little_endian = False, True
    write_file_meta_info(head, dataset.file_meta)
    write_dataset(elements, dataset)
    kind = b"OW" if dataset.BitsAllocated > 8 else b"OB"
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM" + head.getvalue())
        stream = _Stream(file)
        stream.add(elements.getvalue())
        del elements
        # Pixel Data (7FE0,0010); an element has an even number of bytes
        stream.add(struct.pack("<HH2sHL", 0x7FE0, 0x0010, kind, 0, size + size % 2))
        for part in pixels:
            stream.add(part)
        stream.add(bytes(size % 2))
        stream.end()


class _Stream:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._written = file, 0
        self._compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)  # without header and checksum, as the standard says

    def add(self, data: bytes) -> None:
        self._written += self._file.write(self._compressor.compress(data))

    def end(self) -> None:
        self._written += self._file.write(self._compressor.flush())
        self._file.write(bytes(self._written % 2))
