"""The loss of a step of the bare loop."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

import torch

from ..data.brain import IGNORE_INDEX
from ..loss.label_sets import voxel_weights
from ..loss.losses import CrossEntropyDiceLoss, weighted_mean
from ..loss.soft_dice import SoftDice
from ..network.plain_unet import PlainUNet
from .data import LoopData
from .options import LoopOptions


class StepLoss:
    """nnU-Net's loss: cross entropy and batch Dice over the foreground. It is marginal where cases follow label sets.

    The cases of dataset 0 and the other cases of a batch form two groups, each with its own batch Dice; the loss is the
    mean of both, weighted by their numbers of cases. With deep supervision it is the mean over the scales, weighted
    with 1, 1/2, 1/4 and so on. nnU-Net omits the coarsest scale; it is kept here, because most classes differ from
    each other by their place.
    """

    def __init__(self, data: LoopData, options: LoopOptions, device: torch.device) -> None:
        self.deep, self.half = options.deep_supervision, options.half_precision
        self.stride, self.finest_every = options.loss_stride, options.finest_every
        dice = SoftDice(present_only=options.present_only)
        self.plain = CrossEntropyDiceLoss(dice, IGNORE_INDEX, trusted=True)  # our own cases have no wrong labels
        label_sets = data.label_sets and data.label_sets.to(device)
        self.marginal = replace(self.plain, label_sets=label_sets)
        if options.balance and data.shares is not None and data.label_sets is not None:
            weights = voxel_weights(data.shares, data.label_sets.label_of_class, options.balance)
            self.plain = replace(self.plain, class_weights=tuple(weights[0].tolist()))
            self.marginal = replace(self.marginal, label_weights=weights.to(device))

    def __call__(
        self, network: PlainUNet, step: int, images: torch.Tensor, labels: torch.Tensor, datasets: list[int]
    ) -> torch.Tensor:
        """Return the loss ``()`` of images ``(B, 1, X, Y, Z)`` and labels ``(B, X, Y, Z)``.

        :param step: decides which voxels are used, if not all are.
        :param datasets: dataset of each case, ascending.
        """
        finest = step % self.finest_every == 0
        with autocast(self.half, images.device):
            scales = network.scales(images, finest) if self.deep else [(0, network(images), network.head)]
        terms = []
        for scale, basis, head in scales:
            every = slice(None, None, 2**scale)
            flat, flat_labels = basis.flatten(2), labels[:, every, every, every].flatten(1)
            if not scale:
                chosen = slice(step // self.finest_every % self.stride, None, self.stride)
                flat, flat_labels = flat[..., chosen], flat_labels[..., chosen]
            terms.append((0.5**scale, self._at_one_scale(flat, flat_labels, head, datasets)))
        return weighted_mean(terms)

    def _at_one_scale(
        self, basis: torch.Tensor, labels: torch.Tensor, head: torch.nn.Conv3d, datasets: list[int]
    ) -> torch.Tensor:
        """Return the loss ``()`` of basis ``(B, R, N)`` and labels ``(B, N)``.

        The cases of dataset 0 need no label sets, and their loss is many times faster without.
        """
        if datasets != sorted(datasets):
            raise ValueError(f"datasets {datasets} must ascend: the cases of dataset 0 come first.")
        assert head.bias is not None  # every head of PlainUNet has one
        weight, bias, whole = head.weight.flatten(1), head.bias, datasets.count(0)
        terms = []
        if whole:
            terms.append((whole, self.plain(basis[:whole], weight, bias, labels[:whole])))
        if others := datasets[whole:]:
            which = _index(tuple(others), labels.device)
            terms.append((len(others), self.marginal(basis[whole:], weight, bias, labels[whole:], which)))
        return weighted_mean(terms)


@functools.lru_cache(maxsize=64)
def _index(values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return a tensor of ``values``, made once: numbers of Python wait for a GPU each time they are copied to it."""
    return torch.tensor(values, device=device)


def autocast(half: bool, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context in which a network computes: with half precision if ``half``, where the device has it."""
    kind = {"cuda": torch.float16, "cpu": torch.bfloat16}.get(device.type)
    return torch.autocast(device.type, kind) if half and kind else contextlib.nullcontext()
