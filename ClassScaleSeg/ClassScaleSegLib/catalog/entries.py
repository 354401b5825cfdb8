"""The JSON of the catalogue: the project's models (``Resources/Catalog/models.json``) and the user's (``own.json``).

``Resources/Catalog/schema.json`` describes the form of both. Neither is trusted: their addresses, file names and sizes
decide what is downloaded and where it is kept, so every entry is checked when it is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import CatalogError, ModelError, named
from ..files import replacing
from ..models.files import FolderFiles, read_json
from ..models.json_checks import MAX_TEXT, is_sha256, is_text
from .download import MAX_DOWNLOAD, is_address

VERSION = 1
MAX_MODELS, MAX_PARTS, MAX_CLASSES = 1000, 32, 65536
IDENTIFIER = r"[a-z0-9][a-z0-9.-]{0,62}[a-z0-9]"  # also the name of a folder
# not the names that Windows reserves for devices, whatever follows their first dot
FILE_NAME = r"(?i)(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[\w][\w.+-]{0,120}\.zip"


@dataclass(frozen=True)
class Part:
    """One model file of an entry: either an address to download it from, or a file that exists already.

    :ivar address: http(s) address of a zip.
    :ivar file: the name of a file in ``Resources/Models``; for the user's own model, the absolute path of a file or
        folder.
    :ivar size: bytes, if known.
    :ivar sha256: 64 hexadecimal digits, if known.
    :ivar configuration: chooses among several models in the file.

    >>> Part(address="https://example.org/files/mouse.zip?download=1").file_name
    'mouse.zip'
    """

    address: str | None = None
    file: str | None = None
    size: int | None = None
    sha256: str | None = None
    configuration: str | None = None

    @property
    def file_name(self) -> str:
        """The name under which the download is kept."""
        name = PurePosixPath(unquote(urlsplit(self.address or "").path)).name
        name = name if name.lower().endswith(".zip") else f"{name}.zip"
        return name if re.fullmatch(FILE_NAME, name) else "model.zip"


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    :ivar id: what commands take; also the name of the folder with its downloads.
    :ivar name: what users see.
    :ivar description: one or two sentences.
    :ivar modality: such as "CT" or "MR"; ``None`` if unknown.
    :ivar classes: number of classes without the background; ``None`` for the user's own model before its download.
    :ivar parts: several parts segment an image together; where two claim a voxel, the later one gets it.
    :ivar licence: of the weights; ``None`` if unknown.
    :ivar licence_address: where its text is.
    :ivar source: address of the model's home page or publication.
    :ivar notice: a sentence that users must see.
    :ivar tried: whether the project (for the user's own model, the user) has downloaded and used the model from here.
    :ivar own: whether the user added the model.
    """

    id: str
    name: str
    description: str = ""
    modality: str | None = None
    classes: int | None = None
    parts: tuple[Part, ...] = ()
    licence: str | None = None
    licence_address: str | None = None
    source: str | None = None
    notice: str | None = None
    tried: bool = False
    own: bool = False

    @property
    def embedded(self) -> bool:
        """Whether the model is part of ClassScaleSeg."""
        return not self.own and all(part.file for part in self.parts)

    @property
    def download_size(self) -> int | None:
        """Bytes of all parts that have an address; ``None`` if the size of one is unknown."""
        return total_size(part.size for part in self.parts if part.address)


def total_size(sizes: Iterable[int | None]) -> int | None:
    """Return the sum of the sizes; ``None`` if one of them is unknown."""
    given = list(sizes)
    known = [size for size in given if size is not None]
    return sum(known) if len(known) == len(given) else None


def read_entries(path: Path, own: bool) -> tuple[Entry, ...]:
    """Return the entries of a file in the order of the file.

    :param path: ``models.json`` or ``own.json``.
    :param own: whether the file is ``own.json``, whose parts may be files anywhere on the disk.
    :raises CatalogError: if the file cannot be read, or an entry is not as ``schema.json`` says.

    >>> from ClassScaleSegLib.resources import resource
    >>> [entry.id for entry in read_entries(resource("Catalog", "models.json"), own=False) if entry.embedded][0]
    'toy-120'
    """
    try:
        content = read_json(FolderFiles(path.parent), path.name)
    except ModelError as error:
        raise CatalogError(str(error)) from error
    with named(path):
        version, models = content.get("version"), content.get("models")
        if type(version) is not int or not isinstance(models, list) or len(models) > MAX_MODELS:
            raise CatalogError(
                f"It is not a catalogue: a number 'version' and a list 'models' of at most {MAX_MODELS} were expected."
            )
        if version > VERSION:
            raise CatalogError(
                f"It was made by a newer ClassScaleSeg (catalogue version {version}, this one reads {VERSION}). Update "
                "ClassScaleSeg."
            )
        entries = []
        for index, item in enumerate(models, start=1):
            known = f" ({str(item['id'])[:64]})" if isinstance(item, dict) and "id" in item else ""
            with named(f"model {index}{known}"):
                entries.append(_entry(item, own))
        for kind in ("id", "name"):
            for value, count in Counter(getattr(entry, kind).casefold() for entry in entries).items():
                if count > 1:
                    raise CatalogError(f"two models have the {kind} {value!r}.")
    return tuple(entries)


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Write these entries as ``own.json``."""
    models = [{key: value for key, value in asdict(entry).items() if key != "own"} for entry in entries]
    content = json.dumps({"version": VERSION, "models": models}, indent=2, ensure_ascii=False) + "\n"
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _entry(item: Any, own: bool) -> Entry:
    given = _members(item, Entry)
    parts = given["parts"]
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
        raise CatalogError(f"'parts' must be a list of 1 to {MAX_PARTS} parts.")
    fine = {
        "id": isinstance(given["id"], str) and re.fullmatch(IDENTIFIER, given["id"]),
        "name": is_text(given["name"]),
        "description": isinstance(given["description"], str) and len(given["description"]) <= MAX_TEXT,
        "classes": _number(given["classes"], MAX_CLASSES) or (own and given["classes"] is None),
        "tried": isinstance(given["tried"], bool),
        **{key: given[key] is None or is_text(given[key]) for key in ("modality", "licence", "notice")},
        **{key: given[key] is None or is_address(given[key]) for key in ("licence_address", "source")},
    }
    _refuse(fine, given)
    checked = []
    for index, part in enumerate(parts, start=1):
        with named(f"part {index}"):
            checked.append(_part(part, own))
    names = [part.file_name for part in checked if part.address]
    if len(set(names)) != len(names):
        raise CatalogError("two parts would be kept under the same file name. Give them different ones.")
    return Entry(**{**given, "parts": tuple(checked)}, own=own)


def _part(item: Any, own: bool) -> Part:
    given = _members(item, Part)
    file = given["file"]
    placed = isinstance(file, str) and (Path(file).is_absolute() if own else bool(re.fullmatch(FILE_NAME, file)))
    fine = {
        "address": given["address"] is None or is_address(given["address"]),
        "file": file is None or placed,
        "size": given["size"] is None or _number(given["size"], MAX_DOWNLOAD),
        "sha256": given["sha256"] is None or is_sha256(given["sha256"]),
        "configuration": given["configuration"] is None or is_text(given["configuration"]),
    }
    _refuse(fine, given)
    if (given["address"] is None) == (file is None):
        raise CatalogError("it must have either an 'address' or a 'file'.")
    return Part(**given)


def _members(item: Any, kind: type[Entry] | type[Part]) -> dict[str, Any]:
    """Return a JSON object, after checking that its members are exactly the fields of ``kind``."""
    wanted = {field.name for field in fields(kind)} - {"own"}
    if not isinstance(item, dict):
        raise CatalogError("It must be a JSON object.")
    if odd := sorted(set(item) ^ wanted):
        raise CatalogError(f"{odd[0][:64]!r} is {'missing' if odd[0] in wanted else 'not known'}.")
    return item


def _refuse(fine: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise a CatalogError for the first member that is not fine."""
    for key, value in fine.items():
        if not value:
            raise CatalogError(f"{key!r} cannot be {str(given[key])[:80]!r}; schema.json says what is allowed.")


def _number(value: Any, largest: int) -> bool:
    return type(value) is int and 1 <= value <= largest
