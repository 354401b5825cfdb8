"""Other formats of a result, made when a client asks for one."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from ..errors import ImageError, OutputError
from ..images.segmentation import Segmentation
from .problems import Problem, disk_full, unknown

TYPES = {"application/x-nrrd": "", "application/x-nifti": "converted.nii.gz", "text/csv": "labels.csv"}
_ALIASES = {"*/*": "application/x-nrrd", "application/*": "application/x-nrrd", "text/*": "text/csv"}


def chosen_type(accept: str) -> str:
    """Return the type of a result that a client likes best.

    :param accept: the header of the request.
    :raises Problem: if it likes none.

    >>> chosen_type("text/html, application/x-nifti;q=0.5, */*;q=0.1"), chosen_type("*/*")
    ('application/x-nifti', 'application/x-nrrd')
    """
    wishes = []
    for number, wish in enumerate(accept.split(",")):
        kind, *parameters = (text.strip().lower() for text in wish.split(";"))
        kind, quality = _ALIASES.get(kind, kind), 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = float(value) if value.strip().replace(".", "", 1).isdecimal() else 0.0
        if kind in TYPES and quality > 0:
            wishes.append((-quality, number, kind))
    if not wishes:
        raise Problem(406, "not_acceptable", f"A result can be had as {', '.join(TYPES)}.")
    return min(wishes)[2]


class Converter:
    """Converts results, one at a time, as each takes memory."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()  # not one of threads: those that wait would be missing for uploads

    async def convert(self, file: Path, kind: str) -> Path:
        """Return the file of a result in another format. It lies beside the result, and is removed with it.

        :raises Problem: if the format cannot hold it, it cannot be written, or the result was removed meanwhile.
        """
        path = file.with_name(TYPES[kind])
        async with self._lock:
            if not path.exists():
                await run_in_threadpool(_convert, file, path, kind)
        return path


def _convert(file: Path, path: Path, kind: str) -> None:
    """Convert a result in a folder of its own, as that of the result may be removed meanwhile."""
    if not file.exists():
        raise unknown("job")
    place = file.parents[1] / f".{secrets.token_hex(8)}"  # removed at the next start, as it has no name of a job
    try:
        place.mkdir(mode=0o700)
        result = Segmentation.from_image(file)
        if kind == "text/csv":
            (place / path.name).write_text(result.table.to_csv(), encoding="utf-8", newline="")
        elif result.more_layers:
            said = "The classes overlap, and NIfTI holds one class in each voxel. Ask for application/x-nrrd."
            raise Problem(406, "not_acceptable", said)
        else:
            result.write(place / path.name)
        (place / path.name).rename(path)
    except (ImageError, OutputError, OSError) as error:
        raise (disk_full() if file.exists() else unknown("job")) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
