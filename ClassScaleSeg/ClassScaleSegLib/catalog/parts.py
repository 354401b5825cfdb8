"""Download the parts of a model, check that they are models, and record their SHA-256.

If the catalogue has no SHA-256 for a part, the first one seen is recorded next to the file. Later it reveals a file
that has changed on this machine, and a download that gives a different file than before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import CatalogError, ModelError
from ..files import replacing, sha256_of
from ..models.files import parse_json
from ..models.summary import summarize
from .download import CancelToken, Progress, Source, fetch, stop_if
from .entries import Part, total_size


@dataclass(frozen=True)
class Record:
    """What ``FILE.zip.json`` records about a downloaded file.

    :ivar address: where the file came from.
    :ivar size: bytes.
    :ivar sha256: 64 hexadecimal digits.
    :ivar time: when this was recorded, in seconds since 1970.
    """

    address: str
    size: int
    sha256: str
    time: int


def record_file(place: Path) -> Path:
    """Return the path of the record of a downloaded file."""
    return place.with_name(place.name + ".json")


def files_of(place: Path) -> tuple[Path, ...]:
    """Return all files that a download of ``place`` can create."""
    return tuple(place.with_name(place.name + suffix) for suffix in ("", ".json", ".part", ".part.json"))


def read_record(place: Path) -> Record | None:
    """Return the record of a downloaded file; ``None`` if there is none. A damaged one is a CatalogError."""
    file = record_file(place)
    try:
        return Record(**parse_json(file.read_bytes())) if file.exists() else None
    except (OSError, ModelError, TypeError) as error:
        raise CatalogError(f"{file} is damaged ({error}). Delete it.") from error


def download_parts(
    parts: Sequence[tuple[Part, Path]], progress: Progress | None = None, cancel: CancelToken | None = None
) -> None:
    """Download the parts that are missing, and check those that are present, as `Catalog.download` says.

    :param parts: parts with an address, each with the path of its file. The folders exist.
    """
    missing = [part.size for part, place in parts if not place.exists()]
    total, before = total_size(missing), 0

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
    noted, source = read_record(place), Source(part.address or "", part.size, part.sha256)
    digest = fetch(source, place, lambda file: _check_model(file, part, source.address), progress, cancel)
    if part.sha256 is None and noted is not None and noted.sha256 != digest:
        place.unlink()
        day = time.strftime("%Y-%m-%d", time.gmtime(noted.time))
        raise CatalogError(
            f"{part.address} gave a different file than on {day} (SHA-256 {digest}, then {noted.sha256}), so the new "
            f"file was not kept. If you expected a change, delete {record_file(place)} and download it again."
        )
    _note(part, place, digest)


def _check_present(part: Part, place: Path, cancel: CancelToken | None) -> None:
    """Compare a file, downloaded or placed by hand, with the SHA-256 that is known for it."""
    noted, digest = read_record(place), sha256_of(place, lambda: stop_if(cancel))
    wanted = part.sha256 or (noted.sha256 if noted else None)
    if wanted and digest != wanted:
        raise CatalogError(
            f"{place} is damaged: its SHA-256 is {digest}, but {wanted} was expected. Delete it and download it again."
        )
    if noted is None:
        _check_model(place, part, str(place))
        _note(part, place, digest)


def _note(part: Part, place: Path, digest: str) -> None:
    noted = Record(part.address or "", place.stat().st_size, digest, int(time.time()))
    with replacing(record_file(place), overwrite=True) as temporary:
        temporary.write_text(json.dumps(asdict(noted), indent=2) + "\n", encoding="utf-8")


def _check_model(file: Path, part: Part, where: str) -> None:
    try:
        summarize(file, part.configuration)
    except ModelError as error:
        raise CatalogError(f"{where} is not a usable model: {error}") from error
