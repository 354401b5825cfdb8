"""The command ``preprocess`` of ``classscaleseg-train``.

Arguments and folders are those of ``nnUNetv2_preprocess``. nnU-Net's own functions do the work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError, ModelError
from ClassScaleSegLib.labels.sides import pair_of_sides

from ..processes.interrupts import spawned_without_interrupts
from .environment import PLANS, check_configuration, dataset_folder, preprocessed_json, require_folders
from .planning_arguments import add_output_arguments, count, killed

_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}  # nnU-Net's defaults
_COPIED = (
    "channel_names",
    "modality",
    "file_ending",
    "dataset",
)  # entries of dataset.json that preprocessing uses, and labels


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
        type=count,
        metavar="N",
        help="number of processes: one number for all configurations, or one for each (default: 8 for 2d and "
        "3d_lowres, 4 for others)",
    )
    add_output_arguments(parser)


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
    from .label_files import LABEL_FILES, label_files
    from .label_index import begin_index, index_file
    from .preprocessed_folder import being_preprocessed, decided_for_images, decided_for_labels, refuse_trained_on
    from .splits import SPLITS
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
        if merged != Merged.of(preprocessed_json(str(dataset), "dataset.json")):
            raise ModelError(
                f"{folders[dataset].name} has been merged in another way since it was planned: run "
                "`classscaleseg-train plan` again."
            )
        _refuse_changed(folders[dataset], raw.content, preprocessed_json(str(dataset), "dataset.json"))
        manager, there = PlansManager(plans[dataset]), dataset_folder("nnUNet_preprocessed", str(dataset))
        places: dict[Path, dict[str, Any]] = {}
        files = label_files(raw.cases)
        for configuration in sorted(set(configurations) & set(manager.available_configurations)):
            entries = manager.get_configuration(configuration)
            images = decided_for_images(entries.configuration, manager.plans, raw.content)
            places[there / entries.data_identifier] = {
                "images": images,
                "labels": decided_for_labels(raw.content),
                LABEL_FILES: files,
            }
            refuse_trained_on(folders[dataset].name, options.plans_name, configuration)
        faults = as_sentences(there, killed("preprocessed", folders[dataset].name, "-np"))
        readable = readable_by_nnunet(folders[dataset], raw.content, raw.cases)
        with faults, being_preprocessed(places), readable, spawned_without_interrupts():
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
        done = [name for name in configurations if name in manager.available_configurations]
        if done:
            whole = "3d_fullres" if "3d_fullres" in done else done[0]
            fold = "all" if len(raw.cases) == 1 and not (there / SPLITS).exists() else "0"
            print()  # after nnU-Net's lines
            print(_next_step(dataset, options.plans_name, whole, fold, raw.content["labels"]))
    return 0


def _next_step(dataset: int, plans_name: str, configuration: str, fold: str, labels: dict[str, Any]) -> str:
    """Return the command that trains, without mirroring if left and right have different labels."""
    sides = " -tr ClassScaleTrainer_NoMirroring" if pair_of_sides(labels) is not None else ""
    plans = "" if plans_name == PLANS else f" -p {plans_name}"
    return f"Next: classscaleseg-train train {dataset} {configuration} {fold}{sides}{plans}"


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
