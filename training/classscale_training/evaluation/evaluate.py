"""Evaluate predicted label maps: Dice by two rules and surface Dice, per class and per case.

Each file is read once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import ImageError
from ClassScaleSegLib.images.counts import overlap_counts

from ..data.merged_labels import Merged
from ..data.parallel import map_cases
from ..data.volumes import case_name, geometry_difference, label_names, labels_of, read_volume
from .labels import Region, as_labels, refuse_exchanged
from .region_counts import members, region_counts
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
    :ivar regions: the label values of each region, if regions are compared instead of labels; ``names`` then has the
        name of the first one under 1. In files, a value in no region is an error.
    """

    names: Mapping[int, str] | None = None
    ignore: int | None = None
    tolerance: float | None = 1.0
    allow_missing: bool = False
    workers: int = 0
    merged: Merged | None = None
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class CaseCounts:
    """The counts of one case. The first region takes the place of class 1.

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
    if options.regions:
        return _count_regions(reference, prediction, spacing, options)
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


def _count_regions(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], options: EvaluationOptions
) -> CaseCounts:
    counted = np.ones(reference.shape, bool) if options.ignore is None else reference != options.ignore
    regions = (0, *options.regions)  # the first column is that of the background
    voxels = region_counts(reference[counted], prediction[counted], regions)
    if options.tolerance is None:
        return CaseCounts(voxels, None)
    surface = np.zeros((2, len(regions)), np.int64)
    for number, region in enumerate(options.regions, 1):
        drawn, found = ((members(labels, region) & counted).astype(np.uint8) for labels in (reference, prediction))
        surface[:, number] = surface_counts(drawn, found, spacing, options.tolerance, 2)[:, 1]
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
    references, predictions = label_maps(reference), label_maps(prediction)
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


def label_maps(folder: Path) -> dict[str, Path]:
    """Return the label maps in a folder by the names of their cases.

    :raises ImageError: if there are none, or two of one case.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder. Give a folder of label maps.")
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
    values = options.names if options.names and not options.regions else None
    refuse_exchanged(reference_file, drawn_names, values or {}, "dataset.json")
    if prediction_file is None:
        prediction = np.zeros_like(reference)
    else:
        found = read_volume(prediction_file)
        prediction = labels_of(found, prediction_file)
        known = (values, "dataset.json") if values else (drawn_names, reference_file)
        refuse_exchanged(prediction_file, label_names(prediction_file, found), *known)
        if difference := geometry_difference(grid, found.geometry):
            raise ImageError(
                f"{reference_file} and {prediction_file} have different geometries: {difference}. "
                "Evaluate predictions on the grid of their reference."
            )
    if options.merged is not None:
        prediction = as_labels(options.merged, reference_file, prediction_file, prediction)
    for file, labels in ((reference_file, reference), (prediction_file or reference_file, prediction)):
        _refuse_unknown(file, labels, options, reference)
    return count_case(reference, prediction, grid.spacing[::-1], options)


def _refuse_unknown(file: Path, labels: np.ndarray, options: EvaluationOptions, reference: np.ndarray) -> None:
    """Refuse a label map with values that have no name, or belong to no region, where they count.

    :raises ImageError: naming the first.
    """
    known = set(options.names or ())
    if options.regions:
        known = {0, *(value for region in options.regions for value in np.atleast_1d(region).tolist())}
    elif not options.names:
        return
    occur = np.bincount(labels.ravel() if options.ignore is None else labels[reference != options.ignore])
    unknown = sorted(set(np.flatnonzero(occur).tolist()).difference(known))
    if unknown:
        among = "in no region" if options.regions else f"not among the {len(known)} labels"
        raise ImageError(f"{file} holds label {unknown[0]}, which is {among} of dataset.json.")


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
    return Evaluation(tuple(cases), names, voxels, surface, options.tolerance, missing, extra, options.regions)
