"""Check that the label maps of a raw dataset agree with ``dataset.json``, before hours are spent on planning it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import LabelTableError, named

from ..data.parallel import map_cases


def check_dataset(folder: Path, workers: int = 0) -> None:
    """Check ``dataset.json`` and every label map of the training cases.

    nnU-Net reads the label maps for this only with ``--verify_dataset_integrity``.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``.
    :param workers: number of processes that read label maps.
    :raises LabelTableError: if ``dataset.json`` cannot be read, labels are not 0, 1, 2 ..., the number of cases is not
        ``numTraining``, or a label map holds a label that ``dataset.json`` does not have.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    file = folder / "dataset.json"
    with named(file):
        try:
            dataset = json.loads(file.read_text(encoding="utf-8"))
            highest = check_labels(dataset["labels"])
            announced = int(dataset["numTraining"])
            cases = get_filenames_of_train_images_and_targets(str(folder), dataset)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabelTableError(
                f"It cannot be read as an nnU-Net dataset.json ({error!r}). Compare it with nnU-Net's description of "
                "the dataset format."
            ) from error
        if len(cases) != announced:
            raise LabelTableError(
                f"It gives numTraining as {announced}, but {len(cases)} training cases were found. Correct numTraining "
                "or the cases."
            )
    if not cases:
        raise LabelTableError(f"{folder} has no training cases: put images into imagesTr and label maps into labelsTr.")
    first = next(iter(cases.values()))["images"][0]
    reader = determine_reader_writer_from_dataset_json(dataset, first, verbose=False)
    labels = [Path(case["label"]) for case in cases.values()]
    for _ in map_cases(functools.partial(_check_case, reader, highest), labels, workers):
        pass


def check_labels(labels: dict) -> int:
    """Check the labels of a ``dataset.json``, and return the highest value that may occur in label maps.

    :param labels: the entry "labels" of ``dataset.json``. The value of a region is a list of labels.
    :raises LabelTableError: unless the values are 0, 1, 2 ... without a gap, 0 is the background, and "ignore", if
        there is one, is the highest.

    >>> check_labels({"background": 0, "kidney": [1, 2], "tumour": 2, "ignore": 3})
    3
    """
    values = sorted({int(value) for entry in labels.values() for value in np.atleast_1d(entry)})
    gap = next((index for index, value in enumerate(values) if value != index), None)
    if gap is not None or labels.get("background") != 0:
        found = f"{values[gap]} where {gap} was expected" if gap is not None else "no background with value 0"
        raise LabelTableError(f"labels must be 0 (background), 1, 2 ... without a gap; found {found}.")
    if "ignore" in labels and labels["ignore"] != values[-1]:
        raise LabelTableError(f"the ignore label is {labels['ignore']}; it must be the highest, {values[-1]}.")
    return values[-1]


def _check_case(reader: type, highest: int, file: Path) -> None:
    labels = reader().read_seg(str(file))[0]
    low, high = labels.min(), labels.max()
    if low < 0 or high > highest or (labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels))):
        wrong = low if low < 0 else high
        raise LabelTableError(
            f"{file} holds label {wrong:g}; dataset.json has integer labels 0 to {highest}. Correct the label map or "
            "dataset.json."
        )
