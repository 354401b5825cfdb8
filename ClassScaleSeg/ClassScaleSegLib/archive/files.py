"""Find the DICOM files that can be sent to an archive."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError

_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR, which is about files and not for archives


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file that can be sent.

    :ivar instance: SOPInstanceUID.
    :ivar size: of the file, bytes.
    """

    path: Path
    instance: str
    size: int


def find_dicom_files(paths: Sequence[str | Path]) -> list[DicomFile]:
    """Return the DICOM files that were named, and those in the folders that were named and below; each one once.

    :raises ImageError: if a file cannot be read, a named file is not a DICOM file, a folder has none, or two files have
        the same identifier and different content.
    """
    found: dict[str, DicomFile] = {}
    for path in map(Path, paths):
        try:
            folder = path.is_dir()
            files = [_dicom_file(file) for file in (_files_below(path) if folder else [path])]
        except OSError as error:
            raise _unreadable(path, error) from error
        if not any(files):
            what = "has no DICOM files" if folder else "is not a DICOM file (one with DICM after 128 bytes)"
            raise ImageError(f"{path} {what}. Name a .dcm file, or the folder of a series.")
        for file in filter(None, files):
            known = found.setdefault(file.instance, file)
            if known is not file and not _same(known.path, file.path):
                raise ImageError(
                    f"{known.path} and {file.path} differ, but have the same identifier (SOPInstanceUID), of which an "
                    "archive keeps one. Leave one of them out."
                )
    return list(found.values())


def _files_below(folder: Path) -> list[Path]:
    """Return all files below a folder but hidden ones, which may be unfinished."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _dicom_file(path: Path) -> DicomFile | None:
    """Return a file if it can be sent; ``None`` if it is not DICOM, or has no identifier.

    :raises ImageError: if it cannot be read.
    """
    from pydicom.filereader import read_file_meta_info

    if path.exists() and not path.is_file():  # of a pipe, reading would wait for ever for somebody to write
        return None
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return None
            size = file.seek(0, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            meta = read_file_meta_info(path)
        kind, instance = meta.get("MediaStorageSOPClassUID"), str(meta.get("MediaStorageSOPInstanceUID") or "")
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception:  # pydicom raises whatever a damaged value makes Python raise
        return None
    return DicomFile(path, instance, size) if instance and kind != _DIRECTORY else None


def _same(one: Path, other: Path) -> bool:
    return one.samefile(other) or one.read_bytes() == other.read_bytes()


def _unreadable(path: Path, error: OSError) -> ImageError:
    return ImageError(f"{path} cannot be read ({error.strerror or error}). Correct its name, or leave it out.")
