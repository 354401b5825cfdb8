"""The statistics operators against plain softmax and sigmoid in float64."""

from __future__ import annotations

import contextlib
import locale
from dataclasses import replace

import pytest
import torch
from classscale_training import CrossEntropyDiceLoss, class_statistics, region_statistics

CLASSES = 11


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(3)
    basis = torch.randn(2, 6, 7, 5, 4, generator=generator, dtype=torch.double, requires_grad=True)
    projection = torch.randn(CLASSES, 6, generator=generator, dtype=torch.double, requires_grad=True)
    bias = torch.randn(CLASSES, generator=generator, dtype=torch.double, requires_grad=True)
    labels = torch.randint(0, CLASSES, (2, 7, 5, 4), generator=generator)
    labels[1, 0, 0] = 255
    return basis, projection, bias, labels


@pytest.fixture
def utf8():
    """torch's compiler reads its own files in the encoding of the locale, which a library may have changed to ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    for name in ("C.UTF-8", "en_US.UTF-8", "UTF-8"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            break
    yield
    locale.setlocale(locale.LC_CTYPE, before)


def logits_of(basis, projection, bias):
    return torch.einsum("cr,br...->bc...", projection, basis) + bias[:, None, None, None]


def plain(basis, projection, bias, labels):
    """The fields of ClassStatistics, from all logits."""
    logits = logits_of(basis, projection, bias)
    valid = labels != 255
    target = torch.where(valid, labels, 0)
    onehot = torch.nn.functional.one_hot(target, CLASSES).movedim(-1, 1) * valid[:, None]
    p = logits.softmax(1) * valid[:, None]
    per_class = -logits.log_softmax(1) * onehot, p * onehot, p, onehot
    ce, intersection, predicted, reference = (x.flatten(2).sum(2) for x in per_class)
    lse = (logits.logsumexp(1) * valid).flatten(1).sum(1)
    return ce, intersection, predicted, reference, lse, (logits * valid[:, None]).flatten(2).sum(2), valid.sum()


def some_loss(stats):
    """Touches every field, each class with another weight."""
    ce, intersection, predicted, reference, lse, logits, voxels = stats
    weights = torch.linspace(-1, 1, ce.shape[1], dtype=ce.dtype)
    dice = (2 * intersection + 1) / (predicted + reference + 1)
    return (ce * weights).sum() / voxels - (dice * weights).sum() + (lse * 0.3).sum() + (logits * weights).sum()


@pytest.mark.parametrize(("block", "tile"), [(50, 1), (30, 7), (1 << 14, 70), (1 << 14, 1 << 14)])
def test_sums_and_gradients_equal_plain_softmax(case, block, tile, monkeypatch):
    monkeypatch.setattr("classscale_training.loss.tiles._BLOCK_VOXELS", {"cpu": block})
    monkeypatch.setattr("classscale_training.loss.tiles._TILE_ELEMENTS", {"cpu": tile * (CLASSES + 6)})
    ours, truth = class_statistics(*case, ignore_index=255), plain(*case)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b.double(), rtol=1e-12, atol=1e-12)
    assert ours.cross_entropy_sum == ours.cross_entropy.sum()
    got = torch.autograd.grad(some_loss(ours), case[:3])
    want = torch.autograd.grad(some_loss(truth), case[:3])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_gradcheck(case):
    basis, projection, bias, labels = case
    small = basis.detach()[:, :, :2, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: [y for y in class_statistics(*x, labels[:, :2, :2, :2], 255) if y.requires_grad],
        (small, projection, bias),
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_width_are_left_as_they_were_and_give_the_same(case, dtype):
    basis, projection, bias, labels = case
    narrow = labels.to(dtype)
    stats = class_statistics(basis, projection, bias, narrow, 255)
    assert torch.equal(stats.cross_entropy, class_statistics(*case, 255).cross_entropy)
    assert torch.equal(narrow, labels.to(dtype))


def test_float32_sums_over_a_million_voxels_keep_six_digits():
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(1, 4, 1 << 20, generator=generator)
    projection, bias = torch.randn(3, 4, generator=generator), torch.randn(3, generator=generator)
    labels = torch.randint(0, 3, (1, 1 << 20), generator=generator)
    ours = class_statistics(basis, projection, bias, labels)
    truth = class_statistics(basis.double(), projection.double(), bias.double(), labels)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-2)


def test_logits_of_a_thousand_overflow_nothing(case):
    basis, projection, bias, labels = (x.detach() if x.is_floating_point() else x for x in case)
    leaves = [(300 * basis).float().requires_grad_(), projection.float().requires_grad_(), bias.float()]
    stats = class_statistics(*leaves, labels, 255)
    truth = plain(*(x.double() for x in leaves), labels)
    torch.testing.assert_close(stats.cross_entropy.double(), truth[0], rtol=1e-5, atol=1e-2)
    gradient = torch.autograd.grad(some_loss(stats), leaves[:2])
    assert all(torch.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_half_precision_basis_is_computed_in_float32_and_gets_a_half_precision_gradient(case, half):
    basis, projection, bias, labels = case
    rounded = basis.detach().to(half).requires_grad_()
    weights = [projection.detach().float().requires_grad_(), bias.detach().float().requires_grad_()]
    with torch.autocast("cpu", dtype=half):
        stats = class_statistics(rounded, *weights, labels, 255)
        gradients = torch.autograd.grad(some_loss(stats), (rounded, *weights))
    truth = plain(rounded.double(), projection, bias, labels)
    assert stats.cross_entropy.dtype == torch.float32
    torch.testing.assert_close(stats.cross_entropy.double(), truth[0], rtol=1e-5, atol=1e-5)
    assert [g.dtype for g in gradients] == [half, torch.float32, torch.float32]
    want = torch.autograd.grad(some_loss(truth), (rounded, projection, bias))
    torch.testing.assert_close(gradients[1].double(), want[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[0], want[0], rtol=1e-2, atol=1e-2)


def test_a_compiled_function_around_it_gives_the_same(case):
    def loss(*inputs):
        return some_loss(class_statistics(*inputs, 255)) * 2

    compiled = torch.compile(loss, backend="eager")
    assert torch.equal(compiled(*case), loss(*case))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_loss_is_compiled_in_one_graph_and_gives_the_same(case, dtype, utf8):
    *leaves, labels = case
    leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    loss = CrossEntropyDiceLoss(ignore_index=255, label_smoothing=0.1, trusted=True)
    compiled = torch.compile(lambda *inputs: loss(*inputs) * 2, backend="aot_eager", fullgraph=True)
    value, plain = compiled(*leaves, labels), loss(*leaves, labels) * 2
    assert torch.equal(value, plain)
    for a, b in zip(*(torch.autograd.grad(x, leaves) for x in (value, plain)), strict=True):
        assert torch.equal(a, b)
    labels[0, 0, 0, 0] = 11
    with pytest.raises(ValueError, match="label 11 is outside 0..10"):
        torch.compile(replace(loss, trusted=False), backend="aot_eager")(*leaves, labels)


def test_a_compiled_function_breaks_only_at_label_sets(case, utf8):
    sets = torch.arange(CLASSES).repeat(2, 1)
    compiled = torch.compile(lambda: class_statistics(*case, 255, sets).predicted.sum(), backend="aot_eager")
    torch.testing.assert_close(compiled(), class_statistics(*case, 255).predicted.sum())


def test_a_compiled_function_breaks_only_at_regions(case, utf8):
    membership = torch.arange(CLASSES)[:, None] > torch.arange(CLASSES)
    compiled = torch.compile(lambda: region_statistics(*case, membership, 255).predicted.sum(), backend="aot_eager")
    torch.testing.assert_close(compiled(), region_statistics(*case, membership, 255).predicted.sum())


def test_nothing_but_ignored_voxels_gives_zeros_and_no_gradient(case):
    basis, projection, bias, labels = case
    stats = class_statistics(basis, projection, bias, torch.full_like(labels, 255), 255)
    assert all(bool((field == 0).all()) for field in stats)
    for gradient in torch.autograd.grad(sum(x.sum() for x in stats), (basis, projection, bias)):
        assert not gradient.any()


@pytest.mark.parametrize("shape", [(0, 6, 4), (2, 6, 0)])
def test_no_voxels_give_zeros(case, shape):
    _, projection, bias, _ = case
    basis = torch.zeros(shape, dtype=torch.double, requires_grad=True)
    stats = class_statistics(basis, projection, bias, torch.zeros(shape[0], shape[2], dtype=torch.long))
    assert stats.predicted.shape == (shape[0], CLASSES) and stats.voxels == 0
    assert not torch.autograd.grad(stats.cross_entropy_sum + stats.predicted.sum(), projection)[0].any()


@pytest.mark.parametrize("wrong", [255, -3])
def test_a_label_outside_the_classes_is_named(case, wrong):
    basis, projection, bias, labels = case
    labels[1, 0, 0] = wrong
    with pytest.raises(ValueError, match=f"label {wrong} is outside 0..10"):
        class_statistics(basis, projection, bias, labels)


def test_shapes_that_do_not_fit_are_named(case):
    basis, projection, bias, labels = case
    with pytest.raises(ValueError, match="do not fit a basis of 6 channels"):
        class_statistics(basis, projection[:, :4], bias, labels)
    with pytest.raises(ValueError, match=r"labels \(2, 6, 5, 4\) do not fit a basis of shape \(2, 6, 7, 5, 4\)"):
        class_statistics(basis, projection, bias, labels[:, 1:])
    with pytest.raises(ValueError, match="labels are torch.float64; expected integers"):
        class_statistics(basis, projection, bias, labels.double())


def test_region_sums_and_gradients_equal_plain_sigmoid(case):
    basis, projection, bias, labels = case
    membership = torch.rand(9, CLASSES, generator=torch.Generator().manual_seed(1)) < 0.4
    labels = torch.where(labels == 255, labels, labels % 9)
    stats = region_statistics(basis, projection, bias, labels, membership, 255)

    logits, valid = logits_of(basis, projection, bias), (labels != 255)[:, None]
    target = membership[torch.where(labels == 255, 0, labels)].movedim(-1, 1).double()
    p = logits.sigmoid()
    ce = -(target * p.log() + (1 - target) * (1 - p).log())
    truth = [(x * valid).flatten(2).sum(2) for x in (ce, p * target, p, target)] + [valid.sum().double()]
    for a, b in zip(stats, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)

    def loss(s):
        return (s[0] * torch.arange(CLASSES)).sum() - ((2 * s[1] + 1) / (s[2] + s[3] + 1)).sum()

    for a, b in zip(*(torch.autograd.grad(loss(s), case[:3]) for s in (stats, truth)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_label_outside_the_regions_is_named(case):
    membership = torch.ones(9, CLASSES, dtype=torch.bool)
    with pytest.raises(ValueError, match="label 10 is outside 0..8, the labels of these regions"):
        region_statistics(*case[:3], case[3].clamp(max=10), membership)


def test_the_implementation_can_be_chosen_and_one_that_cannot_be_used_says_why(case):
    assert all(map(torch.equal, class_statistics(*case, 255, implementation="torch"), class_statistics(*case, 255)))
    with pytest.raises(ValueError, match="'triton' cannot be used: the basis is on cpu, .* Choose 'auto' or 'torch'"):
        class_statistics(*case, 255, implementation="triton")
    sets = torch.arange(CLASSES).repeat(2, 1)
    with pytest.raises(ValueError, match="the kernels compute ordinary labels, and label_sets is given"):
        class_statistics(*case, 255, sets, implementation="triton")
    with pytest.raises(ValueError, match="implementation is 'cuda'; expected 'auto', 'torch' or 'triton'"):
        class_statistics(*case, 255, implementation="cuda")
