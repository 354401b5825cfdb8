"""The commands ``plan`` and ``preprocess`` of ``classscaleseg-train``.

Arguments and folders are those of nnU-Net's commands (``nnUNetv2_plan_and_preprocess``, ``nnUNetv2_preprocess``).
nnU-Net's own functions do the work.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError, ModelError

from .environment import PLANS, check_configuration, dataset_folder, preprocessed_json, require_folders

_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}  # nnU-Net's defaults
_COPIED = (
    "channel_names",
    "modality",
    "file_ending",
    "dataset",
)  # entries of dataset.json that preprocessing uses, and labels


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
        type=_count,
        default=8,
        metavar="N",
        help="number of processes for checking the dataset and extracting its fingerprint (default: 8)",
    )
    add("--clean", action="store_true", help="extract the fingerprint again, even if it exists")
    add("--verify_dataset_integrity", action="store_true", help="also run nnU-Net's own check of the dataset")
    add("-gpu_memory_target", type=_positive, metavar="GB", help="GPU memory to plan for (default: set by the planner)")
    add("-preprocessor_name", default=preprocessor, metavar="NAME", help=f"preprocessor (default: {preprocessor})")
    add(
        "-overwrite_target_spacing",
        nargs=3,
        type=_positive,
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
    for dataset, raw in found.items():
        there = Path(os.environ["nnUNet_preprocessed"]) / folders[dataset].name
        before = read_earlier(there / f"{options.overwrite_plans_name or kind.default_plans_name}.json")
        clean = replace_splits(folders[dataset], raw.content) or options.clean or fingerprint_is_old(there, raw.cases)
        faults = as_sentences(there, _killed("read", folders[dataset].name, "-npfp"))
        with faults, readable_by_nnunet(folders[dataset], raw.content, raw.cases):
            extract_fingerprints([dataset], options.fpe, options.npfp, checked, clean, options.verbose, bar)
            _, name = plan_experiment_dataset(
                dataset,
                planner,
                options.gpu_memory_target,
                options.preprocessor_name,
                options.overwrite_target_spacing,
                options.overwrite_plans_name,
            )
        changed = differences(before, preprocessed_json(str(dataset), f"{name}.json"))
        if changed:
            print(f"Warning: the plans replace earlier ones. {'; '.join(changed)}.", file=sys.stderr)
        print(f"The plans of dataset {dataset} are {name}.")
    return 0


def _check_class(name: str, package: str, option: str) -> None:
    """Check that nnU-Net has a class.

    :raises ModelError: if it is not in this package of nnU-Net.
    """
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    if recursive_find_python_class(str(Path(nnunetv2.__path__[0]) / package), name, f"nnunetv2.{package}") is None:
        raise ModelError(f"nnU-Net has no class {name} in nnunetv2.{package}: correct {option}, or leave it out.")


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
        metavar="CONFIGURATION",
        help=f"configurations (default: those of {' '.join(_PROCESSES)} that the plans have)",
    )
    add(
        "-np",
        nargs="+",
        type=_count,
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
    :raises ModelError: if plans or a configuration are missing, or the dataset has changed since it was planned.
    :raises ClassScaleError: if there are faults in the dataset, as :func:`.check_dataset` reports them.
    :raises Busy: if another process preprocesses the same, or trains on it.
    """
    require_folders("nnUNet_raw", "nnUNet_preprocessed", writes="nnUNet_preprocessed")
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from ..data.merged_labels import Merged
    from . import preprocessing
    from .corrected_json import readable_by_nnunet
    from .dataset_check import check_dataset
    from .label_index import begin_index, index_file
    from .preprocessed_folder import being_preprocessed, decided_for_images, decided_for_labels, refuse_trained_on
    from .stock_faults import as_sentences

    plans = {dataset: preprocessed_json(str(dataset), f"{options.plans_name}.json") for dataset in options.d}
    for content in plans.values() if options.c else ():
        for configuration in options.c:
            check_configuration(content, options.plans_name, configuration)
    configurations = options.c or list(_PROCESSES)
    processes = options.np or [_PROCESSES.get(configuration, 4) for configuration in configurations]
    if len(processes) not in (1, len(configurations)):
        raise ClassScaleError(
            f"-np has {len(processes)} numbers for {len(configurations)} configurations. Give one number, or one for "
            "each."
        )
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
        _refuse_changed(folders[dataset], raw.content, preprocessed_json(str(dataset), "dataset.json"))
        manager, there = PlansManager(plans[dataset]), dataset_folder("nnUNet_preprocessed", str(dataset))
        places: dict[Path, dict[str, Any]] = {}
        for configuration in sorted(set(configurations) & set(manager.available_configurations)):
            entries = manager.get_configuration(configuration)
            images = decided_for_images(entries.configuration, manager.plans, raw.content)
            places[there / entries.data_identifier] = {"images": images, "labels": decided_for_labels(raw.content)}
            refuse_trained_on(folders[dataset].name, options.plans_name, configuration)
        faults = as_sentences(there, _killed("preprocessed", folders[dataset].name, "-np"))
        with faults, being_preprocessed(places), readable_by_nnunet(folders[dataset], raw.content, raw.cases):
            for place in places:
                index_file(place).unlink(missing_ok=True)
            preprocessing.preprocess(
                [dataset],
                options.plans_name,
                configurations,
                num_processes=processes,
                verbose=options.verbose,
                show_progress_bar=bar,
            )
            if merged is not None:
                for place in places:
                    begin_index(place, merged)
    return 0


def _refuse_changed(folder: Path, raw: dict, planned: dict) -> None:
    """Refuse a raw dataset that is not the one that was planned.

    :param raw: content of its ``dataset.json``.
    :param planned: the copy that planning has made, from which preprocessing and training take labels and channels.
    :raises ModelError: naming what has changed.
    """
    from ..data.dataset_json import with_numbers
    from .preprocessed_folder import decided_for_labels

    now, then = (
        {**{key: content.get(key) for key in _COPIED}, **decided_for_labels(content)}
        for content in (raw, with_numbers(planned))
    )
    changed = next((key for key in now if now[key] != then[key]), None)
    if changed is not None:
        raise ModelError(
            f"{folder / 'dataset.json'} has another entry {changed} than when it was planned. Run `classscaleseg-train "
            "plan` again."
        )


def _killed(did: str, dataset: str, option: str) -> str:
    return (
        f"A process that {did} cases of {dataset} was killed, most likely because memory ran out. Run the command "
        f"again with fewer processes ({option})."
    )


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} processes: give 1 or more")
    return number
