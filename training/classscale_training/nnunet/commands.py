"""The commands ``plan``, ``preprocess``, ``train``, ``validate`` and ``export`` of ``classscaleseg-train``.

Arguments and folders are those of nnU-Net's commands (``nnUNetv2_plan_and_preprocess``, ``nnUNetv2_preprocess``,
``nnUNetv2_train``, ``nnUNetv2_export_model_to_zip``). nnU-Net's own functions do the work.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ClassScaleSegLib.errors import ClassScaleError, ModelError

from .dataset_folders import check_configuration, dataset_folder, preprocessed_json
from .environment import make_torchvision_importable, register_trainers, require_folders

if TYPE_CHECKING:
    import torch

PLANS, TRAINER = "ClassScalePlans", "ClassScaleTrainer"
_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}  # nnU-Net's defaults


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`plan`."""
    add = parser.add_argument
    add("-d", nargs="+", type=int, required=True, metavar="ID", help="dataset IDs")
    add(
        "-pl",
        default="ExperimentPlanner",
        metavar="PLANNER",
        help="nnU-Net's name of the planner, such as nnUNetPlannerResEncL (default: ExperimentPlanner)",
    )
    add("--rank", type=int, help="channels of the basis (default: 32, or those of the finest scale if it has fewer)")
    extractor, preprocessor = "DatasetFingerprintExtractor", "DefaultPreprocessor"
    add("-fpe", default=extractor, metavar="EXTRACTOR", help=f"fingerprint extractor (default: {extractor})")
    add(
        "-npfp",
        type=int,
        default=8,
        metavar="N",
        help="number of processes for checking the dataset and extracting its fingerprint (default: 8)",
    )
    add("--clean", action="store_true", help="extract the fingerprint again, even if it exists")
    add("--verify_dataset_integrity", action="store_true", help="also run nnU-Net's own check of the dataset")
    add("-gpu_memory_target", type=float, metavar="GB", help="GPU memory to plan for (default: set by the planner)")
    add("-preprocessor_name", default=preprocessor, metavar="NAME", help=f"preprocessor (default: {preprocessor})")
    add(
        "-overwrite_target_spacing",
        nargs=3,
        type=float,
        metavar="MM",
        help="voxel spacing of 3d_fullres (default: chosen by the planner)",
    )
    add(
        "-overwrite_plans_name",
        metavar="NAME",
        help=f"name of the plans file (default: set by the planner, such as {PLANS})",
    )
    _add_output_arguments(parser)


def plan(options: argparse.Namespace) -> int:
    """Check every case, extract the fingerprint, and plan with the channels of the basis in place of the classes.

    :param options: parsed from the arguments of :func:`add_plan_arguments`.
    :returns: 0.
    :raises ClassScaleError: if nnU-Net's folders are not set, or a dataset is not found.
    :raises ModelError: if the planner is unknown or the rank is out of range.
    :raises ClassScaleError: if there are faults in the dataset, as :func:`.check_dataset` reports them.
    """
    require_folders("nnUNet_raw", "nnUNet_preprocessed")
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiment_dataset

    from .corrected_json import readable_by_nnunet
    from .dataset_check import check_dataset
    from .old_splits import replace_splits
    from .planner import find_planner

    kind = find_planner(options.pl)

    def planner(*arguments: Any, **more: Any) -> Any:
        made = kind(*arguments, **more)
        made.rank = options.rank
        return made

    bar, checked = not options.no_pbar, options.verify_dataset_integrity
    folders = {dataset: dataset_folder("nnUNet_raw", str(dataset)) for dataset in options.d}
    found = {dataset: check_dataset(folder, options.npfp, bar) for dataset, folder in folders.items()}
    for dataset, raw in found.items():
        clean = options.clean or replace_splits(folders[dataset], raw.content)
        with readable_by_nnunet(folders[dataset], raw.content, raw.cases):
            extract_fingerprints([dataset], options.fpe, options.npfp, checked, clean, options.verbose, bar)
            _, name = plan_experiment_dataset(
                dataset,
                planner,
                options.gpu_memory_target,
                options.preprocessor_name,
                options.overwrite_target_spacing,
                options.overwrite_plans_name,
            )
        print(f"The plans of dataset {dataset} are {name}.")
    return 0


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verbose", action="store_true", help="print details")
    parser.add_argument("--no_pbar", action="store_true", help="show no progress bar")


def add_preprocess_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`preprocess`."""
    add = parser.add_argument
    add("-d", nargs="+", type=int, required=True, metavar="ID", help="dataset IDs")
    add("-plans_name", default=PLANS, metavar="PLANS", help=f"plans (default: {PLANS})")
    add(
        "-c",
        nargs="+",
        default=list(_PROCESSES),
        metavar="CONFIGURATION",
        help=f"configurations (default: {' '.join(_PROCESSES)})",
    )
    add(
        "-np",
        nargs="+",
        type=int,
        metavar="N",
        help="number of processes: one number for all configurations, or one for each (default: 8 for 2d and "
        "3d_lowres, 4 for others)",
    )
    _add_output_arguments(parser)


def preprocess(options: argparse.Namespace) -> int:
    """Check every case of planned datasets, and preprocess them.

    :param options: parsed from the arguments of :func:`add_preprocess_arguments`.
    :returns: 0.
    :raises ClassScaleError: if nnU-Net's folders are not set, or a dataset is not found.
    :raises ModelError: if the plans are missing, or are those of a dataset that has been merged in another way since.
    :raises ClassScaleError: if there are faults in the dataset, as :func:`.check_dataset` reports them.
    """
    require_folders("nnUNet_raw", "nnUNet_preprocessed")
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from ..data.merged_labels import Merged
    from . import preprocessing
    from .corrected_json import readable_by_nnunet
    from .dataset_check import check_dataset
    from .label_index import begin_index, index_file

    plans = {dataset: preprocessed_json(str(dataset), f"{options.plans_name}.json") for dataset in options.d}
    processes = options.np or [_PROCESSES.get(configuration, 4) for configuration in options.c]
    folders = {dataset: dataset_folder("nnUNet_raw", str(dataset)) for dataset in options.d}
    bar = not options.no_pbar
    found = {dataset: check_dataset(folder, max(processes), bar) for dataset, folder in folders.items()}
    for dataset, raw in found.items():
        merged = Merged.of(raw.content)
        if merged is not None and merged != Merged.of(preprocessed_json(str(dataset), "dataset.json")):
            raise ModelError(
                f"{folders[dataset].name} has been merged in another way since it was planned: run "
                "`classscaleseg-train plan` again."
            )
        manager, there = PlansManager(plans[dataset]), dataset_folder("nnUNet_preprocessed", str(dataset))
        known = sorted(set(options.c) & set(manager.available_configurations))
        places = [there / manager.get_configuration(configuration).data_identifier for configuration in known]
        for place in places:
            index_file(place).unlink(missing_ok=True)
        with readable_by_nnunet(folders[dataset], raw.content, raw.cases):
            preprocessing.preprocess(
                [dataset],
                options.plans_name,
                options.c,
                num_processes=processes,
                verbose=options.verbose,
                show_progress_bar=bar,
            )
        if merged is not None:
            for place in places:
                begin_index(place, merged)
    return 0


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`train`."""
    add = parser.add_argument
    _add_training(parser)
    add(
        "-pretrained_weights",
        type=Path,
        metavar="MODEL",
        help="start from the weights of a checkpoint of nnU-Net, from an encoder that `pretrain` or nnssl trained, or "
        "from a model: a bundle, a folder, or a name such as head-mr-312",
    )
    add("-num_gpus", type=int, default=1, metavar="N", help="number of GPUs (default: 1)")
    add("--c", action="store_true", help="continue from the latest checkpoint")
    add("--val", action="store_true", help="only validate a finished training")
    add("--disable_checkpointing", action="store_true", help="write no checkpoints")


def train(options: argparse.Namespace) -> int:
    """Train or validate one fold as ``nnUNetv2_train`` does, by default with ClassScaleTrainer and its plans.

    :param options: parsed from the arguments of :func:`add_train_arguments` or :func:`add_validate_arguments`.
    :returns: 0.
    :raises ClassScaleError: if nnU-Net's folders are not set, the dataset is not found, or ``--npz`` is given with more
        than 64 classes.
    :raises ModelError: if plans, configuration or pretrained weights are missing or do not fit.
    """
    require_folders("nnUNet_preprocessed", "nnUNet_results")
    plans = preprocessed_json(options.dataset_name_or_id, f"{options.p}.json")
    check_configuration(plans, options.p, options.configuration)
    if options.npz:
        _refuse_probabilities(options.dataset_name_or_id)
    register_trainers()
    make_torchvision_importable()
    import torch
    from nnunetv2.run.run_training import run_training

    from .pretrained import whole_network

    # As nnUNetv2_train does: all cores when training on a CPU, one core when training on a GPU.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)) if options.device == "cpu" else 1)
    given = options.pretrained_weights
    with nullcontext() if given is None else whole_network(given, lambda: _network(options, plans)) as file:
        run_training(
            options.dataset_name_or_id,
            options.configuration,
            options.fold,
            options.tr,
            options.p,
            None if file is None else str(file),
            options.num_gpus,
            options.npz,
            options.c,
            options.val,
            options.disable_checkpointing,
            options.val_best,
            torch.device(options.device),
        )
    return 0


def add_validate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`train` that apply to validation, and set the others."""
    _add_training(parser)
    parser.set_defaults(val=True, c=False, num_gpus=1, pretrained_weights=None, disable_checkpointing=False)


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


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`export`."""
    add = parser.add_argument
    add("-d", metavar="DATASET", help="name or ID of the dataset; or give -m")
    add("-m", type=Path, metavar="FOLDER", help="folder of the training, Trainer__Plans__configuration; or give -d")
    add("-o", type=Path, required=True, metavar="PATH", help="bundle to write (.zip), or with --stock the folder")
    add("-c", default="3d_fullres", metavar="CONFIGURATION", help="configuration, with -d (default: 3d_fullres)")
    add("-tr", default=TRAINER, metavar="TRAINER", help=f"trainer, with -d (default: {TRAINER})")
    add("-p", default=PLANS, metavar="PLANS", help=f"plans, with -d (default: {PLANS})")
    add("-f", nargs="+", metavar="FOLD", help="folds (default: all that have the checkpoint)")
    add("-chk", choices=("final", "best"), default="final", help="checkpoint (default: final)")
    add("--stock", action="store_true", help="write a model folder for nnUNetv2_predict_from_modelfolder")
    add("--labels", type=Path, metavar="FILE", help="colour-table CSV with names, colours and codes (bundle only)")
    add("--card", type=Path, metavar="FILE", help="Markdown file that describes the model (bundle only)")
    add("--name", help="name of the model (bundle only)")
    add("--licence", help="licence of the weights (bundle only)")
    add("--overwrite", action="store_true", help="replace an existing bundle or folder")


def export(options: argparse.Namespace) -> int:
    """Write a finished training as a bundle, or with ``--stock`` as a model folder, and print its path.

    :param options: parsed from the arguments of :func:`add_export_arguments`.
    :returns: 0.
    :raises ClassScaleError: if the training is named neither or both ways, or is not found.
    :raises ModelError: if a file of the training is missing or not from ClassScaleTrainer.
    :raises OutputError: if the output cannot be written or exists already.
    """
    from .export import export_bundle, export_stock

    if (options.m is None) == (options.d is None):
        raise ClassScaleError(
            "Name the training either by its dataset (-d, with -c, -tr and -p) or by its folder (-m)."
        )
    folder = options.m
    if folder is None:
        require_folders("nnUNet_results")
        folder = dataset_folder("nnUNet_results", options.d) / f"{options.tr}__{options.p}__{options.c}"
    if options.stock:
        written = export_stock(folder, options.o, options.f, options.chk, options.overwrite)
    else:
        more = {name: getattr(options, name) for name in ("labels", "card", "name", "licence", "overwrite")}
        written = export_bundle(folder, options.o, options.f, options.chk, **more)
    print(written)
    return 0


def _refuse_probabilities(name_or_id: str) -> None:
    from ..data.merged_labels import Merged
    from .trainer import MAX_CLASSES_WITH_PROBABILITIES

    dataset = preprocessed_json(name_or_id, "dataset.json")
    if Merged.of(dataset) is not None:
        raise ClassScaleError("--npz is not possible with a merged dataset. Leave it out.")
    classes = len(dataset["labels"])
    if classes > MAX_CLASSES_WITH_PROBABILITIES:
        raise ClassScaleError(
            f"--npz would store {classes} volumes of probabilities for each case; it is allowed for at most "
            f"{MAX_CLASSES_WITH_PROBABILITIES} classes. Leave it out."
        )


def _network(options: argparse.Namespace, plans: dict) -> torch.nn.Module:
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from .trainer import ClassScaleTrainer

    manager = PlansManager(plans)
    configuration = manager.get_configuration(options.configuration)
    dataset = preprocessed_json(options.dataset_name_or_id, "dataset.json")
    channels = determine_num_input_channels(manager, configuration, dataset)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    return ClassScaleTrainer.build_network_architecture(manager, configuration, channels, heads)
