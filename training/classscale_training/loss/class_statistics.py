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
(plus 4 bytes a voxel). On CUDA ordinary labels go through the kernels of :mod:`.triton_statistics`, label sets through
this.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .tiles import check_shapes
from .torch_statistics import TorchStatistics


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
    :param projection: ``(C, R)``.
    :param bias: ``(C,)``.
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
            from .triton_statistics import TritonStatistics

            return ClassStatistics(*TritonStatistics.apply(*flat, ignore_index))
        return ClassStatistics(*TorchStatistics.apply(*flat, ignore_index))
    rows = _checked_sets(label_sets, len(basis), len(projection)).to(basis.device)
    stats = ClassStatistics(*TorchStatistics.apply(*flat, ignore_index, rows))
    return stats._replace(predicted=torch.zeros_like(stats.reference).scatter_add(1, rows, stats.predicted))


def _kernels_usable(basis: torch.Tensor, projection: torch.Tensor) -> bool:
    try:
        from .triton_statistics import usable
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
