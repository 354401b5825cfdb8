"""Segment preprocessed cases for the final validation, and write nnU-Net's ``summary.json``.

nnU-Net predicts the logits of all classes for each case and passes them to worker processes that resample them: tens of
GiB at 1000 classes. Here the inference engine of ClassScaleSegLib segments a case, and the metrics of all classes are
counted in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ClassScaleSegLib.images.counts import dice, overlap_counts, ratio
from ClassScaleSegLib.inference.backbone import Backbone
from ClassScaleSegLib.inference.label_map import decoded_rows
from ClassScaleSegLib.inference.memory_plan import MemoryPlan, Placement
from ClassScaleSegLib.inference.preprocess import prepared_case
from ClassScaleSegLib.models.projection import Projection

from ..data.merged_labels import Merged
from ..evaluation.dice import mean_of_known
from ..evaluation.region_counts import region_counts

LabelOrRegion = int | tuple[int, ...]
METRICS = ("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref")  # of each label in nnU-Net's summary.json


@torch.inference_mode()
def segment_case(
    data: np.ndarray,
    properties: dict,
    managers: tuple[Any, Any],
    backbone: Backbone,
    projection: Projection,
    device: torch.device,
) -> np.ndarray:
    """Segment a preprocessed case, with the default settings of ``nnUNetv2_predict``.

    :param data: preprocessed image ``(channels, X, Y, Z)``.
    :param properties: stored with it by nnU-Net's preprocessing.
    :param managers: nnU-Net's managers of the plans and of the configuration.
    :param backbone: a network with a :class:`.ClassScaleHead`, in evaluation mode.
    :param projection: from basis to classes or regions, with their label values.
    :param device: where to compute.
    :returns: label map ``(z, y, x)`` uint16 on the grid of the original image.
    """
    prepared = prepared_case(data, properties, *managers)
    labels, rows = prepared.empty(np.uint16)
    plan = MemoryPlan([Placement(str(device), str(device)), Placement(str(device), "cpu")])
    for row in decoded_rows(prepared, backbone, managers[1].patch_size, projection, plan):
        rows[row.index] = row.labels.cpu().numpy()
    return labels


def case_metrics(
    reference: np.ndarray, prediction: np.ndarray, evaluated: Sequence[LabelOrRegion], ignore: int | None
) -> dict[LabelOrRegion, dict[str, float]]:
    """Return the metrics that nnU-Net's ``compute_metrics`` computes for each label or region of a case.

    :param reference: label map; any integer dtype and shape.
    :param prediction: label map of the same shape.
    :param evaluated: label values, and regions as tuples of label values.
    :param ignore: label in ``reference`` of the voxels to leave out; None if there is none.
    :returns: the metrics of each entry of ``evaluated``, by their names in ``summary.json``.

    >>> import numpy as np
    >>> metrics = case_metrics(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), [1, 2, (1, 2)], ignore=None)
    >>> round(metrics[1]["Dice"], 3), round(metrics[2]["Dice"], 3), metrics[1, 2]["Dice"]
    (0.667, 0.667, 1.0)
    """
    reference, prediction = reference.ravel(), prediction.ravel()
    if ignore is not None:
        counted = reference != ignore
        reference, prediction = reference[counted], prediction[counted]
    highest = max(int(array.max(initial=0)) for array in (reference, prediction))
    labels = [entry for entry in evaluated if isinstance(entry, int)]
    if len(labels) < len(evaluated):  # some are regions
        counts = region_counts(reference, prediction, evaluated).T
    else:
        classes = max([highest, *labels]) + 1
        counts = overlap_counts(reference, prediction, classes).T[np.array(labels, int)]
    common, predicted, referred = counts.T
    union = predicted + referred - common
    false, missed = predicted - common, referred - common
    columns = dice(counts.T), ratio(common, union), false, common, missed, len(reference) - union, predicted, referred
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {entry: dict(zip(METRICS, row, strict=True)) for entry, row in zip(evaluated, rows, strict=True)}


def merged_case_metrics(
    merged: Merged, case: str, reference: np.ndarray, prediction: np.ndarray
) -> dict[LabelOrRegion, dict[str, float]]:
    """Return the metrics of a case of a merged dataset, for the labels that its own dataset has.

    :param case: its name.
    :param reference: its label map, in the label values of the merged dataset.
    :param prediction: label map of classes, of the same shape.
    """
    index = merged.dataset_of(case)
    evaluated = [value for value in merged.datasets[index].labels if value]
    values = merged.value_of_class[index].astype(np.uint16)  # of every voxel, so as small as possible
    return case_metrics(reference, values[prediction], evaluated, merged.ignore)


def dice_by_dataset(merged: Merged, cases: Sequence[dict]) -> dict[str, float]:
    """Return the mean Dice of the cases of each dataset of a merged one, over the labels that occur in them.

    :param cases: as for :func:`write_summary`.
    :returns: by the name of the dataset; those without cases are left out.
    """
    found = {}
    for index, source in enumerate(merged.datasets):
        own = [case["metrics"] for case in cases if merged.dataset_of(Path(case["reference_file"]).name) == index]
        if own and own[0]:
            found[source.name] = mean_of_known(
                [mean_of_known([case[label]["Dice"] for case in own]) for label in own[0]]
            )
    return found


def write_summary(cases: list[dict], file: Path) -> dict:
    """Write nnU-Net's ``summary.json``.

    It differs from nnU-Net's in two points. A label that is in no case is left out of ``foreground_mean``, where
    nnU-Net would write NaN. Cases may have different labels; means are over the cases that have the label.

    :param cases: of each case the entries "metrics" (from :func:`case_metrics`), "reference_file", "prediction_file".
    :param file: path to write.
    :returns: the content of the file.
    """
    from nnunetv2.evaluation.evaluate_predictions import save_summary_json

    labels = list(dict.fromkeys(label for case in cases for label in case["metrics"]))
    rows = {label: [case["metrics"][label] for case in cases if label in case["metrics"]] for label in labels}
    mean = {label: {name: mean_of_known([row[name] for row in rows[label]]) for name in METRICS} for label in labels}
    foreground = {name: mean_of_known([mean[label][name] for label in labels]) for name in METRICS}
    summary = {"metric_per_case": cases, "mean": mean, "foreground_mean": foreground}
    save_summary_json(summary, str(file))
    return summary
