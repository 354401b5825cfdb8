"""Compute the per-region sums that binary cross entropy and soft Dice of overlapping regions need.

Regions may overlap, so each has a sigmoid of its own. As in :mod:`.class_statistics`, the voxels are visited tile by
tile, and the logits of all voxels are never held at once.

The backward pass, with ``z = W f + b``, ``p = sigmoid(z)``, valid mask ``m``, ``t = 1`` where the label of the voxel
belongs to the region and 0 elsewhere, and the incoming gradients ``gC = dL/d(cross_entropy)``, ``gI = dL/dI``,
``gP = dL/dP``::

    dz = m (gC (p - t) + p (1 - p) (gP + gI t))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from .autograd import Statistics, Tensors
from .tiles import Inputs, LabelCheck, Tiles, blocks


class RegionStatistics(NamedTuple):
    """Sums over the valid voxels, for each of B samples and K regions.

    The sums are float64 if the basis is float64, and float32 otherwise.

    :ivar cross_entropy: ``(B, K)``, sum of the binary cross entropy (natural logarithm).
    :ivar intersection: ``(B, K)``, probability summed over the voxels whose label belongs to the region.
    :ivar predicted: ``(B, K)``, probability summed over all valid voxels.
    :ivar reference: ``(B, K)``, number of voxels whose label belongs to the region.
    :ivar voxels: ``()``, number of valid voxels of all samples.

    Three voxels with logits of 0, so that every probability is 1/2. Region 0 has labels 1 and 2, region 1 only label 2:

    >>> import torch
    >>> membership = torch.tensor([[False, False], [True, False], [True, True]])
    >>> labels = torch.tensor([[0, 1, 2]])
    >>> stats = region_statistics(torch.zeros(1, 1, 3), torch.zeros(2, 1), torch.zeros(2), labels, membership)
    >>> stats.reference.tolist(), stats.intersection.tolist(), stats.predicted.tolist()
    ([[2.0, 1.0]], [[1.0, 0.5]], [[1.5, 1.5]])
    """

    cross_entropy: torch.Tensor
    intersection: torch.Tensor
    predicted: torch.Tensor
    reference: torch.Tensor
    voxels: torch.Tensor


def region_statistics(
    basis: torch.Tensor,
    projection: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    membership: torch.Tensor,
    ignore_index: int | None = None,
) -> RegionStatistics:
    """Return the sums from which binary cross entropy and soft Dice are computed; they are differentiable.

    :param basis: ``(B, R, ...)`` floating point, channels first.
    :param projection: ``(K, R)``, one row for each region.
    :param bias: ``(K,)``.
    :param labels: ``(B, ...)`` integers in ``0..L-1``, or equal to ``ignore_index``.
    :param membership: ``(L, K)`` bool: whether label l belongs to region k.
    :param ignore_index: label of the voxels to leave out; None if every voxel counts.
    :returns: the sums, of which ``reference`` and ``voxels`` have no gradient.
    :raises ValueError: if shapes do not fit, a label is outside its range (the message names it), labels are not
        integers, or ``membership`` does not have K columns.

    The sums equal those of all logits, which this function never holds at once:

    >>> import torch
    >>> basis, labels = torch.randn(2, 4, 30, dtype=torch.float64), torch.randint(3, (2, 30))
    >>> projection, bias = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    >>> membership = torch.tensor([[False, False], [True, False], [True, True]])
    >>> stats = region_statistics(basis, projection, bias, labels, membership)
    >>> logits, target = (projection @ basis).mT + bias, membership[labels].double()
    >>> plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    >>> torch.allclose(stats.cross_entropy, plain.sum(1))
    True
    """
    x = Inputs(basis, projection, bias, labels, ignore_index).checked()
    if membership.shape[1] != len(projection):
        raise ValueError(
            f"membership has {membership.shape[1]} columns, but the projection has {len(projection)} rows; expected "
            "one column and one row for each region."
        )
    if not torch.compiler.is_compiling():
        return RegionStatistics(*_statistics(x, membership))
    from .untraced import untraced

    return RegionStatistics(*untraced(_statistics, x, membership))


def _statistics(x: Inputs, membership: torch.Tensor) -> Tensors:
    return _Regions(membership.to(x.basis.device))(x)


def membership_of(regions: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return ``(L, K)`` bool: whether label l belongs to region k, of which ``regions`` lists the label values."""
    highest = max((label for region in regions for label in region), default=0)
    membership = torch.zeros(highest + 1, len(regions), dtype=torch.bool, device=device)
    for column, region in zip(membership.T, regions, strict=True):
        column[list(region)] = True
    return membership


class _Regions(Statistics):
    def __init__(self, membership: torch.Tensor) -> None:
        self.membership = membership

    def check(self, x: Inputs) -> LabelCheck:
        return LabelCheck([len(self.membership)] * len(x.basis), "labels of these regions")

    def sums(self, x: Inputs) -> tuple[Tensors, Tensors]:
        sums = x.zeros(4, len(x.basis), len(x.projection))
        voxels = sums.new_zeros(())
        tiles = Tiles(x, x.weights)
        for b, _, features, label, weight in blocks(x, None if x.trusted else self.check(x)):
            voxels += weight.sum()
            for part, (logits,) in tiles(features):
                target = self.membership[label[part]].T.to(x.dtype)
                cross_entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
                p = logits.sigmoid_()
                for total, term in zip(sums[:, b], (cross_entropy, p * target, p, target), strict=True):
                    total += term @ weight[part]
        return (*sums, voxels), ()

    def gradients(self, x: Inputs, saved: Tensors, *of_sums: Any) -> Tensors:
        grad_ce, grad_intersection, grad_predicted = (gradient[..., None] for gradient in of_sums[:3])
        grad_basis, weights = torch.empty_like(x.basis), x.weights
        grad_weights = torch.zeros_like(weights)
        tiles = Tiles(x, weights)
        for b, where, features, label, weight in blocks(x):
            gradient = torch.empty_like(features[:-2])
            for part, (logits,) in tiles(features):
                p = logits.sigmoid_()
                target = self.membership[label[part]].T.to(x.dtype)
                slope = grad_predicted[b] + grad_intersection[b] * target
                dz = (grad_ce[b] * (p - target) + p * (1 - p) * slope).mul_(weight[part])
                grad_weights.addmm_(dz, features[:-1, part].T)
                gradient[:, part] = weights[:, :-1].T @ dz
            grad_basis[b, :, where] = gradient
        return grad_basis, grad_weights[:, :-1], grad_weights[:, -1]
