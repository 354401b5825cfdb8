"""Find faults of NIfTI files that ITK hides: it pads truncated files with zeros and changes a spacing of 0 to 1."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from ..errors import ImageError

_CHUNK = 1 << 20


def check_nifti(file: Path) -> None:
    """Compare a NIfTI file with its own header.

    :param file: ``.nii`` or ``.nii.gz``. A file with another header is accepted: ITK decides whether it can be read.
    :raises ImageError: if a spacing is not positive, or the file has fewer bytes than its header declares.
    """
    compressed = file.suffix == ".gz"
    try:
        with gzip.open(file) if compressed else open(file, "rb") as stream:
            header = stream.read(544)
    except (EOFError, OSError, zlib.error):
        raise ImageError(f"{file} is truncated or not a gzip file. Copy or export it again.") from None
    parsed = _parse(header)
    if parsed is None:
        return
    sizes, spacing, expected = parsed
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise ImageError(f"{file} has spacing {spacing} mm; every spacing must be positive. Correct its header.")
    found = _compressed_size(file, expected) if compressed else file.stat().st_size
    if found < expected:
        raise ImageError(
            f"{file} is truncated: its header declares {'x'.join(map(str, sizes))} voxels in {expected:,} bytes, "
            f"the file has {found:,}. Copy or export it again."
        )


def _parse(start: bytes) -> tuple[tuple[int, ...], tuple[float, ...], int] | None:
    """Return sizes, spacings (mm) and total bytes of header and voxels; ``None`` if this is not a NIfTI header."""
    import nibabel

    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        sizes_of_header = {int.from_bytes(start[:4], order) for order in ("little", "big")}
        if len(start) < kind.sizeof_hdr or kind.sizeof_hdr not in sizes_of_header:
            continue
        header = kind(start[: kind.sizeof_hdr], check=False)
        dimensions, *sizes = header["dim"].tolist()
        offset = float(header["vox_offset"])
        if not 1 <= dimensions <= 7 or not math.isfinite(offset):
            return None
        sizes, spacing = sizes[:dimensions], header["pixdim"][1 : min(dimensions, 3) + 1].tolist()
        return tuple(sizes), tuple(spacing), int(offset) + math.prod(sizes) * int(header["bitpix"]) // 8
    return None


def _compressed_size(file: Path, expected: int) -> int:
    """Return the uncompressed bytes of a gzip file: from its last four bytes, or else by reading up to ``expected``."""
    with open(file, "rb") as stream:
        stream.seek(-4, 2)
        if struct.unpack("<I", stream.read(4))[0] == expected & 0xFFFFFFFF:
            return expected
    count = 0
    try:
        with gzip.open(file) as stream:
            while count < expected and (part := stream.read(_CHUNK)):
                count += len(part)
    except (EOFError, OSError, zlib.error):
        pass  # count the bytes read before the fault
    return count
