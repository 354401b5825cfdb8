"""Read the ``dataset.json`` of a raw dataset by the rules that segmenting has for that of a model.

nnU-Net's own reader stops with an exception at a byte-order mark, and at label values that are written as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import LabelTableError, ModelError, named, reason
from ClassScaleSegLib.models.dataset_json import channel_names, label_rows
from ClassScaleSegLib.models.files import parse_json
from ClassScaleSegLib.models.json_checks import flat, short

HIGHEST = 32_767  # label value: nnU-Net keeps preprocessed label maps as int16


def read_dataset_json(file: Path) -> dict:
    """Read a ``dataset.json``, and write its label values and ``numTraining`` as whole numbers.

    :raises LabelTableError: if it cannot be read, or has no labels.
    """
    with named(file):
        if not file.exists():
            raise LabelTableError("It does not exist. Write it, as nnU-Net's description of the dataset format says.")
        try:
            dataset = parse_json(file.read_bytes())
        except (OSError, ModelError) as error:
            fault = reason(error).removeprefix("It is ").rstrip(".")
            raise LabelTableError(
                f"It cannot be read as an nnU-Net dataset.json ({fault}). Compare it with nnU-Net's description of the "
                "dataset format."
            ) from error
        if not isinstance(dataset.get("labels"), dict):
            raise LabelTableError("It has no object 'labels' such as {'background': 0, 'liver': 1}. Add it.")
        return with_numbers(dataset)


def check_for_model(dataset: dict) -> tuple[str, ...]:
    """Check that a model trained with a ``dataset.json`` can be used, by the rules for that of a model.

    :param dataset: its content, as :func:`read_dataset_json` returns it.
    :returns: the names of the channels.
    :raises LabelTableError: if labels or channels cannot be those of a network.
    """
    try:
        label_rows(dataset)
        return channel_names(dataset)
    except ModelError as error:
        raise LabelTableError(str(error)) from error


def check_labels(labels: dict) -> int:
    """Check the labels of a ``dataset.json``, and return the highest value that may occur in label maps.

    :param labels: the entry "labels" of ``dataset.json``. The value of a region is a list of labels.
    :raises LabelTableError: unless the values are 0, 1, 2 ... without a gap, at most :data:`HIGHEST`, 0 is the
        background, and "ignore", if there is one, is the highest.

    >>> check_labels({"background": 0, "kidney": [1, 2], "tumour": 2, "ignore": 3})
    3
    """
    values = sorted({int(value) for entry in labels.values() for value in np.atleast_1d(entry)})
    gap = next((index for index, value in enumerate(values) if value != index), None)
    if gap is not None:
        raise LabelTableError(
            f"labels must be 0 (background), 1, 2 ... without a gap; found {values[gap]} where {gap} was expected. "
            "Number them anew, here and in the label maps."
        )
    if labels.get("background") != 0:
        raise LabelTableError('labels must have "background", in small letters, with the value 0. Correct them.')
    if values[-1] > HIGHEST:
        raise LabelTableError(f"the highest label is {values[-1]}; nnU-Net holds labels up to {HIGHEST}. Divide them.")
    if "ignore" in labels and labels["ignore"] != values[-1]:
        raise LabelTableError(f"the ignore label is {labels['ignore']}; it must be the highest, {values[-1]}.")
    return values[-1]


def with_numbers(dataset: dict) -> dict:
    """Return a copy of a ``dataset.json`` in which numbers given as text or as 1.0 are whole numbers.

    >>> with_numbers({"labels": {"background": "0", "liver": 1.0, "both": ["1", 2]}, "numTraining": "20"})
    {'labels': {'background': 0, 'liver': 1, 'both': [1, 2]}, 'numTraining': 20}

    :raises LabelTableError: if one of them is not a whole number.
    """
    dataset, labels = dict(dataset), dataset.get("labels")
    if isinstance(labels, dict):
        swapped = labels and all(isinstance(v, str) and not v.isdecimal() and k.isdecimal() for k, v in labels.items())
        if swapped:
            raise LabelTableError(
                'the names and values of "labels" are exchanged: write {"background": 0, ...}, not {"0": "background"}.'
            )
        dataset["labels"] = {name: _whole_numbers(value, f"label {name!r}") for name, value in labels.items()}
    for key in ("regions_class_order", "numTraining"):
        if dataset.get(key) is not None:
            dataset[key] = _whole_numbers(dataset[key], key)
    return dataset


def _whole_numbers(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return [_whole_numbers(entry, key) for entry in flat(value)]
    try:
        number = int(value)
        if isinstance(value, bool) or (isinstance(value, float) and number != value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise LabelTableError(f"{key} is {short(value)}; a whole number was expected. Correct it.") from None
    return number
