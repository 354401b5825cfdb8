"""The commands ``train`` and ``validate`` of ``classscaleseg-train``, with the arguments of ``nnUNetv2_train``."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.labels.table import LabelTable

from .environment import (
    PLANS,
    TRAINER,
    check_configuration,
    dataset_folder,
    make_torchvision_importable,
    preprocessed_json,
    register_trainers,
    require_folders,
)
from .optimizer_rates import RATES
from .trainers import find_trainer

if TYPE_CHECKING:
    import torch


def rate(text: str) -> float:
    """Return a learning rate, for argparse."""
    found = float(text)
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a learning rate: above 0 and at most 1")
    return found


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`train`."""
    _add_training(parser)
    parser.add_argument(
        "-num_gpus", type=int, default=1, metavar="N", help="number of GPUs, or of processes on the CPU (default: 1)"
    )
    text = "sgd, or adamw with a warm-up, for few steps from good weights (default: that of the trainer)"
    parser.add_argument("--optimizer", choices=tuple(RATES), help=text)
    text = (
        "learning rate of the first epoch, from which it falls to 0 (default: that of the trainer, or of --optimizer)"
    )
    parser.add_argument("--learning-rate", type=rate, metavar="RATE", help=text)
    parser.add_argument("--disable_checkpointing", action="store_true", help="write no checkpoints")
    parser.add_argument("--no-validation", action="store_true", help="end after the training; `validate` can follow")
    parser.add_argument(
        "-pretrained_weights",
        type=Path,
        metavar="MODEL",
        help="start from the weights of a model (a bundle, a folder, or a name such as head-mr-312), of a checkpoint "
        "of nnU-Net, or of an encoder that `pretrain` or nnssl trained; classes of the same names keep theirs",
    )
    add = parser.add_mutually_exclusive_group().add_argument
    add("--c", action="store_true", help="continue from the latest checkpoint")
    add("--val", action="store_true", help="only validate a finished training")
    add("--overwrite", action="store_true", help="begin anew, and remove what this fold has learned before")


def add_validate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`train` that apply to validation, and set the others."""
    _add_training(parser)
    parser.set_defaults(
        val=True,
        no_validation=False,
        c=False,
        overwrite=False,
        num_gpus=1,
        optimizer=None,
        learning_rate=None,
        pretrained_weights=None,
        disable_checkpointing=False,
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset_name_or_id", help="such as 300 or Dataset300_Name")
    add("configuration", help="configuration of the plans, such as 3d_fullres or 2d")
    add("fold", help="0 to 4, or all to train on all cases")
    add("-tr", default=TRAINER, metavar="TRAINER", help=f"trainer (default: {TRAINER})")
    add("-p", default=PLANS, metavar="PLANS", help=f"plans (default: {PLANS})")
    add("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="device (default: cuda)")
    add("--npz", action="store_true", help="also store the probabilities of the validation cases (at most 64 classes)")
    add("--val_best", action="store_true", help="validate checkpoint_best instead of checkpoint_final")


def train(options: argparse.Namespace) -> int:
    """Train or validate one fold as ``nnUNetv2_train`` does, by default with ClassScaleTrainer and its plans.

    With ``-num_gpus``, or started by ``torchrun``, several processes train together (:func:`.launch`).

    :param options: parsed from the arguments of :func:`add_train_arguments` or :func:`add_validate_arguments`.
    :returns: 0.
    :raises ClassScaleError: if nnU-Net's folders are not set, the dataset is not found, ``--npz`` is given with more
        than 64 classes, or a process was killed.
    :raises ModelError: if plans, configuration or pretrained weights are missing or do not fit.
    :raises OutputExistsError: if the fold has been trained, and is neither continued, validated nor overwritten.
    """
    require_folders("nnUNet_preprocessed", "nnUNet_results", writes="nnUNet_results")
    plans = preprocessed_json(options.dataset_name_or_id, f"{options.p}.json")
    check_configuration(plans, options.p, options.configuration)
    dataset = preprocessed_json(options.dataset_name_or_id, "dataset.json")
    if options.fold != "all" and not options.fold.isdecimal():
        raise ClassScaleError(f"{options.fold} is not a fold: give 0 to 4, or all.")
    if options.val_best and options.disable_checkpointing:
        raise ClassScaleError("--val_best needs a checkpoint: leave --disable_checkpointing out.")
    if options.no_validation and (options.val or options.val_best or options.npz):
        raise ClassScaleError("--val, --val_best and --npz are for the validation: leave --no-validation out.")
    if options.npz:
        _refuse_probabilities(dataset)
    register_trainers()
    make_torchvision_importable()
    from ..data.merged_labels import Merged
    from ..processes.launch import launch
    from .fold import train_fold
    from .known_classes import Rows
    from .merged_training import of_network
    from .pretrained import whole_network

    given = options.pretrained_weights
    merged = Merged.of(dataset)
    dataset = dataset if merged is None else of_network(dataset, merged)
    begun: AbstractContextManager[Path | None] = nullcontext()
    if given is not None:
        rows = Rows.of_dataset(dataset, _codes(options.dataset_name_or_id))
        begun = whole_network(given, lambda: _network(options, plans, dataset), rows)
    with begun as file:
        launch(train_fold, (options, None if file is None else str(file)), options.num_gpus, options.device)
    if os.environ.get("RANK", "0") == "0":  # under torchrun, one process tells
        print(_conclusion(options))
    return 0


def _conclusion(options: argparse.Namespace) -> str:
    """Return what the user looks for below nnU-Net's lines: where the results are, and the next command."""
    dataset = dataset_folder("nnUNet_preprocessed", options.dataset_name_or_id).name
    folder = Path(os.environ["nnUNet_results"], dataset, f"{options.tr}__{options.p}__{options.configuration}")
    fold = folder / f"fold_{options.fold}"
    if options.val:
        return f"\nThe validation is {fold / 'validation' / 'summary.json'}."
    told = f"\nFold {options.fold} has been trained: {fold}"
    if options.disable_checkpointing or not _is_exported(options.tr):
        return told
    chosen = (("-c", options.configuration, "3d_fullres"), ("-tr", options.tr, TRAINER), ("-p", options.p, PLANS))
    more = "".join(f" {option} {value}" for option, value, default in chosen if value != default)
    return f"{told}\nNext: classscaleseg-train export -d {options.dataset_name_or_id}{more} -o model.zip"


def _is_exported(trainer: str) -> bool:
    from .trainer import ClassScaleTrainer

    found: Any = find_trainer(trainer)
    return issubclass(found, ClassScaleTrainer)


def _codes(dataset: str) -> LabelTable | None:
    """Return the labels with codes of the raw dataset, as ``collect`` and ``merge`` write them; None if it has none.

    :raises LabelTableError: if they cannot be read.
    """
    name = dataset_folder("nnUNet_preprocessed", dataset).name
    file = Path(os.environ.get("nnUNet_raw") or ".", name, "labels.csv")
    return LabelTable.from_csv(file) if file.is_file() else None


def _refuse_probabilities(dataset: dict) -> None:
    from ..data.merged_labels import Merged
    from .whole_cases import MAX_CLASSES_WITH_PROBABILITIES

    if Merged.of(dataset) is not None:
        raise ClassScaleError("--npz is not possible with a merged dataset. Leave it out.")
    classes = len(dataset["labels"])
    if classes > MAX_CLASSES_WITH_PROBABILITIES:
        raise ClassScaleError(
            f"--npz would store {classes} volumes of probabilities for each case; it is allowed for at most "
            f"{MAX_CLASSES_WITH_PROBABILITIES} classes. Leave it out."
        )


def _network(options: argparse.Namespace, plans: dict, dataset: dict) -> torch.nn.Module:
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    configuration = manager.get_configuration(options.configuration)
    channels = determine_num_input_channels(manager, configuration, dataset)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    trainer: Any = find_trainer(options.tr)
    return trainer.build_network_architecture(manager, configuration, channels, heads)
