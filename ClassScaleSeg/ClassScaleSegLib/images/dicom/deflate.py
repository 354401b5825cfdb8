"""Write and read DICOM files in Deflated Explicit VR Little Endian, with the compressed part as a stream.

pydicom compresses the whole data set at once and holds the pixels of all frames three times, which are gigabytes in a
binary segmentation of 1000 classes. It decompresses whatever comes out, although a small file can fill the memory; and
all pixels to read a header.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ...errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_PART = 1 << 16  # bytes that are read at once


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


def inflated(path: Path) -> Path | BytesIO:
    """Return what pydicom shall read in place of a file: the file itself, or its content if that is compressed.

    :raises ImageError: if the content would take more than half of the free memory, which the pixels need too; or if it
        is damaged.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_file_meta_info
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = read_file_meta_info(path)
    if not UID(meta.get("TransferSyntaxUID") or "").is_deflated:
        return path
    parts = _inflate(path, meta.FileMetaInformationGroupLength)
    head, content, meta.TransferSyntaxUID = DicomBytesIO(), BytesIO(), ExplicitVRLittleEndian
    write_file_meta_info(head, meta)
    content.write(bytes(128) + b"DICM" + head.getvalue())
    for part in parts:
        content.write(part)
    content.seek(0)
    return content


def read_header(path: Path) -> Dataset:
    """Read a DICOM file without its pixels, which are not decompressed either.

    :raises ImageError: as :func:`inflated`.
    :raises OSError: if it cannot be read.
    """
    import pydicom
    from pydicom.filereader import read_dataset, read_file_meta_info
    from pydicom.uid import UID

    meta = read_file_meta_info(path)
    if not UID(meta.get("TransferSyntaxUID") or "").is_deflated:
        return pydicom.dcmread(path, stop_before_pixels=True)
    stream = io.BufferedReader(_Inflated(_inflate(path, meta.FileMetaInformationGroupLength)))
    return read_dataset(stream, False, True, stop_when=lambda tag, *_: tag == 0x7FE00010)


def _inflate(path: Path, length: int) -> Iterator[bytes]:
    """Yield the data set of a compressed file in parts.

    :param length: the FileMetaInformationGroupLength of the file.
    :raises ImageError: if all parts together take more than half of the free memory, or the end is missing.
    """
    import psutil

    limit, size = psutil.virtual_memory().available // 2, 0
    decompressor = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    with path.open("rb") as file:
        # after the preamble, "DICM" and the element with the length
        file.seek(144 + length)
        while not decompressor.eof:
            compressed = decompressor.unconsumed_tail or file.read(_PART)
            part = decompressor.decompress(compressed, 16 * _PART)
            size += len(part)
            if not (compressed or part):
                raise ImageError("It cannot be read, because its end is missing. Export it again.")
            if size > limit:
                raise ImageError(
                    f"It has {path.stat().st_size:,} bytes, which are compressed and become more than half of the free "
                    f"memory ({limit / 2**29:.1f} GiB). Close other programs, or export it without compression."
                )
            yield part


class _Inflated(io.RawIOBase):
    """A data set that is inflated as far as it was asked for, of which pydicom reads a part again."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._found, self._place = parts, bytearray(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence != 2  # pydicom does not ask where the end is
        self._place = offset + (self._place if whence == 1 else 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        end = self._place + len(buffer)
        while len(self._found) < end and (part := next(self._parts, None)) is not None:
            self._found += part
        given = self._found[self._place : end]
        buffer[: len(given)] = given
        self._place += len(given)
        return len(given)


class _Stream:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._written = file, 0
        self._compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)  # without header and checksum, as the standard says

    def add(self, data: bytes) -> None:
        self._written += self._file.write(self._compressor.compress(data))

    def end(self) -> None:
        self._written += self._file.write(self._compressor.flush())
        self._file.write(bytes(self._written % 2))
