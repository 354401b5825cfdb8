"""Evaluate predicted label maps: Dice by two rules and surface Dice, per class and per case.

Each file is read once.
"""

from __future__ import annotations

import argparse
import functools
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError, ImageError
from ClassScaleSegLib.images.counts import overlap_counts
from ClassScaleSegLib.labels.table import name_words

from ..data.dataset_json import read_dataset_json
from ..data.merged_labels import MERGED_FROM, Merged
from ..data.parallel import map_cases
from ..data.volumes import case_name, geometry_difference, label_names, labels_of, read_volume
from .report import Evaluation
from .surface_dice import surface_counts


@dataclass(frozen=True)
class EvaluationOptions:
    """How to compare label maps.

    :ivar names: name of each label value. In files, a value without a name is an error; without names, any value may
        occur.
    :ivar ignore: label of the reference voxels that do not count.
    :ivar tolerance: of the surface Dice, in mm; ``None`` omits the surface Dice.
    :ivar allow_missing: whether a case without a prediction counts as if nothing had been predicted; otherwise it is an
        error.
    :ivar workers: number of processes.
    :ivar merged: if the references belong to a merged dataset: predicted classes then count as the label under which
        the dataset of the case has them. Classes that do not occur in that dataset count as background.
    """

    names: Mapping[int, str] | None = None
    ignore: int | None = None
    tolerance: float | None = 1.0
    allow_missing: bool = False
    workers: int = 0
    merged: Merged | None = None


@dataclass(frozen=True)
class CaseCounts:
    """The counts of one case.

    :ivar voxels: ``(3, C)`` int64, see :func:`~ClassScaleSegLib.images.counts.overlap_counts`.
    :ivar surface: ``(2, C)`` int64, see :func:`~classscale_training.evaluation.surface_dice.surface_counts`; ``None``
        without surface Dice.
    """

    voxels: np.ndarray
    surface: np.ndarray | None


def count_case(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], options: EvaluationOptions
) -> CaseCounts:
    """Compare two label maps.

    :param reference: unsigned integers.
    :param prediction: unsigned integers of the same shape.
    :param spacing: mm, in the order of the axes of the arrays.
    """
    if options.ignore is not None:
        counted = reference != options.ignore
        reference, prediction = reference * counted, prediction * counted
    classes = int(max(reference.max(), prediction.max(), *(options.names or (0,)))) + 1
    voxels = overlap_counts(reference, prediction, classes)
    if options.ignore is not None:
        voxels[:, 0] -= np.count_nonzero(~counted)
    surface = None
    if options.tolerance is not None:
        surface = surface_counts(reference, prediction, spacing, options.tolerance, classes)
    return CaseCounts(voxels, surface)


def evaluate_arrays(
    cases: Iterable[tuple[str, np.ndarray, np.ndarray, Sequence[float]]],
    options: EvaluationOptions = EvaluationOptions(),
) -> Evaluation:
    """Evaluate label maps given as arrays.

    One case with two foreground classes; one voxel of class 1 was predicted as class 2:

    >>> reference, prediction = np.array([[0, 1, 1, 2]], np.uint8), np.array([[0, 1, 2, 2]], np.uint8)
    >>> result = evaluate_arrays([("case", reference, prediction, (1, 1))], EvaluationOptions(tolerance=None))
    >>> result.dice.round(3)
    array([1.   , 0.667, 0.667])
    >>> result.sentence()
    "1 case, 2 classes in the references: mean Dice 0.6667 (TotalSegmentator's rule), 0.6667 (pooled)."

    :param cases: name, reference, prediction and spacing of each case; see :func:`count_case`.
    """
    names, counts = [], []
    for name, reference, prediction, spacing in cases:
        names.append(name)
        counts.append(count_case(reference, prediction, spacing, options))
    return _collect(names, counts, options)


def evaluate(reference: Path, prediction: Path, options: EvaluationOptions = EvaluationOptions()) -> Evaluation:
    """Evaluate the label maps in folder ``prediction`` against those of the same names in folder ``reference``.

    >>> import tempfile, SimpleITK
    >>> from classscale_training.data.volumes import write_volume
    >>> labels = np.zeros((4, 4, 4), np.uint8)
    >>> labels[1:3] = 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     references, predictions = Path(folder, "references"), Path(folder, "predictions")
    ...     write_volume(SimpleITK.GetImageFromArray(labels), references / "case.nii.gz")
    ...     labels[2] = 0  # half of the voxels were missed
    ...     write_volume(SimpleITK.GetImageFromArray(labels), predictions / "case.nii.gz")
    ...     result = evaluate(references, predictions)
    >>> result.cases, round(result.mean_dice, 3)  # 2 * 16 / (16 + 32)
    (('case',), 0.667)

    :param reference: folder of the reference label maps.
    :param prediction: folder of the predicted label maps.
    :raises ImageError: if a folder holds no label maps, a prediction is missing (unless allowed), a file cannot be
        read, or the geometries or labels of a case do not fit. The message names the file.
    """
    references, predictions = _files(reference), _files(prediction)
    missing = tuple(name for name in references if name not in predictions)
    if missing and not options.allow_missing:
        raise ImageError(
            f"{prediction} lacks {len(missing)} of {len(references)} cases, among them {missing[0]}: predict them, or "
            "pass --allow-missing to count them as if nothing had been predicted."
        )
    pairs = [(file, predictions.get(name)) for name, file in references.items()]
    counts = list(map_cases(functools.partial(_count_files, options), pairs, options.workers))
    extra = tuple(name for name in predictions if name not in references)
    return _collect(list(references), counts, options, missing, extra)


def names_and_ignore(dataset_json: Path) -> tuple[dict[int, str], int | None]:
    """Read the names and the ignore label from nnU-Net's ``dataset.json``.

    :returns: the names by label value, empty if labels are regions; and the ignore label, or ``None``.
    :raises LabelTableError: if the file cannot be read.
    """
    labels = read_dataset_json(dataset_json)["labels"]
    ignore = labels.pop("ignore", None)
    if any(isinstance(value, list) for value in labels.values()):
        return {}, ignore
    return {value: str(name) for name, value in labels.items()}, ignore


def _merged(dataset_json: Path) -> Merged | None:
    return Merged.of(read_dataset_json(dataset_json)) if dataset_json.is_file() else None


def _refuse_merged(dataset_json: Path, references: Iterable[str]) -> None:
    """Refuse references of a merged dataset, whose labels the ``dataset.json`` of a network does not explain.

    :raises ClassScaleError: naming one of them.
    """
    prefixes = read_dataset_json(dataset_json).get(MERGED_FROM) or {}
    found = next((name for name in references if name.startswith(tuple(prefixes))), None)
    if found is not None:
        raise ClassScaleError(
            f"{found} belongs to a merged dataset, whose labels may stand for several classes; {dataset_json} has only "
            "the classes of the network. Give the dataset.json of the merged dataset (--dataset-json)."
        )


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder.")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        name = case_name(file)
        if name is None or name.startswith("."):
            continue
        if name in files:
            raise ImageError(f"{files[name]} and {file.name} are two files of the same case: remove one.")
        files[name] = file
    if not files:
        raise ImageError(f"{folder} holds no label maps (.nii.gz, .nrrd, .mha and others).")
    return files


def _count_files(options: EvaluationOptions, pair: tuple[Path, Path | None]) -> CaseCounts:
    reference_file, prediction_file = pair
    drawn = read_volume(reference_file)
    reference, grid = labels_of(drawn, reference_file), drawn.geometry
    drawn_names = label_names(reference_file, drawn)
    _refuse_exchanged(reference_file, drawn_names, options.names or {}, "dataset.json")
    if prediction_file is None:
        prediction = np.zeros_like(reference)
    else:
        found = read_volume(prediction_file)
        prediction = labels_of(found, prediction_file)
        known = (options.names, "dataset.json") if options.names else (drawn_names, reference_file)
        _refuse_exchanged(prediction_file, label_names(prediction_file, found), *known)
        if difference := geometry_difference(grid, found.geometry):
            raise ImageError(
                f"{reference_file} and {prediction_file} have different geometries: {difference}. "
                "Evaluate predictions on the grid of their reference."
            )
    if options.merged is not None:
        prediction = _as_labels(options.merged, reference_file, prediction_file, prediction)
    counts = count_case(reference, prediction, grid.spacing[::-1], options)
    names = options.names or range(counts.voxels.shape[1])
    for file, voxels in ((reference_file, counts.voxels[2]), (prediction_file or reference_file, counts.voxels[1])):
        unknown = [value for value in np.flatnonzero(voxels).tolist() if value not in names]
        if unknown:
            raise ImageError(
                f"{file} holds label {unknown[0]}, which is not among the {len(names)} labels of dataset.json."
            )
    return counts


def _refuse_exchanged(file: Path, own: Mapping[int, str], names: Mapping[int, str], whose: object) -> None:
    """Refuse label values that mean something else, as those drawn in Slicer or of another model may.

    :param own: names of the values by the file itself.
    :param names: those that they should have.
    :param whose: what says so.
    :raises ImageError: if a value has the name of another one.
    """
    values = {_words(name): value for value, name in names.items()}
    for value, name in own.items():
        meant = values.get(_words(name), value)
        if meant != value and _words(names.get(value, "")) != _words(name):
            raise ImageError(
                f"{file} has {name} as label {value}, {whose} as label {meant}: its label values mean something else. "
                "Write it with the values of the other."
            )


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(name_words(name)))


def _as_labels(merged: Merged, reference: Path, prediction: Path | None, classes: np.ndarray) -> np.ndarray:
    """Return the label values that predicted classes have in the dataset of a case."""
    if classes.max(initial=0) >= len(merged.names):
        raise ImageError(
            f"{prediction} holds label {classes.max()}; a network trained on the merged dataset has the classes 0 to "
            f"{len(merged.names) - 1}. Evaluate predictions of such a network."
        )
    values = merged.value_of_class[merged.dataset_of(case_name(reference) or "")]
    highest = len(merged.names) + len(merged.sets) - 1
    return np.where(values > highest, 0, values).astype(np.uint16)[classes]


def _collect(
    cases: list[str],
    counts: list[CaseCounts],
    options: EvaluationOptions,
    missing: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
) -> Evaluation:
    classes = max(count.voxels.shape[1] for count in counts)

    def stack(arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(array, ((0, 0), (0, classes - array.shape[1]))) for array in arrays])

    names = {value: f"label {value}" for value in range(classes)} | dict(options.names or {})
    surfaces = [count.surface for count in counts if count.surface is not None]
    surface = stack(surfaces) if surfaces else None  # all cases have them, or none
    voxels = stack([count.voxels for count in counts])
    return Evaluation(tuple(cases), names, voxels, surface, options.tolerance, missing, extra)


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

    :raises ClassScaleError: as :func:`evaluate` and :func:`names_and_ignore`.
    """
    candidates = [arguments.prediction / "dataset.json", arguments.reference.parent / "dataset.json"]
    dataset_json = arguments.dataset_json or next((file for file in candidates if file.is_file()), None)
    merged = _merged(candidates[1]) if arguments.dataset_json is None else _merged(arguments.dataset_json)
    if merged is not None and arguments.dataset_json is None:
        dataset_json = candidates[1]  # that of the predictions has no names for labels of several classes
    if dataset_json is None and any(re.match(r"d\d{3}_", name) for name in _files(arguments.reference)):
        sentence = "the names are those of a merged dataset, whose labels may stand for several classes"
        print(f"Warning: {sentence}. Give its dataset.json (--dataset-json).", file=sys.stderr)
    if merged is None and dataset_json is not None:
        _refuse_merged(dataset_json, _files(arguments.reference))
    names, ignore = names_and_ignore(dataset_json) if dataset_json else ({}, None)
    if merged is None and arguments.dataset_json is None and all(file.is_file() for file in candidates):
        _refuse_exchanged(candidates[0], names, names_and_ignore(candidates[1])[0], candidates[1])
    tolerance = None if arguments.no_surface else arguments.tolerance
    options = EvaluationOptions(names, ignore, tolerance, arguments.allow_missing, arguments.workers, merged)
    evaluation = evaluate(arguments.reference, arguments.prediction, options)
    evaluation.write(arguments.output)
    print(evaluation.sentence())
    return 0
