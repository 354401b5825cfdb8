"""The catalogue of models: list them, find their files, download and remove them, and add the user's own.

Downloads are kept as ``FOLDER/ID/FILE.zip``, where FOLDER is `models_folder`; a model of several files is a folder
there. A file placed there by hand counts as downloaded. ``FILE.zip.json`` records its address, size and SHA-256. The
user's own models are listed in ``FOLDER/own.json``; their files and folders are used where they are.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import re
import sys
import unicodedata
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

from ..errors import CatalogError, ModelError
from ..labels.label import one_line
from ..locking import locked
from ..models.summary import summarize
from ..resources import resource
from .download import CancelToken, Progress, check_address
from .entries import Entry, Part, read_entries, write_entries
from .parts import Record, delete, delete_part, download_parts, is_complete, read_record
from .search import Search

__all__ = ["Catalog", "CatalogError", "Entry", "Part", "Search", "models_folder", "resolve_model"]

LOCK = "download.lock"


def models_folder() -> Path:
    """Return the environment variable ``CLASSSCALESEG_MODELS`` if set, otherwise a folder in :func:`data_folder`.

    >>> models_folder().is_absolute()
    True
    """
    if given := os.environ.get("CLASSSCALESEG_MODELS"):
        return Path(given).expanduser().absolute()
    return data_folder() / "models"


def data_folder() -> Path:
    """Return the folder with the data of this user alone; that of the models may be one of many users.

    It is the one that the package platformdirs returns. The package itself is not used: Slicer does not contain it, and
    the panel must list models before any package is installed.
    """
    home = Path.home()
    data = {
        "win32": os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local",
        "darwin": home / "Library" / "Application Support",
    }
    elsewhere = os.environ.get("XDG_DATA_HOME", "").strip() or home / ".local" / "share"
    return Path(data.get(sys.platform, elsewhere), "ClassScaleSeg")


def resolve_model(text: str, catalog: Catalog | None = None) -> tuple[Path, ...]:
    """Return the model files that ``text`` means.

    :param text: an existing file or folder, or the id or name of a model of the catalogue.
    :param catalog: by default the catalogue in `models_folder`.
    :returns: one path, or one for each part of a catalogue model.
    :raises CatalogError: if ``text`` is neither, or the model is not downloaded.

    >>> [path.name for path in resolve_model("toy-120")]
    ['toy-120.zip']
    """
    catalog = catalog or Catalog()
    entry = entry_named(text, catalog)
    return (Path(text),) if entry is None else catalog.paths(entry)


def entry_named(text: str, catalog: Catalog) -> Entry | None:
    """Return the entry of the catalogue that ``text`` means, as for `resolve_model`; ``None`` for a file or folder.

    :raises CatalogError: if ``text`` is neither.
    """
    path = Path(text)
    if os.path.exists(path):  # not path.exists(), which raises if the name is too long
        return None
    if len(path.parts) > 1 or path.suffix.lower() == ".zip":
        raise CatalogError(
            f"{text} does not exist. Give a model folder, an exported zip, a bundle, or a model of the catalogue."
        )
    return catalog.find(text)


@lru_cache(maxsize=1)
def _entries_of(file: Path, modified: int) -> tuple[Entry, ...]:
    """Return the entries of ``models.json``, which the panel asks for at every choice of a model."""
    return read_entries(file, own=False)


class Catalog:
    """List, find, download, remove and add models.

    :ivar folder: where downloads and ``own.json`` are kept.
    :param folder: by default `models_folder`.

    >>> import tempfile
    >>> temporary = tempfile.TemporaryDirectory()
    >>> catalog = Catalog(Path(temporary.name))
    >>> toy = catalog.find("toy-120")
    >>> toy.classes, toy.embedded, catalog.is_installed(toy)
    (120, True, True)
    >>> (path,) = catalog.paths(toy)
    >>> catalog.add(path, name="My toy").id
    'own-my-toy'
    >>> [entry.name for entry in catalog.entries() if entry.own]
    ['My toy']
    >>> temporary.cleanup()
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = models_folder() if folder is None else Path(folder).absolute()
        self._own_file = self.folder / "own.json"

    @cached_property
    def _known(self) -> tuple[Entry, ...]:
        file = resource("Catalog", "models.json")
        return _entries_of(file, file.stat().st_mtime_ns if file.exists() else 0)

    def _own(self) -> tuple[Entry, ...]:
        return read_entries(self._own_file, own=True) if self._own_file.exists() else ()

    def entries(self) -> tuple[Entry, ...]:
        """Return the embedded models, then the downloadable ones, then the user's own.

        :raises CatalogError: if a catalogue file is damaged.
        """
        embedded = [entry for entry in self._known if entry.embedded]
        return (*embedded, *(entry for entry in self._known if not entry.embedded), *self._own())

    def find(self, text: str) -> Entry:
        """Return the model with this id or name; case does not matter.

        :raises CatalogError: if there is none; the message suggests similar ids, if there are any.
        """
        entries, wanted = self.entries(), text.strip().casefold()
        called = {name.casefold(): entry for entry in reversed(entries) for name in (entry.id, entry.name)}
        if wanted in called:
            return called[wanted]
        near = difflib.get_close_matches(wanted, called, n=3, cutoff=0.4)
        if not near:
            raise CatalogError(
                f"{text[:200]} is neither a file or folder nor a model of the catalogue. The command `classscaleseg "
                "models list` lists all models."
            )
        hint = ", ".join(dict.fromkeys(called[name].id for name in near))
        raise CatalogError(
            f"{text[:200]} is neither a file or folder nor a model of the catalogue. Did you mean {hint}? The command "
            "`classscaleseg models list` lists all models."
        )

    def search(self, wanted: Search) -> tuple[Entry, ...]:
        """Return the models that fit, in the order of `entries`.

        :raises CatalogError: if a catalogue file is damaged.
        """
        return wanted.find(self.entries(), self.structures)

    def structures(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of what a model finds: as the catalogue states them, or as the model on this machine does.

        Empty if neither does, or the model is damaged.
        """
        if not entry.structures and self.is_installed(entry):
            with contextlib.suppress(ModelError, CatalogError):
                parts = zip(self.paths(entry), entry.parts, strict=True)
                tables = [summarize(path, part.configuration).table for path, part in parts]
                return tuple(dict.fromkeys(label.name for table in tables for label in table.foreground))
        return entry.structures

    def place(self, entry: Entry, part: Part) -> Path:
        """Return the path of a part, whether it is downloaded yet or not.

        :raises CatalogError: if an embedded model is missing from this installation.
        """
        if part.file is None:
            return self.folder / entry.id / part.file_name
        try:
            return Path(part.file) if entry.own else resource("Models", part.file)
        except FileNotFoundError as error:
            raise CatalogError(str(error)) from error

    def is_installed(self, entry: Entry) -> bool:
        """Return whether all parts are on this machine."""
        try:
            return all(is_complete(part, self.place(entry, part)) for part in entry.parts)
        except CatalogError:  # this installation lacks an embedded model
            return False

    def paths(self, entry: Entry) -> tuple[Path, ...]:
        """Return the model file or folder of each part.

        :raises CatalogError: if one does not exist; the message says how to get it.
        """
        found = []
        for part in entry.parts:
            place = self.place(entry, part)
            if not is_complete(part, place):
                if not part.addresses:
                    raise CatalogError(f"{entry.name} is no longer at {place}. Add it again from where it is now.")
                where = f"in the folder {place}" if part.files else f"as {place}"
                raise CatalogError(
                    f"{entry.name} is not downloaded. Run `classscaleseg models download {entry.id}`, or save "
                    f"{', '.join(part.addresses)} {where}."
                )
            found.append(place)
        return tuple(found)

    def size(self, entry: Entry) -> int:
        """Return the bytes on disk: downloads, finished or not, and the files and folders that are used in place."""
        places = [self.folder / entry.id]
        if self.is_installed(entry):
            places += [self.place(entry, part) for part in entry.parts if part.file]
        files = (file for place in places for file in (place.rglob("*") if place.is_dir() else [place]))
        return sum(file.stat().st_size for file in files if file.is_file())

    def record(self, entry: Entry, part: Part) -> Record | None:
        """Return what was recorded when a part was downloaded, or first checked; ``None`` if neither has happened.

        :raises CatalogError: if the record is damaged.
        """
        return None if part.file is not None else read_record(self.place(entry, part))

    def download(
        self, entry: Entry, progress: Progress | None = None, cancel: CancelToken | None = None
    ) -> tuple[Path, ...]:
        """Download the parts that are missing, and check those that are present.

        :param progress: called with the bytes so far and the bytes in total (if known) of the missing parts.
        :param cancel: a token that stops the download when it is set.
        :returns: the model file or folder of each part, as `paths` does.
        :raises CatalogError: if a part cannot be downloaded, is damaged, or is not a model.
        :raises Cancelled: if the token is set; the bytes received so far are kept.
        :raises OutputError: if the folder cannot be written.
        """
        remote = [(part, self.place(entry, part)) for part in entry.parts if part.addresses]
        if remote:
            with locked(self.folder / entry.id / LOCK, f"{entry.name} is being downloaded", CatalogError):
                download_parts(remote, progress, cancel)
            if entry.own:
                known = [self._described(entry) if other.id == entry.id else other for other in self._own()]
                write_entries(self._own_file, known)
        return self.paths(entry)

    def remove(self, entry: Entry) -> int:
        """Delete the downloads of a model, take the user's own model off the list, and return the bytes freed.

        A file or folder that is used in place is not deleted.

        :raises CatalogError: if the model is embedded, or is being downloaded.
        :raises OutputError: if a file cannot be deleted.
        """
        if entry.embedded:
            raise CatalogError(f"{entry.name} is part of ClassScaleSeg and cannot be removed on its own.")
        folder, freed = self.folder / entry.id, 0
        if folder.is_dir():
            with locked(folder / LOCK, f"{entry.name} is being downloaded", CatalogError):
                freed = sum(delete_part(part, folder / part.file_name) for part in entry.parts if part.addresses)
            delete(folder / LOCK)
            with contextlib.suppress(OSError):  # it contains other files, which are not ours
                folder.rmdir()
        if entry.own:
            write_entries(self._own_file, [other for other in self._own() if other.id != entry.id])
        return freed

    def add(self, source: str | Path, name: str | None = None) -> Entry:
        """Add the user's own model to the catalogue.

        :param source: a file or folder, which is used where it is, or an http(s) address, which is not downloaded yet.
        :param name: what users see. By default the model's own name; if that is taken, the name of the file, with a
            number if that is taken too.
        :returns: the new entry.
        :raises ModelError: if the file or folder is not a model.
        :raises CatalogError: if the name is taken, the address is not valid, a text is not Unicode, or the model is in
            the catalogue already and no name is given.
        :raises OutputError: if ``own.json`` cannot be written.
        """
        text, shown = str(source), one_line(name or "")[:200]
        for given in (text, shown):
            if given != given.encode(errors="ignore").decode():
                raise CatalogError(f"{given!a} is not text in UTF-8, as the list of models is. Rename the model.")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            part = Part(address=check_address(text))
            entry = Entry("", shown or part.file_name.rpartition(".")[0], source=text, parts=(part,), own=True)
        else:
            part = Part(file=str(Path(source).absolute()))
            entry = self._described(Entry("", shown, parts=(part,), own=True))
        entries = self.entries()
        taken = {text.casefold() for other in entries for text in (other.id, other.name)}
        if not shown:
            if same := next((other for other in entries if other.own and other.parts == entry.parts), None):
                raise CatalogError(f"{text} is in the catalogue already, as {same.name}.")
            if entry.name.casefold() in taken:
                file = Path(part.file or "")
                stem = one_line(file.stem)[:200] if file.suffix.lower() == ".zip" else ""
                entry = replace(entry, name=_free(stem or entry.name, " ", taken))
        elif entry.name.casefold() in taken:
            raise CatalogError(f"A model called {entry.name} is in the catalogue already. Give yours another name.")
        plain = unicodedata.normalize("NFKD", entry.name.casefold()).encode("ascii", "ignore").decode()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:50].strip("-") or "model"
        entry = replace(entry, id=_free(f"own-{slug}", "-", taken))
        write_entries(self._own_file, (*self._own(), entry))
        return entry

    def renew(self, file: str | Path) -> Entry:
        """Describe the user's own model anew, because its file was replaced; add it if it is not in the catalogue.

        :param file: a file or folder.
        :returns: its entry, with the id and the name that it had.
        :raises ClassScaleError: as :meth:`add`.
        """
        parts = (Part(file=str(Path(file).absolute())),)
        before = next((entry for entry in self._own() if entry.parts == parts), None)
        if before is None:
            return self.add(file)
        entry = self._described(before)
        write_entries(self._own_file, [entry if own.id == before.id else own for own in self._own()])
        return entry

    def _described(self, entry: Entry) -> Entry:
        """Return the entry of the user's own model, completed from the model itself."""
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


def _free(name: str, separator: str, taken: set[str]) -> str:
    """Return ``name``, with a number from 2 on if it is taken."""
    numbered = (f"{name}{separator}{number}" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([name], numbered) if candidate.casefold() not in taken)
