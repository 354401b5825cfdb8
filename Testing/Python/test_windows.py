"""The rolling basis against the whole accumulator, and when memory runs out under way."""

import numpy as np
import pytest
import torch
from ClassScaleSegLib import Cancelled, ClassScaleError, OutOfMemoryError
from ClassScaleSegLib.inference.backbone import Backbone
from ClassScaleSegLib.inference.memory_plan import MemoryPlan, Placement
from ClassScaleSegLib.inference.progress import Monitor
from ClassScaleSegLib.inference.windows import predict_rows

pytest.importorskip("nnunetv2")

SHAPE = (17, 13, 11)


def convolution(dimensions):
    torch.manual_seed(0)
    layer = (torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d)(1, 5, 3, padding=1).requires_grad_(False)
    return lambda patch: layer(patch)[0]


def image():
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("patch", [(8, 6, 8), (5, 13, 11), (6, 8), (20, 6, 8), (20, 20, 20)])
def test_rolling_rows_equal_the_whole_accumulator(patch):
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

    dimensions, network = len(patch), convolution(len(patch))
    rows = torch.stack(list(predict_rows(image(), network, patch, 0.5)), 1)
    full = (1, *patch) if dimensions == 2 else patch
    lost = [max(p - s, 0) for p, s in zip(full, SHAPE, strict=True)]
    padded = torch.nn.functional.pad(image(), [n for p in reversed(lost) for n in (p // 2, p - p // 2)])
    steps = compute_steps_for_sliding_window(padded.shape[-dimensions:], patch, 0.5)
    steps = [list(range(padded.shape[1])), *steps] if dimensions == 2 else steps
    gaussian = compute_gaussian(patch, 1 / 8, 10, torch.float32, torch.device("cpu")).view(full)
    total, weight = torch.zeros(5, *padded.shape[1:]), torch.zeros(padded.shape[1:])
    for start in np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3):
        box = tuple(slice(s, s + p) for s, p in zip(start, full, strict=True))
        part = padded[(slice(None), *box)]
        out = network((part[:, 0] if dimensions == 2 else part)[None])
        total[(slice(None), *box)] += (out[:, None] if dimensions == 2 else out) * gaussian
        weight[box] += gaussian
    inside = [slice(p // 2, p // 2 + s) for p, s in zip(lost, SHAPE, strict=True)]
    torch.testing.assert_close(rows, (total / weight)[(slice(None), *inside)], rtol=1e-5, atol=1e-5)


class Exhausted:
    """A backbone for whose patches memory runs out at some calls."""

    def __init__(self, *failing_calls):
        self.failing, self.calls, self.network = failing_calls, 0, convolution(3)

    def __call__(self, patch):
        self.calls += 1
        if self.calls in self.failing:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return self.network(patch)


def test_when_memory_runs_out_the_ring_moves_and_no_finished_window_is_repeated():
    messages, backbone = [], Exhausted(9)
    plan = MemoryPlan([Placement("cpu", "cpu"), Placement("cpu", "disk")], messages.append)
    rows = list(predict_rows(image(), backbone, (8, 6, 8), 0.5, plan))
    expected = list(predict_rows(image(), convolution(3), (8, 6, 8), 0.5))
    assert all(torch.equal(a, b) for a, b in zip(rows, expected, strict=True))
    windows = 4 * 4 * 2
    assert backbone.calls == windows + 1 and plan.ring == "disk"
    assert len(messages) == 1 and "rolling basis in a temporary file" in messages[0]


def test_when_the_smallest_plan_does_not_fit_the_error_says_so():
    with pytest.raises(OutOfMemoryError, match="the smallest way to run this model .*can't allocate memory"):
        list(predict_rows(image(), Exhausted(1), (8, 6, 8), 0.5))


def test_other_errors_are_not_taken_for_want_of_memory():
    def broken(patch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    plan = MemoryPlan([Placement("cpu", "cpu"), Placement("cpu", "disk")])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(predict_rows(image(), broken, (8, 6, 8), 0.5, plan))


@pytest.mark.parametrize("patch", [(8, 6, 8), (20, 20, 20)])
def test_output_that_is_not_finite_is_an_error(patch):
    def overflowing(patch):
        basis = convolution(3)(patch)
        basis[0, 2, 3, 4] = float("inf")
        return basis

    with pytest.raises(ClassScaleError, match="output is not finite"):
        list(predict_rows(image(), overflowing, patch, 0.5))


def test_cancelling_stops_before_the_next_window():
    class Token:
        checks = 0

        def is_set(self):
            self.checks += 1
            return self.checks > 3

    backbone = Exhausted()
    with pytest.raises(Cancelled):
        list(predict_rows(image(), backbone, (8, 6, 8), 0.5, monitor=Monitor(cancel=Token())))
    assert backbone.calls == 3


def test_cancelling_stops_inside_a_window(monkeypatch):
    from ClassScaleSegLib.inference import network_slabs
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    class Token:
        checks, last = 0, 1000

        def is_set(self):
            self.checks += 1
            return self.checks > self.last

    monkeypatch.setattr(network_slabs, "SLAB_BYTES", 1)
    token = Token()
    network = PlainConvUNet(1, 2, [4, 8], torch.nn.Conv3d, 3, [1, 2], 1, 7, 1).eval()
    backbone = Backbone([network], check=Monitor(cancel=token).check)
    assert backbone(torch.randn(1, 1, 8, 8, 8)).shape == (7, 8, 8, 8)
    assert token.checks == 8 + 4 + 8 + 8  # rows of two scales down, one up, and the last layer
    token.checks, token.last = 0, 20
    with pytest.raises(Cancelled):
        backbone(torch.randn(1, 1, 8, 8, 8))
    assert token.checks == 21


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("axes, flips", [((), 1), ((0,), 2), ((0, 2), 4), ((0, 1, 2), 8)])
def test_mirrorings_are_averaged_and_folds_side_by_side_or_averaged_too(axes, flips, average):
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        options = {"norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU, "conv_bias": True}
        networks.append(PlainConvUNet(1, 2, [4, 8], torch.nn.Conv3d, 3, [1, 2], 1, 7, 1, **options).eval())
    patch = torch.randn(1, 1, 8, 8, 8)
    backbone = Backbone(networks, axes, average)
    assert len(backbone.flips) == flips
    with torch.no_grad():
        total = [0, 0]
        for flip in backbone.flips:
            for i, network in enumerate(networks):
                total[i] = total[i] + network(patch.flip(flip)).flip(flip)[0] / flips
        expected = sum(total) / 2 if average else torch.cat(total)
        torch.testing.assert_close(backbone(patch), expected)
