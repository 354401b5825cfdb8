"""The command ``plan`` of ``classscaleseg-train``.

Arguments and folders are those of ``nnUNetv2_plan_and_preprocess``. nnU-Net's own functions do the work.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ClassScaleSegLib.errors import ClassScaleError, ModelError
from ClassScaleSegLib.models.dataset_json import channel_names

from ..files import write_json
from ..processes.interrupts import spawned_without_interrupts
from .environment import PLANS, dataset_folder, preprocessed_json, require_folders
from .planning_arguments import add_output_arguments, count, killed, positive

if TYPE_CHECKING:
    from .plans_of_model import ModelPlans


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
    add(
        "--like",
        metavar="MODEL",
        help="plan the network, the voxel size, the patch and the normalisation of a model, to begin with its weights",
    )
    add("--rank", type=int, help="channels of the basis (default: 32, or those of the finest scale if it has fewer)")
    extractor, preprocessor = "DatasetFingerprintExtractor", "DefaultPreprocessor"
    add("-fpe", default=extractor, metavar="EXTRACTOR", help=f"fingerprint extractor (default: {extractor})")
    add(
        "-npfp",
        type=count,
        default=8,
        metavar="N",
        help="number of processes for checking the dataset and extracting its fingerprint (default: 8)",
    )
    add("--clean", action="store_true", help="extract the fingerprint again, even if it exists")
    add("--verify_dataset_integrity", action="store_true", help="also run nnU-Net's own check of the dataset")
    add("-gpu_memory_target", type=positive, metavar="GB", help="GPU memory to plan for (default: set by the planner)")
    add("-preprocessor_name", default=preprocessor, metavar="NAME", help=f"preprocessor (default: {preprocessor})")
    add(
        "-overwrite_target_spacing",
        nargs=3,
        type=positive,
        metavar="MM",
        help="voxel spacing of 3d_fullres (default: chosen by the planner)",
    )
    add(
        "-overwrite_plans_name",
        metavar="NAME",
        help=f"name of the plans file (default: set by the planner, such as {PLANS})",
    )
    add_output_arguments(parser)


def plan(options: argparse.Namespace) -> int:
    """Check every case, extract the fingerprint, and plan with the channels of the basis in place of the classes.

    :param options: parsed from the arguments of :func:`add_plan_arguments`.
    :returns: 0.
    :raises ClassScaleError: if nnU-Net's folders are not set, or a dataset is not found.
    :raises ModelError: if a class of nnU-Net is unknown, the rank is out of range, or earlier plans cannot be read.
    :raises ClassScaleError: if there are faults in the dataset, as :func:`.check_dataset` reports them.
    """
    require_folders("nnUNet_raw", "nnUNet_preprocessed", writes="nnUNet_preprocessed")
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiment_dataset

    from .corrected_json import readable_by_nnunet
    from .dataset_check import check_dataset
    from .earlier_plans import differences, fingerprint_is_old, read_earlier
    from .old_splits import replace_splits
    from .planner import find_planner
    from .stock_faults import as_sentences

    kind = find_planner(options.pl)
    model = None if options.like is None else _model_to_follow(options)
    name = options.overwrite_plans_name
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
        raise ClassScaleError(f"{name!r} cannot be the name of plans. Use letters, digits, '_', '-' and '.'.")

    def planner(*arguments: Any, **more: Any) -> Any:
        made = kind(*arguments, **more)
        made.rank = options.rank
        return made

    _check_class(options.fpe, "experiment_planning", "-fpe")
    _check_class(options.preprocessor_name, "preprocessing", "-preprocessor_name")
    bar, checked = not options.no_pbar, options.verify_dataset_integrity
    folders = {dataset: dataset_folder("nnUNet_raw", str(dataset)) for dataset in options.d}
    found = {dataset: check_dataset(folder, options.npfp, bar) for dataset, folder in folders.items()}
    if model is not None:
        for dataset, raw in found.items():
            for warning in model.warnings(channel_names(raw.content), raw.orientations):
                print(f"Warning: dataset {dataset}: {warning}.", file=sys.stderr)
    for dataset, raw in found.items():
        there = Path(os.environ["nnUNet_preprocessed"]) / folders[dataset].name
        before = read_earlier(there / f"{options.overwrite_plans_name or kind.default_plans_name}.json")
        clean = replace_splits(folders[dataset], raw.content) or options.clean or fingerprint_is_old(there, raw.cases)
        faults = as_sentences(there, killed("read", folders[dataset].name, "-npfp"))
        readable = readable_by_nnunet(folders[dataset], raw.content, raw.cases)
        with faults, readable, spawned_without_interrupts():
            extract_fingerprints([dataset], options.fpe, options.npfp, checked, clean, options.verbose, bar)
            _, name = plan_experiment_dataset(
                dataset,
                planner,
                options.gpu_memory_target,
                options.preprocessor_name,
                options.overwrite_target_spacing,
                options.overwrite_plans_name,
            )
        made = preprocessed_json(str(dataset), f"{name}.json")
        like = ""
        if model is not None:
            if dropped := model.dropped_of(made):
                sentence = (
                    f"configurations that are not derived from that of the model are left out: {', '.join(dropped)}"
                )
                print(f"Warning: dataset {dataset}: {sentence}.", file=sys.stderr)
            made = model.applied_to(made, options.rank)
            write_json(there / f"{name}.json", made)
            like = f", with the configuration {model.summary.configuration_name} of {model.summary.name}"
        changed = differences(before, made)
        if changed:
            print(f"Warning: the plans replace earlier ones. {'; '.join(changed)}.", file=sys.stderr)
        print(f"\nThe plans of dataset {dataset} are {name}{like}.")  # after nnU-Net's lines
        plans = "" if name == PLANS else f" -plans_name {name}"
        whole = "3d_fullres" if "3d_fullres" in made["configurations"] else next(iter(made["configurations"]))
        print(f"Next: classscaleseg-train preprocess -d {dataset} -c {whole}{plans}")
    return 0


def _model_to_follow(options: argparse.Namespace) -> ModelPlans:
    """Return the plans of the model that ``--like`` names.

    :raises ClassScaleError: if another argument wants what the model decides.
    :raises ModelError: if the model cannot be used.
    """
    from .plans_of_model import ModelPlans

    decided = {
        "-pl": options.pl != "ExperimentPlanner",
        "-gpu_memory_target": options.gpu_memory_target is not None,
        "-overwrite_target_spacing": options.overwrite_target_spacing is not None,
    }
    given = [name for name, value in decided.items() if value]
    if given:
        raise ClassScaleError(f"With --like, the model decides what {given[0]} would decide. Leave one of them out.")
    return ModelPlans.read(options.like)


def _check_class(name: str, package: str, option: str) -> None:
    """Check that nnU-Net has a class.

    :raises ModelError: if it is not in this package of nnU-Net.
    """
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    if recursive_find_python_class(str(Path(nnunetv2.__path__[0]) / package), name, f"nnunetv2.{package}") is None:
        raise ModelError(f"nnU-Net has no class {name} in nnunetv2.{package}: correct {option}, or leave it out.")
