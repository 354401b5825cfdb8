"""A training of ClassScaleTrainer -> a model folder of stock nnU-Net, or our bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ClassScaleSegLib import pack
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.files import refuse_existing
from ClassScaleSegLib.models.checkpoint import read_checkpoint
from ClassScaleSegLib.models.low_rank import fold_low_rank_head

from ..files import write_json
from .checkpoints import save_whole
from .planner import RANK_ENTRY


def export_stock(
    folder: Path,
    output: Path,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "final",
    overwrite: bool = False,
) -> Path:
    """Write a model folder that unmodified nnU-Net predicts with.

    The checkpoints hold weights and what prediction needs, no state of the optimiser; ``-pretrained_weights`` takes
    them too.

    :param folder: ``Trainer__Plans__configuration`` with ``plans.json``, ``dataset.json`` and ``fold_K``.
    :param output: the folder to make.
    :param folds: all that have the checkpoint if not given.
    :param checkpoint: ``final`` or ``best``; it becomes ``checkpoint_final.pth``.
    :raises ModelError: naming the file that is missing or not from ClassScaleTrainer.
    :raises OutputExistsError: if a fold is there already.
    :raises OutputError: if it cannot be written.
    """
    plans = _read_json(folder / "plans.json")
    for configuration in plans.get("configurations", {}).values():
        configuration.pop(RANK_ENTRY, None)
    dataset = _read_json(folder / "dataset.json")
    for file in _checkpoints(folder, folds, checkpoint):
        with open(file, "rb") as stream:
            content = read_checkpoint(stream, str(file))
        try:
            weights = fold_low_rank_head(content.weights)
        except ModelError as error:
            raise ModelError(f"{file}{content.origin}: {error}") from error
        fold = file.parent.name.removeprefix("fold_")
        stock = {
            "network_weights": weights,
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": content.configuration, "fold": int(fold) if fold.isdecimal() else fold},
            "inference_allowed_mirroring_axes": content.mirror_axes or None,
        }
        target = output / file.parent.name / "checkpoint_final.pth"
        refuse_existing(target, overwrite)
        save_whole(target, lambda name, stock=stock: torch.save(stock, name))
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        write_json(output / name, content)
    return output


def export_bundle(
    folder: Path, output: Path, folds: Sequence[int | str] | None = None, checkpoint: str = "final", **options: Any
) -> Path:
    """Write our bundle (``.zip``); ``options`` are those of :func:`ClassScaleSegLib.models.packing.pack`.

    :raises ModelError, OutputExistsError, OutputError: as :func:`export_stock`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        stock = export_stock(folder, Path(temporary) / folder.name, folds, checkpoint)
        return pack(stock, output, **options)


def _checkpoints(folder: Path, folds: Sequence[int | str] | None, checkpoint: str) -> list[Path]:
    name = f"checkpoint_{checkpoint}.pth"
    if folds is None:
        found = sorted(folder.glob(f"fold_*/{name}"))
        if not found:
            raise ModelError(f"{folder} has no fold_*/{name}: finish a training first, or name another folder.")
        return found
    files = [folder / f"fold_{fold}" / name for fold in folds]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ModelError(f"{missing} does not exist: finish the training of that fold first.")
    return files


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file} cannot be read ({error}): name a model folder Trainer__Plans__configuration."
        ) from error
