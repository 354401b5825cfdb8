"""Look at DICOM files that came from an archive: what they are, whether they are whole and can be read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArchiveError, reason
from ..images.dicom_deflate import read_header
from .elements import is_uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", _DEFLATED}
_DECODED = {  # by GDCM in ITK, as a test tries
    "1.2.840.10008.1.2.5",  # RLE
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)),  # JPEG
    *(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81)),  # JPEG-LS
    *(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91)),  # JPEG 2000
}
_IDENTITY = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SKIPPED = 4096  # bytes of an element, of which more are not kept in memory


@dataclass(frozen=True)
class Received:
    """What a file says of itself.

    :ivar instance: SOPInstanceUID, a valid one.
    :ivar syntax: the transfer syntax; "" if it has no valid one.
    """

    instance: str
    study: str
    series: str
    syntax: str


def look_at(path: Path) -> Received:
    """Read what a DICOM file is; its pixels are passed over.

    :raises ArchiveError: if it is not a DICOM file, has no valid identifier, or is cut; the sentence begins with "it".
    :raises OSError: if it cannot be read.
    """
    from pydicom.filereader import read_file_meta_info

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, on values that the standard does not allow
            syntax = str(read_file_meta_info(path).get("TransferSyntaxUID") or "")
            data = read_header(path) if syntax == _DEFLATED else _read(path)
            instance, study, series = (str(data.get(keyword) or "") for keyword in _IDENTITY)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # pydicom raises whatever a damaged value makes Python raise
        raise ArchiveError(f"it is damaged, or not DICOM ({reason(error)})") from error
    if not is_uid(instance):
        raise ArchiveError("it has no valid identifier (SOPInstanceUID)")
    return Received(instance, study, series, syntax if is_uid(syntax) else "")


def _read(path: Path) -> Dataset:
    """Return the identity of a file that is not compressed as a whole.

    :raises ValueError: if its end is missing, which pydicom passes over.
    """
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    with path.open("rb") as file:
        size, end = file.seek(0, 2), 0

        def note_end(tag: Any, kind: str | None, length: int) -> bool:
            nonlocal end
            end = file.tell() + (0 if length == 0xFFFFFFFF else length)
            return False

        file.seek(0)
        wanted: list[Any] = [Tag(keyword) for keyword in _IDENTITY]
        data = read_partial(file, stop_when=note_end, defer_size=_SKIPPED, specific_tags=wanted)
    if end > size:
        raise ValueError("its end is missing")
    return data


def cannot_be_read(syntax: str) -> str | None:
    """Return the name of a transfer syntax whose pixels `read_image` cannot decode; ``None`` if it can.

    >>> cannot_be_read("1.2.840.10008.1.2.4.201"), cannot_be_read("1.2.840.10008.1.2.1")
    ('High-Throughput JPEG 2000 Image Compression (Lossless Only)', None)
    """
    from pydicom.uid import UID

    return None if syntax in UNCOMPRESSED | _DECODED else UID(syntax).name or "an unknown transfer syntax"
