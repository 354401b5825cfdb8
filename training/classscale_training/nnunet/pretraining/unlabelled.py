"""Preprocess images without labels, so that a pretraining can use them beside those of a dataset."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError, ImageError
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from ...data.parallel import map_cases
from ...data.raw_cases import RawCase
from ...files import write_json
from ..case_check import check_case
from ..preprocessed_folder import decided_for_images
from ..preprocessing import ClassScalePreprocessor
from ..stock_faults import as_sentences

_NOTE = "source.json"  # in the folder of a preprocessed image: what it was made of


def preprocess_unlabelled(
    images: Path, target: Path, plans: dict, configuration: str, dataset: dict, workers: int, bar: bool = True
) -> Mapping[str, Any]:
    """Preprocess images by the plans of a dataset, except those for which this has been done.

    :param images: folder with files named as in nnU-Net's ``imagesTr``: ``NAME_0000.nii.gz`` for the first channel.
    :param target: folder to write; it keeps what other folders of images left there.
    :param plans: content of the plans file.
    :param dataset: content of ``dataset.json``.
    :param workers: number of processes.
    :param bar: whether to show progress.
    :returns: nnU-Net's dataset of each image.
    :raises ClassScaleError: if the folder has no such images, or some without all channels.
    :raises ImageError: if an image cannot be read, has voxels that are not finite, or channels that do not fit.
    :raises OutputError: if a file cannot be written.
    """
    files = _find(images, dataset["file_ending"], _channels(dataset))
    target.mkdir(parents=True, exist_ok=True)
    entries = PlansManager(plans).get_configuration(configuration).configuration
    prepared = decided_for_images(entries, plans, dataset)
    left = [(name, case) for name, case in files.items() if _noted(target, name) != _identity(case, prepared)]
    run = functools.partial(
        _preprocess, target=target, plans=plans, configuration=configuration, dataset=dataset, prepared=prepared
    )
    done = map_cases(run, left, min(workers, len(left)))
    for _ in tqdm(done, "Preprocessing images", total=len(left), disable=not bar or not left):
        pass
    return {name: nnUNetDatasetBlosc2(str(target / name), [name]) for name in files}


def _channels(dataset: dict) -> tuple[str, ...]:
    return tuple(map(str, (dataset.get("channel_names") or dataset["modality"]).values()))


def _find(folder: Path, ending: str, channels: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Return the files of each image in a folder, one for each channel."""
    named = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    found: dict[str, dict[int, Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (match := named.fullmatch(file.name)) and not file.name.startswith("."):
            found.setdefault(match[1], {})[int(match[2])] = file
    if not found:
        raise ClassScaleError(
            f"{folder} has no images NAME_0000{ending}: name a folder whose images are named as in imagesTr."
        )
    for name, files in found.items():
        if list(files) != list(range(len(channels))):
            there = ", ".join(file.name for file in files.values())
            raise ClassScaleError(
                f"{folder} has {there} of {name}, but the dataset has one file for each of the channels "
                f"{', '.join(channels)}. Correct the folder."
            )
    return {name: tuple(files.values()) for name, files in found.items()}


def _preprocess(
    named: tuple[str, tuple[Path, ...]],
    target: Path,
    plans: dict,
    configuration: str,
    dataset: dict,
    prepared: Mapping[str, Any],
) -> None:
    name, case = named
    manager = PlansManager(plans)
    found = check_case(manager.image_reader_writer_class, _channels(dataset), 0, RawCase(name, case, None)).findings
    faults = [finding.sentence for finding in found if finding.error is not None]
    if faults:
        raise ImageError(f"{case[0]} cannot be preprocessed: {' '.join(faults)}")
    with as_sentences(target), tempfile.TemporaryDirectory(dir=target, prefix=".") as parent:
        folder = Path(parent) / name
        folder.mkdir()
        ClassScalePreprocessor(verbose=False).run_case_save(
            str(folder / name), [*map(str, case)], None, manager, manager.get_configuration(configuration), dataset
        )
        write_json(folder / _NOTE, _identity(case, prepared))
        shutil.rmtree(target / name, ignore_errors=True)
        os.replace(folder, target / name)


def _noted(target: Path, name: str) -> Any:
    """Return what a case was made of, or None if it has not been preprocessed."""
    try:
        return json.loads((target / name / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _identity(case: tuple[Path, ...], prepared: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the result, as JSON gives it back: the files, and how they are prepared."""
    files = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in case]
    return json.loads(json.dumps({"files": files, **prepared}))
