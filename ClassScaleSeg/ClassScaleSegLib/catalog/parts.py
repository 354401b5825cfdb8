"""Download the parts of a model, check that they are models, and record their SHA-256.

If the catalogue has no SHA-256 for a part, the first one seen is recorded next to the file. Later it reveals a file
that has changed on this machine, and a download that gives a different file than before.

A part of several files is a folder. Its files are downloaded into ``NAME.part``, which is renamed to ``NAME`` once all
of them are there and are a model. The SHA-256 of such a folder is that of the lines ``NAME DIGEST`` of its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ..errors import CatalogError, ModelError
from ..files import replacing, sha256_of, unwritable
from ..models.files import parse_json
from ..models.summary import summarize
from .download import CancelToken, Progress, Source, fetch, stop_if
from .entries import Part, PartFile, total_size

_UNFINISHED = ("", ".part", ".part.json")  # what follows the name of a file that is downloaded


@dataclass(frozen=True)
class Record:
    """What ``FILE.zip.json`` records about a downloaded file, or ``FOLDER.json`` about a folder of several.

    :ivar address: where the file came from; of several files, the first one.
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


def read_record(place: Path) -> Record | None:
    """Return the record of a downloaded file; ``None`` if there is none. A damaged one is a CatalogError."""
    file = record_file(place)
    try:
        return Record(**parse_json(file.read_bytes())) if file.exists() else None
    except (OSError, ModelError, TypeError) as error:
        raise CatalogError(f"{file} is damaged ({error}). Delete it.") from error


def is_complete(part: Part, place: Path) -> bool:
    """Return whether a part is at ``place``, with all its files."""
    return all((place / file.file_name).exists() for file in part.files) if part.files else place.exists()


def download_parts(
    parts: Sequence[tuple[Part, Path]], progress: Progress | None = None, cancel: CancelToken | None = None
) -> None:
    """Download the parts that are missing, and check those that are present, as `Catalog.download` says.

    :param parts: parts with an address or with files, each with its path. The folders exist.
    """
    sizes = [size for part, place in parts if not place.exists() for size in _missing_sizes(part, place)]
    total, before = total_size(sizes), 0

    def report(done: int, of_this: int | None) -> None:
        if progress is not None:
            progress(before + done, of_this if len(sizes) == 1 else total)

    for part, place in parts:
        if place.exists():
            _check_present(part, place, cancel)
        else:
            for size in (_fetch_files if part.files else _fetch_zip)(part, place, report, cancel):
                before += size


def _fetch_zip(part: Part, place: Path, progress: Progress, cancel: CancelToken | None) -> Iterator[int]:
    """Download a part that is a zip, and yield its size."""
    source = Source(part.addresses[0], part.size, part.sha256)
    digest = fetch(source, place, partial(_check_model, part=part, where=source.address), progress, cancel)
    try:
        _refuse_other(part, place, digest)
    except CatalogError:
        place.unlink()
        raise
    _note(part, place, digest)
    yield place.stat().st_size


def _fetch_files(part: Part, place: Path, progress: Progress, cancel: CancelToken | None) -> Iterator[int]:
    """Download the files of a part that have not arrived yet, and yield the size of each; then name their folder."""
    unfinished = _unfinished(place)
    try:
        unfinished.mkdir(exist_ok=True)
        for file in part.files:
            target, source = unfinished / file.file_name, Source(file.address, file.size, file.sha256)
            if not _arrived(file, unfinished):
                target.unlink(missing_ok=True)
                fetch(source, target, lambda path: None, progress, cancel, begins=b"")
                yield target.stat().st_size
        digest = _digest(part, unfinished, cancel)
        try:
            _check_model(unfinished, part, part.addresses[0])
            _refuse_other(part, place, digest)
        except CatalogError:
            _delete_files(part, unfinished)
            raise
        os.replace(unfinished, place)
    except OSError as error:
        raise unwritable(place, error) from error
    _note(part, place, digest)


def delete_part(part: Part, place: Path) -> int:
    """Delete all files that a download of a part can have created, and return the bytes freed.

    :raises OutputError: if a file cannot be deleted.
    """
    if not part.files:
        files = [place.with_name(place.name + end) for end in (*_UNFINISHED, ".json")]
        return sum(map(delete, files))
    return sum((_delete_files(part, place), _delete_files(part, _unfinished(place)), delete(record_file(place))))


def _delete_files(part: Part, folder: Path) -> int:
    """Delete the files of a part in a folder, and the folder too if it contains no others; return the bytes freed."""
    files = [folder / (file.file_name + end) for file in part.files for end in _UNFINISHED]
    freed = sum(map(delete, files))
    with contextlib.suppress(OSError):  # it is not there, or contains other files, which are not ours
        folder.rmdir()
    return freed


def delete(file: Path) -> int:
    """Delete a file if it exists, and return the bytes freed.

    :raises OutputError: if it cannot be deleted.
    """
    try:
        size = file.stat().st_size
        file.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise unwritable(file, error) from error
    return size


def _unfinished(place: Path) -> Path:
    """Return the folder in which the files of a part are collected."""
    return place.with_name(place.name + ".part")


def _arrived(file: PartFile, folder: Path) -> bool:
    """Return whether one of several files is complete. Without a known SHA-256 it may be another one meanwhile."""
    place = folder / file.file_name
    return file.sha256 is not None and place.is_file() and sha256_of(place) == file.sha256


def _missing_sizes(part: Part, place: Path) -> list[int | None]:
    """Return the sizes, if known, of the files that are yet to be downloaded."""
    if not part.files:
        return [part.size]
    return [file.size for file in part.files if not _arrived(file, _unfinished(place))]


def _refuse_other(part: Part, place: Path, digest: str) -> None:
    """Refuse what an address gave if it is something else than before."""
    noted = read_record(place)
    if _known(part) is None and noted is not None and noted.sha256 != digest:
        day = time.strftime("%Y-%m-%d", time.gmtime(noted.time))
        raise CatalogError(
            f"{part.addresses[0]} gave a different file than on {day} (SHA-256 {digest}, then {noted.sha256}), so the "
            f"new file was not kept. If you expected a change, delete {record_file(place)} and download it again."
        )


def _check_present(part: Part, place: Path, cancel: CancelToken | None) -> None:
    """Compare a part, downloaded or placed by hand, with the SHA-256 that is known for it."""
    if not is_complete(part, place):
        missing = next(file.file_name for file in part.files if not (place / file.file_name).exists())
        raise CatalogError(f"{place} is not complete: {missing} is missing. Delete that folder and download it again.")
    noted, digest = read_record(place), _digest(part, place, cancel)
    wanted = _known(part) or (noted.sha256 if noted else None)
    if wanted and digest != wanted:
        raise CatalogError(
            f"{place} is damaged: its SHA-256 is {digest}, but {wanted} was expected. Delete it and download it again."
        )
    if noted is None:
        _check_model(place, part, str(place))
        _note(part, place, digest)


def _known(part: Part) -> str | None:
    """Return the SHA-256 that the catalogue states for a part, or for all its files."""
    if not part.files:
        return part.sha256
    sums = {file.file_name: file.sha256 for file in part.files if file.sha256}
    return _sum_of(sums) if len(sums) == len(part.files) else None


def _digest(part: Part, place: Path, cancel: CancelToken | None) -> str:
    """Return the SHA-256 of a part on this machine; other files in its folder do not count."""
    if not part.files:
        return sha256_of(place, lambda: stop_if(cancel))
    names = [file.file_name for file in part.files]
    return _sum_of({name: sha256_of(place / name, lambda: stop_if(cancel)) for name in names})


def _sum_of(sums: dict[str, str]) -> str:
    """Return the SHA-256 of several files, by their names and own sums."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(sums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _note(part: Part, place: Path, digest: str) -> None:
    files = [place / file.file_name for file in part.files] or [place]
    noted = Record(part.addresses[0], sum(file.stat().st_size for file in files), digest, int(time.time()))
    with replacing(record_file(place), overwrite=True) as temporary:
        temporary.write_text(json.dumps(asdict(noted), indent=2) + "\n", encoding="utf-8")


def _check_model(file: Path, part: Part, where: str) -> None:
    try:
        summarize(file, part.configuration)
    except ModelError as error:
        raise CatalogError(f"{where} is not a usable model: {error}") from error
