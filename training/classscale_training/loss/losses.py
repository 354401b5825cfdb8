"""nnU-Net's losses on a low-rank head: ordinary autograd on the small arrays of :mod:`.class_statistics`.

:class:`CrossEntropyDiceLoss` equals ``DC_and_CE_loss`` with ``MemoryEfficientSoftDiceLoss`` (nnunetv2
``training/loss/compound_losses.py``, ``dice.py``), :class:`RegionLoss` equals ``DC_and_BCE_loss``. Both are called with
``(basis, projection, bias, labels)`` where nnU-Net's are called with ``(logits, labels)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .class_statistics import ClassStatistics, class_statistics
from .label_sets import LabelSets
from .region_statistics import region_statistics


@dataclass(frozen=True)
class SoftDice:
    """Mean soft Dice from the sums I, P, G. The defaults are those nnU-Net trains with.

    ``(2 I + smooth) / (2 I + 2 false_positive (P - I) + 2 false_negative (G - I) + smooth)`` is Dice when both weights
    are one half, and the Tversky index (Salehi et al. 2017, alpha = false_positive, beta = false_negative) otherwise.
    """

    batch_dice: bool = True  # pool the sums over the batch, and over ranks if ddp, before taking the ratio
    do_bg: bool = False  # whether class 0 counts
    smooth: float = 1e-5
    ddp: bool = False  # torch.distributed is initialised and every rank calls the loss
    # nnU-Net averages over all classes. One that is neither there nor predicted scores 1 and dilutes the gradient of
    # the others: with 20 of 1000 classes in a patch, 50 times. True averages over the classes the reference has.
    present_only: bool = False
    false_positive: float = 0.5
    false_negative: float = 0.5

    def dice(
        self, intersection: torch.Tensor, predicted: torch.Tensor, reference: torch.Tensor, takes_part: torch.Tensor
    ) -> torch.Tensor:
        """Mean ``()`` over the ``(B, C)`` entries where ``takes_part`` (0 or 1) is 1; 0 if there is none."""
        if self.batch_dice:
            sums = torch.stack([intersection, predicted, reference, takes_part]).sum(1, keepdim=True)
            if self.ddp:
                sums = _SumOverRanks.apply(sums)
            intersection, predicted, reference, takes_part = sums
        shared = 2 * (1 - self.false_positive - self.false_negative) * intersection
        sizes = 2 * self.false_positive * predicted + 2 * self.false_negative * reference
        dice = (2 * intersection + self.smooth) / (shared + sizes + self.smooth).clamp_min(1e-8)
        kept = takes_part > 0
        if self.present_only:
            kept = kept & (reference > 0)
        return torch.where(kept, dice, 0).sum() / kept.sum().clamp_min(1)


class _SumOverRanks(torch.autograd.Function):
    """Forward and backward alike, as nnU-Net's AllGatherGrad: DDP averages the gradients of the ranks afterwards."""

    @staticmethod
    def forward(ctx, tensor):
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


@dataclass(frozen=True)
class CrossEntropyDiceLoss(SoftDice):
    """``weight_ce`` x mean cross entropy over valid voxels - ``weight_dice`` x mean soft Dice.

    A fully ignored batch gives -1 with nnU-Net's Dice (0 with ``present_only``) and no gradient.
    """

    ignore_index: int | None = None
    weight_ce: float = 1.0
    weight_dice: float = 1.0
    class_weights: tuple[float, ...] | None = None  # of the cross entropy, one a class, as torch's ``weight``
    label_smoothing: float = 0.0  # as torch's
    label_sets: LabelSets | None = None  # then each call says which dataset each sample comes from
    label_weights: torch.Tensor | None = None  # (D, L): weights of the cross entropy with label sets, one a label

    def __post_init__(self) -> None:
        if self.label_sets is not None and (self.class_weights is not None or self.label_smoothing):
            raise ValueError(
                "class weights and label smoothing are defined per class; with label sets leave them out, or give "
                "label_weights."
            )
        shape = None if self.label_sets is None else self.label_sets.set_of_label.shape
        if self.label_weights is not None and self.label_weights.shape != shape:
            raise ValueError(f"label_weights {tuple(self.label_weights.shape)}: expected (datasets, labels) = {shape}.")

    def __call__(
        self,
        basis: torch.Tensor,
        projection: torch.Tensor,
        bias: torch.Tensor,
        labels: torch.Tensor,
        datasets: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss ``()``.

        :param basis: ``(B, R, ...)``.
        :param projection: ``(C, R)``.
        :param bias: ``(C,)``.
        :param labels: ``(B, ...)`` or, as nnU-Net's loader gives them, ``(B, 1, ...)``; integers.
        :param datasets: ``(B,)`` index into ``label_sets``, required with it.
        :raises ValueError: as :func:`class_statistics`, or for ``datasets`` without ``label_sets`` or vice versa.
        """
        if (datasets is None) != (self.label_sets is None):
            raise ValueError("datasets says which label table each sample follows: give it exactly with label_sets.")
        labels = without_channel(labels, basis)
        if self.label_sets is None:
            stats = class_statistics(basis, projection, bias, labels, self.ignore_index)
            takes_part = torch.ones_like(stats.reference)
            if not self.do_bg:
                takes_part[:, 0] = 0
            sums = stats.intersection, stats.predicted, stats.reference, takes_part
        else:
            table = self.label_sets.to(basis.device)
            rows = table.label_of_class[datasets]
            stats = class_statistics(basis, projection, bias, labels, self.ignore_index, rows)
            sums = table.pool(stats, datasets, self.do_bg)
        loss = self.weight_ce * self._cross_entropy(stats, datasets)
        return loss - self.weight_dice * self.dice(*sums) if self.weight_dice else loss

    def _cross_entropy(self, stats: ClassStatistics, datasets: torch.Tensor | None) -> torch.Tensor:
        weights = self._weights(stats.reference, datasets)
        total = (weights * stats.cross_entropy).sum()
        if self.label_smoothing:  # one row of weights: no label sets
            uniform = weights.sum() * stats.log_sum_exp.sum() - (weights * stats.logits.sum(0)).sum()
            total = (1 - self.label_smoothing) * total + self.label_smoothing / weights.numel() * uniform
        divisor = (weights * stats.reference).sum()
        return total / torch.where(divisor > 0, divisor, 1)

    def _weights(self, reference: torch.Tensor, datasets: torch.Tensor | None) -> torch.Tensor:
        """``(L,)``, or ``(B, L)`` with label weights, like ``reference`` ``(B, L)``."""
        labels = reference.shape[1]
        if self.label_weights is not None:
            return self.label_weights.to(reference)[datasets, :labels]
        if self.class_weights is None:
            return reference.new_ones(labels)
        if len(self.class_weights) != labels:
            raise ValueError(f"{len(self.class_weights)} class weights given for {labels} classes.")
        return reference.new_tensor(self.class_weights)


@dataclass(frozen=True)
class RegionLoss(SoftDice):
    """Binary cross entropy + soft Dice of overlapping regions (sigmoid), each a set of label values.

    The projection has one row a region. Labels stay a label map: nnU-Net turns it into one channel a region first.
    """

    regions: tuple[tuple[int, ...], ...] = ()  # label values of each region, in the order of the projection's rows
    do_bg: bool = True
    ignore_index: int | None = None
    weight_ce: float = 1.0
    weight_dice: float = 1.0

    def __call__(
        self, basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Loss ``()``; arguments as :class:`CrossEntropyDiceLoss`, C being the number of regions."""
        highest = max((label for region in self.regions for label in region), default=0)
        membership = torch.zeros(highest + 1, len(self.regions), dtype=torch.bool, device=basis.device)
        for index, region in enumerate(self.regions):
            membership[list(region), index] = True
        stats = region_statistics(
            basis, projection, bias, without_channel(labels, basis), membership, self.ignore_index
        )
        # nnU-Net's mean is over voxels and regions, but with an ignore label over valid voxels only.
        divisor = stats.voxels if self.ignore_index is not None else stats.voxels * len(self.regions)
        cross_entropy = stats.cross_entropy.sum() / divisor.clamp_min(1)
        takes_part = torch.ones_like(stats.reference)
        if not self.do_bg:
            takes_part[:, 0] = 0
        dice = self.dice(stats.intersection, stats.predicted, stats.reference, takes_part)
        return self.weight_ce * cross_entropy - self.weight_dice * dice


@dataclass(frozen=True)
class DeepSupervisionLoss:
    """Weighted sum of ``loss`` over the scales of a decoder, finest first, weights as nnU-Net's trainer sets them.

    Weights halve from scale to scale and the last is 0. Under DDP without compilation it is 1e-6, because DDP rejects
    parameters without gradient (nnunetv2 ``nnUNetTrainer._build_loss``).
    """

    loss: Callable[..., torch.Tensor]
    ddp: bool = False

    def weights(self, scales: int) -> list[float]:
        """One weight a scale; they sum to 1."""
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
        """Loss ``()`` of one basis and one label map a scale; ``options`` go to every call of ``loss``."""
        scales = zip(self.weights(len(bases)), bases, labels, strict=True)
        return sum(w * self.loss(f, projection, bias, y, **options) for w, f, y in scales if w)


def without_channel(labels: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """``(B, 1, ...)`` to ``(B, ...)``; anything else unchanged."""
    return labels[:, 0] if labels.ndim == basis.ndim and labels.shape[1] == 1 else labels
