"""Count the hits of each class in the output of a network, without logits of whole patches or one-hot arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    for sample, truth in zip(basis, labels, strict=True):
        for features, label in _tiles(sample, truth, classes, ignore):
            if member is None:
                counts += _overlaps(projection.decide(features).row, label, classes)
            else:
                positive, inside = projection.logits(features) > 0, member[:, label]
                counts += torch.stack([hits.sum(1) for hits in (positive & inside, positive, inside)])
    return counts


def label_counts(
    basis: torch.Tensor,
    projection: Projection,
    labels: torch.Tensor,
    label_sets: torch.Tensor,
    ignore: int | None = None,
) -> torch.Tensor:
    """Count as :func:`class_counts` does, for labels that stand for sets of classes, each sample by itself.

    :param basis: ``(B, R, ...)``.
    :param projection: from basis to C classes.
    :param labels: integers ``(B, ...)`` or ``(B, 1, ...)``, on the same device.
    :param label_sets: ``(B, C)`` integers, the label under which each sample annotates each class.
    :param ignore: label of the voxels to leave out; None if there is none.
    :returns: ``(3, B, L)`` int64, with L labels.

    The sample annotates the classes 1 and 2 as label 1:

    >>> import torch
    >>> projection = Projection(torch.eye(3), torch.zeros(3))  # the basis is the logits
    >>> basis = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]])  # predicts classes 0, 1, 2
    >>> label_counts(basis, projection, torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 1]])).tolist()
    [[[1, 2]], [[1, 2]], [[1, 2]]]
    """
    number = int(label_sets.max()) + 1
    counts = labels.new_zeros(3, len(labels), number, dtype=torch.long)
    for index, (sample, truth, label_of_class) in enumerate(zip(basis, labels, label_sets, strict=True)):
        for features, label in _tiles(sample, truth, projection.classes, ignore):
            counts[:, index] += _overlaps(label_of_class[projection.decide(features).row], label, number)
    return counts


def _tiles(
    sample: torch.Tensor, truth: torch.Tensor, classes: int, ignore: int | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield features ``(n, R)`` float32 and labels ``(n,)`` of the voxels that count."""
    sample, truth = sample.flatten(1), truth.flatten()
    size = max(1, _TILE_ELEMENTS.get(sample.device.type, _TILE_ELEMENTS_ACCELERATOR) // classes)
    for start in range(0, len(truth), size):
        features, label = sample[:, start : start + size].T.float(), truth[start : start + size].long()
        if ignore is not None:
            counted = label != ignore
            features, label = features[counted], label[counted]
        yield features, label


def _overlaps(predicted: torch.Tensor, reference: torch.Tensor, labels: int) -> torch.Tensor:
    found = (reference[predicted == reference], predicted, reference)
    return torch.stack([torch.bincount(values, minlength=labels) for values in found])
