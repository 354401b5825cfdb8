"""The result of a job, fetched from a server and used only if it is what it must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ImageError, LabelTableError, ServerError, reason
from ..images.geometry import Geometry
from ..images.image_file import itk_reader, read_file
from ..images.segmentation import Segmentation
from ..labels.table import LabelTable
from .connection import Connection
from .image import RemoteImage
from .jobs import Outcome, RemoteJob
from .request import Request

_CERTAIN = 1.001  # a probability of float32, rounded
_HEADER_BYTES = 64 << 20  # of a result, beside its voxels


def fetch_result(
    connection: Connection, job: RemoteJob, outcome: Outcome, image: RemoteImage, request: Request, folder: Path
) -> Segmentation:
    """Fetch the result of a job into a folder, and return it, once it is of this image and of these classes.

    :raises Forgotten: if the server does not know the job any more.
    :raises ServerError: if the result is too large, arrives damaged, or is another one than was asked for.
    """
    voxels = int(np.prod(image.geometry.size))
    layers = max(1, len(request.models) * 64 if request.options.overlap == "keep" else 1)
    most = {"segmentation": 2 * layers * voxels + _HEADER_BYTES, "confidence": 4 * voxels + _HEADER_BYTES}
    places = {"segmentation": folder / "result.seg.nrrd"}
    if request.options.confidence:
        places["confidence"] = folder / "confidence.nrrd"
    for kind, place in places.items():
        if kind not in outcome.files:
            raise connection.odd("a result")
        job.fetch(kind, outcome.files[kind], place, most[kind])
    try:
        found = _read(places, image, request)
    except (ImageError, LabelTableError, RuntimeError) as error:
        raise ServerError(
            f"The result from {connection.address} cannot be used ({reason(error)}). Update ClassScaleSeg there and "
            "here."
        ) from error
    return replace(found, changes=outcome.changes, counts=None) if request.options.cleans else found


def _read(places: dict[str, Path], image: RemoteImage, request: Request) -> Segmentation:
    """Return the result in some files.

    :raises ImageError, LabelTableError, RuntimeError: if it is of another image, of other classes, or cannot be read.
    """
    for place in places.values():
        _check_grid(place, image)
    found, confidence = Segmentation.from_image(places["segmentation"]), None
    if "confidence" in places:
        volume = read_file(places["confidence"])  # it owns the voxels
        confidence = np.array(volume.voxels, np.float32)
        if not (confidence.min() >= 0 and confidence.max() <= _CERTAIN):  # also if there is no number
            raise ImageError("The confidence is not between 0 and 1")
    if _names(found.table) != _names(request.table):
        raise LabelTableError("It names other classes than the server has described")
    # the server's table has neither groups nor the background, and its file may round the grid
    return Segmentation(found.labels, request.table, image.geometry, confidence, more_layers=found.more_layers)


def _check_grid(file: Path, image: RemoteImage) -> None:
    """Compare the grid in the header of a file with that of the image, before its voxels take memory."""
    reader = itk_reader(file)
    if reader.GetDimension() == 3 and reader.GetSize() == tuple(image.geometry.size):
        if Geometry.first_axes(reader).distance(image.geometry) < 0.01 * min(image.geometry.spacing):
            return
    raise ImageError(f"It is on another grid than {image.prepared.name}")


def _names(table: LabelTable) -> dict[int, str]:
    return {label.value: label.name for label in table.foreground}
