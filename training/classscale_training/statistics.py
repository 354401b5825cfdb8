"""Per-class sums of a low-rank segmentation head, computed without ever holding all logits.

Cross entropy and soft Dice need only a handful of sums over voxels. :func:`class_statistics` returns those sums and is
differentiable: it walks over tiles of voxels (all classes of a tile at once, so that a tile stays in cache), keeps only
the log-sum-exp of every voxel, and recomputes the tile in the backward pass. Memory beyond the gradient of the basis
does not depend on the number of classes. The loss formula itself is ordinary autograd on arrays of shape (B, C).

With ``z = W f + b``, ``p = softmax(z)``, label ``y``, valid mask ``m`` and incoming gradients ``lam = dL/d(ce_y)``,
``gI = dL/dI``, ``gP = dL/dP``, ``gE = dL/d(log_sum_exp)``::

    s_v   = sum_k p_kv gP_k + gI_y q_v
    dz_cv = m_v (p_cv (gP_c + lam + gE - s_v) + r_cv (gI_y q_v - lam))

``q_v`` is the probability of the label and ``r_cv`` the share of class c in it: ``q = p_y`` and ``r`` one-hot for
ordinary labels. With label sets a label stands for a set S of classes; then ``q = sum_{c in S} p_c``, its cross entropy
is the log-sum-exp over all classes minus that over S, and ``r_cv = p_cv / q_v`` inside S. Same formula, same memory
(plus 4 bytes a voxel). On CUDA ordinary labels go through the kernels of :mod:`.cuda_statistics`, label sets through
this.

Exponents are kept in base 2 (``z log2(e)``): torch's ``exp2`` took 0.28 ns an element where ``exp`` took 0.83 (CPU).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from .tiles import LabelCheck, Tiles, accumulator_dtype, blocks, check_shapes, compute_dtype

_LN2 = math.log(2.0)


class ClassStatistics(NamedTuple):
    """Sums over the valid voxels (label not equal to ``ignore_index``), L = C without label sets.

    float64 if the basis is float64, else float32 (accumulated in float64 where the device has it).
    """

    cross_entropy: torch.Tensor  # (B, L): sum of the cross entropy where the label is l
    intersection: torch.Tensor  # (B, L): sum of the probability of l where the label is l
    predicted: torch.Tensor  # (B, L): sum of the probability of l
    reference: torch.Tensor  # (B, L): voxels whose label is l
    log_sum_exp: torch.Tensor  # (B,): sum of log sum_c exp z_c
    logits: torch.Tensor  # (B, C): sum of z_c; with log_sum_exp all that label smoothing needs
    voxels: torch.Tensor  # (): number of valid voxels

    @property
    def cross_entropy_sum(self) -> torch.Tensor:
        """Cross entropy summed over valid voxels, ``()``."""
        return self.cross_entropy.sum()


@torch.compiler.disable  # tracing would unroll the walk over tiles
def class_statistics(
    basis: torch.Tensor,
    projection: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int | None = None,
    label_sets: torch.Tensor | None = None,
) -> ClassStatistics:
    """Sums from which cross entropy and soft Dice follow.

    :param basis: ``(B, R, ...)`` floating point, as a network gives it (channels first); half precision is computed in
        float32 and gets a half-precision gradient.
    :param projection: ``(C, R)``. :param bias: ``(C,)``.
    :param labels: ``(B, ...)`` integers (any width) in ``0..C-1``, or ``ignore_index``.
    :param label_sets: ``(B, C)`` integers: ``label_sets[b, c]`` is the label under which sample b annotates class c, so
        that label l stands for the set of classes with that entry. Labels are then ``0..L-1``.
    :raises ValueError: for shapes that do not fit, a label outside its range (the message names it), labels that are
        not integers, or a label set without classes.
    """
    check_shapes(basis, projection, bias, labels)
    flat = basis.flatten(2), projection, bias, labels.flatten(1)
    if label_sets is None:
        if basis.is_cuda and _kernels_usable(basis, projection):
            from .cuda_statistics import TritonStatistics

            return ClassStatistics(*TritonStatistics.apply(*flat, ignore_index))
        return ClassStatistics(*TorchStatistics.apply(*flat, ignore_index))
    rows = _checked_sets(label_sets, len(basis), len(projection)).to(basis.device)
    stats = ClassStatistics(*TorchStatistics.apply(*flat, ignore_index, rows))
    return stats._replace(predicted=torch.zeros_like(stats.reference).scatter_add(1, rows, stats.predicted))


def _kernels_usable(basis: torch.Tensor, projection: torch.Tensor) -> bool:
    try:
        from .cuda_statistics import usable
    except ImportError:  # no Triton here
        return False
    return usable(basis.flatten(2), projection)


def _checked_sets(label_sets: torch.Tensor, batch: int, classes: int) -> torch.Tensor:
    if label_sets.shape != (batch, classes):
        raise ValueError(f"label_sets {tuple(label_sets.shape)}: expected (samples, classes) = {(batch, classes)}.")
    rows = label_sets.long()
    for b, row in enumerate(rows.cpu()):
        if row.min() < 0:
            raise ValueError(f"label_sets assigns label {int(row.min())} in sample {b}; labels start at 0.")
        empty = (torch.bincount(row) == 0).nonzero().flatten().tolist()
        if empty:
            raise ValueError(f"label_sets gives label {empty[0]} of sample {b} no class; every label needs one.")
    return rows


def _homogeneous(projection: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``[W log2(e), b log2(e), 1]`` (C, R + 2): base-2 logits of features ``[f, 1, shift]`` in one product."""
    scaled = torch.cat([projection, bias[:, None]], 1).to(dtype) / _LN2
    return torch.cat([scaled, torch.ones_like(scaled[:, :1])], 1)


class TorchStatistics(torch.autograd.Function):
    """The operator on any device: what :class:`ClassStatistics` lists, in its order."""

    @staticmethod
    def forward(ctx, basis, projection, bias, labels, ignore_index, rows=None):
        batch, rank, voxels = basis.shape
        classes, dtype = projection.shape[0], compute_dtype(basis)
        ctx.ignore_index = ignore_index
        ctx.set_materialize_grads(False)
        if rows is None:
            check = LabelCheck([classes] * batch, "classes of this model")
        else:
            check = LabelCheck((rows.amax(1) + 1).tolist(), "labels of this dataset")
        ctx.width = width = max(check.limits, default=classes)

        def sums(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=accumulator_dtype(basis), device=basis.device)

        cross_entropy, intersection, reference = (sums(batch, width) for _ in range(3))
        predicted, lse_sum, feature_sum = sums(batch, classes), sums(batch), sums(batch, rank + 1)
        log_sum_exp = basis.new_empty(batch, voxels, dtype=dtype)
        gaps = None if rows is None else torch.empty_like(log_sum_exp)
        tiles = Tiles(basis, classes, arrays=1 if rows is None else 2)
        with torch.autocast(basis.device.type, enabled=False):
            weights = _homogeneous(projection, bias, dtype)[:, :-1]
            for block in blocks(basis, labels, ignore_index):
                b, where, features, _, weight = block
                label = check.clamped(block)
                picked, maximum, total = weight.new_empty(3, len(weight))
                for part, (logits, *spare) in tiles(len(label)):
                    torch.mm(weights, features[:-1, part], out=logits)
                    if rows is None:
                        torch.gather(logits, 0, label[None, part], out=picked[None, part])
                    else:
                        outside = rows[b, :, None] != label[part]
                        inside = spare[0].copy_(logits).masked_fill_(outside, -math.inf)
                        highest = inside.amax(0)
                        picked[part] = inside.sub_(highest).exp2_().sum(0).log2_().add_(highest)
                    torch.amax(logits, 0, out=maximum[part])
                    torch.sum(logits.sub_(maximum[part]).exp2_(), 0, out=total[part])
                    predicted[b] += logits @ (weight[part] / total[part])
                lse = maximum.add_(total.log2_())
                gap = lse - picked
                probability = torch.exp2(-gap)
                for target, value in ((cross_entropy, gap), (intersection, probability)):
                    target[b].index_add_(0, label, (value * weight).to(target.dtype))
                reference[b].index_add_(0, label, weight.to(reference.dtype))
                lse_sum[b] += lse @ weight
                feature_sum[b] += features[:-1] @ weight
                log_sum_exp[b, where] = lse.masked_fill_(weight == 0, math.inf)  # so that p is 0 there
                if gaps is not None:
                    gaps[b, where] = gap * weight
        check.raise_if_outside()
        logits_sum = feature_sum @ weights.T.to(feature_sum.dtype) * _LN2
        ctx.save_for_backward(basis, projection, bias, labels, rows, log_sum_exp, gaps, feature_sum.to(dtype))
        results = cross_entropy * _LN2, intersection, predicted, reference, lse_sum * _LN2, logits_sum, reference.sum()
        results = tuple(x.to(dtype) for x in results)
        ctx.mark_non_differentiable(results[3], results[6])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_ce, grad_intersection, grad_predicted, _reference, grad_lse, grad_logits, _voxels):
        basis, projection, bias, labels, rows, log_sum_exp, gaps, feature_sum = ctx.saved_tensors
        (batch, rank, _), classes, dtype = basis.shape, len(projection), log_sum_exp.dtype
        width = ctx.width

        def given(gradient: torch.Tensor | None, *shape: int) -> torch.Tensor:
            return log_sum_exp.new_zeros(shape) if gradient is None else gradient

        grad_ce, grad_intersection = given(grad_ce, batch, width), given(grad_intersection, batch, width)
        grad_predicted, grad_lse = given(grad_predicted, batch, classes), given(grad_lse, batch)
        grad_basis = torch.empty_like(basis)
        tiles = Tiles(basis, classes, arrays=2 if rows is None else 3)
        with torch.autocast(basis.device.type, enabled=False):
            weights = _homogeneous(projection, bias, dtype)
            plain = projection.to(dtype)
            grad_projection, grad_bias = torch.zeros_like(plain), torch.zeros_like(plain[:, 0])
            if grad_logits is not None:
                grad_projection += grad_logits.T @ feature_sum[:, :-1]
                grad_bias += grad_logits.T @ feature_sum[:, -1]
                grad_features = grad_logits @ plain
            for b, where, features, label, weight in blocks(basis, labels, ctx.ignore_index):
                features[-1] = log_sum_exp[b, where].neg()
                lam, at_label = grad_ce[b][label] * weight, grad_intersection[b][label]
                if rows is not None:
                    gap = gaps[b, where]
                    at_label *= torch.exp2(-gap)
                target = grad_basis[b, :, where]
                gradient = target if target.dtype == dtype else torch.empty_like(target, dtype=dtype)
                slope = grad_predicted[b]
                for part, (p, factor, *spare) in tiles(len(label)):
                    torch.mm(weights, features[:, part], out=p)
                    overlap = at_label[part]
                    if rows is None:
                        overlap *= p.gather(0, label[None, part])[0].exp2_()
                    else:
                        outside = rows[b, :, None] != label[part]
                        share = torch.add(p, gap[part], out=spare[0]).masked_fill_(outside, -math.inf).exp2_()
                    shift = lam[part] + grad_lse[b] - overlap
                    shift -= slope @ p.exp2_()
                    p *= torch.add(slope[:, None], shift, out=factor)
                    if rows is None:
                        p.scatter_add_(0, label[None, part], (overlap - lam[part])[None])
                    else:
                        p += share.mul_(overlap - lam[part])
                    grad_projection.addmm_(p, features[:rank, part].T)  # with the row of ones it took 40 % longer
                    grad_bias += p.sum(1)
                    torch.mm(plain.T, p, out=gradient[:, part])
                if grad_logits is not None:
                    gradient.addr_(grad_features[b], weight)
                if gradient is not target:
                    target.copy_(gradient)
        return grad_basis, grad_projection.to(projection.dtype), grad_bias.to(bias.dtype), None, None, None
