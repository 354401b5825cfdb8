"""The losses against nnU-Net's own, by the pairs of ``Testing/Benchmarks/reference_losses.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from classscale_training import CrossEntropyDiceLoss, DeepSupervisionLoss, RegionLoss, SoftDice

sys.path.append(str(Path(__file__).parents[1] / "Benchmarks"))
from loss_equal import inputs, relative_errors, two_ranks  # noqa: E402
from reference_losses import cases  # noqa: E402


@pytest.mark.parametrize("classes", [5, 40])
@pytest.mark.parametrize("index", range(len(cases(5))), ids=[case.name for case in cases(5)])
def test_value_and_gradients_equal_the_reference_in_float64(index, classes):
    errors = relative_errors(cases(classes)[index], classes, size=4)
    assert max(errors.values()) < 1e-10, errors


def test_two_gloo_ranks_equal_nnunet_with_ddp():
    errors = two_ranks(classes=12, size=3)
    assert max(errors.values()) < 1e-6, errors


def test_a_fully_ignored_batch_gives_minus_one_as_in_nnunet():
    *leaves, labels = inputs(classes=5, size=3, ignored=1.0)
    loss = CrossEntropyDiceLoss(ignore_index=int(labels[0, 0, 0, 0, 0]))(*leaves, labels)
    assert loss == -1
    assert not any(g.any() for g in torch.autograd.grad(loss, leaves))


def test_nothing_present_gives_a_present_only_dice_of_zero():
    *leaves, labels = inputs(classes=5, size=3, ignored=0.0)
    loss = CrossEntropyDiceLoss(SoftDice(present_only=True), weight_ce=0)(*leaves, torch.zeros_like(labels))
    assert loss == 0


def test_deep_supervision_halves_the_weights_and_leaves_the_last_scale_out():
    loss = DeepSupervisionLoss(CrossEntropyDiceLoss())
    assert loss.weights(4) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0])
    assert DeepSupervisionLoss(loss, ddp=True).weights(3)[-1] == pytest.approx(1e-6 / 1.500001)


def test_label_maps_with_and_without_a_channel_give_the_same():
    *leaves, labels = inputs(classes=5, size=3, ignored=0.0)
    for loss in (CrossEntropyDiceLoss(), RegionLoss(regions=((1,), (2, 3), (4,), (1, 2), (3,)))):
        assert loss(*leaves, labels) == loss(*leaves, labels[:, 0])


def test_class_weights_of_another_length_are_refused():
    *leaves, labels = inputs(classes=5, size=3, ignored=0.0)
    with pytest.raises(ValueError, match="3 class weights given for 5 classes"):
        CrossEntropyDiceLoss(class_weights=(1.0, 2.0, 1.0))(*leaves, labels)
