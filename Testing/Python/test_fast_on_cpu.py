"""Training on a processor: instance norms that are torch's, and training steps in bfloat16."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
from classscale_training.network.fast_on_cpu import (  # noqa: E402
    ConvTranspose3d,
    InstanceNorm2d,
    InstanceNorm3d,
    train_in_bfloat16,
)
from torch import nn  # noqa: E402


@pytest.mark.parametrize("layout", ["plain", "channels last"])
@pytest.mark.parametrize("cases", [1, 2, 3])
@pytest.mark.parametrize(("ours", "torchs"), [(InstanceNorm3d, nn.InstanceNorm3d), (InstanceNorm2d, nn.InstanceNorm2d)])
def test_norms_and_their_gradients_are_those_of_torch(ours, torchs, cases, layout):
    shape = (cases, 5, 6, 7, 8)[: 5 if ours is InstanceNorm3d else 4]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if layout == "channels last":
        x = x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)
    results = []
    for kind in (ours, torchs):
        torch.manual_seed(1)
        norm, y = kind(5, eps=1e-5, affine=True).double(), x.clone(memory_format=torch.preserve_format).requires_grad_()
        nn.init.normal_(norm.weight)
        out = norm(y)
        (out**3).sum().backward()
        assert out.stride() == x.stride() or kind is torchs, "the memory format is kept"
        results.append((out.detach(), y.grad, norm.weight.grad, norm.bias.grad))
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("autocast", [False, True])
def test_transposed_convolutions_and_their_gradients_are_those_of_torch(autocast):
    torch.manual_seed(0)
    theirs, x = nn.ConvTranspose3d(6, 4, 2, 2), torch.randn(2, 6, 5, 4, 3)
    ours = copy.deepcopy(theirs)
    ours.__class__ = ConvTranspose3d
    results = []
    for layer in (ours, theirs):
        y = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = layer(y)
        assert out.dtype == (torch.bfloat16 if autocast else torch.float32)
        assert out.is_contiguous(memory_format=torch.channels_last_3d) or not autocast, "the memory format is kept"
        (out.float() ** 2).sum().backward()
        results.append((out.float(), y.grad, layer.weight.grad, layer.bias.grad))
    for found, expected in zip(*results, strict=True):
        assert (
            found.dtype == torch.float32
            and (found - expected).norm() <= (0.005 if autocast else 1e-6) * expected.norm()
        )


class Network(nn.Module):
    def __init__(self, dimensions: int) -> None:
        super().__init__()
        convolution, norm = (nn.Conv3d, nn.InstanceNorm3d) if dimensions == 3 else (nn.Conv2d, nn.InstanceNorm2d)
        self.first, self.norm = convolution(2, 8, 3, padding=1), norm(8, affine=True)
        self.last = convolution(8, 4, 1)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_training_steps_are_in_bfloat16_and_nothing_else(dimensions):
    torch.manual_seed(0)
    network = Network(dimensions)
    plain, x = copy.deepcopy(network), torch.randn(2, 2, *(8,) * dimensions)
    train_in_bfloat16(network)
    assert isinstance(network.norm, (InstanceNorm2d, InstanceNorm3d))
    assert network.state_dict().keys() == plain.state_dict().keys()
    found, expected = network(x), plain(x)
    assert found.dtype == torch.bfloat16 and expected.dtype == torch.float32
    assert torch.allclose(found.float(), expected, atol=0.05) and not torch.equal(found.float(), expected)
    for each in (network, plain):
        each(x).float().square().mean().backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert ours.dtype == ours.grad.dtype == torch.float32
        assert (ours.grad - theirs.grad).norm() <= 0.03 * theirs.grad.norm() + 1e-3, name
    for each in (network, plain):
        each.eval()
    with torch.no_grad():
        found, expected = network(x), plain(x)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-5)
