"""The environment of nnU-Net's commands: its folders, that of our trainers, and a torchvision that can be imported."""

from __future__ import annotations

import os
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError, ModelError, OutputError, reason
from ClassScaleSegLib.files import refuse_unwritable_folder
from ClassScaleSegLib.models.torchvision_import import make_torchvision_importable

from ..files import read_json

PLANS, TRAINER = "ClassScalePlans", "ClassScaleTrainer"  # the default ones
LENGTHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)  # epochs of trainers, besides nnU-Net's 1000

__all__ = [
    "PLANS",
    "TRAINER",
    "check_configuration",
    "dataset_folder",
    "make_torchvision_importable",
    "preprocessed_json",
    "register_trainers",
    "require_folders",
    "trainer_folder",
]


def trainer_folder() -> Path:
    """Return the folder ``nnunet_trainers``, for the environment variable ``nnUNet_extTrainer``.

    An installation has it inside this package, a checkout of the repository next to it.
    """
    here = Path(__file__).resolve().parents[1]
    inside, beside = here / "nnunet_trainers", here.parent / "nnunet_trainers"
    return inside if inside.is_dir() else beside


def register_trainers() -> None:
    """Add :func:`trainer_folder` to the folders of ``nnUNet_extTrainer``, for this process and its children."""
    folders = [folder for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if folder]
    if str(trainer_folder()) not in folders:
        os.environ["nnUNet_extTrainer"] = os.pathsep.join([*folders, str(trainer_folder())])


def require_folders(*names: str, writes: str | None = None) -> None:
    """Check the environment variables that name nnU-Net's folders.

    :param names: of the variables that a command needs.
    :param writes: the one of them in whose folder it writes.
    :raises ClassScaleError: naming the first variable that is not set, or begins with a ``~`` that no shell has
        replaced: nnU-Net would make a folder of this name.
    :raises OutputError: if no file can be written there.
    """
    for name in names:
        if not os.environ.get(name):
            raise ClassScaleError(
                f"The environment variable {name} is not set. Set nnUNet_raw, nnUNet_preprocessed and nnUNet_results "
                "to the folders in which nnU-Net keeps its data."
            )
        if os.environ[name].startswith("~"):
            raise ClassScaleError(
                f"The environment variable {name} is {os.environ[name]}, and nnU-Net does not replace the ~. Set it to "
                f"{os.path.expanduser(os.environ[name])}."
            )
    if writes is not None:
        folder = Path(os.environ[writes])
        try:
            refuse_unwritable_folder(folder / "x")
        except OutputError as error:
            why = getattr(error.__cause__, "strerror", None) or reason(error)
            raise OutputError(
                f"No file can be written in {folder}, which {writes} names ({why}). Name another folder, or make room."
            ) from error


def dataset_folder(variable: str, name_or_id: str) -> Path:
    """Return ``<folder of the variable>/DatasetXXX_Name``.

    :raises ClassScaleError: if there is no such folder, or more than one with that ID.
    """
    from ..data.raw_dataset import find_dataset

    return find_dataset(Path(os.environ[variable]), variable, name_or_id)


def preprocessed_json(name_or_id: str, name: str) -> dict:
    """Read a JSON file that ``classscaleseg-train plan`` wrote.

    :raises ClassScaleError: as :func:`dataset_folder`.
    :raises ModelError: if there is no such file, or it is damaged.
    """
    file = dataset_folder("nnUNet_preprocessed", name_or_id) / name
    if not file.is_file():
        raise ModelError(f"{file} does not exist: run `classscaleseg-train plan` first, or name plans that exist.")
    entries = {"labels": dict} if name == "dataset.json" else {"configurations": dict}
    return read_json(file, entries, "Run `classscaleseg-train plan` again.")


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
