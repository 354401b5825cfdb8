"""What is known of each case of a cohort: with which model, options and image its results were made.

The record of a case is ``OUT/.classscaleseg/cases/NAME.json``. It is written twice: before the results get their names,
when it says that they are being written, and after it, with their checksums. So whenever a process is killed, either
the record describes the results, or it says that they may be unfinished, and they are made again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import ImageError, OutputExistsError
from ..files import replacing, sha256_of, unwritable
from ..options import FIELDS, Options, flag
from ..version import VERSION
from .bids import annex_key, refuse_missing_content

FOLDER = ".classscaleseg"  # in the folder of the results
_LARGEST = 1 << 22  # bytes of a record; one with a thousand classes has 60 kB
_WITHOUT_EFFECT = ("device", "memory_limit_gib", "threads")  # they change where and how fast, not what
_TEMPORARY = re.compile(r"\.[0-9a-f]{12}(\.[^.]+){1,2}")  # of `replacing`


@dataclass(frozen=True)
class Recipe:
    """All that the results of a case depend on besides its image, as JSON values.

    :ivar models: name and SHA-256 of each model; the one that locates comes last.
    :ivar options: the choices that differ from the defaults, without those that change no result.
    :ivar results: kinds of the files that are wanted: suffixes, "confidence", "statistics" and "statistics.xlsx".
    """

    models: tuple[tuple[str, str], ...]
    options: Mapping[str, Any]
    results: tuple[str, ...]

    @classmethod
    def of(cls, models: Iterable[tuple[str, str]], options: Options, results: Iterable[str]) -> Recipe:
        """Return the recipe of a job.

        >>> Recipe.of([("liver", "5eb9")], Options(device="cpu", step=0.75, classes="liver"), [".nii.gz"]).options
        {'step': 0.75, 'classes': ['liver']}
        """
        values = {name: getattr(options, name) for name in FIELDS if name not in _WITHOUT_EFFECT}
        if options.locate_with is not None:
            values["locate_with"] = True  # not the path: the model is among the models, and this says what it does
        changed = {name: value for name, value in values.items() if value != FIELDS[name].default}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
        return cls(tuple(models), plain, tuple(results))

    def difference(self, record: Mapping[str, Any]) -> str | None:
        """Say in what way results were made otherwise, as the end of a sentence; ``None`` if in no way.

        Results of more kinds than are wanted are no difference.
        """
        models = [list(model) for model in self.models]
        before = record["models"]
        if [digest for _, digest in models] != [digest for _, digest in before]:
            names = [" and ".join(name for name, _ in each) for each in (before, models)]
            return f"with another model ({names[0]})" if names[0] != names[1] else "with other weights of the model"
        changed = [
            flag(name)
            for name in FIELDS
            if record["options"].get(name, _default(name)) != self.options.get(name, _default(name))
        ]
        if changed:
            return f"with other options ({', '.join(changed)})"
        missing = [kind for kind in self.results if kind not in record["results"]]
        return f"without {' and '.join(missing)}" if missing else None


def _default(name: str) -> Any:
    default = FIELDS[name].default
    return list(default) if isinstance(default, tuple) else default


class State(Enum):
    """What is to be done with a case."""

    NEW = "new"  # there is no result
    DONE = "done"  # the result is there, made as is wanted
    KEPT = "kept"  # a result is there that must not be replaced
    AGAIN = "again"  # the result was made otherwise, or may be unfinished


@dataclass(frozen=True)
class Finding:
    """What was found of a case.

    :ivar reason: why, for people.
    :ivar replace: files of results that are there may be replaced.
    :ivar known: the record of the case says how the results were made.
    """

    state: State
    reason: str = ""
    replace: bool = False
    known: bool = False


class Records:
    """The records of the cases whose results are in one folder.

    :param folder: of the results.
    :param recipe: how results are to be made.
    """

    def __init__(self, folder: str | Path, recipe: Recipe) -> None:
        self.folder, self.recipe = Path(folder), recipe
        self._cases = self.folder / FOLDER / "cases"

    def find(
        self, name: str, images: Sequence[Path], results: Mapping[str, Path], beside: Mapping[str, Path] | None = None
    ) -> Finding:
        """Find out whether a case is done.

        :param name: of the case.
        :param images: its files, or its folder.
        :param results: the file of each kind of result; the first one is the segmentation.
        :param beside: the files that accompany results, such as colour tables. They need not be there, but are kept if
            they were changed.
        """
        output, record = next(iter(results.values())), self._read(name)
        files = {**results, **(beside or {})}
        if not os.path.exists(output):
            if record is not None and (edited := _edited(record, files)) is not None:
                said = f"{output} is gone, but {edited.name} was changed since it was made, and is kept"
                return Finding(State.KEPT, f"{said}; --overwrite makes all anew")
            return Finding(State.NEW, replace=record is not None)
        there = f"{output} exists already"
        missing = [kind for kind, file in results.items() if not os.path.exists(file)]
        if record is None:
            but = f", but not its {' and '.join(missing)}; --overwrite makes all anew" if missing else ""
            return Finding(State.KEPT if missing else State.DONE, f"{there}{but}")
        if record["state"] != "done":
            return Finding(State.AGAIN, "its files may be unfinished", True)
        difference = self.recipe.difference(record)
        if difference is None and not _same(_print_of(images), record["images"]):
            difference = "from another image, or before this one was changed"
        if difference is None and missing:
            difference = f"with {' and '.join(missing)}, which is gone"
        if difference is None:
            return Finding(State.DONE, there, known=True)
        if (edited := _edited(record, files)) is not None:
            said = f"{there}, made {difference}, but {edited.name} was changed since, and is kept"
            return Finding(State.KEPT, f"{said}; --overwrite makes all anew")
        return Finding(State.AGAIN, f"made {difference}", True)

    def begin(self, name: str, images: Sequence[Path], run: str | None = None) -> dict[str, Any]:
        """Return a record of results that are about to be made from the images as they are now.

        :param run: id of the run on a cluster.
        """
        before = self._read(name)
        return {
            "case": name,
            "run": run,
            "state": "writing",
            "models": self.recipe.models,
            "options": self.recipe.options,
            "results": self.recipe.results,
            "images": _print_of(images),
            "version": VERSION,
            "files": {} if before is None else before["files"],  # those of kinds that are not wanted now stay known
        }

    def refuse_edited(self, name: str, files: Mapping[str, Path]) -> None:
        """Refuse to replace what was changed since it was made, maybe while the case was segmented.

        :param files: results and what accompanies them, as for :meth:`find`.
        :raises OutputExistsError: naming the file.
        """
        record = self._read(name)
        if record is not None and (edited := _edited(record, files)) is not None:
            raise OutputExistsError(f"{edited} was changed since it was made, and is kept. --overwrite makes all anew.")

    def announce(self, record: dict[str, Any]) -> None:
        """Note that the results of a case are getting their names.

        :raises OutputError: if the record cannot be written.
        """
        self._write(record)

    def withdraw(self, record: dict[str, Any], files: Mapping[str, Path]) -> None:
        """Forget a case whose results could not be written, if none is there: what comes later is not of this run.

        :param files: as for :meth:`commit`.
        """
        if not any(map(os.path.lexists, files.values())):
            with suppress(OSError):
                self._file(record["case"]).unlink()

    def commit(self, record: dict[str, Any], files: Mapping[str, Path], structures: int) -> None:
        """Note that all results of a case have their names.

        :param files: results and what accompanies them, as for :meth:`find`.
        :param structures: their number.

        :raises OutputError: if the record cannot be written, or a result not be read.
        """
        try:
            noted = {kind: [*_stat(file), sha256_of(file)] for kind, file in files.items()}
        except OSError as error:
            raise unwritable(next(iter(files.values())), error) from error
        self._write({**record, "state": "done", "files": {**record["files"], **noted}, "structures": structures})

    def structures(self, name: str, run: str) -> int | None:
        """Return the number of structures of a case that a run has finished; ``None`` if it has not."""
        record = self._read(name)
        if record is None or record["state"] != "done" or record.get("run") != run:
            return None
        found = record.get("structures")
        return found if type(found) is int else None

    def begun(self, name: str, run: str) -> bool:
        """Return whether the record of a case is of this run, so that results that are there are its own."""
        record = self._read(name)
        return record is not None and record.get("run") == run

    def tidy(self, results: Iterable[Path]) -> None:
        """Remove unfinished files that killed processes have left in the folders of results."""
        for folder in {self._cases, *(result.parent for result in results)}:
            with suppress(OSError):
                for entry in os.scandir(folder):
                    if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        os.unlink(entry.path)

    def _file(self, name: str) -> Path:
        return self._cases / f"{name}.json"

    def _write(self, record: dict[str, Any]) -> None:
        with replacing(self._file(record["case"]), overwrite=True) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return the record of a case; ``None`` if there is none, or it is damaged or not of this case."""
        file = self._file(name)
        try:
            if file.stat().st_size > _LARGEST:
                return None
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        kinds = {"case": str, "state": str, "models": list, "options": dict, "results": list, "images": list}
        if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
            return None
        models = record["models"]
        if not all(isinstance(model, list) and len(model) == 2 and all(map(_is_text, model)) for model in models):
            return None
        if not isinstance(record.get("files"), dict):
            return None
        return record if record["case"] == name else None


def models_of_unchanged(name: str, result: Path) -> tuple[str, ...] | None:
    """Return the names of the models that made a result which nobody has changed since.

    :param name: of the case.
    :returns: ``None`` if the result was changed, or nothing is known of it.
    """
    record = Records(result.parent, Recipe((), {}, ()))._read(name)
    if record is None or record["state"] != "done":
        return None
    noted = next((noted for kind, noted in record["files"].items() if result.name == f"{name}{kind}"), None)
    return tuple(model for model, _ in record["models"]) if _unchanged(result, noted) else None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _stat(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


def _print_of(images: Sequence[Path]) -> list[list[Any]]:
    """Return what tells whether images are the same: name, size and time of each file; of a folder number and time.

    Folders are not named: wherever a file system is mounted, its images are the same. The slices of a series are not
    looked at one by one, which would take minutes for thousands of series on a network. A file of git-annex is told by
    its key, so it is the same after its content was dropped, and fetched again. ``None``: it cannot be told.
    """
    prints: list[list[Any]] = []
    for image in images:
        try:
            if image.is_dir():
                prints.append([image.name, len(os.listdir(image)), image.stat().st_mtime_ns])
            elif (key := annex_key(image)) is not None:
                prints.append([image.name, key, None])
            else:
                refuse_missing_content(image)
                prints.append([image.name, *_stat(image)])
        except (OSError, ImageError):  # the case will say why, if it is to be segmented
            prints.append([image.name, None, None])
    return prints


def _same(images: list[list[Any]], before: list[Any]) -> bool:
    """Return whether images are the same as before; one that cannot be told, if its name is."""

    def same(now: list[Any], then: Any) -> bool:
        return now == then or (now[1:] == [None, None] and isinstance(then, list) and then[:1] == now[:1])

    return len(images) == len(before) and all(map(same, images, before))


def _edited(record: Mapping[str, Any], files: Mapping[str, Path]) -> Path | None:
    """Return a file of results that is not as a run that came to its end has left it; ``None`` if there is none."""
    if record["state"] != "done":
        return None  # which are new, and which are older, is not known
    there = ((kind, file) for kind, file in files.items() if os.path.exists(file))
    return next((file for kind, file in there if not _unchanged(file, record["files"].get(kind))), None)


def _unchanged(file: Path, noted: Any) -> bool:
    """Return whether a result is as it was written. Copies of folders have other times; then the contents count."""
    try:
        return isinstance(noted, list) and (_stat(file) == noted[:2] or sha256_of(file) == noted[2])
    except (OSError, IndexError):
        return False
