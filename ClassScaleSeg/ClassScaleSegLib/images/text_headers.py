"""Refuse headers of MetaImage and NRRD files whose numbers are none, or no millimetres; find those without a spacing.

ITK would take the first for 0 or 1 mm, pass over the unit, and take 1 mm for a spacing that is not there.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import ImageError, shown

_META = ("offset", "position", "origin", "elementspacing", "transformmatrix", "rotation", "orientation")
_META_FILES, _NRRD_FILES = (".mha", ".mhd"), (".nrrd", ".nhdr")
_META_SIGNS, _NRRD_SIGNS = "=:", ":"
_VOXELS = "elementdatafile"  # where the voxels of a MetaImage file are
_MOST_ENTRIES = 100_000  # nine for each segment; ITK takes about a minute for these, and hours for a million
_UNITS = ("m", "cm", "um", "\u00b5m", "\u03bcm", "micron", "microns", "nm", "inch", "in")  # lengths besides mm
_LONGEST = 1 << 20  # bytes of a header that are read; longer ones are those of many segments, which come last


def refuse_long_header(path: Path) -> None:
    """Refuse a NRRD file with so many entries in its header that ITK, which compares each with all, would hang.

    :raises ImageError: if there are more than those of some ten thousand segments.
    """
    if not path.name.lower().endswith(_NRRD_FILES) or not path.is_file():
        return
    with path.open("rb") as file:
        for count, line in enumerate(file):
            if not line.strip() or (count == 0 and not line.startswith(b"NRRD")):
                return
            if count > _MOST_ENTRIES:
                raise ImageError(f"{path} has more than {_MOST_ENTRIES:,} entries in its header, too many to be read.")


def check_text_header(path: Path, dimensions: int) -> None:
    """Check the numbers that place the voxels of a MetaImage or NRRD file; of other files, nothing.

    :param dimensions: of the image, without components, as ITK reads it.
    :raises ImageError: if one of them is no number, or a NRRD file leaves it open, or has another unit than mm; or if
        the voxels are in another file, which is missing.
    """
    name = path.name.lower()
    if name.endswith(_META_FILES):
        for field, value in _fields(path, _META_SIGNS):
            if field == _VOXELS and _is_missing(path, value):
                name = shown(_utf8(value))[:200]
                raise ImageError(f"{path} has its voxels in {name}, which is missing. Copy it there too.")
            if field in _META and not all(map(_is_number, value.split())):
                raise ImageError(f"{path} has {field} = {shown(value)[:80]}, which are no numbers. Correct its header.")
    elif name.endswith(_NRRD_FILES):
        for field, value in _fields(path, _NRRD_SIGNS):
            given = re.findall(r'"([^"]*)"', value) if field in ("space units", "units") else []
            if units := [unit for unit in map(_utf8, given) if unit.strip().lower() in _UNITS]:
                raise ImageError(
                    f"{path} has its spacing in {shown(units[0])} ({field}), and only mm are read. Convert the numbers "
                    "in its header, or export it again."
                )
            axes = re.findall(r"\([^)]*\)|[^\s()]+", value) if field in ("spacings", "space directions") else []
            # an axis of components, which is not counted as a dimension, has none, too, and so has a fourth one
            if len(axes) == dimensions and any(axis.lower() in ("nan", "none") for axis in axes[:3]):
                raise ImageError(
                    f"{path} does not say how far its voxels are apart ({field}: {shown(value)[:80]}). Correct its "
                    "header."
                )


def says_spacing(path: Path) -> bool:
    """Return whether the header of a MetaImage or NRRD file says how far voxels are apart; true of other files."""
    name = path.name.lower()
    if name.endswith(_META_FILES):
        return any(field in ("elementspacing", "elementsize") for field, _ in _fields(path, _META_SIGNS))
    if name.endswith(_NRRD_FILES):
        return any(field in ("spacings", "space directions") for field, _ in _fields(path, _NRRD_SIGNS))
    return True


def _is_missing(path: Path, voxels: str) -> bool:
    """Return whether the voxels of a MetaImage file are in another one, a single one, that is not there."""
    one = voxels and voxels.lower() != "local" and not voxels.lower().startswith("list") and "%" not in voxels
    try:
        return bool(one) and not (path.parent / os.fsdecode(voxels.encode("latin-1"))).exists()
    except UnicodeDecodeError:  # as on Windows, which has no such names
        return False


def _fields(path: Path, signs: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of a header, their names in small letters, as Latin-1.

    :param signs: each of them may stand between a field and its value.
    """
    with path.open("rb") as file:
        for line in file.read(_LONGEST).split(b"\n"):
            field, *value = re.split(f"[{signs}]", line.decode("latin-1"), maxsplit=1)
            field = field.strip().lower()
            if signs == _NRRD_SIGNS and not line.strip():
                return  # the voxels follow
            if value:
                yield field, value[0].strip()
            if field == _VOXELS:
                return


def _utf8(text: str) -> str:
    """Return a text that was taken for Latin-1 as it is in UTF-8, if it is that."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
