"""Images as files that a server takes: files of its kinds as they are, all others read here and written as NRRD.

The server never gets the name of a file, which may be that of a patient.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, ServerError, reason
from ..files import sha256_of
from ..images.dicom.headers import is_dicom
from ..images.geometry import Geometry
from ..images.image_file import ReadVolume, read_grid
from ..images.nrrd import write_nrrd
from ..images.reading import ImageSource, read_volume
from ..images.suffixes import UPLOAD_SUFFIXES
from ..inference.progress import Monitor

if TYPE_CHECKING:
    import SimpleITK as sitk

_HEADER_BYTES = 1 << 16
_REMOVALS = 20  # attempts to remove a folder, in a second


@dataclass(frozen=True)
class ImageFile:
    """A file that is sent.

    :ivar kind: its suffix, as the server wants it.
    :ivar size: bytes.
    :ivar sha256: 64 hexadecimal digits.
    :ivar key: chosen here; by it, the server knows the file if it is announced twice.
    """

    path: Path
    kind: str
    size: int
    sha256: str
    key: str


@dataclass(frozen=True)
class Prepared:
    """An image that can be sent.

    :ivar name: for messages.
    :ivar geometry: its grid.
    :ivar files: one for each channel.
    :ivar notices: sentences that the user should see.
    :ivar folder: of files that were made for sending; ``None`` if there are none.
    """

    name: str
    geometry: Geometry
    files: tuple[ImageFile, ...]
    notices: tuple[str, ...]
    folder: tempfile.TemporaryDirectory[str] | None = None

    def check(self, channels: int) -> None:
        """Refuse an image with other channels.

        :raises ImageError: naming it.
        """
        if len(self.files) != channels:
            raise ImageError(
                f"{self.name}: {len(self.files)} channel(s) were given, but the model needs {channels}. Give one file "
                "for each channel, in the model's order."
            )

    def close(self) -> None:
        """Remove the files that were made for sending."""
        if self.folder is not None:
            remove_folder(self.folder)


def prepare(source: ImageSource, compress: bool, monitor: Monitor, flat: bool, nibabel: bool) -> Prepared:
    """Prepare an image for sending.

    :param source: as :func:`~ClassScaleSegLib.images.reading.read_image` takes it.
    :param compress: whether voxels that are read here are sent compressed: on this machine, that takes longer.
    :param flat: as of :func:`read_image`, like ``nibabel``.
    :raises ImageError: if it cannot be read.
    :raises Cancelled: if the monitor's token is set.
    """
    import SimpleITK as sitk

    sources: list[Any] = [source] if isinstance(source, (str, os.PathLike, sitk.Image)) else list(source)
    if not sources:
        raise ImageError("No image was given.")
    monitor.report("read", 0, len(sources))
    folder, stop = tempfile.TemporaryDirectory(prefix="classscaleseg-send-"), threading.Event()
    try:
        geometry: Geometry | None = None
        files: list[ImageFile] = []
        notices: list[str] = []
        for number, each in enumerate(sources):
            place = Path(folder.name, f"{number}.nrrd")
            grid, made, said = monitor.wait_for(partial(_files, each, place, compress, flat, nibabel, stop))
            geometry = geometry or grid
            files += made
            notices += said
            monitor.report("read", number + 1, len(sources))
        assert geometry is not None
        first = sources[0]
        name = "The image" if isinstance(first, sitk.Image) else str(first)
        return Prepared(name, geometry, tuple(files), tuple(notices), folder)
    except BaseException:
        stop.set()
        remove_folder(folder)
        raise


def remove_folder(folder: tempfile.TemporaryDirectory[str]) -> None:
    """Remove a folder in which a thread that was told to stop may still have a file open. It raises nothing."""
    for _ in range(_REMOVALS):
        with suppress(OSError):  # Windows removes no file that is open
            folder.cleanup()
            return
        time.sleep(0.05)
    shutil.rmtree(folder.name, ignore_errors=True)


def _files(
    source: str | os.PathLike[str] | sitk.Image,
    place: Path,
    compress: bool,
    flat: bool,
    nibabel: bool,
    stop: threading.Event,
) -> tuple[Geometry, list[ImageFile], tuple[str, ...]]:
    """Return the grid of one source, and what is sent of it."""
    import SimpleITK as sitk

    if isinstance(source, sitk.Image):
        return _written(ReadVolume.of_image(source), place, compress, stop)
    path = Path(source)
    try:
        kind = _kind(path)
        grid = None if kind is None else read_grid(path, nibabel)
        if kind is not None and grid is not None:
            return grid, [_file(path, kind)], ()
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or reason(error)}).") from error
    return _written(read_volume(path, flat, nibabel), place, compress, stop)


def _kind(path: Path) -> str | None:
    """Return the kind as which a file can be sent as it is; ``None`` if it has to be read."""
    name = path.name.lower()
    kind = next((kind for kind in UPLOAD_SUFFIXES if name.endswith(kind)), None)
    if kind is None or not path.is_file() or path.stat().st_size == 0 or is_dicom(path):
        return None
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    if kind == ".nrrd" and re.search(rb"^data ?file\s*:", start.partition(b"\n\n")[0], re.MULTILINE | re.IGNORECASE):
        return None  # the voxels are in another file
    if kind == ".mha" and not re.search(rb"^ElementDataFile\s*=\s*LOCAL\s*$", start, re.MULTILINE):
        return None
    return kind


def _file(path: Path, kind: str) -> ImageFile:
    return ImageFile(path, kind, path.stat().st_size, sha256_of(path), secrets.token_urlsafe(24))


def _written(
    volume: ReadVolume, place: Path, compress: bool, stop: threading.Event
) -> tuple[Geometry, list[ImageFile], tuple[str, ...]]:
    """Write each channel of a volume, whether it is a component or along a fourth axis, until it is stopped."""
    channels = volume.voxels.reshape(-1, *volume.voxels.shape[-3:])
    files = []
    for number, voxels in enumerate(channels):
        path = place.with_name(f"{place.stem}-{number}.nrrd")
        try:
            write_nrrd(path, voxels, volume.geometry, compress, stop)
        except OSError as error:
            raise ServerError(
                f"The image cannot be sent: it cannot be written to {path.parent} first ({error.strerror or error}). "
                "Free some space there, or set the environment variable TMPDIR to another folder."
            ) from error
        files.append(_file(path, ".nrrd"))
    return volume.geometry, files, volume.notices
