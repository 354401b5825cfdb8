"""The models there are, embedded, downloadable and your own: where they are kept, how to get them and to lose them.

Downloads are kept as ``FOLDER/ID/FILE.zip``, where FOLDER is `models_folder`. A file placed there by hand counts as
downloaded. Beside each lies ``FILE.zip.json`` with its address, size and SHA-256. Models of your own are listed in
``FOLDER/own.json``; files and folders among them stay where they are.

>>> catalog = Catalog()  # doctest: +SKIP
>>> catalog.download(catalog.find("totalsegmentator-3mm"))  # doctest: +SKIP
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ..errors import CatalogError
from ..files import replacing, unwritable
from ..labels.label import one_line
from ..models.summary import summarize
from ..resources import resource
from .download import CancelToken, Progress, check_address
from .entries import Entry, Part, format_entries, read_entries
from .locking import locked
from .parts import Record, download_parts, files_of, read_record

__all__ = ["Catalog", "CatalogError", "Entry", "Part", "models_folder", "resolve_model"]

LOCK = "download.lock"


def models_folder() -> Path:
    """``CLASSSCALESEG_MODELS`` if set, otherwise ``ClassScaleSeg/models`` in the user's data folder.

    That folder is the one platformdirs gives, which Slicer does not bring: a panel must list models before anything is
    installed.
    """
    if given := os.environ.get("CLASSSCALESEG_MODELS"):
        return Path(given).expanduser().absolute()
    home = Path.home()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = home / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME", "").strip() or home / ".local" / "share")
    return data / "ClassScaleSeg" / "models"


def resolve_model(text: str, catalog: Catalog | None = None) -> tuple[Path, ...]:
    """The model files that ``text`` means: an existing path is itself, else a model of the catalogue by id or name.

    :raises CatalogError: if it is neither, or not downloaded.
    """
    path = Path(text)
    if os.path.exists(path):  # and not path.exists(), which raises where a name is too long
        return (path,)
    catalog = catalog or Catalog()
    if len(path.parts) > 1 or path.suffix.lower() == ".zip":
        raise CatalogError(f"{text} does not exist: give a model folder, an exported zip, a bundle, or a known model.")
    return catalog.paths(catalog.find(text))


class Catalog:
    """:param folder: where downloads and ``own.json`` are kept; `models_folder` if not given."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = models_folder() if folder is None else Path(folder).absolute()

    @cached_property
    def _known(self) -> tuple[Entry, ...]:
        return read_entries(resource("Catalog", "models.json"), own=False)

    def _own(self) -> tuple[Entry, ...]:
        file = self.folder / "own.json"
        return read_entries(file, own=True) if file.exists() else ()

    def entries(self) -> tuple[Entry, ...]:
        """Embedded models first, then those to download, then your own.

        :raises CatalogError: if a catalogue file is damaged.
        """
        embedded = [entry for entry in self._known if entry.embedded]
        return (*embedded, *(entry for entry in self._known if not entry.embedded), *self._own())

    def find(self, text: str) -> Entry:
        """The model with this id or name, whatever the case.

        :raises CatalogError: if there is none, naming the nearest.
        """
        entries, wanted = self.entries(), text.strip().casefold()
        for entry in entries:
            if wanted in (entry.id.casefold(), entry.name.casefold()):
                return entry
        ids = {name.casefold(): entry.id for entry in entries for name in (entry.id, entry.name)}
        near = difflib.get_close_matches(wanted, ids, n=3, cutoff=0.4)
        hint = ", ".join(dict.fromkeys(ids[name] for name in near)) or ", ".join(entry.id for entry in entries)
        raise CatalogError(
            f"{text[:200]} is neither a file or folder nor a model of the catalogue. Did you mean {hint}? "
            "`classscaleseg models list` shows all."
        )

    def place(self, entry: Entry, part: Part) -> Path:
        """Where a part lies, or will lie once it is downloaded."""
        if part.file is None:
            return self.folder / entry.id / part.file_name
        return Path(part.file) if entry.own else resource("Models", part.file)

    def is_installed(self, entry: Entry) -> bool:
        try:
            return all(self.place(entry, part).exists() for part in entry.parts)
        except FileNotFoundError:  # an embedded model is not part of this installation
            return False

    def paths(self, entry: Entry) -> tuple[Path, ...]:
        """The model file or folder of each part.

        :raises CatalogError: if one is not there, with what to do.
        """
        found = []
        for part in entry.parts:
            try:
                place = self.place(entry, part)
            except FileNotFoundError as error:
                raise CatalogError(str(error)) from error
            if not place.exists():
                raise CatalogError(
                    f"{entry.name} is not downloaded: run `classscaleseg models download {entry.id}`, or save "
                    f"{part.address} as {place}."
                    if part.address
                    else f"{entry.name} was at {place}, and is not there any more: add it again from where it is now."
                )
            found.append(place)
        return tuple(found)

    def size(self, entry: Entry) -> int:
        """Bytes on disk: of what was downloaded, finished or not, and of files and folders that are used in place."""
        places = [self.folder / entry.id]
        if self.is_installed(entry):
            places += [self.place(entry, part) for part in entry.parts if part.file]
        return sum(_bytes(place) for place in places)

    def record(self, entry: Entry, part: Part) -> Record | None:
        """What was noted when a part was downloaded, or first checked; ``None`` if it never was."""
        return None if part.file is not None else read_record(self.place(entry, part))

    def download(
        self, entry: Entry, progress: Progress | None = None, cancel: CancelToken | None = None
    ) -> tuple[Path, ...]:
        """Get the parts that are not there, and check those that are.

        :param progress: called with the bytes so far and in all (if known) of the parts that were missing.
        :returns: as `paths`.
        :raises CatalogError: one sentence naming address or file, fault, and what to do.
        :raises Cancelled: what has arrived is kept.
        :raises OutputError: if the folder cannot be written.
        """
        remote = [(part, self.place(entry, part)) for part in entry.parts if part.address]
        if remote:
            with locked(self.folder / entry.id / LOCK, f"{entry.name} is being downloaded"):
                download_parts(remote, progress, cancel)
            if entry.own:
                described = self._described(entry)
                self._write_own([described if other.id == entry.id else other for other in self._own()])
        return self.paths(entry)

    def remove(self, entry: Entry) -> int:
        """Delete what was downloaded and forget a model of your own; its file or folder elsewhere stays.

        :returns: bytes freed.
        :raises CatalogError: for an embedded model, and while it is being downloaded.
        """
        if entry.embedded:
            raise CatalogError(f"{entry.name} is part of ClassScaleSeg and goes with it.")
        folder, freed = self.folder / entry.id, 0
        if folder.is_dir():
            with locked(folder / LOCK, f"{entry.name} is being downloaded"):
                for part in entry.parts:
                    if part.address:
                        freed += sum(_delete(file) for file in files_of(folder / part.file_name))
            _delete(folder / LOCK)
            try:
                folder.rmdir()
            except OSError:
                pass  # something that is not ours lies there
        if entry.own:
            self._write_own([other for other in self._own() if other.id != entry.id])
        return freed

    def add(self, source: str | Path, name: str | None = None) -> Entry:
        """Remember a model of your own.

        :param source: a file or folder, used where it is, or an http(s) address, from which nothing is loaded yet.
        :param name: shown to users. If not given, what the model says of itself, or, where that is taken, the name of
            the file, with a number if that is taken as well.
        :raises ModelError: if it is no model.
        :raises CatalogError: if the name is taken, the address is none, or the model is there already and no other name
            is given.
        """
        text, shown = str(source), one_line(name or "")[:200]
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            part = Part(address=check_address(text))
            entry = replace(_EMPTY, name=shown or part.file_name.rpartition(".")[0], source=text, parts=(part,))
        else:
            part = Part(file=str(Path(source).absolute()))
            entry = self._described(replace(_EMPTY, name=shown, parts=(part,)))
        entries = self.entries()
        taken = {text.casefold() for other in entries for text in (other.id, other.name)}
        if not shown:
            if same := next((other for other in entries if other.own and other.parts == entry.parts), None):
                raise CatalogError(f"{text} is in the catalogue already, as {same.name}.")
            entry = replace(entry, name=_free_name(entry.name, part, taken))
        elif entry.name.casefold() in taken:
            raise CatalogError(f"A model called {entry.name} is in the catalogue already: give yours another name.")
        plain = unicodedata.normalize("NFKD", entry.name.casefold()).encode("ascii", "ignore").decode()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:50].strip("-") or "model"
        ids = (f"own-{slug}{number}" for number in ("", *(f"-{n}" for n in range(2, len(taken) + 2))))
        entry = replace(entry, id=next(candidate for candidate in ids if candidate not in taken))
        self._write_own((*self._own(), entry))
        return entry

    def _described(self, entry: Entry) -> Entry:
        """Your own entry with what its model says of itself."""
        (part,) = entry.parts
        summary = summarize(self.place(entry, part), part.configuration)
        return replace(
            entry,
            name=entry.name or summary.name,
            modality=summary.modality,
            classes=len(summary.table.foreground),
            licence=summary.licence,
            notice=summary.notice,
            tried=True,
        )

    def _write_own(self, entries: Iterable[Entry]) -> None:
        with replacing(self.folder / "own.json", overwrite=True) as temporary:
            temporary.write_text(format_entries(entries), encoding="utf-8")


_EMPTY = Entry("", "", "", None, None, None, None, None, None, (), tried=False, own=True)


def _free_name(name: str, part: Part, taken: set[str]) -> str:
    """``name``, or that of the model's file, or the latter with a number: the first that is not taken."""
    stem = one_line(Path(part.file).stem)[:200] if part.file and part.file.lower().endswith(".zip") else name
    candidates = (name, stem or name, *(f"{stem or name} {number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate.casefold() not in taken)


def _delete(file: Path) -> int:
    """Bytes freed.

    :raises OutputError: if it cannot be deleted.
    """
    try:
        size = file.stat().st_size
        file.unlink()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise unwritable(file, error) from error
    return size


def _bytes(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())
