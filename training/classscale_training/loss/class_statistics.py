"""Compute the per-class sums that cross entropy and soft Dice need, without holding the logits of all voxels.

:func:`class_statistics` is differentiable. It visits the voxels tile by tile, with all classes of a tile at once, so
that a tile stays in cache. It keeps only the log-sum-exp of every voxel and recomputes each tile in the backward pass.
Apart from the gradient of the basis, memory does not depend on the number of classes. The loss formula itself is
ordinary autograd on arrays of shape ``(B, C)``: see :mod:`.losses`.

The backward pass, with ``z = W f + b``, ``p = softmax(z)``, label ``y``, valid mask ``m`` and the incoming gradients
``lam = dL/d(ce_y)``, ``gI = dL/dI``, ``gP = dL/dP``, ``gE = dL/d(log_sum_exp)``::

    s_v   = sum_k p_kv gP_k + gI_y q_v
    dz_cv = m_v (p_cv (gP_c + lam + gE - s_v) + r_cv (gI_y q_v - lam))

``q_v`` is the probability of the label of voxel v, and ``r_cv`` is the share of class c in that probability. For
ordinary labels ``q = p_y`` and ``r`` is one-hot. With label sets, a label stands for a set S of classes: then
``q = sum_{c in S} p_c``, the cross entropy is the log-sum-exp over all classes minus the log-sum-exp over S, and
``r_cv = p_cv / q_v`` inside S, 0 outside. The formula is the same and so is the memory, plus 4 bytes a voxel.

On a CUDA device, ordinary labels are computed by the kernels of :mod:`.triton_statistics`. Label sets, and everything
on other devices, are computed by :mod:`.torch_statistics`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .autograd import Tensors
from .implementations import Implementation, chosen
from .tiles import Inputs
from .traced import can_be_traced, traced


class ClassStatistics(NamedTuple):
    """Sums over the valid voxels, which are those whose label is not ``ignore_index``.

    L is the number of labels; without label sets it is C, the number of classes. The sums are float64 if the basis is
    float64, and float32 otherwise. They are accumulated in float64 wherever the device has it.

    :ivar cross_entropy: ``(B, L)``, cross entropy (natural logarithm) summed over the voxels with label l.
    :ivar intersection: ``(B, L)``, probability of l summed over the voxels with label l (the I of soft Dice).
    :ivar predicted: ``(B, L)``, probability of l summed over all valid voxels (P).
    :ivar reference: ``(B, L)``, number of voxels with label l (G).
    :ivar log_sum_exp: ``(B,)``, sum of ``log sum_c exp z_c``.
    :ivar logits: ``(B, C)``, sum of ``z_c``. Label smoothing needs only this and ``log_sum_exp``.
    :ivar voxels: ``()``, number of valid voxels.

    Two voxels, four classes and logits of 0: every probability is 1/4, and each voxel costs ``log 4``.

    >>> import math, torch
    >>> labels = torch.tensor([[2, 3]])
    >>> stats = class_statistics(torch.zeros(1, 1, 2), torch.zeros(4, 1), torch.zeros(4), labels)
    >>> stats.predicted.tolist(), stats.intersection.tolist(), stats.reference.tolist()
    ([[0.5, 0.5, 0.5, 0.5]], [[0.0, 0.0, 0.25, 0.25]], [[0.0, 0.0, 1.0, 1.0]])
    >>> math.isclose(stats.cross_entropy_sum, 2 * math.log(4), rel_tol=1e-6)
    True
    """

    cross_entropy: torch.Tensor
    intersection: torch.Tensor
    predicted: torch.Tensor
    reference: torch.Tensor
    log_sum_exp: torch.Tensor
    logits: torch.Tensor
    voxels: torch.Tensor

    @property
    def cross_entropy_sum(self) -> torch.Tensor:
        """Return the cross entropy summed over all valid voxels, ``()``."""
        return self.cross_entropy.sum()


def class_statistics(
    basis: torch.Tensor,
    projection: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int | None = None,
    label_sets: torch.Tensor | None = None,
    implementation: Implementation = "auto",
    trusted: bool = False,
    set_labels: int | None = None,
) -> ClassStatistics:
    """Return the sums from which cross entropy and soft Dice are computed; they are differentiable.

    :param basis: ``(B, R, ...)`` floating point, channels first, as a network returns it. Half precision is computed in
        float32 and receives a half-precision gradient.
    :param projection: ``(C, R)``.
    :param bias: ``(C,)``.
    :param labels: ``(B, ...)`` integers of any width, in ``0..C-1`` or equal to ``ignore_index``.
    :param ignore_index: label of the voxels to leave out; None if every voxel counts.
    :param label_sets: ``(B, C)`` integers: ``label_sets[b, c]`` is the label under which sample b annotates class c.
        Label l then stands for the set of all classes with the entry l, and labels are in ``0..L-1``.
    :param implementation: ``torch``, ``triton``, or ``auto``: Triton's kernels wherever they can be used, else torch.
    :param trusted: labels are known to be in range and are not checked. The check is the only time at which a GPU has
        to be waited for. A trusted label outside the range gives an error of torch, or sums that are NaN.
    :param set_labels: L, if it is known that ``label_sets`` divides the classes of each sample among at most L labels;
        it is then not checked either.
    :returns: the sums, of which ``reference`` and ``voxels`` have no gradient.
    :raises ValueError: if shapes do not fit, a label is outside its range (the message names it), labels are not
        integers, a label set has no classes, or ``triton`` cannot be used.

    ``torch.compile`` sees one operator, without a break of the graph, unless there are label sets or torch is older
    than 2.4.

    The sums equal those of all logits, which this function never holds at once:

    >>> import torch
    >>> basis, labels = torch.randn(2, 4, 6, 5, 3, dtype=torch.float64), torch.randint(9, (2, 6, 5, 3))
    >>> projection, bias = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    >>> stats = class_statistics(basis, projection, bias, labels)
    >>> logits = torch.einsum("brxyz,cr->bcxyz", basis, projection) + bias[:, None, None, None]
    >>> plain = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    >>> torch.allclose(stats.cross_entropy_sum, plain)
    True
    >>> torch.allclose(stats.predicted, logits.softmax(1).sum((2, 3, 4)))
    True

    With label sets that put classes 1 to 8 under label 1, label 1 has the summed probability of these classes:

    >>> sets = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1, 1]] * 2)
    >>> merged = class_statistics(basis, projection, bias, (labels > 0).long(), label_sets=sets)
    >>> torch.allclose(merged.predicted[:, 1], stats.predicted[:, 1:].sum(1))
    True
    """
    x = Inputs(basis, projection, bias, labels, ignore_index, trusted).checked()
    if not torch.compiler.is_compiling():
        return ClassStatistics(*_statistics(x, label_sets, implementation, set_labels))
    if can_be_traced() and label_sets is None:
        return ClassStatistics(*traced(x, implementation))
    from .untraced import untraced

    return ClassStatistics(*untraced(_statistics, x, label_sets, implementation, set_labels))


def _statistics(
    x: Inputs, label_sets: torch.Tensor | None, implementation: Implementation, set_labels: int | None
) -> Tensors:
    return chosen(x, label_sets, implementation, set_labels)(x)
