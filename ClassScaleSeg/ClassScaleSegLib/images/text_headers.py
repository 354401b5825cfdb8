"""Refuse headers of MetaImage and NRRD files whose numbers are none, or no millimetres; find those without a spacing.

ITK would take the first for 0 or 1 mm, pass over the unit, and take 1 mm for a spacing that is not there. It finds
voxels in a file that the header names with backslashes on Windows alone; here they are found elsewhere too.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from ..errors import ImageError, shown

_META = ("offset", "position", "origin", "elementspacing", "transformmatrix", "rotation", "orientation")
_META_FILES, _NRRD_FILES = (".mha", ".mhd"), (".nrrd", ".nhdr")
_META_SIGNS, _NRRD_SIGNS = "=:", ":"
_VOXELS = "elementdatafile"  # where the voxels of a MetaImage file are
_DETACHED = {".mhd": (_META_SIGNS, _VOXELS), ".nhdr": (_NRRD_SIGNS, "datafile")}  # the same, without spaces
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
                if "\\" in value and os.sep == "/":
                    raise ImageError(
                        f"{path} has its voxels in {name}, a path of Windows, which is not found here. Copy that file "
                        "beside the header, and write its name alone into the header (ElementDataFile)."
                    )
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


@contextmanager
def readable_header(path: Path) -> Iterator[Path]:
    """Yield the header of an image that ITK can read in place of a file: the file itself, in all cases but one.

    A header that names the file of its voxels with backslashes, as Windows writes paths, is copied with the path that
    this file has here. A path that leads out of the folder of the header stays as it is.
    """
    signs, wanted = _DETACHED.get(path.suffix.lower(), ("", ""))
    lines = _lines(path, signs) if wanted and path.is_file() else ()
    found = [(line, value) for field, value, line in lines if field.replace(" ", "") == wanted]
    voxels = _by_windows(path, found[0][1]) if found else None
    if voxels is None:
        yield path
        return
    field, sign = re.split(f"([{signs}])", found[0][0].decode("latin-1"), maxsplit=1)[:2]
    written = f"{field}{sign} ".encode("latin-1") + os.fsencode(voxels)
    with tempfile.TemporaryDirectory(prefix="ClassScaleSeg-") as folder:
        copy = Path(folder, f"header{path.suffix}")
        copy.write_bytes(path.read_bytes().replace(found[0][0], written, 1))
        yield copy


def _by_windows(path: Path, voxels: str) -> Path | None:
    """Return the file in or below the folder of a header that the header names with backslashes, if it is there.

    :param voxels: the name, as Latin-1.
    """
    name = _as_name(voxels)
    if os.sep != "/" or name is None or "\\" not in name or (path.parent / name).exists():
        return None
    parts = PureWindowsPath(name)
    found = path.parent.absolute().joinpath(*parts.parts)
    inside = not parts.anchor and ".." not in parts.parts and "\n" not in str(found)
    return found if inside and found.is_file() else None


def _is_missing(path: Path, voxels: str) -> bool:
    """Return whether the voxels of a MetaImage file are in another one, a single one, that is not there."""
    name = _as_name(voxels)
    return name is not None and not (path.parent / name).exists() and _by_windows(path, voxels) is None


def _as_name(voxels: str) -> str | None:
    """Return the name of the single file, besides the header, that has the voxels; ``None`` if there is no such file.

    :param voxels: the name, as Latin-1.
    """
    if not voxels or voxels.lower() == "local" or voxels.lower().startswith("list") or "%" in voxels:
        return None
    try:
        return os.fsdecode(voxels.encode("latin-1"))
    except UnicodeDecodeError:  # as on Windows, which has no such names
        return None


def _fields(path: Path, signs: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of a header, their names in small letters, and their values, as Latin-1.

    :param signs: each of them may stand between a field and its value.
    """
    for field, value, _line in _lines(path, signs):
        yield field, value


def _lines(path: Path, signs: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield the fields of a header, as `_fields` does, each with its line."""
    with path.open("rb") as file:
        for line in file.read(_LONGEST).split(b"\n"):
            field, *value = re.split(f"[{signs}]", line.decode("latin-1"), maxsplit=1)
            field = field.strip().lower()
            if signs == _NRRD_SIGNS and not line.strip():
                return  # the voxels follow
            if value:
                yield field, value[0].strip(), line
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
