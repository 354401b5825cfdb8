"""Read the untrusted files of one model from a folder or a zip.

A zip is never extracted. The few members that a model needs are read into memory, so no file can be written to a wrong
place or left behind. All members are checked first, and a zip with one unsafe member is refused.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import ModelError, named, reason
from ..files import given_name
from .json_checks import short
from .zip_directory import check_directory

MAX_MEMBERS = 100_000
MAX_TOTAL = 64 << 30  # bytes; five folds of nnU-Net's largest network in four configurations are about 24 GiB
MAX_JSON = 16 << 20  # bytes; plans.json of the largest public models is below 1 MiB. Lists of nothing take 500 MB
MAX_DEPTH = 64  # levels of nested JSON; deeper values would exhaust the stack of recursive functions
MAX_RATIO = 100  # weights hardly compress; a member above MAX_JSON with a higher ratio is a zip bomb
MAX_FOLDERS = 20_000  # visited when a model is searched below a folder
SEARCH_DEPTH = 3  # a results folder contains Dataset*/Trainer__Plans__configuration

MARKERS = ("manifest.json", "plans.json", "model.pt", "model.json")  # any of these files makes its folder a model
DATA_MARKERS = ("imagesTr", "labelsTr", "dataset_fingerprint.json", "gt_segmentations")  # of nnUNet_raw, _preprocessed
# RuntimeError: an encrypted member; NotImplementedError, which is one: a compression that Python does not support
ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)


class FolderFiles:
    """The files of a model folder.

    :ivar root: its path, with ``/``, below the folder that the user gave; empty if it is that folder.
    :ivar name: name of the model folder.
    """

    def __init__(self, path: Path, root: str = "") -> None:
        self.path, self.root = path, root
        self.name = given_name(path)

    def __contains__(self, name: str) -> bool:
        return (self.path / name).is_file()

    def where(self, name: str = "") -> str:
        """Return the path of a file, or of the model if no name is given, for messages."""
        return str(self.path / name)

    def folds(self) -> dict[str, list[str]]:
        """Return the checkpoints of each fold: ``{"0": ["checkpoint_final.pth", ...], "all": [...]}``."""
        return _folds(file.relative_to(self.path).as_posix() for file in self.path.glob("fold_*/*.pth"))

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return (self.path / name).stat().st_size

    def start(self, name: str, count: int) -> bytes:
        """Return the first ``count`` bytes of a file, or fewer if it is shorter."""
        with self.open(name) as stream:
            return stream.read(count)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file as a seekable binary stream.

        :raises ModelError: if the file is missing or cannot be read.
        """
        try:
            stream = open(self.path / name, "rb")
        except FileNotFoundError:
            raise ModelError(f"{self.where(name)} is missing.") from None
        except OSError as error:
            raise ModelError(f"{self.where(name)} cannot be read ({error.strerror}).") from error
        with stream:
            yield stream


class ZipFiles:
    """The files of a model in a zip that :func:`_open_zip` has checked; methods as in `FolderFiles`.

    :ivar root: path of the model in the zip, with ``/``; empty if the model is at its top.
    :ivar name: name of the model's folder in the zip, or else of the zip without its suffix.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str = "") -> None:
        self.path, self.archive, self.root = path, archive, root
        self.name = root.rsplit("/", 1)[-1] or path.stem

    def _member(self, name: str) -> str:
        return f"{self.root}/{name}" if self.root else name

    def __contains__(self, name: str) -> bool:
        return self._member(name) in self.archive.NameToInfo

    def where(self, name: str = "") -> str:
        """Return the zip and the member, as `FolderFiles.where` does."""
        return f"{self.path}: {self._member(name)}" if name or self.root else str(self.path)

    def folds(self) -> dict[str, list[str]]:
        """Return the checkpoints of each fold, as `FolderFiles.folds` does."""
        prefix = self._member("")
        return _folds(name.removeprefix(prefix) for name in self.archive.namelist() if name.startswith(prefix))

    def size(self, name: str) -> int:
        """Return the unpacked size of a member in bytes, as the zip declares it."""
        return self.archive.getinfo(self._member(name)).file_size

    def start(self, name: str, count: int) -> bytes:
        """Read the first bytes of a member, as `FolderFiles.start` does."""
        with self._reading(name), self.archive.open(self._member(name)) as stream:
            return stream.read(count)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Read a member into memory and open it, as `FolderFiles.open` does.

        :raises ModelError: if the member is missing, damaged, or would unpack to implausibly many bytes.
        """
        with self._reading(name):
            info = self.archive.getinfo(self._member(name))
            if info.file_size > max(MAX_JSON, MAX_RATIO * info.compress_size):
                raise ModelError(
                    f"It would unpack to {info.file_size} bytes, too many for its size. It was not opened."
                )
            content = self.archive.read(info)  # reads no more bytes than declared and compares the CRC
            if len(content) != info.file_size:
                raise ModelError("It is shorter than the zip declares: get the file again.")
        yield io.BytesIO(content)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        with named(self.where(name)):
            if name not in self:
                raise ModelError("It is missing.")
            try:
                yield
            except ZIP_FAULTS as error:
                raise ModelError(f"It is damaged ({reason(error)}): get the file again.") from error


Files = FolderFiles | ZipFiles


@contextmanager
def open_source(source: str | Path, configuration: str | None = None) -> Iterator[Files]:
    """Open the files of a model.

    :param source: a model folder, or a folder or zip that contains models.
    :param configuration: selects one of several models: its configuration or its path below ``source``.
    :raises ModelError: if there is no model, if there are several and none is selected, or if the zip is damaged or
        unsafe.

    >>> from ClassScaleSegLib.resources import resource
    >>> with open_source(resource("Models", "toy-120.zip")) as files:
    ...     "manifest.json" in files, files.size("fold_0.safetensors")
    (True, 2227012)
    """
    source = Path(source)
    if source.is_dir():
        yield _choose(source, [FolderFiles(source / root, root) for root in _roots_of_folder(source)], configuration)
    elif source.is_file():
        _check_not_inside(source)
        with _open_zip(source) as archive:
            folders = {name.rpartition("/")[0] for name in archive.namelist() if name.rpartition("/")[2] in MARKERS}
            roots = sorted(folder for folder in folders if "__MACOSX" not in folder.split("/"))
            yield _choose(source, [ZipFiles(source, archive, root) for root in roots], configuration)
    else:
        if source.exists():  # a pipe
            raise ModelError(
                f"{source} is neither a file nor a folder: give a model folder, an exported zip or a bundle."
            )
        raise ModelError(f"{source} does not exist: give a model folder, an exported zip or a bundle.")


def read_json(files: Files, name: str) -> dict:
    """Read a file with a JSON object.

    :raises ModelError: if the file is missing, larger than ``MAX_JSON`` bytes, or not as `parse_json` requires.
    """
    with files.open(name) as stream, named(files.where(name)):
        if files.size(name) > MAX_JSON:
            raise ModelError(f"It has {files.size(name)} bytes; at most {MAX_JSON} are read.")
        return parse_json(stream.read())


def parse_json(content: bytes) -> dict:
    """Parse a JSON object in UTF-8.

    :raises ModelError: if it is not valid JSON, not an object, or nested more than ``MAX_DEPTH`` levels deep.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"It is not valid JSON ({reason(error)}).") from error
    if not isinstance(value, dict):
        raise ModelError(f"It contains a {type(value).__name__}; a JSON object was expected.")
    level: list = [value]
    for _ in range(MAX_DEPTH):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return value
    raise ModelError(f"It is nested more than {MAX_DEPTH} levels deep. It was not read.")


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with named(path), path.open("rb") as stream:
            check_directory(stream)
        archive = zipfile.ZipFile(path)
    except ZIP_FAULTS as error:
        raise ModelError(
            f"{path} is neither a model folder nor a readable zip ({reason(error)}): give the folder, the zip made "
            "by nnUNetv2_export_model_to_zip, or a bundle."
        ) from error
    with archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS or sum(info.file_size for info in members) > MAX_TOTAL:
            raise ModelError(
                f"{path} declares {len(members)} members, more or larger than any model has. It was not opened."
            )
        seen: set[str] = set()
        for info in members:
            fault = _unsafe(info) or ("appears twice" if info.filename in seen else None)
            if fault:
                raise ModelError(f"{path}: the member {short(info.filename)} {fault}. The zip was not opened.")
            seen.add(info.filename)
        yield archive


def _unsafe(info: zipfile.ZipInfo) -> str | None:
    """Return why a member is not allowed, as the end of a sentence; ``None`` if it is allowed."""
    name, kind, compression = info.filename, stat.S_IFMT(info.external_attr >> 16), info.compress_type
    rooted = name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name)
    unsupported = compression not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    faults = {
        "has an absolute path, a drive or a backslash": rooted,
        "leads out of the zip": ".." in name.split("/"),
        "is a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "is encrypted": info.flag_bits & 1,
        "has a compression that is not supported (only stored and deflated are)": unsupported,
        "has a different size than it declares": compression == zipfile.ZIP_STORED
        and info.file_size != info.compress_size,
    }
    return next((fault for fault, found in faults.items() if found), None)


def _folds(names: Iterator[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        match = re.fullmatch(r"fold_(\d{1,4}|all)/([\w.-]+\.pth)", name)
        if match:
            found.setdefault(match[1], []).append(match[2])
    return dict(sorted(found.items(), key=lambda item: (item[0] == "all", int(item[0]) if item[0] != "all" else 0)))


def _roots_of_folder(source: Path) -> list[str]:
    """Find folders with a model at most ``SEARCH_DEPTH`` levels below ``source``, but none inside another model."""
    found = []
    for visited, (path, folders, names) in enumerate(os.walk(source, followlinks=True), start=1):
        here = Path(path).relative_to(source)
        folders[:] = [folder for folder in folders if folder != "__MACOSX"]
        if visited > MAX_FOLDERS:
            raise ModelError(f"{source} contains more than {MAX_FOLDERS} folders: give the model folder itself.")
        if any(marker in names for marker in MARKERS):
            found.append("" if here == Path() else here.as_posix())
            folders.clear()
        elif len(here.parts) >= SEARCH_DEPTH:
            folders.clear()
    return sorted(found)


def _check_not_inside(file: Path) -> None:
    """Refuse a file of a model where the model's folder is meant, with the folder's name.

    :raises ModelError: if it is a checkpoint, or one of the JSON files.
    """
    if file.suffix.lower() not in (".pth", ".pt", ".json", ".safetensors", ".pkl"):
        return
    model = _model_above(file)
    if model is not None:
        raise ModelError(f"{file} is one file of a model: name the folder above: {model}")
    raise ModelError(
        f"{file} is not a whole model, and there is no plans.json in the folders above: give the folder that contains "
        "plans.json, dataset.json and fold_0, an exported zip or a bundle."
    )


def _model_above(path: Path) -> Path | None:
    """Return the nearest folder above with a model; a fold or its checkpoint is up to two levels below one."""
    for folder in list(path.absolute().parents)[:3]:
        if (folder / "plans.json").is_file():
            return folder
    return None


def _no_model(source: Path) -> str:
    """Say that a folder or a zip contains no model, and where the model is if that can be told."""
    above = _model_above(source)
    if above is not None:
        return f"{source} is part of a model: name the folder above: {above}"
    sentence = f"{source} contains no model: it has neither a manifest.json nor a plans.json."
    if source.is_dir() and any(source.glob("fold_*/*.pth")):
        return f"{sentence} Copy plans.json and dataset.json from the training into it."
    if source.is_dir() and any((source / name).exists() for name in DATA_MARKERS):
        return f"{sentence} It has data for training; trained models are in the folder nnUNet_results."
    return sentence


def _choose(source: Path, models: list[Files], configuration: str | None) -> Files:
    if not models:
        raise ModelError(_no_model(source))
    chosen = models
    if configuration is not None and len(models) > 1:
        chosen = [m for m in models if configuration in (m.root, m.name, m.name.rpartition("__")[2])]
    if len(chosen) == 1:
        return chosen[0]
    listing = ", ".join(m.root for m in models[:20])
    wanted = "several models" if configuration is None else f"not exactly one model {configuration}"
    way = "choose one by its configuration or its path"
    if source.is_dir():
        way = f"name the folder of one, such as {source / models[0].root}, or {way}"
    raise ModelError(f"{source} contains {wanted}; {way}: {listing}.")
