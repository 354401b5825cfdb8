"""Read the JSON files of an nnU-Net v2 model folder, and the checkpoints of its folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ModelError, named
from .files import Files, read_json

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


def read_plans(files: Files) -> tuple[dict, dict]:
    """Return the content of ``plans.json`` and of ``dataset.json``."""
    return read_json(files, "plans.json"), read_json(files, "dataset.json")


def fold_names(files: Files, folds: tuple[int | str, ...] | None, file: str) -> tuple[str, ...]:
    """Return the names of the folds to read.

    :param folds: the requested folds. If not given, all numbered folds with this checkpoint, or else ``all``.
    :param file: name of the checkpoint.
    :raises ModelError: if a fold has no such checkpoint; the message lists the checkpoints found.
    """
    found = files.folds()
    usable = [fold for fold, names in found.items() if file in names]
    if folds is None:
        chosen = [fold for fold in usable if fold != "all"] or usable
    else:
        chosen = list(dict.fromkeys(str(fold) for fold in folds))
    missing = [f"fold_{fold}/{file}" for fold in chosen if fold not in usable]
    if chosen and not missing:
        return tuple(chosen)
    present = "; ".join(f"fold_{fold} has {', '.join(names)}" for fold, names in found.items()) or "there are no folds"
    raise ModelError(f"{files.where()}: {missing[0] if missing else file} was not found ({present[:300]}).")


def read_checkpoints(files: Files, folds: tuple[str, ...], file: str) -> list[tuple[str, Checkpoint]]:
    """Return for each fold the checkpoint with the name ``file``: its path, for messages, and its content.

    :raises ModelError: if a checkpoint cannot be used, or the folds have different configurations.
    """
    from .checkpoint import read_checkpoint

    contents = []
    for fold in folds:
        where = files.where(f"fold_{fold}/{file}")
        with files.open(f"fold_{fold}/{file}") as stream, named(where):
            contents.append((where, read_checkpoint(stream)))
    trained = {content.configuration for _, content in contents}
    if len(trained) > 1:
        raise ModelError(f"{files.where()}: the folds have different configurations: {', '.join(map(str, trained))}.")
    return contents
