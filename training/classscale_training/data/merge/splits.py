"""Divide the cases of several datasets into training and validation cases, as each dataset would be by itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ClassScaleSegLib.errors import LabelTableError

from .same_images import same_images
from .source import Source

NAME = "splits_final.json"
_FOLDS = 5
Split = dict[str, list[str]]


def merged_splits(sources: Sequence[Source]) -> list[Split]:
    """Return training and validation cases of each fold, by their names in the merged dataset.

    The cases of a dataset that has ``splits_final.json``, in ``nnUNet_preprocessed`` or in its raw folder, are divided
    as there; those of the others as nnU-Net does, into five folds. A dataset that has fewer folds than others repeats
    them. The only case of a dataset is always for training.

    Cases with the same image stay together: in each fold they go where the first of them goes, first of all one from a
    dataset that has a ``splits_final.json``. The cases of such a dataset stay where they are; a warning names those
    that several such datasets separate.

    :returns: no folds at all, if every dataset has a single case.
    :raises LabelTableError: if a ``splits_final.json`` cannot be used.
    :raises ImageError: if an image cannot be read.
    """
    each = [_splits(source) for source in sources]
    count = max(map(len, each))
    folds = []
    for index in range(count):
        fold: Split = {"train": [], "val": []}
        for source, splits in zip(sources, each, strict=True):
            for part, names in fold.items():
                names += [f"{source.prefix}{case}" for case in splits[index % len(splits)][part]]
        folds.append(fold)
    given = tuple(source.prefix for source in sources if len(source.cases) > 1 and _file(source) is not None)
    _keep_together(folds, same_images(sources), given)
    return [fold for fold in folds if fold["train"] and fold["val"]]


def _keep_together(folds: list[Split], groups: Sequence[Sequence[str]], given: tuple[str, ...]) -> None:
    """Put cases with the same image into the same part of each fold.

    :param given: with which the names of the cases begin that stay where they are.
    """
    moved, apart = set[str](), dict[str, str]()
    for group in groups:
        first, *others = sorted(group, key=lambda name: not name.startswith(given))
        for fold in folds:
            part, wrong = ("val", "train") if first in fold["val"] else ("train", "val")
            for other in others if first in fold[part] else ():
                if other in fold[wrong] and other.startswith(given):
                    apart[other] = first
                elif other in fold[wrong]:
                    fold[wrong].remove(other)
                    fold[part].append(other)
                    moved.add(other)
    if moved:
        what = "has the same image as another case, and is where that one is in each fold."
        if len(moved) > 1:
            what = (
                f"and {len(moved) - 1} more have the same images as other cases, and are where those are in each fold."
            )
        print(f"{min(moved)} {what}", file=sys.stderr)
    if apart:
        name, first = next(iter(apart.items()))
        more = f" (and {len(apart) - 1} more such case{'s' if len(apart) > 2 else ''})" if len(apart) > 1 else ""
        print(
            f"Warning: {name} has the same image as {first}{more}, but the {NAME} of their datasets separate them: "
            "the validation will look better than it is. Correct one of the files.",
            file=sys.stderr,
        )


def _file(source: Source) -> Path | None:
    """Return the ``splits_final.json`` of a dataset, if it has one."""
    preprocessed = os.environ.get("nnUNet_preprocessed")
    folders = [*([Path(preprocessed) / source.name] if preprocessed else []), source.folder]
    return next((folder / NAME for folder in folders if (folder / NAME).is_file()), None)


def _splits(source: Source) -> list[Split]:
    names, file = sorted(case.name for case in source.cases), _file(source)
    if len(names) == 1:
        return [{"train": names, "val": []}]
    if file is not None:
        splits = _read(file, set(names))
        left_out = sorted(set(names).difference(*(fold[part] for fold in splits for part in fold)))
        if left_out:
            more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
            sentence = (
                f"Warning: the case {left_out[0]}{more} of {source.name} is in no fold of {file}: nothing learns it."
            )
            print(sentence, file=sys.stderr)
        return splits
    from sklearn.model_selection import KFold

    folds = KFold(min(_FOLDS, len(names)), shuffle=True, random_state=12345)  # nnU-Net's seed
    return [{"train": [names[i] for i in train], "val": [names[i] for i in val]} for train, val in folds.split(names)]


def _read(file: Path, names: set[str]) -> list[Split]:
    """Read the folds of a file; cases that are not in the dataset are left out."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        splits = [{part: sorted(names & set(fold[part])) for part in ("train", "val")} for fold in content]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabelTableError(
            f"{file} cannot be read as nnU-Net's splits ({type(error).__name__}: {error}). Correct or remove it."
        ) from error
    for index, fold in enumerate(splits):
        if not fold["train"] or set(fold["train"]) & set(fold["val"]):
            fault = "has no case of the dataset for training" if not fold["train"] else "trains on validation cases"
            raise LabelTableError(f"{file}: fold {index} {fault}. Correct or remove the file.")
    if not splits:
        raise LabelTableError(f"{file} has no folds. Correct or remove it.")
    return splits
