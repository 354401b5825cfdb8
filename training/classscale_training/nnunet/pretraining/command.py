"""The command ``classscaleseg-train pretrain``: learn an encoder from images, without labels.

classscaleseg-train pretrain -d 300 -c 3d_fullres
classscaleseg-train train 300 3d_fullres 0 -pretrained_weights .../fold_all/checkpoint_final.pth
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ClassScaleSegLib.errors import ClassScaleError

from ...files import LATEST, PREVIOUS, alone
from ..environment import (
    PLANS,
    check_configuration,
    dataset_folder,
    make_torchvision_importable,
    preprocessed_json,
    require_folders,
)
from ..stock_faults import as_sentences
from .options import RATES, PretrainingOptions

if TYPE_CHECKING:
    from ...processes.group import Rank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`run`."""
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="name or ID of a preprocessed dataset")
    add(
        "-c",
        dest="configuration",
        default="3d_fullres",
        metavar="CONFIGURATION",
        help="configuration of the plans (default: 3d_fullres)",
    )
    add("-p", default=PLANS, metavar="PLANS", help=f"plans (default: {PLANS})")
    add("-f", default="all", metavar="FOLD", help="use the training cases of this fold alone (default: all cases)")
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="also use the images in this folder, which need no labels; they are named as in imagesTr",
    )
    add(
        "--epochs",
        type=int,
        default=PretrainingOptions.epochs,
        help=f"number of epochs (default: {PretrainingOptions.epochs})",
    )
    add(
        "--steps",
        type=int,
        default=PretrainingOptions.steps,
        help=f"steps of an epoch (default: {PretrainingOptions.steps})",
    )
    add(
        "--optimizer",
        choices=tuple(RATES),
        default=PretrainingOptions.optimizer,
        help="nnssl's (sgd, the default), or one that learns faster in a short pretraining",
    )
    rates = ", ".join(f"{rate} for {name}" for name, rate in RATES.items())
    add("--learning-rate", type=float, metavar="RATE", help=f"learning rate at the beginning (default: {rates})")
    add(
        "--mask-ratio",
        type=float,
        default=PretrainingOptions.mask_ratio,
        metavar="SHARE",
        help=f"share of the blocks that are hidden (default: {PretrainingOptions.mask_ratio})",
    )
    add("--block", type=int, metavar="VOXELS", help="side of a block (default: a voxel of the bottleneck)")
    add("--sparse", action="store_true", help="let the encoder compute with visible voxels alone")
    add("--seed", type=int, default=PretrainingOptions.seed, help="of the weights, patches and blocks (default: 0)")
    add("-np", type=int, default=4, metavar="N", help="processes that preprocess --images (default: 4)")
    add("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="device (default: cuda)")
    add("-num_gpus", type=int, default=1, metavar="N", help="number of GPUs, or of processes on the CPU (default: 1)")
    add("--c", dest="resume", action="store_true", help="continue from the latest checkpoint")


def run(options: argparse.Namespace) -> int:
    """Pretrain, in several processes with ``-num_gpus`` or under ``torchrun``, and print the path of the checkpoint.

    :param options: parsed from the arguments of :func:`add_arguments`.
    :returns: 0.
    :raises ClassScaleError: if nnU-Net's folders are not set, the dataset or images are not found, a number is out of
        range, or the folder already holds a pretraining.
    :raises ModelError: if plans or configuration are missing, or the network cannot be pretrained.
    """
    if options.learning_rate is None:
        options.learning_rate = RATES[options.optimizer]
    _check(options)
    require_folders("nnUNet_preprocessed", "nnUNet_results", writes="nnUNet_results")
    if "WORLD_SIZE" not in os.environ:  # not under torchrun
        _check_before_launch(options)
    from ...processes.launch import launch

    launch(pretrain, (options,), options.num_gpus, options.device)
    return 0


def _check_before_launch(options: argparse.Namespace) -> None:
    """Do here what each of several processes would begin with: a refusal comes sooner, and none waits for another."""
    plans, dataset = (preprocessed_json(options.d, name) for name in (f"{options.p}.json", "dataset.json"))
    check_configuration(plans, options.p, options.configuration)
    if options.num_gpus > 1:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from ..several_processes import check_batch

        check_batch(PlansManager(plans).get_configuration(options.configuration), options.num_gpus)
    if options.images is not None:  # the processes would wait for the first one, but not for ever
        _unlabelled(options, plans, dataset)


def _check(options: argparse.Namespace) -> None:
    faults = {
        "--epochs must be 1 or more": options.epochs < 1,
        "--steps must be 1 or more": options.steps < 1,
        "--mask-ratio must be between 0 and 1": not 0 < options.mask_ratio < 1,
        "--learning-rate must be above 0": not options.learning_rate > 0,
        "--block must be 1 or more": options.block is not None and options.block < 1,
        "--seed must be 0 or more": options.seed < 0,
        "-f must be all or the number of a fold": options.f != "all" and not options.f.isdecimal(),
    }
    for sentence, wrong in faults.items():
        if wrong:
            raise ClassScaleError(f"{sentence}. Correct it.")


def pretrain(rank: Rank, options: argparse.Namespace) -> None:
    """Pretrain in this process, one of those that pretrain together.

    :param options: of :func:`run`, which says what is raised.
    """
    with as_sentences(Path(os.environ["nnUNet_results"])):
        _pretrain(rank, options)


def _pretrain(rank: Rank, options: argparse.Namespace) -> None:
    make_torchvision_importable()
    from ...processes.group import from_first
    from ..several_processes import check_batch, check_folders
    from .pretrainer import ClassScalePretrainer

    plans, dataset = (preprocessed_json(options.d, name) for name in (f"{options.p}.json", "dataset.json"))
    check_configuration(plans, options.p, options.configuration)
    more = {} if options.images is None else from_first(lambda: _unlabelled(options, plans, dataset))
    if rank.number:
        os.environ.pop("nnUNet_wandb_enabled", None)  # one process reports
    plans["continue_training"] = options.resume
    fold = options.f if options.f == "all" else int(options.f)
    trainer = ClassScalePretrainer(plans, options.configuration, fold, dataset, rank.device)
    trainer.options = PretrainingOptions(
        **{field.name: getattr(options, field.name) for field in fields(PretrainingOptions)}
    )
    trainer.more_cases = more
    trainer.check_preprocessed()
    check_batch(trainer.configuration_manager, rank.count)
    if rank.count > 1:
        check_folders(trainer)
    folder = Path(trainer.output_folder)
    final = folder / "checkpoint_final.pth"
    names = (final, folder / LATEST, folder / PREVIOUS)
    found = from_first(lambda: next((file for file in names if file.exists()), None))
    if found is not None and not options.resume:
        raise ClassScaleError(f"{found} exists: continue with --c, or move the old pretraining away.")
    with alone(folder / ".lock", f"{folder} is being trained") if rank.number == 0 else nullcontext():
        if found is not None:
            trainer.load_checkpoint(str(found))
        if found != final:
            trainer.run_training()
            trainer.perform_actual_validation()
    if rank.number == 0:
        print(f"The pretrained encoder is {final}.")


def _unlabelled(options: argparse.Namespace, plans: dict, dataset: dict) -> dict[str, tuple[Any, str]]:
    """Preprocess the images without labels, and return them by names that no labelled case has."""
    from .unlabelled import preprocess_unlabelled

    place = dataset_folder("nnUNet_preprocessed", options.d) / f"{options.p}_{options.configuration}_unlabelled"
    found = preprocess_unlabelled(options.images, place, plans, options.configuration, dataset, options.np)
    return {f"unlabelled/{name}": (source, name) for name, source in found.items()}
