"""Decoding by rows against full logits, resampled and compared in float64; and against nnU-Net's own resampling."""

import numpy as np
import pytest
import torch
from classscale_training.data.toy.atlas import atlas_case, cell_centres
from ClassScaleSegLib.inference.decode import RowDecoder
from ClassScaleSegLib.inference.interpolation import AxisSampling
from ClassScaleSegLib.models.projection import Projection


def anatomy(classes, shape, rank=8, noise=0.05, seed=0):
    """A basis whose classes are contiguous cells, as in anatomy, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    axes = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in shape]
    x = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    basis = torch.cat([x, torch.randn(rank - 3, *shape, generator=generator) * noise])
    centres = torch.cat([torch.zeros(1, 3), cell_centres(classes - 1)])
    weight = torch.cat([centres, torch.randn(classes, rank - 3, generator=generator)], 1) * 4
    return basis, Projection(weight, -2 * centres.square().sum(1))


def decode(basis, projection, axes):
    decoder = RowDecoder(projection, axes)
    rows = []
    for row in basis.unbind(1):
        decoder.push(row)
        rows += iter(decoder.pop, None)
    assert [row.index for row in rows] == list(range(len(axes[0])))
    return torch.stack([row.labels for row in rows]).long()


def truth(basis, projection, axes):
    logits = torch.einsum("cr,rxyz->cxyz", projection.weight.double(), basis.double())
    logits += projection.bias.double()[:, None, None, None]
    for dim, a in enumerate(axes, start=1):
        w = torch.as_tensor(a.weight).view([-1 if d == dim else 1 for d in range(4)])
        logits = logits.index_select(dim, torch.as_tensor(a.lower)) * (1 - w) + w * logits.index_select(
            dim, torch.as_tensor(a.upper)
        )
    if projection.regions:
        order = torch.arange(1, len(logits) + 1)[:, None, None, None]
        return ((logits > 0) * order).amax(0)
    return logits.argmax(0)


@pytest.mark.parametrize("classes", [1, 2, 10, 118, 1000])
@pytest.mark.parametrize("shape, new", [((9, 11, 8), (17, 20, 16)), ((12, 9, 10), (5, 9, 31)), ((1, 6, 7), (1, 13, 7))])
def test_equals_float64(classes, shape, new):
    basis, projection = anatomy(classes, shape)
    axes = tuple(AxisSampling.linear(a, b) for a, b in zip(shape, new, strict=True))
    assert torch.equal(decode(basis, projection, axes), truth(basis, projection, axes))


def test_equals_float64_in_pure_noise():
    generator = torch.Generator().manual_seed(1)
    basis = torch.randn(8, 7, 8, 9, generator=generator)
    projection = Projection(torch.randn(200, 8, generator=generator), torch.randn(200, generator=generator))
    axes = tuple(AxisSampling.linear(a, 3 * a) for a in (7, 8, 9))
    assert torch.equal(decode(basis, projection, axes), truth(basis, projection, axes))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_separate_z_equals_nnunet(axis):
    resampling = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    basis, projection = anatomy(30, (8, 9, 10))
    new = [20, 21, 17]
    axes = [AxisSampling.linear(a, b) for a, b in zip((8, 9, 10), new, strict=True)]
    axes[axis] = AxisSampling.nearest((8, 9, 10)[axis], new[axis])
    logits = torch.einsum("cr,rxyz->cxyz", projection.weight.double(), basis.double())
    logits += projection.bias.double()[:, None, None, None]
    stock = resampling.resample_data_or_seg(logits.numpy(), new, axis=axis, order=1, do_separate_z=True, order_z=0)
    assert np.array_equal(decode(basis, projection, tuple(axes)).numpy(), stock.argmax(0))


@pytest.mark.parametrize(
    "function, options",
    [
        ("resample_data_or_seg_to_shape", {"order": 1}),  # nnU-Net's own default: not separate
        ("resample_data_or_seg_to_shape", {"order": 1, "force_separate_z": None}),
        ("resample_data_or_seg_to_shape", {"order": 1, "force_separate_z": True, "order_z": 1}),
        ("resample_data_or_seg_to_shape", {"order": 1, "force_separate_z": None, "separate_z_anisotropy_threshold": 9}),
        ("resample_torch_fornnunet", {}),
        ("resample_torch_fornnunet", {"aniso_axis_mode": "linear"}),
        ("resample_torch_fornnunet", {"force_separate_z": False}),
    ],
)
def test_resampling_is_what_nnunets_function_does_with_these_options(function, options):
    from types import SimpleNamespace

    from ClassScaleSegLib.inference.preprocess import resampling
    from nnunetv2.preprocessing.resampling import default_resampling, resample_torch

    stock = getattr(default_resampling, function, None) or getattr(resample_torch, function)
    entries = {"resampling_fn_probabilities": function, "resampling_fn_probabilities_kwargs": options}
    configuration = SimpleNamespace(configuration=entries, spacing=[6.0, 1.0, 1.0])
    basis, projection = anatomy(30, (8, 9, 10))
    new, spacing = (10, 18, 14), [4.8, 0.5, 0.7]
    axes = resampling(configuration, (8, 9, 10), new, spacing)
    logits = torch.einsum("cr,rxyz->cxyz", projection.weight, basis) + projection.bias[:, None, None, None]
    theirs = torch.as_tensor(stock(logits, new, configuration.spacing, spacing, is_seg=False, **options))
    assert (decode(basis, projection, axes) == theirs.argmax(0)).float().mean() > 0.999


def test_regions_and_their_values():
    generator = torch.Generator().manual_seed(2)
    basis = torch.randn(4, 6, 7, 8, generator=generator)
    weight, bias = torch.randn(3, 4, generator=generator), torch.zeros(3)
    axes = tuple(AxisSampling.linear(a, 2 * a) for a in (6, 7, 8))
    got = decode(basis, Projection(weight, bias, values=(5, 2, 9), regions=True), axes)
    assert torch.equal(got, torch.tensor([0, 5, 2, 9])[truth(basis, Projection(weight, bias, regions=True), axes)])


def test_the_toy_labels_come_back_from_a_one_hot_basis():
    labels = atlas_case(0, 30, 24)[1]
    basis = torch.nn.functional.one_hot(labels, 31).movedim(-1, 0).float()
    axes = tuple(AxisSampling.linear(24, 24) for _ in range(3))
    assert torch.equal(decode(basis, Projection(torch.eye(31), torch.zeros(31)), axes), labels)
