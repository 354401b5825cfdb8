"""Segment preprocessed cases for the final validation, and write nnU-Net's ``summary.json``.

nnU-Net predicts the logits of all classes for each case and passes them to worker processes that resample them: tens of
GiB at 1000 classes. Here the inference engine of ClassScaleSegLib segments a case, and the metrics of all classes are
counted in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ClassScaleSegLib.inference.backbone import Backbone
from ClassScaleSegLib.inference.decode import RowDecoder
from ClassScaleSegLib.inference.memory_plan import MemoryPlan, Placement
from ClassScaleSegLib.inference.preprocess import Prepared
from ClassScaleSegLib.inference.windows import predict_rows
from ClassScaleSegLib.models.projection import Projection

from ..evaluation.dice import overlap_counts

LabelOrRegion = int | tuple[int, ...]


@dataclass(frozen=True)
class CasePredictor:
    """Segments whole preprocessed cases, with the default settings of ``nnUNetv2_predict``.

    :ivar network: a network with a :class:`.ClassScaleHead`, in evaluation mode.
    :ivar projection: from basis to classes or regions, with their label values.
    :ivar mirror_axes: spatial axes along which to mirror.
    :ivar plans_manager: nnU-Net's manager of the plans.
    :ivar configuration: nnU-Net's manager of the configuration.
    :ivar device: device of the network.
    """

    network: torch.nn.Module
    projection: Projection
    mirror_axes: Sequence[int]
    plans_manager: Any
    configuration: Any
    device: torch.device

    @torch.inference_mode()
    def __call__(self, data: np.ndarray, properties: dict) -> np.ndarray:
        """Segment one case.

        :param data: preprocessed image ``(channels, X, Y, Z)``.
        :param properties: stored with it by nnU-Net's preprocessing.
        :returns: label map ``(z, y, x)`` uint16 on the grid of the original image.
        """
        prepared = Prepared.of_case(data, properties, self.plans_manager, self.configuration)
        labels, rows = prepared.empty(np.uint16)
        device = str(self.device)
        plan = MemoryPlan([Placement(device, device), Placement(device, "cpu")])
        decoder = RowDecoder(self.projection.to(device), prepared.axes)
        backbone = Backbone([self.network], self.mirror_axes)
        image, patch = torch.from_numpy(prepared.image), self.configuration.patch_size
        for basis in predict_rows(image, backbone, patch, plan=plan):
            decoder.push(basis)
            while row := decoder.pop():
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
        size = highest + 1
        pairs = np.bincount(reference.astype(np.int64) * size + prediction, minlength=size**2).reshape(size, size)
        groups = [np.array([v for v in np.atleast_1d(entry) if v <= highest], int) for entry in evaluated]
        counts = np.array([(pairs[np.ix_(g, g)].sum(), pairs[:, g].sum(), pairs[g].sum()) for g in groups])
    else:
        classes = max(highest, *labels) + 1
        counts = overlap_counts(reference, prediction, classes).T[labels]
    return {
        entry: _metrics(common, predicted, referred, len(reference))
        for entry, (common, predicted, referred) in zip(evaluated, counts.tolist(), strict=True)
    }


def _metrics(common: int, predicted: int, reference: int, voxels: int) -> dict[str, float]:
    union = predicted + reference - common
    return {
        "Dice": 2 * common / (predicted + reference) if union else np.nan,
        "IoU": common / union if union else np.nan,
        "FP": predicted - common,
        "TP": common,
        "FN": reference - common,
        "TN": voxels - union,
        "n_pred": predicted,
        "n_ref": reference,
    }


def write_summary(cases: list[dict], file: Path) -> dict:
    """Write nnU-Net's ``summary.json``.

    It differs from nnU-Net's in one point: a label that is in no case is left out of ``foreground_mean``, which nnU-Net
    would set to NaN.

    :param cases: of each case the entries "metrics" (from :func:`case_metrics`), "reference_file", "prediction_file".
    :param file: path to write.
    :returns: the content of the file.
    """
    from nnunetv2.evaluation.evaluate_predictions import save_summary_json

    labels, names = list(cases[0]["metrics"]), next(iter(cases[0]["metrics"].values())).keys()
    mean = {
        label: {name: _mean([case["metrics"][label][name] for case in cases]) for name in names} for label in labels
    }
    foreground = {name: _mean([mean[label][name] for label in labels]) for name in names}
    summary = {"metric_per_case": cases, "mean": mean, "foreground_mean": foreground}
    save_summary_json(summary, str(file))
    return summary


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
