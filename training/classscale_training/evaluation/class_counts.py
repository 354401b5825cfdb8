"""Count the hits and misses of each class in a validation batch, without logits of whole patches or one-hot arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from ClassScaleSegLib.models.projection import Projection

from ..loss.region_statistics import membership_of

_TILE_ELEMENTS = {"cpu": 1 << 20}  # number of logits held at once
_TILE_ELEMENTS_ACCELERATOR = 1 << 26


def class_counts(
    basis: torch.Tensor, projection: Projection, labels: torch.Tensor, ignore: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count true positives, false positives and false negatives where the class with the largest logit is predicted.

    The counts equal those of ``nnUNetTrainer.validation_step`` (nnunetv2 2.8). They come from three bincounts.

    :param basis: ``(B, R, ...)``.
    :param projection: from basis to C classes.
    :param labels: ``(B, 1, ...)`` integers.
    :param ignore: label of the voxels to leave out; None if there is none.
    :returns: the three counts, each ``(C,)`` int64.

    >>> import torch
    >>> projection = Projection(torch.eye(3), torch.zeros(3))  # the basis is the logits
    >>> basis = torch.tensor([[[9.0, 9.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]]])  # predicts classes 0, 0, 1
    >>> [counts.tolist() for counts in class_counts(basis, projection, torch.tensor([[[0, 1, 1]]]), ignore=None)]
    [[1, 1, 0], [1, 0, 0], [0, 1, 0]]
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
    """Count true positives, false positives and false negatives of regions, predicted where their logit is positive.

    :param basis: ``(B, R, ...)``.
    :param projection: from basis to K regions.
    :param labels: ``(B, 1, ...)`` integers.
    :param regions: label values of each region, in the order of the projection's rows.
    :param ignore: label of the voxels to leave out; None if there is none.
    :returns: the three counts, each ``(K,)`` int64.
    """
    member = membership_of(regions, basis.device).T
    common, predicted, reference = (labels.new_zeros(len(regions), dtype=torch.long) for _ in range(3))
    for features, truth in _tiles(basis, len(regions), labels, ignore):
        positive, inside = projection.logits(features) > 0, member[:, truth]
        for counts, hits in ((common, positive & inside), (predicted, positive), (reference, inside)):
            counts += hits.sum(1)
    return common, predicted - common, reference - common


def _tiles(
    basis: torch.Tensor, rows: int, labels: torch.Tensor, ignore: int | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield features ``(n, R)`` float32 and labels ``(n,)`` int64 of voxels that are not ignored, tile by tile."""
    size = max(1, _TILE_ELEMENTS.get(basis.device.type, _TILE_ELEMENTS_ACCELERATOR) // rows)
    for sample, truth in zip(basis.flatten(2), labels.flatten(1), strict=True):
        for start in range(0, len(truth), size):
            features, label = sample[:, start : start + size].T.float(), truth[start : start + size].long()
            if ignore is not None:
                counted = label != ignore
                features, label = features[counted], label[counted]
            yield features, label
