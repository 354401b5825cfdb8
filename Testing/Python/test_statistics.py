"""The statistics operator against plain softmax in float64."""

import pytest
import torch
from classscale_training import class_statistics


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(3)
    basis = torch.randn(2, 6, 7, 5, 4, generator=generator, dtype=torch.double, requires_grad=True)
    projection = torch.randn(11, 6, generator=generator, dtype=torch.double, requires_grad=True)
    bias = torch.randn(11, generator=generator, dtype=torch.double, requires_grad=True)
    labels = torch.randint(0, 11, (2, 7, 5, 4), generator=generator)
    labels[1, 0, 0] = 255
    return basis, projection, bias, labels


def plain(basis, projection, bias, labels):
    logits = torch.einsum("cr,br...->bc...", projection, basis) + bias[:, None, None, None]
    valid = labels != 255
    target = torch.where(valid, labels, 0)
    onehot = torch.nn.functional.one_hot(target, 11).movedim(-1, 1) * valid[:, None]
    p = logits.softmax(1) * valid[:, None]
    ce = -(logits.log_softmax(1) * onehot).sum()
    return ce, (p * onehot).flatten(2).sum(2), p.flatten(2).sum(2), onehot.flatten(2).sum(2), valid.sum()


@pytest.mark.parametrize("tile", [1, 7 * 11, 1 << 18])
def test_sums_and_gradients_equal_plain_softmax(case, tile, monkeypatch):
    monkeypatch.setattr("classscale_training.statistics._TILE_ELEMENTS", {"cpu": tile})
    ours, truth = class_statistics(*case, ignore_index=255), plain(*case)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-12, atol=1e-12)
    weights = torch.linspace(-1, 1, 11, dtype=torch.double)

    def scalar(s):
        return s[0] / s[4] - ((2 * s[1] + 1) / (s[2] + s[3] + 1) * weights).sum()

    got = torch.autograd.grad(scalar(ours), case[:3])
    want = torch.autograd.grad(scalar(truth), case[:3])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_gradcheck(case):
    basis, projection, bias, labels = case
    small = basis.detach()[:, :, :2, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: class_statistics(*x, labels[:, :2, :2, :2], 255)[:3], (small, projection, bias)
    )


def test_a_label_outside_the_classes_is_named(case):
    basis, projection, bias, labels = case
    with pytest.raises(ValueError, match="label 255 is outside 0..10"):
        class_statistics(basis, projection, bias, labels)


def test_shapes_that_do_not_fit_are_named(case):
    basis, projection, bias, labels = case
    with pytest.raises(ValueError, match="do not fit a basis of 6 channels"):
        class_statistics(basis, projection[:, :4], bias, labels)
