"""nnU-Net's plain U-Net in torch alone, for machines without nnunetv2 and its package of networks.

Structure, arguments and the names of all weights are those of ``PlainConvUNet`` in the package
``dynamic_network_architectures``, including the aliases under ``all_modules`` and ``decoder.encoder``. So the
``state_dict`` of either network loads strictly into the other, and both give the same output up to rounding: on a CPU
this one keeps the channels of a voxel adjacent in memory, which is faster.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from .fast_on_cpu import InstanceNorm3d

NETWORK_CLASS = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


def architecture(
    features: Sequence[int], convolutions: Sequence[int], decoder_convolutions: Sequence[int]
) -> dict[str, Any]:
    """Return ``arch_kwargs`` as in nnU-Net's plans: kernel size 3, and half the resolution from stage to stage.

    :param features: channels of each stage, finest first. The first number is the rank of the basis.
    :param convolutions: number of convolutions in each stage of the encoder, finest first.
    :param decoder_convolutions: number of convolutions in each stage of the decoder, coarsest first; one stage less.
    :raises ValueError: if the lengths do not fit.

    >>> plans = architecture(features=(8, 16, 32), convolutions=(1, 1, 1), decoder_convolutions=(1, 1))
    >>> plans["features_per_stage"], plans["strides"]
    ([8, 16, 32], [[1, 1, 1], [2, 2, 2], [2, 2, 2]])
    """
    stages = len(features)
    if stages < 2 or len(convolutions) != stages or len(decoder_convolutions) != stages - 1:
        raise ValueError(
            f"{stages} stages (at least 2) need {stages} numbers of convolutions and {stages - 1} in the decoder, not "
            f"{len(convolutions)} and {len(decoder_convolutions)}."
        )
    return {
        "n_stages": stages,
        "features_per_stage": list(features),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": list(convolutions),
        "n_conv_per_stage_decoder": list(decoder_convolutions),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


class _ConvNormReLU(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 3, stride, padding=1)
        self.norm = InstanceNorm3d(channels_out, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all_modules(x)


def _stack(count: int, channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    first = _ConvNormReLU(channels_in, channels_out, stride)
    rest = [_ConvNormReLU(channels_out, channels_out, 1) for _ in range(count - 1)]
    return nn.Sequential(OrderedDict(convs=nn.Sequential(first, *rest)))


class _Encoder(nn.Module):
    def __init__(self, channels: int, features: Sequence[int], convolutions: Sequence[int]) -> None:
        super().__init__()
        inputs = [channels, *features[:-1]]
        stages = [
            nn.Sequential(_stack(count, before, after, stride=1 if number == 0 else 2))
            for number, (count, before, after) in enumerate(zip(convolutions, inputs, features, strict=True))
        ]
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        skips = []
        for stage in self.stages:
            x = stage(x)
            if x.device.type == "cpu":  # oneDNN's convolutions are fastest if the channels of a voxel are adjacent
                x = x.contiguous(memory_format=torch.channels_last_3d)
            skips.append(x)
        return skips


class _Decoder(nn.Module):
    def __init__(self, encoder: _Encoder, classes: int, features: Sequence[int], convolutions: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder  # registered a second time, as in PlainConvUNet
        below, skip = features[:0:-1], features[-2::-1]
        self.stages = nn.ModuleList(_stack(n, 2 * s, s) for n, s in zip(convolutions, skip, strict=True))
        self.transpconvs = nn.ModuleList(nn.ConvTranspose3d(b, s, 2, 2) for b, s in zip(below, skip, strict=True))
        self.seg_layers = nn.ModuleList(nn.Conv3d(s, classes, 1) for s in skip)

    @property
    def heads(self) -> list[nn.Conv3d]:
        """Last layer of each scale, coarsest first."""
        return cast("list[nn.Conv3d]", list(self.seg_layers))  # torch types the layers of a ModuleList as Module

    def forward(self, skips: list[torch.Tensor], finest: bool = True) -> list[torch.Tensor]:
        """Return the features of each scale, coarsest first, with or without the finest."""
        scales = [skips[-1]]
        parts = list(zip(self.stages, self.transpconvs, skips[-2::-1], strict=True))
        for stage, up, skip in parts if finest else parts[:-1]:
            scales.append(stage(torch.cat((up(scales[-1]), skip), 1)))
        return scales[1:]


class PlainUNet(nn.Module):
    """A U-Net whose output is the basis ``(B, R, X, Y, Z)``, from which :attr:`head` computes the logits.

    The coarser scales have heads too, because PlainConvUNet has them. They are used in deep supervision only. Each side
    of an input must be a multiple of ``2^(stages - 1)`` voxels.

    :param arch_kwargs: as returned by :func:`architecture`.
    :param channels: channels of the input.
    :param classes: number of classes C.

    >>> import torch
    >>> network = PlainUNet(architecture((8, 16, 32), (1, 1, 1), (1, 1)), channels=1, classes=100)
    >>> basis = network(torch.randn(1, 1, 16, 16, 16))
    >>> tuple(basis.shape), tuple(network.head(basis).shape)
    ((1, 8, 16, 16, 16), (1, 100, 16, 16, 16))
    """

    def __init__(self, arch_kwargs: dict[str, Any], channels: int, classes: int) -> None:
        super().__init__()
        features = arch_kwargs["features_per_stage"]
        self.encoder = _Encoder(channels, features, arch_kwargs["n_conv_per_stage"])
        self.decoder = _Decoder(self.encoder, classes, features, arch_kwargs["n_conv_per_stage_decoder"])
        self.apply(initialize)

    @property
    def head(self) -> nn.Conv3d:
        """The 1x1x1 convolution from the basis to logits ``(B, C, X, Y, Z)``."""
        return self.decoder.heads[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the basis ``(B, R, X, Y, Z)`` of images ``(B, channels, X, Y, Z)``."""
        return self.decoder(self.encoder(x))[-1]

    def scales(self, x: torch.Tensor, finest: bool = True) -> list[tuple[int, torch.Tensor, nn.Conv3d]]:
        """Return ``(s, basis, head)`` for each scale s, finest first.

        Along each side, scale s has ``1 / 2^s`` of the voxels of the input.

        :param x: images ``(B, channels, X, Y, Z)``.
        :param finest: if False, leave out scale 0, which is most of the work.
        """
        bases = self.decoder(self.encoder(x), finest)
        heads = self.decoder.heads
        return [(len(heads) - 1 - n, bases[n], heads[n]) for n in range(len(bases))][::-1]


def initialize(module: nn.Module) -> None:
    """Initialise convolutions from He's normal distribution, as nnU-Net does."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=1e-2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
