"""Primus networks so small that tests take a moment, as plans name them and as nnU-Net's own classes."""

from __future__ import annotations

from conftest import small_plans, write_checkpoint

TINY = {
    **{"embed_dim": 24, "patch_embed_size": [8, 8, 8], "eva_depth": 2, "eva_numheads": 2, "drop_path_rate": 0.2},
    **{"init_values": 0.1, "scale_attn_inner": True},
}
STEM = {"ch_per_level": [4, 6, 8, 10], "depth_per_level": [1, 2, 1], "nonlin": "torch.nn.LeakyReLU"}
KINDS = {"Primus": TINY, "PrimusV2": TINY, "PrimusV3": {**TINY, **STEM}}
PATH = "dynamic_network_architectures.architectures.primus."


def primus_plans(kind: str = "Primus", channels: int = 1, **more) -> dict:
    """The plans of `small_plans`, in which the network is a Primus."""
    plans = small_plans(channels=channels)
    architecture = {"network_class_name": PATH + kind, "arch_kwargs": {**KINDS[kind]}, "_kw_requires_import": []}
    plans["configurations"]["3d_fullres"] |= {"architecture": architecture, **more}
    return plans


def stock_primus(kind: str = "Primus", channels: int = 1, classes: int = 21, seed: int = 0):
    """What nnU-Net's class builds with the arguments of `primus_plans`, with random weights."""
    import torch
    from ClassScaleSegLib.models.torchvision_import import make_torchvision_importable

    make_torchvision_importable()
    from dynamic_network_architectures.architectures import primus

    arguments = {**KINDS[kind], "input_shape": (16, 16, 16)}
    if "nonlin" in arguments:
        arguments["nonlin"] = torch.nn.LeakyReLU
    torch.manual_seed(seed)
    network = getattr(primus, kind)(input_channels=channels, num_classes=classes, **arguments)
    for name, values in network.state_dict().items():  # no weight is 1 and no bias 0, as after training
        if name.startswith("up_projection"):
            values.copy_(torch.randn(values.shape) / 3)
    network.up_projection.decode[-1].bias.data.zero_()  # or one class wins everywhere
    return network.eval()


def add_fold(folder, network, fold: int = 0, **more) -> None:
    """Write the checkpoint of one fold into a model folder."""
    write_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth", network, **more)
