"""A U-Net run slab by slab against the same network run module by module."""

import pytest
import torch
from ClassScaleSegLib.inference import network_slabs

pytest.importorskip("nnunetv2")

LEAKY = {"nonlin": torch.nn.LeakyReLU, "nonlin_kwargs": {"inplace": True}}
INSTANCE_3D = {"norm_op": torch.nn.InstanceNorm3d, "norm_op_kwargs": {"eps": 1e-5, "affine": True}, **LEAKY}
INSTANCE_2D = {**INSTANCE_3D, "norm_op": torch.nn.InstanceNorm2d}
ANISOTROPIC = {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
PLAIN = {
    "usual": {},
    "several-channels": {"input_channels": 6},
    "one-convolution": {"n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1},
    "no-bias": {"conv_bias": False},
    "wide-kernels": {"kernel_sizes": [7, 5, 3]},
    "anisotropic": ANISOTROPIC,
    "first-stage-strided": {"strides": [2, 3, 1]},
    "strides-3": {"strides": [1, 3, 2]},
    "batch-norm": {"norm_op": torch.nn.BatchNorm3d},
    "no-norm": {"norm_op": None},
    "running-statistics": {"norm_op_kwargs": {"affine": True, "track_running_stats": True}},
    "without-affine": {"norm_op_kwargs": {"affine": False}},
    "nonlinearity-first": {"nonlin_first": True},
    "prelu": {"nonlin": torch.nn.PReLU, "nonlin_kwargs": {}},
    "gelu": {"nonlin": torch.nn.GELU, "nonlin_kwargs": {}},
    "dropout": {"dropout_op": torch.nn.Dropout3d, "dropout_op_kwargs": {"p": 0.5}},
    "one-scale-of-channels": {"features_per_stage": [6, 6, 6], "strides": [1, 1, 2]},
    "flat": {"conv_op": torch.nn.Conv2d, **INSTANCE_2D},
}
RESIDUAL = {
    "usual": {},
    "blocks": {"n_blocks_per_stage": [1, 3, 4]},
    "anisotropic": ANISOTROPIC,
    "stem": {"stem_channels": 4},
    "bottleneck": {"block": "BottleneckD", "bottleneck_channels": [3, 4, 5]},
    "squeeze-and-excite": {},
    "flat": {"conv_op": torch.nn.Conv2d, **INSTANCE_2D},
}


def network(kind, name, changes):
    from dynamic_network_architectures.architectures import unet
    from dynamic_network_architectures.building_blocks import residual

    changes = {**changes, **({"block": getattr(residual, changes["block"])} if "block" in changes else {})}
    usual = {
        "input_channels": 1,
        "n_stages": 3,
        "features_per_stage": [6, 8, 10],
        "conv_op": torch.nn.Conv3d,
        "kernel_sizes": 3,
        "strides": [1, 2, 2],
        "num_classes": 3,
        "n_conv_per_stage_decoder": 2,
        "conv_bias": True,
        **INSTANCE_3D,
        **({"n_conv_per_stage": 2} if kind == "PlainConvUNet" else {"n_blocks_per_stage": [2, 2, 2]}),
    }
    torch.manual_seed(0)
    built = getattr(unet, kind)(**{**usual, **changes}).double().eval()
    if name == "squeeze-and-excite":  # nnU-Net's network has no option for it yet
        block = residual.BasicBlockD(torch.nn.Conv3d, 8, 8, 3, 1, **INSTANCE_3D, squeeze_excitation=True)
        built.encoder.stages[1].blocks[1] = block.double().eval()
    for weight, values in built.state_dict().items():  # no weight is 1 and no bias 0, as after training
        if values.is_floating_point():
            values.copy_(torch.rand(values.shape) + 0.5 if "running_var" in weight else torch.randn(values.shape) / 3)
    return built


CASES = [("PlainConvUNet", name) for name in PLAIN] + [("ResidualEncoderUNet", name) for name in RESIDUAL]
CASES += [("ResidualUNet", name) for name in ("usual", "anisotropic", "flat")]


@pytest.mark.parametrize(
    "rows, dtype", [(1, torch.float64), (3, torch.float64), (3, torch.float32), (1000, torch.float32)]
)
@pytest.mark.parametrize("kind, name", CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def test_slabs_give_what_the_modules_give(kind, name, rows, dtype, monkeypatch):
    changes = (PLAIN if kind == "PlainConvUNet" else RESIDUAL)[name]
    built = network(kind, name, changes)
    patch = (24, 12, 12) if built.encoder.conv_op is torch.nn.Conv3d else (24, 12)
    x = torch.randn(1, changes.get("input_channels", 1), *patch, dtype=torch.float64)
    with torch.inference_mode():
        expected = built(x)
    built, x = built.to(dtype), x.to(dtype)
    before = x.clone()
    copies = 1 if network_slabs._by_onednn(x) else 27
    monkeypatch.setattr(network_slabs, "SLAB_BYTES", rows * 4 * 12 ** (len(patch) - 1) * (6 * copies + 6))
    monkeypatch.setattr(network_slabs, "_PART_BYTES", 500)
    found = network_slabs.SlabNetwork(built)(x)  # whose weights require gradients
    precision = (1e-10 if dtype == torch.float64 else 1e-4) * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=precision)
    assert torch.equal(x, before) and not found.requires_grad
    assert found.is_contiguous(memory_format=torch.channels_last_3d if len(patch) == 3 else torch.channels_last)


@pytest.mark.parametrize("kind, name", CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def test_maps_in_bfloat16_differ_by_their_rounding(kind, name, monkeypatch):
    changes = (PLAIN if kind == "PlainConvUNet" else RESIDUAL)[name]
    built = network(kind, name, changes).float()
    patch = (24, 12, 12) if built.encoder.conv_op is torch.nn.Conv3d else (24, 12)
    x = torch.randn(1, changes.get("input_channels", 1), *patch)
    monkeypatch.setattr(network_slabs, "SLAB_BYTES", 20_000)
    monkeypatch.setattr(network_slabs, "_PART_BYTES", 500)
    exact = network_slabs.SlabNetwork(built)(x)
    found = network_slabs.SlabNetwork(built, dtype=torch.bfloat16)(x)
    assert found.dtype == torch.bfloat16
    error = float((found - exact).norm() / exact.norm())
    assert 1e-4 < error < 0.03
