"""Prepare images for a server, and send them.

Files of the kinds that servers take are sent as they are; all others are read here and sent as NRRD. The server never
gets the name of a file, which may be that of a patient.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Cancelled, ImageError, ServerError, reason
from ..files import sha256_of
from ..images.dicom_headers import is_dicom
from ..images.geometry import Geometry
from ..images.image_file import ReadVolume, read_grid
from ..images.reading import ImageSource, read_volume
from ..images.seg_nrrd import nrrd_header
from ..inference.progress import Monitor
from .connection import Connection
from .faults import Refused
from .removing import Sent, is_id

if TYPE_CHECKING:
    import SimpleITK as sitk

KINDS = (".nii.gz", ".nii", ".nrrd", ".mha")
PART_BYTES = 16 << 20  # of one request
RESTARTS = 5  # of the server, after which sending is given up
MIB = 1 << 20
_HEADER_BYTES = 1 << 16
_LEAST_PART = 1 << 18  # bytes, if a server in front takes no larger ones
MOST_SECONDS_BUSY = 3600.0  # for which images of the same token may be sent before this one
_SECONDS_BUSY = 1.0
_REMOVALS = 20  # attempts to remove a folder, in a second
_IN_VAIN = 20  # parts of which nothing arrives, after which an image is sent anew
_MOST_PARTS = 1000  # that may arrive incompletely, in all; a server that takes a byte of each would never have it
# Of 52 MB like a CT (512 x 512 x 100 voxels with the noise of a scanner), level 1 leaves 45 % after 0.75 s of one core,
# and level 6 43 % after 6.2 s. It pays up to 300 Mbit/s: at 100 Mbit/s the image arrives in 2.6 s instead of 4.2 s, at
# 1 Gbit/s in 0.9 s instead of 0.4 s. On loopback it never pays.
_LEVEL = 1


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
    kind = next((kind for kind in KINDS if name.endswith(kind)), None)
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


def write_nrrd(
    path: Path, voxels: np.ndarray, geometry: Geometry, compress: bool, stop: threading.Event | None = None
) -> None:
    """Write voxels ``(z, y, x)`` of any type of numbers, row of voxels by row.

    :param stop: ends the work once it is set.
    :raises OSError: if the file cannot be written.
    :raises Cancelled: if the work was stopped.
    """
    dtype = voxels.dtype.newbyteorder("<")
    names = {"f4": "float", "f8": "double"}
    name = names.get(dtype.str[1:]) or f"{'u' if dtype.kind == 'u' else ''}int{8 * dtype.itemsize}"
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31) if compress else None
    _refuse_stopped(stop)
    with path.open("wb") as file:
        file.write(nrrd_header(name, geometry, "gzip" if compress else "raw").encode())
        for plane in voxels:
            _refuse_stopped(stop)
            content = np.ascontiguousarray(plane, dtype).data
            file.write(content if packer is None else packer.compress(content))
        if packer is not None:
            file.write(packer.flush())


def _refuse_stopped(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise Cancelled("Cancelled while the image was written for sending.")


class _Part:
    """A part of a file, as it is read while it is sent.

    :ivar sent: bytes that were read.
    :ivar fault: why it cannot be read to its end; empty if it can.
    """

    def __init__(self, file: ImageFile, offset: int, size: int, stopped: Callable[[], bool]) -> None:
        self._stream, self._size, self._stopped = file.path.open("rb"), min(size, file.size - offset), stopped
        self.sent, self.fault = 0, ""
        self._stream.seek(offset)

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        if self._stopped():
            raise ConnectionAbortedError("Cancelled")
        left = self._size - self.sent
        try:
            content = self._stream.read(left if size < 0 else min(size, left))
        except OSError as error:
            self.fault = f"cannot be read any more ({error.strerror or reason(error)})"
            raise
        if left and not content:
            self.fault = "has become shorter while it was sent"
            raise OSError(self.fault)
        self.sent += len(content)
        return content

    def close(self) -> None:
        self._stream.close()


def send(connection: Connection, files: Sequence[ImageFile], monitor: Monitor, begun: list[Sent]) -> list[str]:
    """Send files, and return the ids that the server gives to them.

    :param monitor: gets reports of the stage "send", in MiB.
    :param begun: gets each file before it is announced, so that it can be removed if sending fails.
    :raises ServerError: if the server refuses one, or stays away; or a file has changed meanwhile.
    :raises Cancelled: if the monitor's token is set.
    """
    total = sum(file.size for file in files)
    steps = max(1, -(-total // MIB))
    before, names = 0, []

    def report(done: int) -> None:
        monitor.report("send", (before + done) // MIB, steps)

    monitor.report("send", 0, steps)
    for file in files:
        names.append(_Sending(connection, file, monitor, report).run(begun))
        before += file.size
    monitor.report("send", steps, steps)
    return names


class _Sending:
    """Sends one file."""

    def __init__(
        self, connection: Connection, file: ImageFile, monitor: Monitor, report: Callable[[int], None]
    ) -> None:
        self._connection, self._file, self._monitor, self._report = connection, file, monitor, report
        self._part_bytes = PART_BYTES
        self._refused: float | None = None  # since when others of the same token send, so that this one has to wait

    def run(self, begun: list[Sent]) -> str:
        """Send it, and return its id on the server; the parameter is that of :func:`send`."""
        for attempt in range(RESTARTS):
            file = self._file
            announced = {"key": file.key, "kind": file.kind, "size": file.size, "sha256": file.sha256}
            begun.append(Sent("/v1/uploads", announced))
            name, offset, complete = self._state(self._connection.ask("POST", "/v1/uploads", self._monitor, announced))
            begun[-1].name = name
            in_vain, left = 0, _MOST_PARTS + 4 * file.size // _LEAST_PART
            try:
                while not complete:
                    before, left = offset, left - 1
                    offset, complete = self._part(f"/v1/uploads/{name}", offset)
                    in_vain = in_vain + 1 if offset == before and self._refused is None else 0
                    if in_vain > _IN_VAIN or left < 0:
                        break
                else:
                    return name
            except Refused as error:
                if error.code == "upload_damaged" and attempt > 0:
                    raise ServerError(f"{file.path} has changed while it was sent. Run this again.") from error
                if error.code not in ("upload_unknown", "upload_damaged"):
                    raise
            self._file = replace(file, key=secrets.token_urlsafe(24))
        raise ServerError(
            f"{self._connection.address} lost the image {RESTARTS} times while it was sent. Ask the person who runs "
            "the server."
        )

    def _part(self, path: str, offset: int) -> tuple[int, bool]:
        """Send a part, and return how many bytes have arrived, and whether these are all."""
        if offset == self._file.size:  # the server compares the SHA-256
            self._connection.pause(self._monitor)
            _, offset, complete = self._state(self._connection.ask("GET", path, self._monitor))
            return offset, complete
        stop = threading.Event()
        parts: list[_Part] = []

        def work() -> dict[str, Any] | None:
            if parts:  # an earlier attempt was lost; the server says how far it came
                return None
            try:
                parts.append(_Part(self._file, offset, self._part_bytes, stop.is_set))
            except OSError as error:
                raise ServerError(f"{self._file.path} cannot be read any more ({error.strerror}).") from error
            return self._connection.part(path, parts[0], offset)

        sent = 0

        def meanwhile() -> None:
            nonlocal sent
            if parts:
                if parts[0].sent > sent:
                    sent = parts[0].sent
                    self._connection.moved()
                self._report(offset + parts[0].sent)

        facts = None
        try:
            facts = self._connection.patiently(work, self._monitor, meanwhile=meanwhile)
        except Refused as error:
            if error.status == 413 and not error.code and self._part_bytes > _LEAST_PART:
                self._part_bytes //= 4
            elif error.code == "upload_busy":  # the server has not noticed yet that the connection was lost
                self._connection.pause(self._monitor)
            elif error.status == 429 and time.monotonic() - (self._refused or time.monotonic()) < MOST_SECONDS_BUSY:
                self._refused = self._refused or time.monotonic()
                self._connection.pause(self._monitor, _SECONDS_BUSY)
            elif error.code != "offset":
                raise
        finally:
            stop.set()
            for part in parts:
                part.close()
        if parts and parts[0].fault:
            raise ServerError(f"{self._file.path} {parts[0].fault}. Run this again.")
        if facts is None:
            facts = self._connection.ask("GET", path, self._monitor)
        else:
            self._refused = None
        _, offset, complete = self._state(facts)
        self._report(offset)
        return offset, complete

    def _state(self, facts: Mapping[str, Any]) -> tuple[str, int, bool]:
        """Return the id of an upload, how many bytes have arrived, and whether these are all."""
        name, offset, complete = facts.get("id"), facts.get("offset"), facts.get("complete")
        valid = is_id(name) and type(offset) is int and 0 <= offset <= self._file.size and isinstance(complete, bool)
        if not valid or (complete and offset != self._file.size):
            raise self._connection.odd("an image that was sent")
        assert isinstance(name, str) and isinstance(offset, int) and isinstance(complete, bool)
        return name, offset, complete
