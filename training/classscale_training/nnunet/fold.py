"""Train and validate one fold, alone or as one of several processes."""

from __future__ import annotations

import argparse
import os
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError, OutputExistsError
from ClassScaleSegLib.files import unwritable
from torch import distributed
from torch.backends import cudnn

from ..files import PREVIOUS, alone
from ..processes.group import Rank, from_first
from .environment import make_torchvision_importable, preprocessed_json
from .new_classes import begin_new_classes
from .optimizer_rates import RATES
from .optimizers import refuse_optimizer
from .pretrained import adopt_head, is_unmirrored
from .several_processes import TrainerOfSeveral, check_batch, check_folders, share_weights
from .stock_faults import as_sentences
from .trainers import find_trainer

_RESUMED = ("final", "latest", "best")  # where --c may go on
_LEARNED = (*(f"checkpoint_{name}.pth" for name in _RESUMED), PREVIOUS)


def train_fold(rank: Rank, options: argparse.Namespace, pretrained: str | None) -> None:
    """Do what ``nnUNetv2_train`` does, by its functions, in this process.

    :param rank: this process.
    :param options: of :func:`.train`.
    :param pretrained: a checkpoint of the whole network to start from.
    :raises ModelError: if there is no such trainer, a checkpoint is missing or does not fit, the batch is smaller than
        the number of processes, or other machines do not see the same folders.
    :raises OutputExistsError: if the fold has been trained, and is neither continued, validated nor overwritten.
    :raises Busy: if another command trains the same fold.
    :raises OutputError: if results cannot be written.
    """
    with as_sentences(Path(os.environ["nnUNet_results"])):
        _train_fold(rank, options, pretrained)


def _train_fold(rank: Rank, options: argparse.Namespace, pretrained: str | None) -> None:
    make_torchvision_importable()
    if rank.number:
        os.environ.pop("nnUNet_wandb_enabled", None)  # one process reports
    fold = options.fold if options.fold == "all" else int(options.fold)
    make: Any = find_trainer(options.tr)
    plans, dataset = (preprocessed_json(options.dataset_name_or_id, f"{name}.json") for name in (options.p, "dataset"))
    plans["continue_training"] = options.c
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.cuda.amp.GradScaler")  # nnU-Net makes one before it knows the device
        trainer = make(
            plans=plans, configuration=options.configuration, fold=fold, dataset_json=dataset, device=rank.device
        )
    if options.optimizer is not None:
        refuse_optimizer(type(trainer))
        trainer.optimizer_name, trainer.initial_lr = options.optimizer, RATES[options.optimizer]
    if options.learning_rate is not None:
        trainer.initial_lr = options.learning_rate
    if isinstance(trainer, TrainerOfSeveral):
        trainer.check_preprocessed()
    if options.disable_checkpointing:
        trainer.disable_checkpointing = True
    if rank.count > 1:
        _check_device(trainer, rank, options.tr)
        check_batch(trainer.configuration_manager, rank.count)
        check_folders(trainer)
    folder = Path(trainer.output_folder)
    resume = options.c
    if resume and pretrained is not None:  # a training that has no checkpoint yet begins with these weights
        resume = from_first(lambda: any((folder / f"checkpoint_{name}.pth").exists() for name in _RESUMED))
        pretrained = None if resume else pretrained
    writes = rank.number == 0 and not options.val
    with alone(folder / ".lock", f"{folder} is being trained") if writes else nullcontext():
        _train(trainer, rank, options, resume, pretrained)


def _train(trainer: Any, rank: Rank, options: argparse.Namespace, resume: bool, pretrained: str | None) -> None:
    from nnunetv2.run.run_training import maybe_load_checkpoint

    folder = Path(trainer.output_folder)
    if not (options.c or options.val or options.overwrite):
        _refuse_trained(folder)
    if options.val and not (folder / _LEARNED[0]).is_file():
        raise ModelError(f"{folder} has no {_LEARNED[0]} to validate: train this fold, or continue it with --c.")
    maybe_load_checkpoint(trainer, resume, options.val, pretrained)
    if pretrained is not None and not options.val:
        _begin_with(trainer, rank, Path(pretrained))
    if rank.count > 1 and pretrained is not None:
        share_weights(trainer.network)
    if torch.cuda.is_available():
        cudnn.deterministic, cudnn.benchmark = False, True
    if options.overwrite and rank.number == 0:
        _remove_once_begun(trainer)
    if not options.val:
        trainer.run_training()
    if options.val_best:
        if rank.count > 1:
            distributed.barrier()  # the first process may still be writing it
        trainer.load_checkpoint(str(folder / "checkpoint_best.pth"))
    if not options.no_validation:
        trainer.perform_actual_validation(options.npz)


def _begin_with(trainer: Any, rank: Rank, pretrained: Path) -> None:
    """Load what nnU-Net does not load of pretrained weights, and say in the log what the training begins with."""
    adopted = adopt_head(trainer.network, pretrained)
    if adopted is not None:
        told, new = adopted
        trainer.print_to_log_file(told)
        plain = trainer.merged is None and not trainer.label_manager.has_regions
        if new and plain and len(trainer.configuration_manager.patch_size) == 3:
            _fit_new(trainer, rank, new)
    if getattr(trainer, "mirroring", False) and is_unmirrored(pretrained):
        trainer.print_to_log_file(
            "WARNING: The model was trained without mirroring, but this trainer mirrors images, in training and in "
            "prediction, and much of what the model knows may be lost. Trainers such as ClassScaleTrainer_NoMirroring "
            "(-tr) do not mirror."
        )


def _fit_new(trainer: Any, rank: Rank, new: list[int]) -> None:
    """Let the first process fit the rows of new classes; it gives all weights to the others."""
    tell, trainer.print_to_log_file = trainer.print_to_log_file, lambda *_, **__: None
    try:
        training, _ = trainer.do_split()  # which is logged when the training begins
    finally:
        trainer.print_to_log_file = tell
    if rank.number == 0:
        fitted, patches = begin_new_classes(trainer, new, training)
        if count := sum(row > 0 for row in new):
            tell(f"Of {count} new classes, the rows of {fitted} were fitted to {patches} patches.")
        if 0 in new and patches:
            tell(f"The network's background, with what only the model knows, was fitted to {patches} patches.")


def _refuse_trained(folder: Path) -> None:
    """Refuse to train a fold anew: nnU-Net would replace what hours have learned.

    :raises OutputExistsError: naming a checkpoint of the fold.
    """
    found = from_first(lambda: next((name for name in _LEARNED if (folder / name).exists()), None))
    if found is not None:
        state = "has been trained" if found == _LEARNED[0] else "has been trained in part"
        raise OutputExistsError(
            f"{folder} {state} ({found}). Continue with --c, validate with --val, train another fold, or begin anew "
            "with --overwrite, which removes what it has learned."
        )


def _remove_once_begun(trainer: Any) -> None:
    """Let the trainer remove what an earlier training has left, once nothing is in the way of the new one.

    These are checkpoints, which --c would take for later ones, and the summary of the validation.
    """
    begin, folder = trainer.on_train_start, Path(trainer.output_folder)

    def begun() -> None:
        begin()
        for file in (*(folder / name for name in _LEARNED), folder / "validation" / "summary.json"):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(file, error) from error

    trainer.on_train_start = begun


def _check_device(trainer: Any, rank: Rank, name: str) -> None:
    """Check that the trainer computes on the device of its process.

    :raises ModelError: if it cannot.
    """
    if trainer.device != rank.device:
        raise ModelError(
            f"{name} cannot train on {rank.device} in several processes; ClassScaleTrainer can. Use that one, or one "
            "process."
        )
