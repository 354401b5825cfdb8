"""Write the merged dataset: links to the images, label maps with the new values, and last of all ``dataset.json``."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import ImageError, OutOfMemoryError, OutputExistsError, reason
from ClassScaleSegLib.files import unwritable
from ClassScaleSegLib.locking import locked

from ...files import write_json
from ..merged_labels import ENTRY, Merged
from ..parallel import ProcessKilledError, map_cases
from .case_files import place_image, write_label
from .plan import Plan, class_table, taxonomy_rows
from .splits import NAME as SPLITS
from .splits import merged_splits
from .taxonomy import Taxonomy, write_taxonomy

RECIPE, LOCK = ".merge.json", ".merge.lock"
_DONE = "dataset.json"
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")  # kept if all datasets have it, else .nii.gz
_READABLE = (*_ENDINGS, ".mhd", ".gipl")
_WRITTEN = re.compile(r"(images|labels)Tr/[^/\\]+")
_LEFT_BEHIND = re.compile(r"\.[0-9a-f]{12}(\.\w+){0,2}")  # the temporary names of `replacing`


@dataclass(frozen=True)
class Written:
    """What was done.

    :ivar finished: whether everything was there already.
    :ivar kept: label maps that an earlier call had written.
    :ivar images: number of images by how they came: linked, copied or converted.
    """

    finished: bool
    kept: int
    images: Mapping[str, int]


@dataclass(frozen=True)
class _Case:
    """The files of a case, where they come from and where they go.

    :ivar dataset: index of its dataset.
    :ivar ending: of the new files.
    """

    dataset: int
    ending: str
    images: tuple[tuple[Path, Path], ...]
    label: tuple[Path, Path]


def write_merged(
    folder: Path,
    plan: Plan,
    taxonomy: Taxonomy = Taxonomy(),
    overwrite: bool = False,
    workers: int = 0,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda cases, total: cases,
) -> Written:
    """Write the merged dataset. An interrupted call can be repeated: what is complete is kept.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``; it need not exist.
    :param taxonomy: names the modalities.
    :param overwrite: replace a dataset that was merged in another way, or whose datasets have changed since.
    :param workers: number of processes that write label maps.
    :param progress: gets the cases that are done, one after the other, and their number, and yields them again.
    :raises OutputExistsError: if the folder was merged in another way and must not be replaced, or not by merging.
    :raises OutputError: if a file cannot be written; the folder then has no ``dataset.json``.
    :raises ImageError: if an image or a label map cannot be read.
    :raises LabelTableError: if a label map has values that its dataset does not name, or the splits cannot be used.
    """
    ending = _ending(plan)
    cases = _cases(folder, plan, ending)
    splits = merged_splits(plan.meaning.sources)
    dataset = _dataset_json(plan, len(cases), ending)
    rows = [list(map(str, row)) for row in taxonomy_rows(plan, taxonomy)]
    recipe = _recipe(folder, plan, cases, {"dataset": dataset, "taxonomy": rows, "splits": splits})
    _refuse_foreign(folder)
    Merged.of(dataset)  # what training would refuse is not written
    with locked(folder / LOCK, f"{folder.name} is being merged"):
        if _claim(folder, recipe, overwrite):
            return Written(True, len(cases), {})
        written = _write_cases(plan, cases, folder, workers, progress)
        if splits:
            write_json(folder / SPLITS, splits)
        write_taxonomy(folder / "taxonomy.csv", rows)
        class_table(plan.meaning).to_csv(folder / "labels.csv", overwrite=True)
        write_json(folder / _DONE, dataset)
        return written


def _write_cases(
    plan: Plan,
    cases: list[_Case],
    folder: Path,
    workers: int,
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> Written:
    for file in (*folder.glob(".*"), *folder.glob("*/.*")):
        if _LEFT_BEHIND.fullmatch(file.name):  # by a killed process; nnU-Net would take it for a case
            with contextlib.suppress(OSError):
                file.unlink()
    kept = sum(case.label[1].is_file() for case in cases)
    work = functools.partial(_write_case, plan.maps, [source.name for source in plan.meaning.sources])
    images: dict[str, int] = {}
    done = 0
    try:
        for ways in progress(map_cases(work, cases, min(workers, len(cases))), len(cases)):
            done += 1
            for way in ways:
                images[way] = images.get(way, 0) + 1
    except ProcessKilledError as error:
        raise OutOfMemoryError(
            f"A process that wrote {cases[done].label[1].name} or a case near it was killed, most likely because "
            "memory ran out. Run the command again with fewer processes (--workers)."
        ) from error
    return Written(False, kept, images)


def _ending(plan: Plan) -> str:
    """Return the ending of all files: that of the datasets if they agree."""
    endings = {source.ending for source in plan.meaning.sources}
    for source in plan.meaning.sources:
        if source.ending not in _READABLE:
            raise ImageError(
                f"{source.name} has files with the ending {source.ending}; {', '.join(_READABLE)} can be merged. "
                "Convert them."
            )
    return endings.pop() if len(endings) == 1 and endings <= set(_ENDINGS) else ".nii.gz"


def _cases(folder: Path, plan: Plan, ending: str) -> list[_Case]:
    cases = []
    for index, source in enumerate(plan.meaning.sources):
        for case in source.cases:
            name = f"{source.prefix}{case.name}"
            images = tuple(
                (image, folder / "imagesTr" / f"{name}_{channel:04d}{ending}")
                for channel, image in enumerate(case.images)
            )
            if case.label is not None:
                cases.append(_Case(index, ending, images, (case.label, folder / "labelsTr" / f"{name}{ending}")))
    return cases


def _dataset_json(plan: Plan, cases: int, ending: str) -> dict[str, Any]:
    sources = plan.meaning.sources
    readers = {source.reader for source in sources}
    reader = readers.pop() if len(readers) == 1 and all(source.ending == ending for source in sources) else None
    return {
        "channel_names": {str(index): name for index, name in enumerate(plan.channels)},
        "labels": plan.merged.labels(),
        "numTraining": cases,
        "file_ending": ending,
        **({} if reader is None else {"overwrite_image_reader_writer": reader}),
        ENTRY: plan.merged.entry(),
    }


def _recipe(folder: Path, plan: Plan, cases: list[_Case], content: dict[str, Any]) -> dict[str, Any]:
    """Return all that the files follow from, as it is after it was written as JSON and read again."""
    files = {}
    for case in cases:
        for source, target in (*case.images, case.label):
            try:
                state = source.stat()
            except OSError as error:
                raise ImageError(f"{source} cannot be read ({error.strerror or error}). Check the dataset.") from error
            files[target.relative_to(folder).as_posix()] = [str(source), state.st_size, state.st_mtime_ns]
    maps = [new.tolist() for new in plan.maps]
    return json.loads(json.dumps({"version": 1, **content, "maps": maps, "files": files}))


def _refuse_foreign(folder: Path) -> None:
    """Raise an error if a folder holds anything, but was not made by merging."""
    try:
        names = [file.name for file in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise unwritable(folder, error) from error
    if RECIPE not in names and any(name != LOCK and not _LEFT_BEHIND.fullmatch(name) for name in names):
        raise OutputExistsError(
            f"{folder} exists, and was not made by merging datasets. Choose another number or name; it stays as it is."
        )


def _claim(folder: Path, recipe: dict[str, Any], overwrite: bool) -> bool:
    """Make the folder one of this recipe. Return whether it is finished already.

    :raises OutputExistsError: if it was made by another recipe that must not be replaced.
    """
    file = folder / RECIPE
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        files = [] if found is None else [name for name in found["files"] if _WRITTEN.fullmatch(name)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputExistsError(
            f"{file}, which says how {folder.name} was merged, cannot be read ({reason(error)}). Delete the folder, or "
            "choose another number."
        ) from error
    finished = (folder / _DONE).is_file()
    if found == recipe and finished and all((folder / name).is_file() for name in files):
        return True
    if found == recipe:
        files = []
    elif found is not None and not finished and {**found, "files": None} == {**recipe, "files": None}:
        files = [name for name in files if found["files"][name] != recipe["files"].get(name)]  # keep the others
    elif found is not None and not overwrite:
        raise OutputExistsError(
            f"{folder} was merged before, but {_difference(found, recipe)}. Allow overwriting (--overwrite) to make it "
            "anew, or choose another number."
        )
    for name in (_DONE, SPLITS, "taxonomy.csv", "labels.csv", *files):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(folder / name, error) from error
    write_json(file, recipe)
    return False


def _difference(found: dict[str, Any], recipe: dict[str, Any]) -> str:
    """Say what has changed since the dataset was merged."""
    before, now = found["files"], recipe["files"]
    if before != now:
        changed = [name for name in (*now, *before) if before.get(name) != now.get(name)]
        if not set(before) & set(now):
            return "from other datasets"
        count = f"{len(set(changed))} file{'s' if len(set(changed)) > 1 else ''}"
        return f"its cases have changed since ({count}, among them {changed[0]})"
    what = {"maps": "labels", "taxonomy": "labels", "splits": "folds", "dataset": "channels or shares"}
    names = [text for key, text in what.items() if found.get(key) != recipe[key]]
    return f"with other {names[0]}" if names else "by another version"


def _write_case(maps: tuple[np.ndarray, ...], names: list[str], case: _Case) -> list[str]:
    """Write a case; what is there already is kept. Return how each image came."""
    ways = [place_image(source, target, case.ending) for source, target in case.images]
    if not case.label[1].is_file():
        write_label(*case.label, maps[case.dataset], names[case.dataset])
    return ways
