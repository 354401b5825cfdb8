"""Find a dataset in nnU-Net's folders, and read what `classscaleseg-train plan` wrote of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ClassScaleSegLib.errors import ModelError


def dataset_folder(variable: str, name_or_id: str) -> Path:
    """Return ``<folder of the variable>/DatasetXXX_Name``.

    :param variable: such as ``nnUNet_raw``; it must be set.
    :raises ClassScaleError: if there is no such folder, or more than one with that ID.
    """
    from ..data.raw_dataset import find_dataset

    return find_dataset(Path(os.environ[variable]), variable, name_or_id)


def preprocessed_json(name_or_id: str, name: str) -> dict:
    """Return the content of a JSON file in the folder of a preprocessed dataset.

    :raises ClassScaleError: if the dataset is not found.
    :raises ModelError: if the file is missing.
    """
    file = dataset_folder("nnUNet_preprocessed", name_or_id) / name
    if not file.is_file():
        raise ModelError(f"{file} does not exist: run `classscaleseg-train plan` first, or name plans that exist.")
    return json.loads(file.read_text(encoding="utf-8"))


def check_configuration(plans: dict, name: str, configuration: str) -> None:
    """Check that plans have a configuration.

    :param name: of the plans.
    :raises ModelError: if not, with the names of those that they have.
    """
    if configuration not in plans["configurations"]:
        raise ModelError(
            f"The plans {name} have no configuration {configuration}, only {', '.join(plans['configurations'])}: name "
            "one of these."
        )
