"""Hits and misses per class of a validation batch, from the basis: no logits of a whole patch, no one-hot arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from ClassScaleSegLib.models.projection import Projection

_TILE_ELEMENTS = {"cpu": 1 << 20}  # logits held at once
_TILE_ELEMENTS_ACCELERATOR = 1 << 26


def class_counts(
    basis: torch.Tensor, projection: Projection, labels: torch.Tensor, ignore: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """True positives, false positives and false negatives ``(C,)`` int64 of the class with the largest logit.

    The figures of ``nnUNetTrainer.validation_step`` for labels, from three bincounts.

    :param basis: ``(B, R, ...)``.
    :param labels: ``(B, 1, ...)`` integers.
    """
    classes = projection.classes
    common, predicted, reference = (labels.new_zeros(classes, dtype=torch.long) for _ in range(3))
    for features, truth in _tiles(basis, classes, labels, ignore):
        decision = projection.decide(features)[0]
        for counts, values in ((common, truth[decision == truth]), (predicted, decision), (reference, truth)):
            counts += torch.bincount(values, minlength=classes)
    return common, predicted - common, reference - common


def region_counts(
    basis: torch.Tensor,
    projection: Projection,
    labels: torch.Tensor,
    regions: Sequence[Sequence[int]],
    ignore: int | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same ``(K,)`` for overlapping regions: predicted where the logit is positive.

    :param regions: label values of each of the projection's K rows.
    """
    highest = max(label for region in regions for label in region)
    member = torch.zeros(len(regions), highest + 1, dtype=torch.bool, device=basis.device)
    for row, region in zip(member, regions, strict=True):
        row[list(region)] = True
    common, predicted, reference = (labels.new_zeros(len(regions), dtype=torch.long) for _ in range(3))
    for features, truth in _tiles(basis, len(regions), labels, ignore):
        positive, inside = projection.logits(features) > 0, member[:, truth]
        for counts, hits in ((common, positive & inside), (predicted, positive), (reference, inside)):
            counts += hits.sum(1)
    return common, predicted - common, reference - common


def _tiles(
    basis: torch.Tensor, rows: int, labels: torch.Tensor, ignore: int | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Features ``(n, R)`` float32 and labels ``(n,)`` int64 of the voxels that count, some thousand at a time."""
    size = max(1, _TILE_ELEMENTS.get(basis.device.type, _TILE_ELEMENTS_ACCELERATOR) // rows)
    for sample, truth in zip(basis.flatten(2), labels.flatten(1), strict=True):
        for start in range(0, len(truth), size):
            features, label = sample[:, start : start + size].T.float(), truth[start : start + size].long()
            if ignore is not None:
                counted = label != ignore
                features, label = features[counted], label[counted]
            yield features, label
