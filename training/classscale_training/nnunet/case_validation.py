"""Final validation of preprocessed cases with our engine, and nnU-Net's ``summary.json`` in one pass over each case.

Stock predicts C logits a case and hands them to worker processes that resample them: tens of GiB at 1000 classes.
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
from ClassScaleSegLib.inference.memory import MemoryPlan, Placement
from ClassScaleSegLib.inference.preprocess import Prepared, resampling
from ClassScaleSegLib.inference.windows import predict_rows
from ClassScaleSegLib.models.projection import Projection

from ..evaluation.dice import overlap_counts

_TILE_ELEMENTS = {"cpu": 1 << 20}
_TILE_ELEMENTS_ACCELERATOR = 1 << 25
LabelOrRegion = int | tuple[int, ...]


@dataclass(frozen=True)
class CasePredictor:
    """A network with our head, ready for whole cases. The figures are those of ``nnUNetv2_predict``'s defaults.

    :ivar plans_manager: nnU-Net's, as is ``configuration``.
    """

    network: torch.nn.Module
    projection: Projection
    mirror_axes: Sequence[int]
    plans_manager: Any
    configuration: Any
    device: torch.device

    @torch.inference_mode()
    def __call__(self, data: np.ndarray, properties: dict) -> np.ndarray:
        """Label map ``(z, y, x)`` uint16 on the grid of the original image.

        :param data: ``(channels, X, Y, Z)`` as preprocessed.
        :param properties: as preprocessing stored them.
        """
        crop = properties["shape_after_cropping_and_before_resampling"]
        spacing = [properties["spacing"][axis] for axis in self.plans_manager.transpose_forward]
        prepared = Prepared(
            np.ascontiguousarray(data, np.float32),
            resampling(self.configuration, data.shape[1:], crop, spacing),
            tuple(properties["shape_before_cropping"]),
            tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"]),
            tuple(self.plans_manager.transpose_backward),
        )
        labels, rows = prepared.empty(np.uint16)
        device = str(self.device)
        plan = MemoryPlan([Placement(device, device), Placement(device, "cpu")])
        tile = _TILE_ELEMENTS.get(self.device.type, _TILE_ELEMENTS_ACCELERATOR)
        decoder = RowDecoder(self.projection.to(device), prepared.axes, tile_elements=tile)
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
    """The metrics that nnU-Net's ``compute_metrics`` gives each label or region, of two label maps."""
    reference, prediction = reference.ravel(), prediction.ravel()
    if ignore is not None:
        counted = reference != ignore
        reference, prediction = reference[counted], prediction[counted]
    highest = max(int(array.max(initial=0)) for array in (reference, prediction))
    if any(isinstance(entry, tuple) for entry in evaluated):
        size = highest + 1
        pairs = np.bincount(reference.astype(np.int64) * size + prediction, minlength=size**2).reshape(size, size)
        groups = [np.array([v for v in np.atleast_1d(entry) if v <= highest], int) for entry in evaluated]
        counts = [(pairs[np.ix_(g, g)].sum(), pairs[:, g].sum(), pairs[g].sum()) for g in groups]
    else:
        classes = max(highest, *evaluated) + 1
        counts = overlap_counts(reference, prediction, classes).T[list(evaluated)]
    return {entry: _metrics(*map(int, count), len(reference)) for entry, count in zip(evaluated, counts, strict=True)}


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
    """nnU-Net's ``summary.json`` of cases ``{"metrics", "reference_file", "prediction_file"}``; returns its content.

    One difference: a label that no case has is left out of ``foreground_mean`` instead of making it NaN.
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
