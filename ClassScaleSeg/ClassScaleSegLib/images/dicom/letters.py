"""Keep the letters of names and descriptions that are copied from a series, also where its character set is wrong.

pydicom decodes by the character set that a header declares, and puts other letters in place of what does not fit.
Archives compare patients by these bytes, so a copy must have them as they are; and if it has another character set than
the series, the most likely letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TEXTS = ("PN", "LO", "SH", "LT", "ST", "UC", "UT")  # the value representations with letters of the character set


def one_value(text: str) -> str:
    """Return a text as one value of DICOM: a backslash would begin another value, control characters are not allowed.

    >>> one_value("left\\\\right\\n")
    'left/right'
    """
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("\\", "/").strip()


def decoded(text: bytes, character_set: str) -> str:
    """Return what a text of a DICOM file says, also where the character set that the file declares is wrong.

    :param character_set: SpecificCharacterSet, with a backslash between several; "" if not given.

    >>> decoded("Größe".encode("latin-1"), "ISO_IR 100"), decoded("Größe".encode(), "")
    ('Größe', 'Größe')
    """
    from pydicom.charset import decode_bytes, default_encoding
    from pydicom.dataset import Dataset

    declared = Dataset()
    if character_set:
        declared.SpecificCharacterSet = character_set.split("\\")
    encodings = _encodings(declared)
    likely = _likely(text, encodings)
    return decode_bytes(text, encodings or [default_encoding], set()) if likely is None else likely


def keep_letters(target: Dataset, header: Dataset) -> None:
    """Give texts that were copied from a header the bytes that they have there, or the most likely letters in UTF-8.

    :param target: has elements of the header, and its final character set.
    :param header: pydicom's data set of an image. Only elements that have not been asked for have their bytes.
    """
    from pydicom.charset import default_encoding
    from pydicom.dataelem import RawDataElement, convert_raw_data_element
    from pydicom.valuerep import PersonName

    same = target.get("SpecificCharacterSet") == header.get("SpecificCharacterSet")
    encodings = _encodings(header)
    for tag in list(target.keys()):
        raw = header.get_item(tag) if tag in header else None
        if not isinstance(raw, RawDataElement) or not raw.value or target[tag].VR not in _TEXTS:
            continue
        kind = target[tag].VR
        if raw.value.isascii() and b"\x1b" not in raw.value:
            continue
        try:
            copied = convert_raw_data_element(raw._replace(VR=kind), encoding=encodings or [default_encoding])
        except Exception:  # pydicom raises whatever a damaged value makes Python raise
            continue
        if str(copied.value) != str(target[tag].value):
            continue  # it is not the header's: such as the description of the series
        if same:  # pydicom writes bytes as they are, and the original ones of a person's name
            whole = raw.value.rstrip(b" \0")
            target[tag].value = PersonName(whole, target[tag].value.encodings) if kind == "PN" else whole
        elif (text := _likely(raw.value, encodings)) is not None:
            target[tag].value = text


def _encodings(header: Dataset) -> list[str]:
    """Return Python's names of the encodings that a header declares; none if it declares none that is known."""
    from pydicom.charset import convert_encodings

    try:
        given = header.get("SpecificCharacterSet")
        return list(convert_encodings(given)) if given else []
    except LookupError:
        return []


def _likely(value: bytes, encodings: Sequence[str]) -> str | None:
    """Return what a text most likely says; ``None`` if pydicom can tell, which knows the escapes of ISO 2022."""
    if b"\x1b" in value and encodings:
        return None
    text = value.rstrip(b" \0")
    for encoding in (*encodings[:1], "utf-8") if encodings else ("utf-8",):
        try:
            return text.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return text.decode("latin-1")
