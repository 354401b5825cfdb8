"""Per-region sums of a low-rank sigmoid head (overlapping regions), tile by tile as in :mod:`.class_statistics`.

With ``z = W f + b``, ``p = sigmoid(z)``, ``t`` = 1 where the voxel's label belongs to the region and incoming gradients
``gC = dL/d(cross_entropy)``, ``gI = dL/dI``, ``gP = dL/dP``::

    dz = m (gC (p - t) + p (1 - p) (gP + gI t))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits

from .tiles import LabelCheck, Tiles, accumulator_dtype, blocks, check_shapes, compute_dtype


class RegionStatistics(NamedTuple):
    """Sums over the valid voxels per sample and region, ``(B, K)``; ``voxels`` is their number, ``()``."""

    cross_entropy: torch.Tensor  # binary cross entropy
    intersection: torch.Tensor  # probability where the label belongs to the region
    predicted: torch.Tensor  # probability
    reference: torch.Tensor  # voxels whose label belongs to the region
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
    """Sums from which binary cross entropy and soft Dice follow.

    :param basis: ``(B, R, ...)``.
    :param projection: ``(K, R)``, one row a region.
    :param bias: ``(K,)``.
    :param labels: ``(B, ...)`` integers in ``0..L-1``, or ``ignore_index``.
    :param membership: ``(L, K)`` bool: whether label l belongs to region k.
    :raises ValueError: as :func:`.statistics.class_statistics`, or if ``membership`` has not K columns.
    """
    check_shapes(basis, projection, bias, labels)
    if membership.shape[1] != len(projection):
        raise ValueError(f"{membership.shape[1]} regions given for a projection of {len(projection)} rows.")
    arguments = basis.flatten(2), projection, bias, labels.flatten(1), membership.to(basis.device), ignore_index
    return RegionStatistics(*_RegionStatistics.apply(*arguments))


class _RegionStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, basis, projection, bias, labels, membership, ignore_index):
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
    def backward(ctx, grad_ce, grad_intersection, grad_predicted, _reference, _voxels):
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
