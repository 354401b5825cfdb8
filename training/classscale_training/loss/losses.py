"""nnU-Net's losses for a low-rank head: ordinary autograd on the sums of :mod:`.class_statistics`.

:class:`CrossEntropyDiceLoss` equals ``DC_and_CE_loss`` with ``MemoryEfficientSoftDiceLoss`` (nnunetv2
``training/loss/compound_losses.py`` and ``dice.py``), and :class:`RegionLoss` equals ``DC_and_BCE_loss``. nnU-Net calls
its losses with ``(logits, labels)``; these are called with ``(basis, projection, bias, labels)``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from .class_statistics import ClassStatistics, Implementation, class_statistics
from .label_sets import LabelSets
from .region_statistics import membership_of, region_statistics
from .soft_dice import SoftDice


@dataclass(frozen=True)
class CrossEntropyDiceLoss:
    """``weight_ce`` x mean cross entropy over valid voxels - ``weight_dice`` x mean soft Dice.

    If every voxel of a batch is ignored, the loss is -1 with nnU-Net's Dice, 0 with ``present_only``, and has no
    gradient.

    :ivar dice: the Dice and its settings.
    :ivar ignore_index: label of the voxels to leave out; None if every voxel counts.
    :ivar weight_ce: weight of the cross entropy.
    :ivar weight_dice: weight of the Dice.
    :ivar class_weights: weights of the cross entropy, one for each class, like ``weight`` of torch's cross entropy.
    :ivar label_smoothing: like ``label_smoothing`` of torch's cross entropy.
    :ivar label_sets: if given, each call has to say which dataset each sample comes from.
    :ivar label_weights: ``(D, L)``, weights of the cross entropy with label sets, one for each label of each dataset.
    :ivar implementation: which one computes the sums, as in :func:`.class_statistics`.
    :ivar trusted: labels are known to be in range and are not checked, as in :func:`.class_statistics`.
    :raises ValueError: if class weights or label smoothing are combined with label sets, or ``label_weights`` has
        another shape than the table of labels.

    The loss equals the plain formula on all logits, and so does its gradient:

    >>> import torch
    >>> basis = torch.randn(2, 4, 6, 5, 3, dtype=torch.float64, requires_grad=True)
    >>> projection, bias = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    >>> labels = torch.randint(9, (2, 6, 5, 3))
    >>> loss = CrossEntropyDiceLoss()(basis, projection, bias, labels)
    >>> logits = torch.einsum("brxyz,cr->bcxyz", basis, projection) + bias[:, None, None, None]
    >>> cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
    >>> p, t = logits.softmax(1), torch.nn.functional.one_hot(labels, 9).movedim(-1, 1)
    >>> i, sizes = (p * t).sum((0, 2, 3, 4)), (p + t).sum((0, 2, 3, 4))
    >>> dice = (2 * i + 1e-5) / (sizes + 1e-5)
    >>> plain = cross_entropy - dice[1:].mean()  # without the background
    >>> torch.allclose(loss, plain)
    True
    >>> torch.allclose(*torch.autograd.grad(loss, basis), *torch.autograd.grad(plain, basis))
    True
    """

    dice: SoftDice = SoftDice()
    ignore_index: int | None = None
    weight_ce: float = 1.0
    weight_dice: float = 1.0
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    label_sets: LabelSets | None = None
    label_weights: torch.Tensor | None = None
    implementation: Implementation = "auto"
    trusted: bool = False

    def __post_init__(self) -> None:
        if self.label_sets is not None and (self.class_weights is not None or self.label_smoothing):
            raise ValueError(
                "class_weights and label_smoothing are defined per class: leave them out when label_sets is given, or "
                "give label_weights instead."
            )
        shape = None if self.label_sets is None else self.label_sets.set_of_label.shape
        if self.label_weights is not None and self.label_weights.shape != shape:
            expected = (
                "no label_weights without label_sets" if shape is None else f"(datasets, labels) = {tuple(shape)}"
            )
            raise ValueError(f"label_weights has shape {tuple(self.label_weights.shape)}; expected {expected}.")

    def __call__(
        self,
        basis: torch.Tensor,
        projection: torch.Tensor,
        bias: torch.Tensor,
        labels: torch.Tensor,
        datasets: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss ``()``.

        :param basis: ``(B, R, ...)``.
        :param projection: ``(C, R)``.
        :param bias: ``(C,)``.
        :param labels: integers ``(B, ...)``, or ``(B, 1, ...)`` as nnU-Net's loader returns them.
        :param datasets: ``(B,)`` index of each sample's dataset in ``label_sets``; required with label sets only.
        :raises ValueError: as :func:`class_statistics`, or if only one of ``datasets`` and ``label_sets`` is given.
        """
        if (self.label_sets is None) != (datasets is None):
            raise ValueError(
                "datasets says which dataset of label_sets each sample comes from: give both of them, or neither."
            )
        labels, table = without_channel(labels, basis), self.label_sets and self.label_sets.to(basis.device)
        rows = None if table is None else table.label_of_class[datasets]
        head = projection, bias
        many = None if table is None else table.set_of_label.shape[1]
        stats = class_statistics(basis, *head, labels, self.ignore_index, rows, self.implementation, self.trusted, many)
        sums = table.pool(stats, datasets, self.dice.do_bg) if table and datasets is not None else stats[1:4]
        loss = self._cross_entropy(stats, datasets)
        loss = loss if self.weight_ce == 1 else self.weight_ce * loss
        return torch.sub(loss, self.dice(*sums), alpha=self.weight_dice) if self.weight_dice else loss

    def _cross_entropy(self, stats: ClassStatistics, datasets: torch.Tensor | None) -> torch.Tensor:
        if self.label_weights is None and self.class_weights is None and not self.label_smoothing:
            return stats.cross_entropy_sum / stats.voxels.clamp_min(1)  # fewer launches: see loss_launches.py
        weights = self._weights(stats.reference, datasets)
        total = (weights * stats.cross_entropy).sum()
        if self.label_smoothing:  # one row of weights: no label sets
            uniform = weights.sum() * stats.log_sum_exp.sum() - (weights * stats.logits.sum(0)).sum()
            total = (1 - self.label_smoothing) * total + self.label_smoothing / weights.numel() * uniform
        divisor = (weights * stats.reference).sum()
        return total / torch.where(divisor > 0, divisor, 1)

    def _weights(self, reference: torch.Tensor, datasets: torch.Tensor | None) -> torch.Tensor:
        """Weights ``(L,)``, or ``(B, L)`` with label weights, on the device and in the dtype of ``reference``."""
        labels = reference.shape[1]
        if self.label_weights is not None:
            return self.label_weights.to(reference)[datasets, :labels]
        if self.class_weights is None:
            return reference.new_ones(labels)
        if len(self.class_weights) != labels:
            raise ValueError(f"{len(self.class_weights)} class weights given for {labels} classes; give one for each.")
        return _tensor(self.class_weights, reference.device, reference.dtype)


@functools.lru_cache(maxsize=64)
def _tensor(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of ``values``, made once: numbers of Python wait for a GPU each time they are copied to it."""
    return torch.tensor(values, device=device, dtype=dtype)


@dataclass(frozen=True)
class RegionLoss:
    """``weight_ce`` x mean binary cross entropy - ``weight_dice`` x mean soft Dice, for overlapping regions.

    A region is a set of label values and has a sigmoid of its own; the projection has one row for each region. The
    labels stay one label map, which nnU-Net would first turn into one channel for each region.

    :ivar regions: label values of each region, in the order of the projection's rows.
    :ivar dice: the Dice and its settings, of which ``do_bg`` includes region 0.
    :ivar ignore_index: label of the voxels to leave out; None if every voxel counts.
    :ivar weight_ce: weight of the binary cross entropy.
    :ivar weight_dice: weight of the Dice.

    The loss equals the plain formula on all logits. The regions here are the labels 1 and 2, and label 2 alone:

    >>> import torch
    >>> basis, labels = torch.randn(2, 4, 30, dtype=torch.float64), torch.randint(3, (2, 30))
    >>> projection, bias = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    >>> loss = RegionLoss(regions=((1, 2), (2,)))(basis, projection, bias, labels)
    >>> logits, t = projection @ basis + bias[:, None], torch.stack([labels > 0, labels == 2], 1).double()
    >>> p, cross_entropy = logits.sigmoid(), torch.nn.functional.binary_cross_entropy_with_logits(logits, t)
    >>> dice = (2 * (p * t).sum((0, 2)) + 1e-5) / ((p + t).sum((0, 2)) + 1e-5)
    >>> torch.allclose(loss, cross_entropy - dice.mean())
    True
    """

    regions: tuple[tuple[int, ...], ...]
    dice: SoftDice = SoftDice(do_bg=True)
    ignore_index: int | None = None
    weight_ce: float = 1.0
    weight_dice: float = 1.0

    def __call__(
        self, basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss ``()``.

        :param basis: ``(B, R, ...)``.
        :param projection: ``(K, R)``, one row for each region.
        :param bias: ``(K,)``.
        :param labels: integers ``(B, ...)``, or ``(B, 1, ...)`` as nnU-Net's loader returns them.
        :raises ValueError: as :func:`region_statistics`; a label above those of all regions counts as out of range.
        """
        labels, membership = without_channel(labels, basis), membership_of(self.regions, basis.device)
        stats = region_statistics(basis, projection, bias, labels, membership, self.ignore_index)
        # nnU-Net divides by voxels x regions, but with an ignore label by the number of valid voxels alone.
        divisor = stats.voxels if self.ignore_index is not None else stats.voxels * len(self.regions)
        cross_entropy = stats.cross_entropy.sum() / divisor.clamp_min(1)
        dice = self.dice(stats.intersection, stats.predicted, stats.reference)
        return self.weight_ce * cross_entropy - self.weight_dice * dice


@dataclass(frozen=True)
class DeepSupervisionLoss:
    """Weighted sum of a loss over the scales of a decoder, with the weights of nnU-Net's trainer.

    The weights halve from scale to scale, and the weight of the coarsest scale is 0. Under DDP without compilation it
    is 1e-6 instead, because DDP rejects parameters without gradient (nnunetv2 ``nnUNetTrainer._build_loss``).

    :ivar loss: called with ``(basis, projection, bias, labels)`` of each scale whose weight is not 0.
    :ivar ddp: whether the network is trained under DDP.

    >>> import torch
    >>> loss = CrossEntropyDiceLoss()
    >>> bases = [torch.randn(1, 4, size, dtype=torch.float64) for size in (8, 4, 2)]  # finest first
    >>> labels = [torch.randint(3, (1, size)) for size in (8, 4, 2)]
    >>> projection, bias = torch.randn(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    >>> deep = DeepSupervisionLoss(loss)
    >>> [round(weight, 4) for weight in deep.weights(3)]
    [0.6667, 0.3333, 0.0]
    >>> finest, middle, _ = (loss(basis, projection, bias, y) for basis, y in zip(bases, labels))
    >>> torch.allclose(deep(bases, projection, bias, labels), finest * 2 / 3 + middle / 3)
    True
    """

    loss: Callable[..., torch.Tensor]
    ddp: bool = False

    def weights(self, scales: int) -> list[float]:
        """Return one weight for each scale, finest first; they sum to 1."""
        if scales == 1:
            return [1.0]
        weights = [0.5**i for i in range(scales - 1)] + [1e-6 if self.ddp else 0.0]
        return [w / sum(weights) for w in weights]

    def __call__(
        self,
        bases: Sequence[torch.Tensor],
        projection: torch.Tensor,
        bias: torch.Tensor,
        labels: Sequence[torch.Tensor],
        **options: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss ``()``.

        :param bases: ``(B, R, ...)`` of each scale, finest first.
        :param projection: ``(C, R)``, the same for all scales.
        :param bias: ``(C,)``.
        :param labels: label map of each scale, in the order of ``bases``.
        :param options: further arguments for every call of ``loss``.
        """
        scales = zip(self.weights(len(bases)), bases, labels, strict=True)
        return weighted_mean((w, self.loss(f, projection, bias, y, **options)) for w, f, y in scales if w)


def weighted_mean(terms: Iterable[tuple[float, torch.Tensor]]) -> torch.Tensor:
    """Return the mean of pairs of a weight and a loss ``()``."""
    weights, losses = zip(*terms, strict=True)
    return functools.reduce(torch.add, map(operator.mul, weights, losses)) / sum(weights)


def without_channel(labels: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Return labels ``(B, 1, ...)`` as ``(B, ...)``, and any other labels unchanged."""
    return labels[:, 0] if labels.ndim == basis.ndim and labels.shape[1] == 1 else labels
