"""nnU-Net's plain U-Net in torch alone, for machines that have neither nnunetv2 nor its network package.

Structure, arguments and the names of all weights are those of ``PlainConvUNet`` in the package
``dynamic_network_architectures`` (the aliases under ``all_modules`` and ``decoder.encoder`` too), so a ``state_dict``
of the one loads strictly into the other and gives the same output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

NETWORK_CLASS = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


def architecture(
    features: Sequence[int], convolutions: Sequence[int], decoder_convolutions: Sequence[int]
) -> dict[str, Any]:
    """``arch_kwargs`` of nnU-Net's plans: isotropic, kernel 3, each stage after the first at half the resolution.

    :param features: channels of each stage, from the finest. The first one is the rank of the basis.
    :param convolutions: convolutions of each stage of the encoder.
    :param decoder_convolutions: of the decoder, from the coarsest, one stage less.
    :raises ValueError: if the lengths do not fit.
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
        self.norm = nn.InstanceNorm3d(channels_out, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all_modules(x)


class _Stack(nn.Module):
    def __init__(self, count: int, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        rest = [_ConvNormReLU(channels_out, channels_out, 1) for _ in range(count - 1)]
        self.convs = nn.Sequential(_ConvNormReLU(channels_in, channels_out, stride), *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class _Encoder(nn.Module):
    def __init__(self, channels: int, features: Sequence[int], convolutions: Sequence[int]) -> None:
        super().__init__()
        inputs = [channels, *features[:-1]]
        stages = [
            nn.Sequential(_Stack(count, before, after, stride=1 if number == 0 else 2))
            for number, (count, before, after) in enumerate(zip(convolutions, inputs, features, strict=True))
        ]
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class _Decoder(nn.Module):
    def __init__(self, encoder: _Encoder, classes: int, features: Sequence[int], convolutions: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder  # registered again, as in the original
        below, skip = features[:0:-1], features[-2::-1]
        self.stages = nn.ModuleList(_Stack(n, 2 * s, s) for n, s in zip(convolutions, skip, strict=True))
        self.transpconvs = nn.ModuleList(nn.ConvTranspose3d(b, s, 2, 2) for b, s in zip(below, skip, strict=True))
        self.seg_layers = nn.ModuleList(nn.Conv3d(s, classes, 1) for s in skip)

    def forward(self, skips: list[torch.Tensor], finest: bool = True) -> list[torch.Tensor]:
        """Features of each scale, coarsest first, with or without the finest."""
        scales = [skips[-1]]
        parts = list(zip(self.stages, self.transpconvs, skips[-2::-1], strict=True))
        for stage, up, skip in parts if finest else parts[:-1]:
            scales.append(stage(torch.cat((up(scales[-1]), skip), 1)))
        return scales[1:]


class PlainUNet(nn.Module):
    """``forward`` gives the basis ``(B, R, X, Y, Z)``; :attr:`head` is the 1x1x1 convolution that makes logits of it.

    The heads of the coarser stages exist, because the original has them, and take part in deep supervision only.

    :param arch_kwargs: as made by :func:`architecture`; each side of an input must be a multiple of ``2^(stages - 1)``.
    """

    def __init__(self, arch_kwargs: dict[str, Any], channels: int, classes: int) -> None:
        super().__init__()
        features = arch_kwargs["features_per_stage"]
        self.encoder = _Encoder(channels, features, arch_kwargs["n_conv_per_stage"])
        self.decoder = _Decoder(self.encoder, classes, features, arch_kwargs["n_conv_per_stage_decoder"])
        self.apply(_initialize)

    @property
    def head(self) -> nn.Conv3d:
        return self.decoder.seg_layers[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))[-1]

    def scales(self, x: torch.Tensor, finest: bool = True) -> list[tuple[int, torch.Tensor, nn.Conv3d]]:
        """Each scale s, finest first, with its basis and its head; it has ``1 / 2^s`` of the voxels along each side.

        :param finest: False: scale 0, which is most of the work, is left out.
        """
        bases = self.decoder(self.encoder(x), finest)
        heads = list(self.decoder.seg_layers)
        return [(len(heads) - 1 - n, bases[n], heads[n]) for n in range(len(bases))][::-1]


def _initialize(module: nn.Module) -> None:
    """He's normal distribution for convolutions, as nnU-Net initialises its networks."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=1e-2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
