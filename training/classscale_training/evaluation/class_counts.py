"""Count the hits of each class in the output of a network, without logits of whole patches or one-hot arrays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ClassScaleSegLib.models.projection import Projection

from ..loss.region_statistics import membership_of

_TILE_ELEMENTS = {"cpu": 1 << 20}  # number of logits held at once
_TILE_ELEMENTS_ACCELERATOR = 1 << 26


def class_counts(
    basis: torch.Tensor,
    projection: Projection,
    labels: torch.Tensor,
    ignore: int | None = None,
    regions: Sequence[Sequence[int]] = (),
) -> torch.Tensor:
    """Count the voxels common to prediction and reference, those of the prediction, and those of the reference.

    The class with the largest logit is predicted, or each region whose logit is positive. True positives, false
    positives and false negatives, which follow, equal those of ``nnUNetTrainer.validation_step`` (nnunetv2 2.8).

    :param basis: ``(B, R, ...)``.
    :param projection: from basis to C classes or regions.
    :param labels: integers ``(B, ...)`` or ``(B, 1, ...)``, on the same device.
    :param ignore: label of the voxels to leave out; None if there is none.
    :param regions: label values of each region, in the order of the projection's rows; nothing for classes.
    :returns: ``(3, C)`` int64, as :func:`~ClassScaleSegLib.images.counts.overlap_counts` of label maps.

    >>> import torch
    >>> projection = Projection(torch.eye(3), torch.zeros(3))  # the basis is the logits
    >>> basis = torch.tensor([[[9.0, 9.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]]])  # predicts classes 0, 0, 1
    >>> class_counts(basis, projection, torch.tensor([[0, 1, 1]])).tolist()
    [[1, 1, 0], [2, 1, 0], [1, 2, 0]]
    """
    classes = projection.classes
    counts = labels.new_zeros(3, classes, dtype=torch.long)
    member = membership_of(regions, basis.device).T if regions else None
    size = max(1, _TILE_ELEMENTS.get(basis.device.type, _TILE_ELEMENTS_ACCELERATOR) // classes)
    for sample, truth in zip(basis.flatten(2), labels.flatten(1), strict=True):
        for start in range(0, len(truth), size):
            features, label = sample[:, start : start + size].T.float(), truth[start : start + size].long()
            if ignore is not None:
                counted = label != ignore
                features, label = features[counted], label[counted]
            if member is None:
                predicted = projection.decide(features).row
                found = (label[predicted == label], predicted, label)
                counts += torch.stack([torch.bincount(values, minlength=classes) for values in found])
            else:
                positive, inside = projection.logits(features) > 0, member[:, label]
                counts += torch.stack([hits.sum(1) for hits in (positive & inside, positive, inside)])
    return counts
