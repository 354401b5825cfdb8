"""Read NIfTI files: headers as nibabel understands them, and voxels with every fault of the file found.

ITK reads NIfTI too, but silently: of a damaged or truncated file it returns zeros, it changes a spacing of 0 to 1, and
it takes the voxels of ``ct.nii`` for those of ``ct.nii.gz`` if both are there. Where a header says two things about the
place of the voxels, nibabel and ITK may choose differently.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError, named, reason
from .geometry import Geometry

_CHUNK = 1 << 16  # bytes; what is left of a part is copied for each piece that was compressed by itself
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # by the code of the unit: metre, micrometre
_LONGEST_EXTENSIONS = 1 << 26  # bytes; 65535 labels with names of a kilobyte each
_LONGEST_REST = 1 << 26  # bytes after the voxels that are read for the checksum at their end
_MAGIC = (b"n+1", b"ni1", b"n+2", b"ni2")
_MOST_PIECES = 1_000_000  # that were compressed one by one; bgzip makes one of each 64 KiB
_GZIP = b"\x1f\x8b"
_SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class NiftiHeader:
    """What nibabel reads from a header, and what ITK would make of it.

    :ivar version: 1 or 2.
    :ivar shape: of the voxels in C order: ``(..., z, y, x)``.
    :ivar dtype: of a voxel in the file.
    :ivar offset: of the first voxel, bytes.
    :ivar geometry: grid of the first three axes by nibabel's rule: sform, else qform, else the spacing alone; ``None``
        if these axes do not span a volume.
    :ivar scaling: slope and intercept as nibabel applies them.
    :ivar itk_scaling: slope and intercept as ITK applies them.
    :ivar two_places: distance in mm between the places that qform and sform give to a voxel; 0 if one is not given.
    """

    version: int
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    geometry: Geometry | None
    scaling: tuple[float, float]
    itk_scaling: tuple[float, float]
    two_places: float

    @property
    def voxel_bytes(self) -> int:
        """Size of all voxels in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def dimensions(self) -> str:
        """Number of voxels along each axis, such as ``512x512x80``."""
        return "x".join(map(str, reversed(self.shape)))


def is_nifti(file: Path) -> bool:
    """Return whether a file is NIfTI by its name: ``.nii`` or ``.nii.gz``, in small or capital letters."""
    return file.name.lower().endswith(_SUFFIXES)


def read_header(file: Path) -> NiftiHeader | None:
    """Read the header of a NIfTI file.

    :param file: ``.nii`` or ``.nii.gz``, compressed or not in spite of its name.
    :returns: ``None`` if the file has another header: ITK decides whether it can be read.
    :raises ImageError: if the header contradicts itself.
    """
    with named(file):
        start = b"".join(_content(file, 544))
        kind = _kind(start)
        if kind is None:
            return None
        if _is_gzip(file) and not file.name.lower().endswith(".gz"):
            raise ImageError("It is compressed in spite of its name. Rename it to .nii.gz.")
        raw = kind(start[: kind.sizeof_hdr], check=False)
        magic = raw["magic"].item()[:3]
        _check(raw, single=0 if magic == b"ni1" else kind.sizeof_hdr)
        header = _interpret(kind, start) if magic in _MAGIC else _analyze(raw)
        if not _is_gzip(file):
            _check_length(header, file.stat().st_size)
        return header


def read_voxels(file: Path, header: NiftiHeader, scaling: tuple[float, float]) -> np.ndarray:
    """Read and scale the voxels of a NIfTI file.

    :param header: as `read_header` returns it.
    :param scaling: slope and intercept.
    :returns: ``(..., z, y, x)`` of the file's type, or float32 (float64 if the file has it) if they are scaled; axes of
        one voxel after the third are left out.
    :raises ImageError: if the file is truncated or damaged.
    """
    size = header.offset + header.voxel_bytes
    with named(file):
        buffer = np.empty(size, np.uint8)
        if not (_is_gzip(file) and _inflate_at_once(file, buffer)):
            count = 0
            for part in _content(file, size):
                buffer[count : count + len(part)] = np.frombuffer(part, np.uint8)
                count += len(part)
            _check_length(header, count)
    shape = tuple(n for n in header.shape[:-3] if n > 1) + (1, 1, *header.shape)[-3:]
    voxels = buffer[header.offset :].view(header.dtype).reshape(shape)
    if not voxels.dtype.isnative:
        voxels = voxels.byteswap(inplace=True).view(voxels.dtype.newbyteorder())
    if scaling == (1.0, 0.0) or voxels.dtype.kind not in "iuf":
        return voxels
    scaled = np.empty(shape, np.float64 if voxels.dtype == np.float64 else np.float32)
    for plane, stored in zip(scaled.reshape(-1, *shape[-2:]), voxels.reshape(-1, *shape[-2:]), strict=True):
        plane[:] = stored.astype(np.float64) * scaling[0] + scaling[1]
    return scaled


def read_extensions(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield code and content of each extension of a header, in the order of the file.

    :param file: ``.nii`` or ``.nii.gz``; of another file there are none.
    :raises ImageError: if the header contradicts itself. What cannot be an extension ends them.
    """
    header = read_header(file)
    if header is None:
        return
    with named(file):
        start = b"".join(_content(file, min(header.offset, _LONGEST_EXTENSIONS)))
    kind = _kind(start)
    place = kind.sizeof_hdr
    size_and_code = struct.Struct("<2i" if int.from_bytes(start[:4], "little") == place else ">2i")
    if start[place : place + 1] in (b"", b"\0"):  # the file says that it has none
        return
    place += 4
    while place + 8 <= len(start):
        size, code = size_and_code.unpack_from(start, place)
        if size < 8 or place + size > len(start):
            return
        yield code, start[place + 8 : place + size]
        place += size


def check_nifti(file: Path) -> None:
    """Read a NIfTI file to its end, without keeping it.

    :raises ImageError: if the header contradicts itself, or the file is truncated or damaged.
    """
    header = read_header(file)
    if header is not None:
        with named(file):
            _check_length(header, sum(map(len, _content(file, header.offset + header.voxel_bytes))))


def _check_length(header: NiftiHeader, found: int) -> None:
    size = header.offset + header.voxel_bytes
    if found < size:
        raise ImageError(
            f"It is truncated: its header declares {header.dimensions} voxels in {size:,} bytes, the file has "
            f"{found:,}. Copy or export it again."
        )


def _is_gzip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == _GZIP


def _inflate_at_once(file: Path, buffer: np.ndarray) -> bool:
    """Fill the buffer from a gzip file by libdeflate, which is twice as fast as zlib; return whether that succeeded.

    It fails on files with faults and in several pieces, and without imagecodecs, which nnunetv2 brings.
    """
    try:
        from imagecodecs import gzip_decode

        return len(gzip_decode(file.read_bytes(), out=buffer.data)) == len(buffer)
    except (ImportError, RuntimeError):
        return False


def _content(file: Path, size: int) -> Iterator[bytes]:
    """Yield the uncompressed content of a file in parts, ``size`` bytes together or what there is.

    What follows the compressed data counts for nothing, as for ITK and nibabel.

    :raises ImageError: if the compressed data are damaged, or do not have their checksum.
    """
    with file.open("rb") as stream:
        if not _is_gzip(file):
            while size and (part := stream.read(min(size, _CHUNK))):
                yield part
                size -= len(part)
            return
        try:
            member, data, pieces = zlib.decompressobj(31), stream.read(_CHUNK), 1
            while size and data:
                part = member.decompress(data, min(size, _CHUNK))
                yield part
                size -= len(part)
                data = member.unconsumed_tail
                if size and member.eof:  # files compressed one by one are one file
                    data = member.unused_data + (stream.read(_CHUNK) if len(member.unused_data) < len(_GZIP) else b"")
                    if not data.startswith(_GZIP):
                        break
                    member, pieces = zlib.decompressobj(31), pieces + 1
                    if pieces > _MOST_PIECES:
                        raise ImageError(f"It consists of more than {_MOST_PIECES:,} pieces. Compress it as a whole.")
                elif not data and not member.eof:
                    data = stream.read(_CHUNK)
            rest = _LONGEST_REST
            while data and not member.eof and rest > 0:  # to the checksum at the end
                rest -= len(member.decompress(data, _CHUNK))
                data = member.unconsumed_tail or stream.read(_CHUNK)
            if not size and not member.eof and not data:
                raise ImageError("It is truncated: its compressed data have no end. Copy or export it again.")
        except zlib.error as error:
            raise ImageError(f"It is damaged ({reason(error)}). Copy or export it again.") from None


def _kind(start: bytes) -> Any:
    """Return nibabel's class of a header, by the size that it states in either order of bytes, or by its magic word.

    :returns: ``None`` if it has neither.
    """
    import nibabel

    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    for kind, magic in ((nibabel.Nifti1Header, start[344:347]), (nibabel.Nifti2Header, start[4:7])):
        if len(start) >= kind.sizeof_hdr and (kind.sizeof_hdr in sizes or magic in _MAGIC):
            return kind
    return None


def _check(header: Any, single: int) -> None:
    """Check the parts of a header that nibabel and ITK take as they are.

    :param single: size of the header if the voxels follow it in the same file, else 0.
    :raises ImageError: if it contradicts itself.
    """
    from nibabel.nifti1 import data_type_codes

    dimensions, *sizes = header["dim"].tolist()
    if not 1 <= dimensions <= 7 or min(sizes[:dimensions]) < 1:
        raise ImageError(f"Its header declares {dimensions} dimensions of {sizes} voxels. Correct or export it again.")
    spacing = tuple(header["pixdim"][1 : min(dimensions, 3) + 1].tolist())
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise ImageError(f"It has spacing {spacing} mm; every spacing must be positive. Correct its header.")
    code, bits, offset = int(header["datatype"]), int(header["bitpix"]), float(header["vox_offset"])
    known: Any = data_type_codes.dtype
    if code not in known or known[code].itemsize * 8 != bits:
        raise ImageError(f"Its header declares voxels of type {code} with {bits} bits. Correct or export it again.")
    if not math.isfinite(offset) or offset < single or offset != int(offset):
        raise ImageError(
            f"Its header says that the voxels begin at byte {offset:g}; they cannot begin before byte {single}. "
            "Correct or export it again."
        )


def _interpret(kind: Any, start: bytes) -> NiftiHeader:
    from nibabel.spatialimages import HeaderDataError

    try:
        with _quiet():
            # with nibabel's own checks and corrections; without extensions, which may be long
            header = kind.from_fileobj(io.BytesIO(start[: kind.sizeof_hdr] + bytes(4)))
            scaling = header.get_slope_inter()
            sform, qform = (method(coded=True)[0] for method in (header.get_sform, header.get_qform))
            best = header.get_best_affine()
    except (HeaderDataError, ValueError) as error:
        raise ImageError(f"Its header is damaged ({reason(error)}). Correct or export it again.") from None
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    itk_slope = slope if math.isfinite(slope) and abs(slope) > np.finfo(float).eps else 1.0
    geometry, other = _geometry(header, best), None
    if sform is not None and qform is not None:
        with suppress(ImageError):  # it does not count beside the sform
            other = _geometry(header, qform)
    return NiftiHeader(
        version=1 if kind.sizeof_hdr == 348 else 2,
        shape=tuple(reversed(header.get_data_shape())),
        dtype=header.get_data_dtype(),
        offset=int(header["vox_offset"]),
        geometry=geometry,
        scaling=(1.0, 0.0) if scaling[0] is None else (float(scaling[0]), float(scaling[1])),
        itk_scaling=(itk_slope, intercept if math.isfinite(intercept) else 0.0),
        two_places=geometry.distance(other) if geometry and other else 0.0,
    )


def _geometry(header: Any, affine: np.ndarray) -> Geometry | None:
    """Turn nibabel's affine (RAS, in the header's unit) into a geometry; ``None`` if it does not span a volume."""
    x, y, z = (*header.get_data_shape()[:3], 1, 1)[:3]
    affine = affine * _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    affine[:2] *= -1
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not (np.isfinite(affine).all() and spacing.all() and abs(np.linalg.det(axes / spacing)) > 1e-3):
        return None
    return Geometry(
        size=(x, y, z),
        spacing=tuple(spacing.tolist()),
        origin=tuple(affine[:3, 3].tolist()),
        direction=tuple((axes / spacing).ravel().tolist()),
    )


def _analyze(raw: Any) -> NiftiHeader:
    """Describe a file without the magic word, which ITK reads as Analyze, the format before NIfTI: without a place."""
    sizes = raw["dim"][1 : raw["dim"][0] + 1].tolist()
    plain = (1.0, 0.0)
    return NiftiHeader(1, tuple(sizes[::-1]), raw.get_data_dtype(), int(raw["vox_offset"]), None, plain, plain, 0.0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep nibabel from logging each correction of a header."""
    from nibabel.imageglobals import LoggingOutputSuppressor

    with LoggingOutputSuppressor():
        yield
