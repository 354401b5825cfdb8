"""Keep what planning left from being used for a dataset that has been merged in another way since."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError, LabelTableError

from ..data.dataset_json import read_dataset_json
from ..data.merged_labels import Merged
from .splits import SPLITS, read_splits


def replace_splits(folder: Path, dataset: dict) -> bool:
    """Replace the splits of an earlier plan if the dataset has been merged in another way since.

    nnU-Net copies the splits of a raw dataset when it plans for the first time. Later it stops with an assertion if
    they differ.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``.
    :param dataset: content of its ``dataset.json``.
    :returns: whether it has been merged in another way, so that the fingerprint is old too.
    :raises ClassScaleError: if the splits differ, although the dataset is as it was.
    """
    planned = Path(os.environ["nnUNet_preprocessed"]) / folder.name
    raw, kept = folder / SPLITS, planned / SPLITS
    changed = _merged_anew(planned / "dataset.json", dataset)
    if raw.is_file() and kept.is_file() and _differ(raw, kept):
        if not changed:
            raise ClassScaleError(
                f"{kept} and {raw} divide the cases in different ways. Training would use the first one. Delete the "
                "one that is wrong."
            )
        shutil.copy(raw, kept)
        print(
            f"{folder.name} has been merged in another way since it was planned: its splits are new.", file=sys.stderr
        )
    return changed


def _merged_anew(dataset_json: Path, dataset: dict) -> bool:
    merged = Merged.of(dataset)
    if not dataset_json.is_file():
        return False
    try:
        planned = read_dataset_json(dataset_json)
        more = merged is not None and planned.get("numTraining") != dataset["numTraining"]
        return more or Merged.of(planned) != merged
    except LabelTableError:
        return True


def _differ(raw: Path, kept: Path) -> bool:
    """Tell whether nnU-Net would stop: the kept file may have more folds."""
    ours, theirs = read_splits(raw), read_splits(kept)
    return [set(fold["train"]) for fold in ours] != [set(fold["train"]) for fold in theirs[: len(ours)]]
