"""The catalogue's JSON: models known to the project (``Resources/Catalog/models.json``) and your own (``own.json``).

Both have the form that ``Resources/Catalog/schema.json`` describes. Neither is trusted: addresses, file names and sizes
in them decide what is downloaded and where it is kept, so every entry is checked when it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import CatalogError, ModelError
from ..models.files import MAX_JSON, parse_json
from .download import MAX_DOWNLOAD, check_address

VERSION = 1
MAX_MODELS, MAX_PARTS, MAX_CLASSES, MAX_TEXT = 1000, 32, 65536, 2000
IDENTIFIER = r"[a-z0-9][a-z0-9.-]{0,62}[a-z0-9]"  # also the name of a folder
# names that Windows keeps for devices, whatever follows the first point
FILE_NAME = r"(?i)(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[\w][\w.+-]{0,120}\.zip"


@dataclass(frozen=True)
class Part:
    """One model file of an entry. It has an address, or a file that is there already.

    :ivar file: a name below ``Resources/Models``; of a model of your own the absolute path of a file or folder.
    :ivar size: bytes.
    :ivar sha256: 64 hexadecimal digits, if known.
    :ivar configuration: which of several models in it.
    """

    address: str | None = None
    file: str | None = None
    size: int | None = None
    sha256: str | None = None
    configuration: str | None = None

    @property
    def file_name(self) -> str:
        """The name under which a download is kept."""
        name = PurePosixPath(unquote(urlsplit(self.address or "").path)).name
        name = name if name.lower().endswith(".zip") else f"{name}.zip"
        return name if re.fullmatch(FILE_NAME, name) else "model.zip"


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue; several ``parts`` make one segmentation, later ones win.

    :ivar classes: without the background; unknown of your own model before it is downloaded.
    :ivar source: address of its home page or publication.
    :ivar notice: to be shown to users.
    :ivar tried: whether the project, or you, did use it from where it is said to be.
    """

    id: str
    name: str
    description: str
    modality: str | None
    classes: int | None
    licence: str | None
    licence_address: str | None
    source: str | None
    notice: str | None
    parts: tuple[Part, ...]
    tried: bool
    own: bool = False

    @property
    def embedded(self) -> bool:
        return not self.own and all(part.file for part in self.parts)

    @property
    def download_size(self) -> int | None:
        """Bytes of all parts that have an address, if all say so."""
        sizes = [part.size for part in self.parts if part.address]
        return None if None in sizes else sum(sizes)


def read_entries(path: Path, own: bool) -> tuple[Entry, ...]:
    """The entries of a file in the order of the file.

    :param own: whether the file is ``own.json``, where files may lie anywhere.
    :raises CatalogError: a sentence naming the file and the entry at fault.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise CatalogError(f"{path} has more than {MAX_JSON} bytes: it is not read.")
        content = parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise CatalogError(f"{path} cannot be read ({error.strerror or error}).") from error
    except ModelError as error:
        raise CatalogError(str(error)) from error
    version, models = content.get("version"), content.get("models")
    if type(version) is not int or not isinstance(models, list) or len(models) > MAX_MODELS:
        raise CatalogError(f"{path} is not a catalogue: 'version' and a list 'models' were expected.")
    if version > VERSION:
        raise CatalogError(f"{path} was made by a newer ClassScaleSeg (version {version}): update ClassScaleSeg.")
    entries = tuple(_entry(item, f"{path}: model {index}", own) for index, item in enumerate(models, start=1))
    for kind in ("id", "name"):
        values = [getattr(entry, kind).casefold() for entry in entries]
        repeated = next((value for value in values if values.count(value) > 1), None)
        if repeated is not None:
            raise CatalogError(f"{path}: two models have the {kind} {repeated!r}.")
    return entries


def format_entries(entries: Iterable[Entry]) -> str:
    """The text of ``own.json``."""
    models = [{key: value for key, value in asdict(entry).items() if key != "own"} for entry in entries]
    return json.dumps({"version": VERSION, "models": models}, indent=2, ensure_ascii=False) + "\n"


def _entry(item: Any, where: str, own: bool) -> Entry:
    fields = _fields(item, Entry, where)
    where = f"{where} ({str(fields['id'])[:64]})"
    parts = fields["parts"]
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
        raise CatalogError(f"{where}: 'parts' must be a list of 1 to {MAX_PARTS} parts.")
    fine = {
        "id": isinstance(fields["id"], str) and re.fullmatch(IDENTIFIER, fields["id"]),
        "name": _text(fields["name"]),
        "description": isinstance(fields["description"], str) and len(fields["description"]) <= MAX_TEXT,
        "classes": _number(fields["classes"], MAX_CLASSES) or (own and fields["classes"] is None),
        "tried": isinstance(fields["tried"], bool),
        **{key: fields[key] is None or _text(fields[key]) for key in ("modality", "licence", "notice")},
        **{key: fields[key] is None or _is_address(fields[key]) for key in ("licence_address", "source")},
    }
    _refuse(fine, fields, where)
    checked = tuple(_part(part, f"{where}, part {index}", own) for index, part in enumerate(parts, start=1))
    names = [part.file_name for part in checked if part.address]
    if len(set(names)) != len(names):
        raise CatalogError(f"{where}: two parts would be kept under the same file name.")
    return Entry(**{**fields, "parts": checked}, own=own)


def _part(item: Any, where: str, own: bool) -> Part:
    fields = _fields(item, Part, where)
    file = fields["file"]
    placed = isinstance(file, str) and (Path(file).is_absolute() if own else bool(re.fullmatch(FILE_NAME, file)))
    fine = {
        "address": fields["address"] is None or _is_address(fields["address"]),
        "file": file is None or placed,
        "size": fields["size"] is None or _number(fields["size"], MAX_DOWNLOAD),
        "sha256": fields["sha256"] is None or re.fullmatch(r"[0-9a-f]{64}", str(fields["sha256"])),
        "configuration": fields["configuration"] is None or _text(fields["configuration"]),
    }
    _refuse(fine, fields, where)
    if (fields["address"] is None) == (file is None):
        raise CatalogError(f"{where}: it must have either an 'address' or a 'file'.")
    return Part(**fields)


def _fields(item: Any, kind: type, where: str) -> dict[str, Any]:
    """The entries of an object, which are just the fields of ``kind``."""
    wanted = set(kind.__dataclass_fields__) - {"own"}
    if not isinstance(item, dict):
        raise CatalogError(f"{where} must be a JSON object.")
    if odd := sorted(set(item) ^ wanted):
        raise CatalogError(f"{where}: {odd[0][:64]!r} is {'missing' if odd[0] in wanted else 'not known'}.")
    return dict(item)


def _refuse(fine: dict[str, Any], fields: dict[str, Any], where: str) -> None:
    fault = next((key for key, value in fine.items() if not value), None)
    if fault:
        found = str(fields[fault])[:80]
        raise CatalogError(f"{where}: {fault!r} cannot be {found!r}; schema.json says what it may be.")


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()


def _number(value: Any, largest: int) -> bool:
    return type(value) is int and 1 <= value <= largest


def _is_address(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(check_address(value))
    except CatalogError:
        return False
