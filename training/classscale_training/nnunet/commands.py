"""The commands ``plan``, ``preprocess`` and ``export`` of ``classscaleseg-train``.

Arguments and folders are those of nnU-Net's commands (``nnUNetv2_plan_and_preprocess``, ``nnUNetv2_preprocess``,
``nnUNetv2_export_model_to_zip``). nnU-Net's own functions do the work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError, ModelError

from .environment import PLANS, TRAINER, dataset_folder, preprocessed_json, require_folders

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
