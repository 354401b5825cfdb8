"""Export a training of ClassScaleTrainer as a model folder of stock nnU-Net, or as a bundle for ClassScaleSeg."""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ClassScaleSegLib import pack
from ClassScaleSegLib.errors import ModelError, OutputError, OutputExistsError, named, reason
from ClassScaleSegLib.files import refuse_existing
from ClassScaleSegLib.models.architecture import check_architecture
from ClassScaleSegLib.models.checkpoint import Checkpoint, read_checkpoint
from ClassScaleSegLib.models.low_rank import fold_low_rank_head, fold_patch_head
from ClassScaleSegLib.models.networks import RANK_ENTRY, is_primus, stock_trainer

from ..files import save_whole, write_json
from .checkpoint_check import check_labels, check_plans


def export_stock(
    folder: Path,
    output: Path,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "final",
    overwrite: bool = False,
) -> Path:
    """Write a model folder with which unmodified nnU-Net can predict.

    Its checkpoints hold the weights and what prediction needs, but not the state of the optimiser. They also work with
    ``-pretrained_weights``.

    :param folder: the training, ``Trainer__Plans__configuration`` with ``plans.json``, ``dataset.json`` and ``fold_K``.
    :param output: the folder to write.
    :param folds: folds to export; None for all that have the checkpoint.
    :param checkpoint: ``final`` or ``best``; either is written as ``checkpoint_final.pth``.
    :param overwrite: whether to replace folds that exist in ``output``.
    :returns: ``output``.
    :raises ModelError: naming the file that is missing, cannot be read, or is not from ClassScaleTrainer, or has a
        Primus that no trainer of nnU-Net builds.
    :raises OutputExistsError: if a fold exists in ``output`` and ``overwrite`` is False, or another model would remain.
    :raises OutputError: if a file cannot be written, or ``output`` is the training itself.
    """
    plans = _read_json(folder / "plans.json")
    dataset = _read_json(folder / "dataset.json")
    files = _checkpoints(folder, folds, checkpoint)
    stock_plans = _without_rank(plans)
    _check_target(folder, output, [file.parent.name for file in files], stock_plans, dataset, overwrite)
    for file in files:
        with open(file, "rb") as stream, named(file):
            content = read_checkpoint(stream)
        _check_same(file, content, plans, dataset)
        with named(f"{file}{content.origin}"):
            primus = _primus(plans, content.configuration)
            trainer = "nnUNetTrainer" if primus is None else stock_trainer(primus)
            if primus is None:
                weights = fold_low_rank_head(content.weights)
            else:
                weights = fold_patch_head(content.weights, primus["arch_kwargs"]["patch_embed_size"])
        fold = file.parent.name.removeprefix("fold_")
        stock = {
            "network_weights": weights,
            "trainer_name": trainer,
            "init_args": {"configuration": content.configuration, "fold": int(fold) if fold.isdecimal() else fold},
            "inference_allowed_mirroring_axes": content.mirror_axes or None,
        }
        target = output / file.parent.name / "checkpoint_final.pth"
        refuse_existing(target, overwrite)
        save_whole(target, functools.partial(torch.save, stock))
    write_json(output / "plans.json", stock_plans)
    write_json(output / "dataset.json", dataset)
    return output


def export_bundle(
    folder: Path, output: Path, folds: Sequence[int | str] | None = None, checkpoint: str = "final", **options: Any
) -> Path:
    """Write a bundle, the model file of ClassScaleSeg.

    :param folder: the training, as for :func:`export_stock`.
    :param output: file to write (``.zip``).
    :param folds: folds to export; None for all that have the checkpoint.
    :param checkpoint: ``final`` or ``best``.
    :param options: passed to :func:`ClassScaleSegLib.models.packing.pack`.
    :returns: the file written.
    :raises ModelError: as :func:`export_stock`.
    :raises OutputExistsError: if ``output`` exists and is not to be overwritten.
    :raises OutputError: if ``output`` cannot be written.
    """
    plans = _read_json(folder / "plans.json")
    files = _checkpoints(folder, folds, checkpoint)
    with open(files[0], "rb") as stream, named(files[0]):
        configuration = read_checkpoint(stream).configuration
    if _primus(plans, configuration) is not None:  # nnU-Net's form would have no basis
        dataset = _read_json(folder / "dataset.json")
        for file in files:
            with open(file, "rb") as stream, named(file):
                content = read_checkpoint(stream)
            _check_same(file, content, plans, dataset)
        return pack(folder, output, folds=None if folds is None else tuple(folds), checkpoint=checkpoint, **options)
    with tempfile.TemporaryDirectory() as temporary:
        stock = export_stock(folder, Path(temporary) / folder.name, folds, checkpoint)
        return pack(stock, output, **options)


def _without_rank(plans: dict) -> dict:
    plans = copy.deepcopy(plans)
    for configuration in plans.get("configurations", {}).values():
        configuration.pop(RANK_ENTRY, None)
    return plans


def _check_target(
    folder: Path, output: Path, folds: Sequence[str], plans: dict, dataset: dict, overwrite: bool
) -> None:
    """Check that a model folder is not written into its own training, and not mixed with another model.

    :param folds: names of the folders that are written.
    :raises OutputError: if ``output`` is the training.
    :raises OutputExistsError: if it holds another model.
    """
    if output.resolve() == folder.resolve():
        raise OutputError(f"{output} is the training itself, which would be lost. Choose another folder (-o).")
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        file = output / name
        if not file.exists() or _same_json(file, content):
            continue
        if not overwrite:
            raise OutputExistsError(f"{file} is of another model. Choose another folder, or replace it (--overwrite).")
        others = sorted(other.name for other in output.glob("fold_*") if other.name not in folds)
        if others:
            raise OutputExistsError(f"{output / others[0]} is of another model. Delete it, or choose another folder.")


def _same_json(file: Path, content: dict) -> bool:
    try:
        return json.loads(file.read_text(encoding="utf-8")) == content
    except (OSError, ValueError, RecursionError):
        return False


def _check_same(file: Path, content: Checkpoint, plans: dict, dataset: dict) -> None:
    """Check that a fold was trained with the plans and labels of the folder, which are those of its latest training.

    :raises ModelError: if it was not.
    """
    advice = "Train this fold again, or leave it out (-f)."
    old = content.arguments.get("dataset_json")
    check_labels(file, old.get("labels") if isinstance(old, dict) else None, dataset.get("labels", {}), advice=advice)
    check_plans(file, content.arguments, plans, dataset, advice)


def _primus(plans: dict, configuration: str | None) -> dict | None:
    """Return the checked architecture of a configuration, if it is a Primus of ClassScaleTrainer, and else None."""
    found = plans.get("configurations", {}).get(configuration)
    if not isinstance(found, dict) or "architecture" not in found or found.get(RANK_ENTRY) is None:
        return None  # a U-Net; the trainers of Primus write both entries
    architecture = found["architecture"]
    if not is_primus(architecture):
        return None
    entries = {"architecture": architecture, "patch_size": architecture["arch_kwargs"]["input_shape"]}
    check_architecture(entries)
    return entries["architecture"]


def _checkpoints(folder: Path, folds: Sequence[int | str] | None, checkpoint: str) -> list[Path]:
    name = f"checkpoint_{checkpoint}.pth"
    if folds is None:
        found = sorted(folder.glob(f"fold_*/{name}"))
        if not found:
            raise ModelError(
                f"{folder} has no fold_*/{name}: finish the training of a fold first, or name another folder."
            )
        return found
    files = [folder / f"fold_{fold}" / name for fold in folds]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ModelError(f"{missing} does not exist: finish the training of that fold first.")
    return files


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        there = sorted(folder.parent.name for folder in file.parent.parent.glob("*__*__*/plans.json"))
        more = f" There {'is' if len(there) == 1 else 'are'} {', '.join(there)}." if there else ""
        why = getattr(error, "strerror", None) or reason(error)
        raise ModelError(
            f"{file} cannot be read ({why}): name a training, Trainer__Plans__configuration, by its folder (-m) or its "
            f"parts (-tr, -p, -c).{more}"
        ) from error
