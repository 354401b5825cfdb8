"""The folds in ``splits_final.json``: read with a sentence for every fault, and made for datasets of a few cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError, ModelError, reason

from ..files import write_json

SPLITS = "splits_final.json"
_FOLDS = 5  # nnU-Net's
_PARTS = ("train", "val")


def read_splits(file: Path) -> list[dict[str, list[str]]]:
    """Return the cases of each fold, under "train" and "val".

    :raises ClassScaleError: if the file cannot be read, or is something else.
    """
    try:
        folds = json.loads(file.read_text(encoding="utf-8"))
        lists = isinstance(folds, list) and folds and all(isinstance(fold, dict) for fold in folds)
        if not lists or not all(_is_names(fold[part]) for fold in folds for part in _PARTS):
            raise ValueError('no folds with the names of cases, such as [{"train": ["a", "b"], "val": ["c"]}]')
        return [{part: fold[part] for part in _PARTS} for fold in folds]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"it has no entry {error}" if isinstance(error, KeyError) else reason(error)
        raise ClassScaleError(f"{file} cannot be read as nnU-Net's splits ({what}). Correct or delete it.") from error


def _is_names(cases: object) -> bool:
    return isinstance(cases, list) and all(isinstance(case, str) for case in cases)


def prepare_splits(folder: Path, cases: Sequence[str]) -> None:
    """Check the folds of a dataset; if it has none, and too few cases for nnU-Net's five folds, write one per case.

    :param folder: ``nnUNet_preprocessed/DatasetXXX_Name``.
    :param cases: the preprocessed ones, sorted.
    :raises ClassScaleError: if the file cannot be read.
    :raises ModelError: if there is a single case.
    :raises OutputError: if the folds cannot be written.
    """
    file = folder / SPLITS
    if file.is_file():
        read_splits(file)
    elif len(cases) == 1:
        raise ModelError(
            f"{folder.name} has a single case, {cases[0]}, so there is none to validate with: train the fold all."
        )
    elif len(cases) < _FOLDS:
        write_json(file, [{"train": [other for other in cases if other != case], "val": [case]} for case in cases])
