"""The command ``classscaleseg-train evaluate``."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path

from ClassScaleSegLib.errors import OutputExistsError
from ClassScaleSegLib.files import refuse_unwritable_folder

from .evaluate import EvaluationOptions, evaluate, label_maps
from .labels import Labels, check_same, merged_of, refuse_merged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg-train evaluate``."""
    add = parser.add_argument
    add("reference", type=Path, help="folder of reference label maps")
    add("prediction", type=Path, help="folder of predicted label maps with the same names")
    add("-o", "--output", type=Path, required=True, help="folder for the tables and the plot")
    add(
        "--dataset-json",
        type=Path,
        help="file with the names of the labels (default: dataset.json in the folder of the predictions, or in the "
        "parent folder of the references)",
    )
    add("--tolerance", type=_tolerance, default=1.0, metavar="MM", help="tolerance of the surface Dice (default: 1 mm)")
    add("--no-surface", action="store_true", help="omit the surface Dice, which takes most of the time")
    add("--allow-missing", action="store_true", help="count missing predictions as if nothing had been predicted")
    add("--workers", type=int, default=0, help="number of worker processes; 0 or 1: none (default: 0)")


def _tolerance(text: str) -> float:
    tolerance = float(text)
    if not 0 <= tolerance < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a distance in mm, 0 or more")
    return tolerance


def run(arguments: argparse.Namespace) -> int:
    """Run ``classscaleseg-train evaluate`` and return its exit code.

    :raises ClassScaleError: as :func:`.evaluate` and :meth:`.Labels.of`.
    :raises OutputError: if no file can be written in the folder for the tables.
    :raises OutputExistsError: if the folder for the tables holds another ``summary.json``, such as nnU-Net's.
    """
    _refuse_foreign(arguments.output / "summary.json")
    refuse_unwritable_folder(arguments.output / "summary.json")  # now, not after hours
    candidates = [arguments.prediction / "dataset.json", arguments.reference.parent / "dataset.json"]
    dataset_json = arguments.dataset_json or next((file for file in candidates if file.is_file()), None)
    merged = merged_of(candidates[1]) if arguments.dataset_json is None else merged_of(arguments.dataset_json)
    if merged is not None and arguments.dataset_json is None:
        dataset_json = candidates[1]  # that of the predictions has no names for labels of several classes
    if dataset_json is None and any(re.match(r"d\d{3}_", name) for name in label_maps(arguments.reference)):
        sentence = "the names are those of a merged dataset, whose labels may stand for several classes"
        print(f"Warning: {sentence}. Give its dataset.json (--dataset-json).", file=sys.stderr)
    if merged is None and dataset_json is not None:
        refuse_merged(dataset_json, label_maps(arguments.reference))
    labels = Labels.of(dataset_json) if dataset_json else Labels()
    if merged is None and arguments.dataset_json is None and all(file.is_file() for file in candidates):
        check_same(candidates[0], labels, candidates[1])
    tolerance = None if arguments.no_surface else arguments.tolerance
    options = EvaluationOptions(
        labels.names, labels.ignore, tolerance, arguments.allow_missing, arguments.workers, merged, labels.regions
    )
    evaluation = evaluate(arguments.reference, arguments.prediction, options)
    evaluation.write(arguments.output)
    print(evaluation.sentence())
    return 0


def _refuse_foreign(file: Path) -> None:
    """Refuse to replace a summary that is not of an evaluation, such as that of nnU-Net's validation.

    :raises OutputExistsError: if there is such a file.
    """
    try:
        foreign = file.exists() and "rules" not in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        foreign = True
    if foreign:
        raise OutputExistsError(f"{file} exists, and is not of an evaluation. Choose another folder (-o).")
