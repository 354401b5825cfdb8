"""Look at DICOM files that came from an archive: what they are, whether they are whole and can be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ArchiveError
from .elements import is_uid
from .outline import BIG_ENDIAN, DEFLATED, IMPLICIT, TRANSFER_SYNTAX, Damaged, read_outline

UNCOMPRESSED = {IMPLICIT, "1.2.840.10008.1.2.1", BIG_ENDIAN, DEFLATED}
_DECODED = {  # by GDCM in ITK, as a test tries
    "1.2.840.10008.1.2.5",  # RLE
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)),  # JPEG
    *(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81)),  # JPEG-LS
    *(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91)),  # JPEG 2000
}
_INSTANCE, _STUDY, _SERIES = 0x00080018, 0x0020000D, 0x0020000E


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
    """Return what a DICOM file is.

    :raises ArchiveError: if it is not a DICOM file, has no valid identifier, or is cut; the sentence begins with "it".
    :raises OSError: if it cannot be read.
    """
    try:
        found = read_outline(path, {_INSTANCE, _STUDY, _SERIES})
    except Damaged as error:
        raise ArchiveError(f"it is damaged, or not DICOM ({error})") from error
    instance, study, series, syntax = (found.get(tag, "") for tag in (_INSTANCE, _STUDY, _SERIES, TRANSFER_SYNTAX))
    if not is_uid(instance):
        raise ArchiveError("it has no valid identifier (SOPInstanceUID)")
    return Received(instance, study, series, syntax if is_uid(syntax) else "")


def cannot_be_read(syntax: str) -> str | None:
    """Return the name of a transfer syntax whose pixels `read_image` cannot decode; ``None`` if it can.

    >>> cannot_be_read("1.2.840.10008.1.2.4.201"), cannot_be_read("1.2.840.10008.1.2.1")
    ('High-Throughput JPEG 2000 Image Compression (Lossless Only)', None)
    """
    from pydicom.uid import UID

    return None if syntax in UNCOMPRESSED | _DECODED else UID(syntax).name or "an unknown transfer syntax"
