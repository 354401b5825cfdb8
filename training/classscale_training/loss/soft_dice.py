"""The soft Dice from the sums of :mod:`.class_statistics`: nnU-Net's ``MemoryEfficientSoftDiceLoss``, and more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class SoftDice:
    """Mean soft Dice from the sums I, P and G; the defaults are the settings of nnU-Net's trainer.

    The score of a class is ``(2 I + smooth) / (2 I + 2 false_positive (P - I) + 2 false_negative (G - I) + smooth)``.
    It is the Dice when both weights are one half, and the Tversky index (Salehi et al. 2017, alpha = false_positive,
    beta = false_negative) otherwise.

    :ivar batch_dice: pool the sums over the batch, and over ranks with ``ddp``, before taking the ratio.
    :ivar do_bg: include class 0.
    :ivar smooth: added to numerator and denominator.
    :ivar ddp: torch.distributed is initialised, and every rank calls the loss.
    :ivar present_only: average only over the classes that the reference contains. nnU-Net averages over all classes,
        where a class that is neither present nor predicted scores 1 and dilutes the gradient of the others: 50 times,
        if a patch has 20 of 1000 classes.
    :ivar false_positive: weight of false positives.
    :ivar false_negative: weight of false negatives.

    Classes 0 to 2, with class 0 left out. Of class 1 half is found, and class 2 is neither present nor predicted:

    >>> import torch
    >>> sums = torch.tensor([[[8.0, 1.0, 0.0]], [[9.0, 2.0, 0.0]], [[9.0, 2.0, 0.0]]])  # I, P, G
    >>> [round(dice(*sums).item(), 3) for dice in (SoftDice(), SoftDice(present_only=True))]
    [0.75, 0.5]
    """

    batch_dice: bool = True
    do_bg: bool = False
    smooth: float = 1e-5
    ddp: bool = False
    present_only: bool = False
    false_positive: float = 0.5
    false_negative: float = 0.5

    def __call__(
        self,
        intersection: torch.Tensor,
        predicted: torch.Tensor,
        reference: torch.Tensor,
        takes_part: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the mean score ``()``.

        :param intersection: I ``(B, C)``.
        :param predicted: P ``(B, C)``.
        :param reference: G ``(B, C)``.
        :param takes_part: ``(B, C)``, 1 for the entries to include and 0 for the others. By default all are included,
            and class 0 only with ``do_bg``.
        :returns: the mean over the included entries of each sample, or of the pooled batch, then over the samples that
            have any; 0 if there are none.
        """
        arrays = [intersection, predicted, reference] + ([] if takes_part is None else [takes_part])
        if self.batch_dice:
            sums = torch.stack(arrays).sum(1, keepdim=True)
            arrays = list((_SumOverRanks.apply(sums) if self.ddp else sums).unbind())
        intersection, predicted, reference, *part = arrays
        if self.false_positive == self.false_negative == 0.5:  # Dice: few launches, which are most of its time on a GPU
            sizes = predicted + reference
        else:
            shared = 2 * (1 - self.false_positive - self.false_negative) * intersection
            sizes = shared + 2 * self.false_positive * predicted + 2 * self.false_negative * reference
        half = (intersection + self.smooth / 2) / (sizes + self.smooth).clamp_min(1e-8)  # of the score
        if not part and not self.do_bg:
            half, reference = half[:, 1:], reference[:, 1:]
        if not part and not self.present_only:
            return half.sum() * (2 / max(half.numel(), 1))
        kept = part[0] > 0 if part else reference > 0
        if part and self.present_only:
            kept = kept & (reference > 0)
        of_samples = torch.where(kept, half, 0).sum(-1) / kept.sum(-1).clamp_min(1)  # whose labels may differ in number
        return of_samples.sum() * 2 / kept.any(-1).sum().clamp_min(1)


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks, forward and backward, as nnU-Net's AllGatherGrad: DDP averages the gradients afterwards."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total
