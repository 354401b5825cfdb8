"""Look at an image that a client has sent: only its own file may be read for it, and it may not be too large.

The header of NRRD and that of MetaImage can name other files with the voxels, and ITK would open these. The child
process reads an image by the library of its suffix alone, so that what it seems to be here is what it is there.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from ..errors import ImageError
from ..images.nifti import read_header
from .problems import Problem

_LONGEST = 1 << 20  # bytes of a header
_OTHER_FILE = re.compile(rb"data[\s\0]*file[\s\0]*:", re.IGNORECASE)
_SIZES = {
    ".nrrd": re.compile(rb"^sizes:([ \t\d]+)\r?$", re.MULTILINE | re.IGNORECASE),
    ".mha": re.compile(rb"^DimSize *=([ \t\d]+)\r?$", re.MULTILINE | re.IGNORECASE),
}
_IN_FILE = re.compile(rb"ElementDataFile[ \t]*=[ \t]*LOCAL[ \t]*\r?\n", re.IGNORECASE)


def check_image(path: Path, kind: str, most_voxels: int) -> None:
    """Refuse a file that is no image, whose voxels are in another file, or that has too many of them.

    :param kind: ".nrrd", ".mha", ".nii" or ".nii.gz".
    :raises Problem: if so.
    :raises OSError: if it cannot be read.
    """
    sizes = _nifti(path) if kind.startswith(".nii") else _nrrd(path) if kind == ".nrrd" else _meta(path)
    if math.prod(sizes) > most_voxels:
        millions = f"{math.prod(sizes) / 2**20:.1f} million voxels; at most {most_voxels / 2**20:g} are allowed here"
        raise Problem(413, "too_large", f"The image has {millions}. Crop it first, or segment it elsewhere.")


def _nifti(path: Path) -> tuple[int, ...]:
    try:
        header = read_header(path)
    except ImageError as error:
        raise _no_image(str(error).replace(str(path), "it", 1)) from error
    if header is None:
        raise _no_image("it has no header of NIfTI")
    return header.shape


def _nrrd(path: Path) -> tuple[int, ...]:
    start = _start(path)
    if not re.match(rb"NRRD000[1-5]\r?\n", start):
        raise _no_image("it does not begin as NRRD does")
    if _OTHER_FILE.search(start):
        raise _no_image("its header names another file with the voxels; send one file with both")
    header, end, _ = start.partition(b"\n\r\n" if b"\n\r\n" in start[: (start + b"\n\n").index(b"\n\n")] else b"\n\n")
    if not end:
        raise _no_image("its header has no end")
    return _numbers(_SIZES[".nrrd"].findall(header))


def _meta(path: Path) -> tuple[int, ...]:
    start = _start(path)
    places = len(re.findall(rb"ElementDataFile", start, re.IGNORECASE))
    here = _IN_FILE.search(start)
    if here is None or places > 1:
        raise _no_image("its header is none of MetaImage with the voxels in the same file (ElementDataFile = LOCAL)")
    return _numbers(_SIZES[".mha"].findall(start[: here.start()]))


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_LONGEST)


def _numbers(found: list[bytes]) -> tuple[int, ...]:
    texts = found[0].split() if len(found) == 1 else []
    if not 2 <= len(texts) <= 5 or max(map(len, texts)) > 18:
        raise _no_image("its header does not say once how many voxels it has, along two to five axes")
    return tuple(map(int, texts))


def _no_image(why: str) -> Problem:
    return Problem(422, "no_image", f"The image cannot be read: {why.rstrip('.')}. Export it again.")
