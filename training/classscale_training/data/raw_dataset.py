"""Make the folder and the ``dataset.json`` of a dataset in nnU-Net's raw layout."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError, OutputExistsError

from ..files import alone, write_json

_SHOWN = 8  # names of datasets in a message


def dataset_folder(dataset_id: int, name: str, nnunet_raw: Path | None = None) -> Path:
    """Return the folder ``<nnUNet_raw>/DatasetXXX_name``; make it if it does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as raw:
    ...     folder = dataset_folder(7, "Head", Path(raw))
    ...     write_dataset_json(folder, "CT", {0: "background", 1: "skull"}, 20, "SimpleITKIO")
    ...     folder.name, [file.name for file in folder.iterdir()]
    ('Dataset007_Head', ['dataset.json'])

    :param dataset_id: number of the dataset, 1..999.
    :param nnunet_raw: folder of all raw datasets; if ``None``, the environment variable ``nnUNet_raw`` names it.
    :raises OutputExistsError: if another dataset already has this number.
    :raises ClassScaleError: if the number is outside 1..999, or neither ``nnunet_raw`` nor the variable is given.
    """
    folder = dataset_path(dataset_id, name, nnunet_raw)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def being_written(folder: Path, mark: str) -> Iterator[None]:
    """Let this process alone write a dataset within a ``with`` block, and remove what a killed one has left.

    :param mark: name of a file that only datasets made in the same way have.
    :raises Busy: if another process writes it.
    :raises OutputExistsError: if the folder holds a dataset that was made in another way.
    """
    refuse_foreign(folder, mark)
    with alone(folder / ".lock", f"{folder} is being written"):
        for leftover in folder.glob("*/.*.nii.gz"):  # nnU-Net would use it as a case
            leftover.unlink()
        yield


def refuse_foreign(folder: Path, mark: str) -> None:
    """Refuse a folder that holds files, but not the mark of the datasets that are made in the same way.

    :raises OutputExistsError: if it does.
    """
    names = [file.name for file in folder.iterdir()] if folder.exists() else []
    if mark not in names and any(not name.startswith(".") for name in names):
        raise OutputExistsError(
            f"{folder} exists, and was not made by this command: it has no {mark}. Choose another number; it stays as "
            "it is."
        )


def dataset_path(dataset_id: int, name: str, nnunet_raw: Path | None = None) -> Path:
    """Return the path of :func:`dataset_folder` without making the folder.

    :raises OutputExistsError: as there.
    :raises ClassScaleError: as there.
    """
    if not 1 <= dataset_id <= 999:
        raise ClassScaleError(f"An nnU-Net dataset has a number from 1 to 999, not {dataset_id}.")
    root = raw_root(nnunet_raw)
    folder = root / f"Dataset{dataset_id:03d}_{name}"
    others = sorted(other.name for other in root.glob(f"Dataset{dataset_id:03d}_*") if other != folder)
    if others:
        raise OutputExistsError(f"{root} already has a dataset {dataset_id}, {others[0]}: choose another number.")
    return folder


def raw_folder(dataset_id: int, nnunet_raw: Path | None = None) -> Path:
    """Return the folder of the raw dataset with a number.

    :param nnunet_raw: as for :func:`dataset_folder`.
    :raises ClassScaleError: if there is none, or more than one.
    """
    return find_dataset(raw_root(nnunet_raw), "nnUNet_raw", str(dataset_id))


def find_dataset(root: Path, variable: str, name_or_id: str) -> Path:
    """Return the folder ``DatasetXXX_Name`` with a name or number.

    :param root: folder of all datasets.
    :param variable: environment variable of nnU-Net that names ``root``.
    :raises ClassScaleError: if there is none, or more than one with that number.
    """
    if not root.is_dir():
        raise ClassScaleError(f"{root}, which {variable} names, is not a folder. Correct the environment variable.")
    number = name_or_id.isdecimal()
    candidates = root.glob(f"Dataset{int(name_or_id):03d}_*") if number else [root / name_or_id]
    found = sorted(folder for folder in candidates if folder.is_dir())
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        others = sorted(folder.name for folder in root.glob("Dataset[0-9][0-9][0-9]_*") if folder not in found)
        more = f" of {', '.join(others[:_SHOWN])}{' and others' if len(others) > _SHOWN else ''}" if others else ""
        raise ClassScaleError(
            f"Expected one dataset {name_or_id} in {root} ({variable}); found {names}{more}. Check the name or ID, and "
            "the environment variable. A folder is called DatasetXXX_Name, with three digits."
        )
    return found[0]


def raw_root(nnunet_raw: Path | None = None) -> Path:
    """Return the folder of all raw datasets.

    :param nnunet_raw: the folder; if ``None``, the environment variable ``nnUNet_raw`` names it.
    :raises ClassScaleError: if the variable is not set, or begins with ``~``.
    """
    if nnunet_raw is not None:
        return nnunet_raw
    if not os.environ.get("nnUNet_raw"):
        raise ClassScaleError(
            "The environment variable nnUNet_raw is not set: set it to the folder of the raw datasets."
        )
    if os.environ["nnUNet_raw"].startswith("~"):
        raise ClassScaleError(
            f"The environment variable nnUNet_raw is {os.environ['nnUNet_raw']}, and nnU-Net does not replace the ~. "
            f"Set it to {os.path.expanduser(os.environ['nnUNet_raw'])}."
        )
    return Path(os.environ["nnUNet_raw"])


def write_dataset_json(folder: Path, channel: str, names: Mapping[int, str], cases: int, reader: str) -> None:
    """Write nnU-Net's ``dataset.json`` for images of one channel in ``.nii.gz`` files.

    :param channel: name of the input channel; nnU-Net normalises ``"CT"`` differently from others.
    :param names: names by label value; 0 is the background.
    :param cases: number of training cases.
    :param reader: name of nnU-Net's reader class, so that nnU-Net need not guess it.
    :raises OutputError: if the file cannot be written.
    """
    content = {
        "channel_names": {"0": channel},
        "labels": {name: value for value, name in sorted(names.items())},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": reader,
    }
    write_json(folder / "dataset.json", content)
