"""What was collected before: ``collected.json`` in the dataset, from which a repeated call goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError, ImageError, OutputExistsError
from ClassScaleSegLib.images.paired_cases import table_beside
from ClassScaleSegLib.labels.csv import parse_labels
from ClassScaleSegLib.labels.table import LabelTable

from ...files import read_json
from .cases import Case

RECORD = "collected.json"
FILLED = "filled"  # of a case: the label values that nobody has drawn there, if another segmentation has filled it in
State = dict[str, Any]  # of a case: its name in the dataset, and all that its files follow from


@dataclass(frozen=True)
class Record:
    """What a dataset was collected from.

    :ivar channels: names of the channels; none if nothing was collected.
    :ivar table: the labels 1, 2, 3 and so on.
    :ivar groups: of merged datasets the label values that the cases of each group have drawn.
    :ivar cases: of each case, by its name, what its files follow from.
    """

    channels: tuple[str, ...] = ()
    table: LabelTable = field(default_factory=lambda: LabelTable(()))
    groups: tuple[frozenset[int], ...] = ()
    cases: Mapping[str, State] = field(default_factory=dict)

    def filled(self) -> dict[str, frozenset[int]]:
        """Return, by the names of cases in the dataset, the label values that come from another segmentation."""
        return {state["target"]: frozenset(state[FILLED]) for state in self.cases.values() if state.get(FILLED)}

    def content(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {
            "version": 1,
            "channels": list(self.channels),
            "labels": self.table.to_csv(),
            "groups": [sorted(group) for group in self.groups],
            "cases": dict(self.cases),
        }


def read_record(folder: Path) -> Record:
    """Read what a dataset was collected from; nothing, if there is no such dataset.

    :raises OutputExistsError: if the file cannot be read.
    """
    file = folder / RECORD
    if not file.exists():
        return Record()
    advice = f"Delete {folder}, or choose another number."
    entries = {"channels": list, "labels": str, "groups": list, "cases": dict}
    content = read_json(file, entries, advice, OutputExistsError)
    try:
        return Record(
            tuple(map(str, content["channels"])),
            LabelTable(parse_labels(content["labels"].encode(), str(file))),
            tuple(frozenset(map(int, group)) for group in content["groups"]),
            {name: {**state, **_files_of(state)} for name, state in content["cases"].items()},
        )
    except (ClassScaleError, TypeError, ValueError, KeyError) as error:
        raise OutputExistsError(f"{file} is not what an earlier command wrote ({error}). {advice}") from error


def _files_of(state: Any) -> State:
    """Return the entries from which the names of files follow that may be deleted: they must not lead anywhere else."""
    name, images = state["target"], state["images"]
    if not isinstance(name, str) or not name or name != Path(name).name or name.startswith("."):
        raise ValueError(f"{name!r} is no name of a case")
    if not isinstance(images, list):
        raise ValueError(f"the images of {name} are no list")
    return {"target": name, "images": images}


def stamps_of(case: Case) -> dict[str, list[Any]]:
    """Return from which files a case is made, and what changes when one of them changes, as JSON holds it.

    :raises ImageError: if a file cannot be read.
    """
    stamps = {"images": [_stamp(path) for path in case.images], "segmentation": _stamps_with_table(case.segmentation)}
    return stamps if case.under is None else {**stamps, "under": _stamps_with_table(case.under)}


def _stamps_with_table(segmentation: Path) -> list[Any]:
    table = table_beside(segmentation)
    return [_stamp(path) for path in (segmentation, *([table] if table else []))]


def _stamp(path: Path) -> list[Any]:
    """Return the path of a file or folder, its size, and when it was changed."""
    try:
        files: Sequence[Path] = sorted(path.iterdir()) if path.is_dir() else [path]
        states = [file.stat() for file in files]
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or error}).") from error
    changed = max((state.st_mtime_ns for state in states), default=0)
    return [str(path.absolute()), len(files), sum(state.st_size for state in states), changed]
