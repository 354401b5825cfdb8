"""The number of parameters of a network, counted from its plans: that of the network which is built from them."""

import pytest
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.models.architecture import check_architecture, planned_architecture
from ClassScaleSegLib.models.parameter_count import count_parameters
from conftest import small_plans

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
ISOTROPIC = {"kernel_sizes": 3, "strides": [[1] * 3, *[[2] * 3] * 5], "n_stages": 6}
WIDE = {"features_per_stage": [32, 64, 128, 256, 320, 320]}
PRESETS = {  # as nnU-Net's planners write them
    "nnU-Net's default": (PLAIN, ISOTROPIC | WIDE | {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}),
    "ResEnc L": (
        RESIDUAL,
        ISOTROPIC | WIDE | {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6], "n_conv_per_stage_decoder": 1},
    ),
}
BOTTLENECK = {"block": "dynamic_network_architectures.building_blocks.residual.BottleneckD"}
BATCH_NORM = {"norm_op": "torch.nn.BatchNorm3d"}
PRELU = {"nonlin": "torch.nn.PReLU", "nonlin_kwargs": {"num_parameters": 1}}
CHANGES = {
    "as planned": {},
    "anisotropic": {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [5, 3, 1]], "strides": [[1] * 3, [1, 2, 2], [2, 2, 4]]},
    "equal features": {"features_per_stage": 8},
    "no bias": {"conv_bias": False},
    "no bias given": {"conv_bias": ...},
    "no norm": {"norm_op": None, "norm_op_kwargs": None},
    "identity": {"norm_op": "torch.nn.Identity"},
    "instance norm by default": {"norm_op_kwargs": None},
    "batch norm": BATCH_NORM,
    "batch norm by default": BATCH_NORM | {"norm_op_kwargs": {}},
    "batch norm, not affine": BATCH_NORM | {"norm_op_kwargs": {"affine": False}},
    "prelu": PRELU,
    "prelu by default": PRELU | {"nonlin_kwargs": {}},
    "dropout": {"dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": {"p": 0.1}},
    "no nonlinearity": {"nonlin": None},
}
RESIDUAL_CHANGES = {
    "stem": {"stem_channels": 5},
    "bottleneck": BOTTLENECK | {"bottleneck_channels": 4},
    "bottlenecks, prelu": BOTTLENECK | PRELU | {"bottleneck_channels": [4, 5, 6], "stem_channels": 3},
}
CASES = {
    **PRESETS,
    **{f"plain, {name}": (PLAIN, change) for name, change in CHANGES.items()},
    **{f"residual, {name}": (RESIDUAL, change) for name, change in (CHANGES | RESIDUAL_CHANGES).items()},
}


def counted_and_built(plans, channels, classes):
    """The number from the plans; that of the network which nnU-Net builds, with its last head alone."""
    from ClassScaleSegLib.models.network import build_network
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    entries = dict(plans["configurations"]["3d_fullres"])
    entries["architecture"] = planned_architecture(entries)
    check_architecture(entries)
    planned = PlansManager(plans).get_configuration("3d_fullres")
    check_architecture(planned.configuration)
    network = build_network(planned, channels, classes)
    return count_parameters(entries, channels, classes), sum(tensor.numel() for tensor in network.parameters())


@pytest.mark.parametrize(("architecture", "changes"), CASES.values(), ids=CASES)
def test_what_is_counted_is_what_is_built(architecture, changes):
    pytest.importorskip("nnunetv2")
    plans = small_plans(architecture)
    entries = plans["configurations"]["3d_fullres"]
    entries["patch_size"] = [32 * 3] * 3
    arguments = entries["architecture"]["arch_kwargs"] | changes
    entries["architecture"]["arch_kwargs"] = {key: value for key, value in arguments.items() if value is not ...}
    entries["architecture"]["_kw_requires_import"] += ["block"] if "block" in arguments else []
    counted, built = counted_and_built(plans, 2, 300)
    assert counted == built


@pytest.mark.parametrize("architecture", [PLAIN, RESIDUAL])
def test_networks_of_two_dimensions_are_counted(architecture):
    pytest.importorskip("nnunetv2")
    counted, built = counted_and_built(small_plans(architecture, dimension=2), 1, 20)
    assert counted == built


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
@pytest.mark.parametrize("architecture", [PLAIN, RESIDUAL])
def test_plans_from_before_nnunet_2_5_are_counted_as_nnunet_converts_them(architecture):
    pytest.importorskip("nnunetv2")
    plans = small_plans(architecture)
    entries = plans["configurations"]["3d_fullres"]
    new = entries.pop("architecture")["arch_kwargs"]
    entries.update(
        UNet_class_name=architecture,
        UNet_base_num_features=6,
        unet_max_num_features=20,
        n_conv_per_stage_encoder=[1, 3, 2],
        n_conv_per_stage_decoder=[1, 2],
        num_pool_per_axis=[2, 2, 2],
        pool_op_kernel_sizes=new["strides"],
        conv_kernel_sizes=new["kernel_sizes"],
    )
    counted, built = counted_and_built(plans, 1, 20)
    assert counted == built


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features_per_stage": [8, 12]}, r"features_per_stage \[8, 12\] must be 3 whole"),
        ({"features_per_stage": [[8], [12], [16]]}, "features_per_stage .* must be 3 whole"),
        ({"n_blocks_per_stage": None}, "n_blocks_per_stage None must be 3 whole"),
        ({"n_conv_per_stage_decoder": [1]}, r"n_conv_per_stage_decoder \[1\] must be 2 whole"),
        ({"stem_channels": [8, 8]}, "stem_channels .* must be 1 whole"),
        (BOTTLENECK, "bottleneck_channels None must be 3 whole"),
        (PRELU | {"nonlin_kwargs": {"num_parameters": 1.5}}, "num_parameters 1.5 must be whole numbers"),
    ],
)
def test_networks_that_cannot_be_built_are_not_counted(changes, sentence):
    entries = small_plans(RESIDUAL)["configurations"]["3d_fullres"]
    entries["architecture"]["arch_kwargs"] |= changes
    check_architecture(entries)
    with pytest.raises(ModelError, match=sentence):
        count_parameters(entries, 1, 20)
