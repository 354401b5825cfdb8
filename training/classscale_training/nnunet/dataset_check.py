"""Whether a raw dataset's label maps and ``dataset.json`` agree, before hours are spent on it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import LabelTableError

from ..data.parallel import map_cases


def check_dataset(folder: Path, workers: int = 0) -> None:
    """Read every training label map once. nnU-Net checks this only with ``--verify_dataset_integrity``.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``.
    :param workers: processes.
    :raises LabelTableError: if labels are not 0, 1, 2 ..., the number of cases is not ``numTraining``, or a label map
        holds a label that ``dataset.json`` does not have.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    file = folder / "dataset.json"
    try:
        dataset = json.loads(file.read_text(encoding="utf-8"))
        highest = check_labels(dataset["labels"], str(file))
        announced = int(dataset["numTraining"])
        cases = get_filenames_of_train_images_and_targets(str(folder), dataset)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelTableError(f"{file} cannot be read as an nnU-Net dataset.json ({error!r}).") from error
    if len(cases) != announced:
        raise LabelTableError(f"{file} says numTraining {announced}, but {len(cases)} cases were found: correct it.")
    if not cases:
        raise LabelTableError(f"{folder} has no training cases.")
    first = next(iter(cases.values()))["images"][0]
    reader = determine_reader_writer_from_dataset_json(dataset, first, verbose=False)
    labels = [Path(case["label"]) for case in cases.values()]
    for _ in map_cases(functools.partial(_check_case, reader, highest), labels, workers):
        pass


def check_labels(labels: dict, where: str) -> int:
    """The highest value that may occur in label maps.

    :param labels: of ``dataset.json``; values may be lists (regions), ``ignore`` is the highest.
    :raises LabelTableError: unless the values are 0, 1, 2 ... without a gap, beginning with the background.
    """
    values = sorted({int(value) for entry in labels.values() for value in np.atleast_1d(entry)})
    gap = next((index for index, value in enumerate(values) if value != index), None)
    if gap is not None or labels.get("background") != 0:
        found = f"{values[gap]} where {gap} was expected" if gap is not None else "no background with value 0"
        raise LabelTableError(f"{where}: labels must be 0 (background), 1, 2 ... without a gap; found {found}.")
    if "ignore" in labels and labels["ignore"] != values[-1]:
        raise LabelTableError(f"{where}: the ignore label is {labels['ignore']}; it must be the highest, {values[-1]}.")
    return values[-1]


def _check_case(reader: type, highest: int, file: Path) -> None:
    labels = reader().read_seg(str(file))[0]
    low, high = labels.min(), labels.max()
    if low < 0 or high > highest or (labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels))):
        wrong = low if low < 0 else high
        raise LabelTableError(
            f"{file} holds label {wrong:g}; dataset.json has 0 to {highest}. Correct the label map or dataset.json."
        )
