"""A dataset in nnU-Net's raw layout: its folder and its ``dataset.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError, OutputExistsError

from ..files import write_json


def dataset_folder(dataset_id: int, name: str, nnunet_raw: Path | None = None) -> Path:
    """``<nnUNet_raw>/DatasetXXX_name``, made if it is not there yet.

    :param nnunet_raw: the environment variable ``nnUNet_raw`` if not given.
    :raises OutputExistsError: if another dataset has this number already.
    :raises ClassScaleError: for a number outside 1..999, or if neither folder nor variable is given.
    """
    if not 1 <= dataset_id <= 999:
        raise ClassScaleError(f"A dataset of nnU-Net has a number from 1 to 999, not {dataset_id}.")
    if nnunet_raw is None:
        if not os.environ.get("nnUNet_raw"):
            raise ClassScaleError(
                "The environment variable nnUNet_raw is not set: set it to the folder of raw datasets."
            )
        nnunet_raw = Path(os.environ["nnUNet_raw"])
    folder = nnunet_raw / f"Dataset{dataset_id:03d}_{name}"
    others = sorted(other.name for other in nnunet_raw.glob(f"Dataset{dataset_id:03d}_*") if other != folder)
    if others:
        raise OutputExistsError(f"{nnunet_raw} has a dataset {dataset_id} already, {others[0]}: choose another number.")
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*/.*.nii.gz"):  # of a killed process; nnU-Net would take it for a case
        leftover.unlink()
    return folder


def write_dataset_json(folder: Path, channel: str, names: Mapping[int, str], cases: int, reader: str) -> None:
    """nnU-Net's ``dataset.json`` for one input channel; ``names`` is indexed by label value, 0 the background.

    :param reader: nnU-Net's reader class, so that it need not guess.
    """
    content = {
        "channel_names": {"0": channel},
        "labels": {name: value for value, name in sorted(names.items())},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": reader,
    }
    write_json(folder / "dataset.json", content)
