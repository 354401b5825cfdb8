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
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits

from .tiles import LabelCheck, Tiles, accumulator_dtype, blocks, check_shapes, compute_dtype


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


@torch.compiler.disable  # tracing would unroll the walk over tiles
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
    check_shapes(basis, projection, bias, labels)
    if membership.shape[1] != len(projection):
        raise ValueError(
            f"membership has {membership.shape[1]} columns, but the projection has {len(projection)} rows; expected "
            "one column and one row for each region."
        )
    arguments = basis.flatten(2), projection, bias, labels.flatten(1), membership.to(basis.device), ignore_index
    return RegionStatistics(*_RegionStatistics.apply(*arguments))


def membership_of(regions: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return ``(L, K)`` bool: whether label l belongs to region k.

    :param regions: label values of each region.
    """
    highest = max((label for region in regions for label in region), default=0)
    membership = torch.zeros(highest + 1, len(regions), dtype=torch.bool, device=device)
    for column, region in zip(membership.T, regions, strict=True):
        column[list(region)] = True
    return membership


__test__ = {"region_statistics": region_statistics}  # doctest does not look into decorated functions


class _RegionStatistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        basis: torch.Tensor,
        projection: torch.Tensor,
        bias: torch.Tensor,
        labels: torch.Tensor,
        membership: torch.Tensor,
        ignore_index: int | None,
    ) -> tuple[torch.Tensor, ...]:
        regions, dtype = len(projection), compute_dtype(basis)
        ctx.ignore_index = ignore_index
        ctx.save_for_backward(basis, projection, bias, labels, membership)
        sums = torch.zeros(4, len(basis), regions, dtype=accumulator_dtype(basis), device=basis.device)
        voxels = sums.new_zeros(())
        check = LabelCheck([len(membership)] * len(basis), "labels of these regions")
        tiles = Tiles(basis, regions)
        with torch.autocast(basis.device.type, enabled=False):
            weights = torch.cat([projection, bias[:, None]], 1).to(dtype)
            for block in blocks(basis, labels, ignore_index):
                label = check.clamped(block)
                voxels += block.weight.sum()
                for part, (logits,) in tiles(len(label)):
                    torch.mm(weights, block.features[:-1, part], out=logits)
                    target = membership[label[part]].T.to(dtype)
                    cross_entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
                    p = logits.sigmoid_()
                    for total, term in zip(sums[:, block.sample], (cross_entropy, p * target, p, target), strict=True):
                        total += term @ block.weight[part]
        check.raise_if_outside()
        results = (*sums.to(dtype), voxels.to(dtype))
        ctx.mark_non_differentiable(results[3], results[4])
        return results

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_ce: torch.Tensor,
        grad_intersection: torch.Tensor,
        grad_predicted: torch.Tensor,
        _reference: torch.Tensor,
        _voxels: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        basis, projection, bias, labels, membership = ctx.saved_tensors
        dtype = compute_dtype(basis)
        grad_basis = torch.empty_like(basis)
        tiles = Tiles(basis, len(projection))
        with torch.autocast(basis.device.type, enabled=False):
            weights = torch.cat([projection, bias[:, None]], 1).to(dtype)
            grad_weights = torch.zeros_like(weights)
            for b, where, features, label, weight in blocks(basis, labels, ctx.ignore_index):
                gradient = torch.empty_like(features[:-2])
                for part, (logits,) in tiles(len(label)):
                    p = torch.mm(weights, features[:-1, part], out=logits).sigmoid_()
                    target = membership[label[part]].T.to(dtype)
                    slope = grad_predicted[b, :, None] + grad_intersection[b, :, None] * target
                    dz = (grad_ce[b, :, None] * (p - target) + p * (1 - p) * slope).mul_(weight[part])
                    grad_weights.addmm_(dz, features[:-1, part].T)
                    gradient[:, part] = weights[:, :-1].T @ dz
                grad_basis[b, :, where] = gradient
        grad_projection, grad_bias = grad_weights[:, :-1].to(projection.dtype), grad_weights[:, -1].to(bias.dtype)
        return grad_basis, grad_projection, grad_bias, None, None, None
