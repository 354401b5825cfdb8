"""Write a collected dataset: what is there and still right is kept, the rest is written, and ``dataset.json`` last."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import ImageError, OutOfMemoryError, OutputExistsError
from ClassScaleSegLib.files import unwritable
from ClassScaleSegLib.images.counts import voxel_counts
from ClassScaleSegLib.images.formats import writable_geometry
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.image_file import itk_reader
from ClassScaleSegLib.images.layers import layer_counts
from ClassScaleSegLib.images.reading import read_volume
from ClassScaleSegLib.labels.table import LabelTable

from ...files import write_json
from ..merge.case_files import place_image
from ..merged_labels import ENTRY
from ..parallel import ProcessKilledError, map_cases
from ..raw_dataset import being_written
from ..volumes import write_volume
from .cases import listed
from .filling import segmentation_of
from .on_image import flattened, read_image_grid
from .plan import LAST, Plan, PlannedCase, Rules
from .record import FILLED, RECORD, Record, State, read_record, stamps_of

_DONE, _TABLE, _ENDING = "dataset.json", "labels.csv", ".nii.gz"


@dataclass(frozen=True)
class Written:
    """What was done.

    :ivar finished: whether everything was there already.
    :ivar new: cases that an earlier call did not have.
    :ivar changed: cases of which something has changed since.
    :ivar removed: cases of the earlier call that are no longer there.
    :ivar images: number of images by how they came: linked, copied or converted.
    :ivar covered: cases in whose new label map nothing is left of a structure that they have, by its name: others cover
        all of it.
    """

    finished: bool
    new: int = 0
    changed: int = 0
    removed: int = 0
    images: Mapping[str, int] | None = None
    covered: Mapping[str, list[str]] = field(default_factory=dict)


def write_collected(
    folder: Path,
    plan: Plan,
    channels: tuple[str, ...],
    rules: Rules,
    names: LabelTable | None = None,
    workers: int = 0,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda cases, total: cases,
) -> Written:
    """Write the dataset. An interrupted call can be repeated: what is complete is kept.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``; it need not exist.
    :param channels: their names.
    :param names: of label images that have no names of their own.
    :param workers: number of processes.
    :param progress: gets the cases that are done, one after the other, and their number, and yields them again.
    :raises Busy: if another process writes it.
    :raises OutputExistsError: if the folder holds what was not collected.
    :raises OutputError: if a file cannot be written; the folder then has no ``dataset.json``.
    :raises ClassScaleError: if a case cannot be read any more.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    with being_written(folder, RECORD):
        before = read_record(folder)
        last = rules.overlap == LAST
        states = {one.case.name: _state(one, last) for one in plan.cases}
        record = Record(channels, plan.table, plan.groups, states)
        content = _dataset_json(plan, channels)
        stale = {name: state for name, state in before.cases.items() if states.get(name) != state}
        _refuse_others(folder, plan, before)
        todo = [one for one in plan.cases if one.case.name in stale or not _is_complete(folder, one)]
        if not todo and record == before and _holds(folder / _DONE, content) and (folder / _TABLE).is_file():
            return Written(True)
        _remove(folder, [_DONE, *(file for state in stale.values() for file in _files(state))])
        write_json(folder / RECORD, record.content())
        images, covered = _write_cases(folder, todo, names, last, workers, progress)
        background = LabelTable.from_names({0: "background"})
        LabelTable((*background, *plan.table)).to_csv(folder / _TABLE, overwrite=True)
        write_json(folder / _DONE, content)
        new, removed = states.keys() - before.cases.keys(), before.cases.keys() - states.keys()
        hidden = {plan.table.names[value]: cases for value, cases in sorted(covered.items())}
        return Written(False, len(new), len(stale.keys() & states.keys()), len(removed), images, hidden)


def _dataset_json(plan: Plan, channels: tuple[str, ...]) -> dict[str, Any]:
    names = {name: value for value, name in plan.table.names.items()}
    return {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": {"background": 0, **names},
        "numTraining": len(plan.cases),
        "file_ending": _ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
        **({} if plan.merged is None else {ENTRY: plan.merged.entry()}),
    }


def _state(one: PlannedCase, last: bool) -> State:
    """Return all that the files of a case in the dataset follow from, as JSON holds it."""
    values = {str(old): new for old, new in sorted(one.values.items())}
    filled = {FILLED: list(one.filled)} if one.filled else {}
    return {"target": one.target, **one.stamps, "values": values, **filled, "last": last}


def _files(state: State) -> list[str]:
    """Return the files of a case in the dataset, below its folder."""
    images = [f"imagesTr/{state['target']}_{channel:04d}{_ENDING}" for channel in range(len(state["images"]))]
    return [*images, f"labelsTr/{state['target']}{_ENDING}"]


def _targets(folder: Path, one: PlannedCase) -> tuple[list[Path], Path]:
    """Return the files of a planned case: its images, and its label map."""
    *images, label = _files({"target": one.target, "images": one.case.images})
    return [folder / image for image in images], folder / label


def _is_complete(folder: Path, one: PlannedCase) -> bool:
    images, label = _targets(folder, one)
    return all(file.is_file() for file in (*images, label))


def _holds(file: Path, content: dict[str, Any]) -> bool:
    try:
        return json.loads(file.read_text(encoding="utf-8")) == content
    except (OSError, ValueError):
        return False


def _refuse_others(folder: Path, plan: Plan, before: Record) -> None:
    """Refuse to take a file that somebody else has put into the dataset for one of a case."""
    own = {file for state in before.cases.values() for file in _files(state)}
    others = [
        file
        for one in plan.cases
        for file in _files({"target": one.target, "images": one.case.images})
        if file not in own and (folder / file).exists()
    ]
    if others:
        raise OutputExistsError(
            f"{listed([str(folder / file) for file in others])} exists, and was not made by this command. Move it "
            "elsewhere, or rename the case."
        )


def _remove(folder: Path, files: Iterable[str]) -> None:
    for file in files:
        try:
            (folder / file).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(folder / file, error) from error


def _write_cases(
    folder: Path,
    todo: list[PlannedCase],
    names: LabelTable | None,
    last: bool,
    workers: int,
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> tuple[dict[str, int], dict[int, list[str]]]:
    work = functools.partial(_write_case, folder, names, last)
    images: dict[str, int] = {}
    covered: dict[int, list[str]] = {}
    done = 0
    try:
        for ways, hidden in progress(map_cases(work, todo, min(workers, len(todo))), len(todo)):
            for way in ways:
                images[way] = images.get(way, 0) + 1
            for value in hidden:
                covered.setdefault(value, []).append(todo[done].case.name)
            done += 1
    except ProcessKilledError as error:
        raise OutOfMemoryError(
            f"A process that wrote {todo[done].case.name} or a case near it was killed, most likely because memory ran "
            "out. Run the command again with fewer processes (--workers)."
        ) from error
    return images, covered


def _write_case(folder: Path, names: LabelTable | None, last: bool, one: PlannedCase) -> tuple[list[str], list[int]]:
    """Write images and label map of a case; what is there already is kept.

    :returns: how each image came, and the values that the segmentation has, but not the label map.
    """
    images, label = _targets(folder, one)
    hidden: list[int] = []
    ways = [_place_image(source, target) for source, target in zip(one.case.images, images, strict=True)]
    if not label.is_file():
        grid = read_image_grid(one.case.images).geometry
        found = segmentation_of(one.case, grid, names)
        if stamps_of(one.case) != one.stamps:
            raise ImageError(f"The files of the case {one.case.name} have changed meanwhile. Run the command again.")
        flat = flattened(found.layers, one.values, last)
        if len(found.layers) > 1:
            there, left = layer_counts(found.layers).sum(0), voxel_counts(flat)
            hidden = sorted(new for old, new in one.values.items() if there[old] and not left[new])
        _write(flat, grid, label)
    return ways, hidden


def _place_image(source: Path, target: Path) -> str:
    """Link or copy an image that nnU-Net can read as it is, and convert others."""
    if source.name.endswith(_ENDING) and source.is_file() and _is_read_by_itk(source):
        return place_image(source, target, _ENDING)
    if not target.is_file():
        read = read_volume(source)
        _write(read.voxels, read.geometry, target)
    return "converted"


def _is_read_by_itk(file: Path) -> bool:
    try:
        reader = itk_reader(file)
    except RuntimeError:
        return False
    return reader.GetDimension() == 3 and reader.GetNumberOfComponents() == 1


def _write(voxels: np.ndarray, geometry: Geometry, file: Path) -> None:
    """Write voxels, ``(z, y, x)``, as NIfTI."""
    import SimpleITK as sitk

    kind = voxels.dtype.newbyteorder("=")
    if kind.kind == "f" and kind.itemsize not in (4, 8):
        kind = np.dtype(np.float32)  # ITK knows no others
    image = sitk.GetImageFromArray(voxels.astype(kind, copy=False), isVector=False)
    writable_geometry(file, geometry).apply(image)
    write_volume(image, file)
