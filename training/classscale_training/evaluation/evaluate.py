"""How good predicted label maps are, each read once: Dice by two rules and surface Dice, per class and per case."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import ImageError, LabelTableError

from ..data.parallel import map_cases
from ..data.volumes import case_name, geometry_difference, read_labels
from .dice import overlap_counts
from .report import Evaluation
from .surface_dice import surface_counts


@dataclass(frozen=True)
class EvaluationOptions:
    """How to compare.

    :ivar names: name of each label value; in files a value without a name is an error. If empty, any value may occur.
    :ivar ignore: value in the reference of voxels that do not count.
    :ivar tolerance: of the surface Dice, in mm; ``None`` leaves it out.
    :ivar allow_missing: a reference without prediction counts as a prediction of nothing; else it is an error.
    :ivar workers: processes.
    """

    names: Mapping[int, str] | None = None
    ignore: int | None = None
    tolerance: float | None = 1.0
    allow_missing: bool = False
    workers: int = 0


@dataclass(frozen=True)
class CaseCounts:
    """Of one case: voxels ``(3, C)`` and surface voxels ``(2, C)``, as the functions that count them return them."""

    voxels: np.ndarray
    surface: np.ndarray | None


def count_case(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], options: EvaluationOptions
) -> CaseCounts:
    """Compare two label maps (unsigned integers, one shape). ``spacing`` in mm, in the order of their axes."""
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
    """Evaluate cases given as (name, reference, prediction, spacing); arrays as for :func:`count_case`."""
    names, counts = [], []
    for name, reference, prediction, spacing in cases:
        names.append(name)
        counts.append(count_case(reference, prediction, spacing, options))
    return _collect(names, counts, options)


def evaluate(reference: Path, prediction: Path, options: EvaluationOptions = EvaluationOptions()) -> Evaluation:
    """Evaluate the label maps of folder ``prediction`` against those of the same names in folder ``reference``.

    :raises ImageError: a sentence naming the file, if a folder holds no label maps, a prediction is missing (unless
        allowed), a file cannot be read, or the geometries or labels of a case do not fit.
    """
    references, predictions = _files(reference), _files(prediction)
    missing = tuple(name for name in references if name not in predictions)
    if missing and not options.allow_missing:
        raise ImageError(
            f"{prediction} lacks {len(missing)} of {len(references)} cases, among them {missing[0]}: predict them, or "
            "pass --allow-missing to count them as predictions of nothing."
        )
    pairs = [(file, predictions.get(name)) for name, file in references.items()]
    counts = list(map_cases(functools.partial(_count_files, options), pairs, options.workers))
    extra = tuple(name for name in predictions if name not in references)
    return _collect(list(references), counts, options, missing, extra)


def names_and_ignore(dataset_json: Path) -> tuple[dict[int, str], int | None]:
    """Names by label value, and the ignored value, of nnU-Net's ``dataset.json``. No names where labels are regions.

    :raises LabelTableError: if it cannot be read.
    """
    try:
        labels = json.loads(dataset_json.read_text(encoding="utf-8"))["labels"]
        ignore = labels.pop("ignore", None)
        if any(isinstance(value, list) for value in labels.values()):
            return {}, ignore
        return {int(value): str(name) for name, value in labels.items()}, ignore
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelTableError(f"{dataset_json} cannot be read as an nnU-Net dataset.json ({error!r}).") from error


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder.")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        name = case_name(file)
        if name is None or name.startswith("."):
            continue
        if name in files:
            raise ImageError(f"{files[name]} and {file.name} are the same case twice: remove one.")
        files[name] = file
    if not files:
        raise ImageError(f"{folder} holds no label maps (.nii.gz, .nrrd, .mha ...).")
    return files


def _count_files(options: EvaluationOptions, pair: tuple[Path, Path | None]) -> CaseCounts:
    reference_file, prediction_file = pair
    reference, image = read_labels(reference_file)
    if prediction_file is None:
        prediction = np.zeros_like(reference)
    else:
        prediction, predicted_image = read_labels(prediction_file)
        difference = geometry_difference(image, predicted_image)
        if difference:
            raise ImageError(
                f"{reference_file} and {prediction_file} have different geometries: {difference}. "
                "Evaluate predictions on the grid of their reference."
            )
    counts = count_case(reference, prediction, image.GetSpacing()[::-1], options)
    _check_labels(counts.voxels[2], reference_file, options.names)
    _check_labels(counts.voxels[1], prediction_file or reference_file, options.names)
    return counts


def _check_labels(counts: np.ndarray, file: Path, names: Mapping[int, str] | None) -> None:
    """:param counts: voxels of each label value."""
    unknown = [value for value in np.flatnonzero(counts).tolist() if names and value not in names]
    if unknown:
        raise ImageError(
            f"{file} holds label {unknown[0]}, which is not among the {len(names)} labels of dataset.json."
        )


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
    surface = None if options.tolerance is None else stack([count.surface for count in counts])
    voxels = stack([count.voxels for count in counts])
    return Evaluation(tuple(cases), names, voxels, surface, options.tolerance, missing, extra)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", type=Path, help="folder of reference label maps")
    parser.add_argument("prediction", type=Path, help="folder of predicted label maps of the same names")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the tables and the plot")
    parser.add_argument(
        "--dataset-json",
        type=Path,
        help="names of the labels; default: dataset.json beside the predictions, or above the references",
    )
    parser.add_argument(
        "--tolerance", type=float, default=1.0, metavar="MM", help="of the surface Dice (default: 1 mm)"
    )
    parser.add_argument("--no-surface", action="store_true", help="leave the surface Dice out, which takes longest")
    parser.add_argument(
        "--allow-missing", action="store_true", help="count missing predictions as predictions of nothing"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes")


def run(arguments: argparse.Namespace) -> int:
    candidates = [arguments.prediction / "dataset.json", arguments.reference.parent / "dataset.json"]
    dataset_json = arguments.dataset_json or next((file for file in candidates if file.is_file()), None)
    names, ignore = names_and_ignore(dataset_json) if dataset_json else ({}, None)
    tolerance = None if arguments.no_surface else arguments.tolerance
    options = EvaluationOptions(names, ignore, tolerance, arguments.allow_missing, arguments.workers)
    evaluation = evaluate(arguments.reference, arguments.prediction, options)
    evaluation.write(arguments.output)
    print(evaluation.sentence())
    return 0
