"""The JSON of the catalogue: the project's models (``Resources/Catalog/models.json``) and the user's (``own.json``).

``Resources/Catalog/schema.json`` describes the form of both. Neither is trusted: their addresses, file names and sizes
decide what is downloaded and where it is kept, so every entry is checked when it is read. Members that the first
version did not have may be missing, and are not written if they say nothing: earlier versions read ``own.json`` too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import CatalogError, ModelError, named
from ..files import replacing
from ..models.files import FolderFiles, read_json
from ..models.json_checks import MAX_TEXT, is_sha256, is_text, numbers
from .download import MAX_DOWNLOAD, is_address

VERSION = 1
MAX_MODELS, MAX_PARTS, MAX_FILES, MAX_CLASSES = 1000, 32, 32, 65536
MAX_MARGIN = 1000  # mm
WHOLE_BODY = "whole body"
REGIONS = (WHOLE_BODY, "head", "brain", "neck", "chest", "heart", "abdomen", "pelvis", "spine", "limbs")
IDENTIFIER = r"[a-z0-9][a-z0-9.-]{0,62}[a-z0-9]"  # also the name of a folder
# not the names that Windows reserves for devices, whatever follows their first dot
_NAME = r"(?i)(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))"
FILE_NAME = _NAME + r"[\w][\w.+-]{0,120}\.zip"
MEMBER_NAME = _NAME + r"(?!.*\.(part|lock)(\.|$))\w([\w.+-]{0,120}\w)?"  # not those that a download uses meanwhile
LATER = {"family", "regions", "structures", "locate_with", "files"}  # members that the first version did not have


@dataclass(frozen=True)
class PartFile:
    """One of several files that are a model together, and are downloaded into a folder.

    :ivar address: http(s) address, whose last part is the name of the file.
    :ivar size: bytes, if known.
    :ivar sha256: 64 hexadecimal digits, if known.

    >>> PartFile("https://example.org/mouse/model.json").file_name
    'model.json'
    """

    address: str
    size: int | None = None
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The name of the file in the folder; empty if the address ends in none that can be used."""
        name = _last(self.address)
        return name if re.fullmatch(MEMBER_NAME, name) else ""


@dataclass(frozen=True)
class Part:
    """One model of an entry: an address to download it from, a file that exists already, or files to download.

    :ivar address: http(s) address of a zip.
    :ivar file: the name of a file in ``Resources/Models``; for the user's own model, the absolute path of a file or
        folder.
    :ivar size: bytes, if known.
    :ivar sha256: 64 hexadecimal digits, if known.
    :ivar configuration: chooses among several models in the file.
    :ivar files: the files of a model that is not in one; ``size`` and ``sha256`` are theirs.

    >>> Part(address="https://example.org/files/mouse.zip?download=1").file_name
    'mouse.zip'
    """

    address: str | None = None
    file: str | None = None
    size: int | None = None
    sha256: str | None = None
    configuration: str | None = None
    files: tuple[PartFile, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses that are downloaded; empty if the part exists already."""
        return (self.address,) if self.address else tuple(file.address for file in self.files)

    @property
    def download_size(self) -> int | None:
        """Bytes of all that is downloaded; ``None`` if the size of a file is unknown."""
        return total_size(file.size for file in self.files) if self.files else self.size

    @property
    def file_name(self) -> str:
        """The name under which the download is kept: of a zip, or of the folder of several files."""
        if self.files:
            folder = _last(self.files[0].address, 2)
            return folder if re.fullmatch(MEMBER_NAME, folder) else "model"
        name = _last(self.address or "")
        name = name if name.lower().endswith(".zip") else f"{name}.zip"
        return name if re.fullmatch(FILE_NAME, name) else "model.zip"


@dataclass(frozen=True)
class LocateWith:
    """The coarse model that finds where another one has to look, because that one was trained on such boxes alone.

    :ivar model: id of a model of the catalogue that has one part.
    :ivar classes: structures of it that tell where to look.
    :ivar margin: around them, in mm.
    """

    model: str
    classes: tuple[str, ...]
    margin: float


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    :ivar id: what commands take; also the name of the folder with its downloads.
    :ivar name: what users see.
    :ivar description: one or two sentences.
    :ivar modality: such as "CT" or "MR"; ``None`` if unknown.
    :ivar classes: number of classes without the background; ``None`` for the user's own model before its download.
    :ivar parts: several parts segment an image together; where two claim a voxel, the later one gets it.
    :ivar family: whose network and preprocessing it has, such as "nnU-Net"; ``None`` if not stated.
    :ivar regions: some of ``REGIONS``, which show what the model finds.
    :ivar structures: the names of its classes without the background, in the order of their values, as its publishers
        state them; those in the model may be spelled otherwise. Empty if not stated.
    :ivar locate_with: what tells the model where to look; ``None`` if it was trained on whole images.
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
    family: str | None = None
    regions: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    locate_with: LocateWith | None = None

    @property
    def embedded(self) -> bool:
        """Whether the model is part of ClassScaleSeg."""
        return not self.own and all(part.file for part in self.parts)

    @property
    def download_size(self) -> int | None:
        """Bytes of all parts that are downloaded; ``None`` if the size of one is unknown."""
        return total_size(part.download_size for part in self.parts if part.addresses)


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
        if not own:
            _check_locating(entries)
    return tuple(entries)


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Write these entries as ``own.json``."""
    models = [_said(asdict(entry)) for entry in entries]
    for model in models:
        model["parts"] = [_said(part) for part in model["parts"]]
    content = json.dumps({"version": VERSION, "models": models}, indent=2, ensure_ascii=False) + "\n"
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _said(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members of an entry or part without those that say nothing and that earlier versions refuse."""
    return {key: value for key, value in members.items() if key != "own" and (value or key not in LATER)}


def _check_locating(entries: Sequence[Entry]) -> None:
    """Refuse an entry that is located with a model that is not among the entries, or has no such classes."""
    known = {entry.id: entry for entry in entries}
    for entry in entries:
        if entry.locate_with is not None:
            coarse = known.get(entry.locate_with.model)
            if coarse is None or coarse is entry or len(coarse.parts) != 1:
                raise CatalogError(f"{entry.id}: 'locate_with' must name another model, which has one part.")
            if odd := [name for name in entry.locate_with.classes if name not in coarse.structures]:
                raise CatalogError(f"{entry.id}: {coarse.id} has no structure {odd[0]!r} to locate.")


def _entry(item: Any, own: bool) -> Entry:
    given = _members(item, Entry)
    parts, structures = given["parts"], given["structures"]
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
        raise CatalogError(f"'parts' must be a list of 1 to {MAX_PARTS} parts.")
    fine = {
        "id": isinstance(given["id"], str) and re.fullmatch(IDENTIFIER, given["id"]),
        "name": is_text(given["name"]),
        "description": isinstance(given["description"], str) and len(given["description"]) <= MAX_TEXT,
        "classes": _number(given["classes"], MAX_CLASSES) or (own and given["classes"] is None),
        "tried": isinstance(given["tried"], bool),
        "regions": _texts(given["regions"], len(REGIONS)) and set(given["regions"]) <= set(REGIONS),
        "structures": _texts(structures, MAX_CLASSES) and len(structures) in (0, given["classes"]),
        **{key: given[key] is None or is_text(given[key]) for key in ("modality", "licence", "notice", "family")},
        **{key: given[key] is None or is_address(given[key]) for key in ("licence_address", "source")},
    }
    _refuse(fine, given)
    checked = []
    for index, part in enumerate(parts, start=1):
        with named(f"part {index}"):
            checked.append(_part(part, own))
    _refuse_same(part.file_name for part in checked if part.addresses)
    lists = {key: tuple(given[key]) for key in ("regions", "structures")}
    locating = None if given["locate_with"] is None else _locating(given["locate_with"])
    return Entry(**{**given, **lists, "parts": tuple(checked), "locate_with": locating}, own=own)


def _locating(item: Any) -> LocateWith:
    with named("locate_with"):
        given = _members(item, LocateWith)
        fine = {
            "model": isinstance(given["model"], str) and re.fullmatch(IDENTIFIER, given["model"]),
            "classes": _texts(given["classes"], MAX_CLASSES) and given["classes"],
            "margin": numbers([given["margin"]], 1) and 0 <= given["margin"] <= MAX_MARGIN,
        }
        _refuse(fine, given)
        return LocateWith(given["model"], tuple(given["classes"]), float(given["margin"]))


def _part(item: Any, own: bool) -> Part:
    given = _members(item, Part)
    file, files = given["file"], given["files"]
    placed = isinstance(file, str) and (Path(file).is_absolute() if own else bool(re.fullmatch(FILE_NAME, file)))
    fine = {
        "address": given["address"] is None or is_address(given["address"]),
        "file": file is None or placed,
        **_download(given),
        "configuration": given["configuration"] is None or is_text(given["configuration"]),
        "files": isinstance(files, (list, tuple)) and len(files) <= MAX_FILES,
    }
    _refuse(fine, given)
    if [bool(given["address"]), file is not None, bool(files)].count(True) != 1:
        raise CatalogError("it must have either an 'address' or a 'file' or 'files'.")
    if files and (given["size"], given["sha256"]) != (None, None):
        raise CatalogError("each of its 'files' must have its own 'size' and 'sha256'.")
    checked = []
    for index, one in enumerate(files, start=1):
        with named(f"file {index}"):
            checked.append(_part_file(one))
    _refuse_same(one.file_name for one in checked)
    return Part(**{**given, "files": tuple(checked)})


def _part_file(item: Any) -> PartFile:
    given = _members(item, PartFile)
    fine = {"address": is_address(given["address"]), **_download(given)}
    fine["address"] = fine["address"] and PartFile(given["address"]).file_name
    _refuse(fine, given)
    return PartFile(**given)


def _download(given: dict[str, Any]) -> dict[str, Any]:
    """Check the size and the SHA-256 of a part or a file."""
    return {
        "size": given["size"] is None or _number(given["size"], MAX_DOWNLOAD),
        "sha256": given["sha256"] is None or is_sha256(given["sha256"]),
    }


def _refuse_same(names: Iterable[str]) -> None:
    """Refuse downloads that a file system which ignores case could not keep apart."""
    given = [name.casefold() for name in names]
    if len(set(given)) != len(given):
        raise CatalogError("two parts would be kept under the same file name. Give them different ones.")


def _members(item: Any, kind: type[Entry | Part | PartFile | LocateWith]) -> dict[str, Any]:
    """Return a JSON object, after checking that its members are the fields of ``kind``; later ones may be missing."""
    if not isinstance(item, dict):
        raise CatalogError("It must be a JSON object.")
    wanted = {field.name: field.default for field in fields(kind) if field.name != "own"}
    missing = wanted.keys() - item.keys()
    if odd := sorted((item.keys() - wanted.keys()) | (missing - LATER)):
        raise CatalogError(f"{odd[0][:64]!r} is {'missing' if odd[0] in wanted else 'not known'}.")
    return {**{name: wanted[name] for name in missing}, **item}


def _refuse(fine: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise a CatalogError for the first member that is not fine."""
    for key, value in fine.items():
        if not value:
            raise CatalogError(f"{key!r} cannot be {str(given[key])[:80]!r}; schema.json says what is allowed.")


def _number(value: Any, largest: int) -> bool:
    return type(value) is int and 1 <= value <= largest


def _texts(value: Any, most: int) -> bool:
    """Tell whether a value is a list of texts; of a member that is missing, it is the default, an empty tuple."""
    return isinstance(value, (list, tuple)) and len(value) <= most and all(is_text(text) for text in value)


def _last(address: str, from_end: int = 1) -> str:
    """Return the last part of the path of an address, or one further to the front; empty if there is none."""
    names = PurePosixPath(unquote(urlsplit(address).path)).parts
    return names[-from_end] if len(names) >= from_end else ""
