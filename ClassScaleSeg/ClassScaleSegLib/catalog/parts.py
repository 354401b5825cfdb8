"""The parts of one model: fetched, checked to be models, and their SHA-256 noted for the next time.

Where the catalogue knows no SHA-256, the one seen first is noted beside the file and everything later is compared with
it: a file that changes on this machine, and a download that gives something else than the last time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import CatalogError, ModelError
from ..files import replacing
from ..models.files import parse_json
from ..models.summary import summarize
from .download import CancelToken, Progress, Source, fetch, sha256_of
from .entries import Part


@dataclass(frozen=True)
class Record:
    """What ``FILE.zip.json`` says.
    :ivar size: bytes.
    :ivar time: seconds since 1970, when it was noted."""

    address: str
    size: int
    sha256: str
    time: int


def record_file(place: Path) -> Path:
    return place.with_name(place.name + ".json")


def files_of(place: Path) -> tuple[Path, ...]:
    """Everything that a download of ``place`` can leave."""
    return tuple(place.with_name(place.name + suffix) for suffix in ("", ".json", ".part", ".part.json"))


def read_record(place: Path) -> Record | None:
    """:raises CatalogError: if there is one and it is damaged."""
    file = record_file(place)
    if not file.exists():
        return None
    try:
        noted = Record(**parse_json(file.read_bytes(), str(file)))
    except (OSError, ModelError, TypeError) as error:
        raise CatalogError(f"{file} is damaged ({error}): delete it.") from error
    return noted


def download_parts(
    parts: Sequence[tuple[Part, Path]], progress: Progress | None = None, cancel: CancelToken | None = None
) -> None:
    """Fetch the parts that are not in their places, check those that are; see `Catalog.download`."""
    missing = [part.size for part, place in parts if not place.exists()]
    total, before = (None if None in missing else sum(missing)), 0

    def report(done: int, of_this: int | None) -> None:
        if progress is not None:
            progress(before + done, of_this if len(missing) == 1 else total)

    for part, place in parts:
        if place.exists():
            _check_present(part, place, cancel)
        else:
            _fetch(part, place, report, cancel)
            before += place.stat().st_size


def _fetch(part: Part, place: Path, progress: Progress, cancel: CancelToken | None) -> None:
    noted = read_record(place)
    digest = fetch(
        Source(part.address, part.size, part.sha256),
        place,
        check=lambda file: _check_model(file, part, part.address),
        progress=progress,
        cancel=cancel,
    )
    if part.sha256 is None and noted is not None and noted.sha256 != digest:
        place.unlink()
        day = time.strftime("%Y-%m-%d", time.gmtime(noted.time))
        raise CatalogError(
            f"{part.address} gave another file than on {day} (SHA-256 {digest}, then {noted.sha256}): it is not kept. "
            f"If you expect that, delete {record_file(place)} and download it again."
        )
    _note(part, place, digest)


def _check_present(part: Part, place: Path, cancel: CancelToken | None) -> None:
    """Compare a file, downloaded or placed by hand, with what is known of it.

    :raises CatalogError: if it differs, or is no model.
    """
    noted, digest = read_record(place), sha256_of(place, cancel)
    wanted = part.sha256 or (noted.sha256 if noted else None)
    if wanted and digest != wanted:
        raise CatalogError(f"{place} is damaged: its SHA-256 is {digest}, {wanted} was expected. Delete it, try again.")
    if noted is None:
        _check_model(place, part, str(place))
        _note(part, place, digest)


def _note(part: Part, place: Path, digest: str) -> None:
    noted = Record(part.address, place.stat().st_size, digest, int(time.time()))
    with replacing(record_file(place), overwrite=True) as temporary:
        temporary.write_text(json.dumps(asdict(noted), indent=2) + "\n", encoding="utf-8")


def _check_model(file: Path, part: Part, where: str) -> None:
    try:
        summarize(file, part.configuration)
    except ModelError as error:
        raise CatalogError(f"What {where} gave is not a model that can be used: {error}") from error
