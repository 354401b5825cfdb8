"""The low-rank last layer: a basis of R channels at each scale, one projection to C classes for all of them.

In place of the C-channel layers of nnU-Net's U-Nets (``decoder.seg_layers``). The names of its weights begin with
``decoder.seg_layers.`` too, so that nnU-Net's ``-pretrained_weights`` passes over them as it does over its own.
Needs torch alone: networks are recognised by their parts, not by their class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ClassScaleSegLib.errors import ModelError
from torch import nn
from torch.nn.functional import conv1d

DEFAULT_RANK = 32  # channels of the finest scale of nnU-Net's networks: more adds nothing, see `resolve_rank`


class ClassScaleHead(nn.Module):
    """``bases[s]`` is a 1x1x1 convolution from the features of scale s, coarsest first, to R channels.

    Initialised so that logits begin with the variance that nnU-Net's own last layer gives them: bases as all of its
    convolutions (He, variance 1 of instance-normalised features), projection normal with variance 1 / R, bias 0.

    :ivar projection: ``(C, R)``.
    :ivar bias: ``(C,)``.
    """

    def __init__(self, features: Sequence[int], classes: int, rank: int = DEFAULT_RANK, dimension: int = 3) -> None:
        """
        :param features: channels of each scale, coarsest first.
        :param dimension: of the images, 2 or 3.
        :raises ModelError: if the rank exceeds the channels of the finest scale, where it would add weights only.
        """
        super().__init__()
        check_rank(rank, features[-1])
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.bases = nn.ModuleList(convolution(channels, rank, 1) for channels in features)
        for layer in self.bases:
            nn.init.kaiming_normal_(layer.weight, a=1e-2)
            nn.init.zeros_(layer.bias)
        self.projection = nn.Parameter(torch.randn(classes, rank) * rank**-0.5)
        self.bias = nn.Parameter(torch.zeros(classes))

    def __len__(self) -> int:
        return len(self.bases)

    def __getitem__(self, scale: int) -> nn.Module:
        """The basis layer of a scale; ``[-1]``, the finest, is what our inference engine takes for the last layer."""
        return self.bases[scale]

    def logits(self, basis: torch.Tensor) -> torch.Tensor:
        """``(B, R, ...)`` -> ``(B, C, ...)``: for few classes, or small patches."""
        flat = conv1d(basis.flatten(2), self.projection[:, :, None], self.bias)
        return flat.unflatten(2, basis.shape[2:])


class ClassScaleDecoder(nn.Module):
    """nnU-Net's decoder (``UNetDecoder``) with the head above; it takes over the parts of the one it is given.

    With ``deep_supervision`` (training) the output is ``(bases, projection, bias)``, bases finest first: the loss needs
    no logits, and distributed training sees every parameter in the output. Without, it is logits ``(B, C, ...)``, as
    from any network of nnU-Net.
    """

    def __init__(self, decoder: nn.Module, head: ClassScaleHead) -> None:
        super().__init__()
        self.deep_supervision = decoder.deep_supervision
        self.encoder, self.stages, self.transpconvs = decoder.encoder, decoder.stages, decoder.transpconvs
        self.seg_layers = head

    def forward(self, skips: list[torch.Tensor]):
        x, bases = skips[-1], []
        for scale in range(len(self.stages)):
            x = self.transpconvs[scale](x)
            x = self.stages[scale](torch.cat((x, skips[-(scale + 2)]), 1))
            if self.deep_supervision:
                bases.append(self.seg_layers.bases[scale](x))
        if self.deep_supervision:
            return bases[::-1], self.seg_layers.projection, self.seg_layers.bias
        return self.seg_layers.logits(self.seg_layers.bases[-1](x))


def add_head(network: nn.Module, classes: int, rank: int | None = None) -> nn.Module:
    """Replace the last layers of a network built from nnU-Net's plans (PlainConvUNet, ResidualEncoderUNet) in place.

    :param rank: see :func:`resolve_rank`.
    :raises ModelError: if the network has no decoder of that kind, or the rank is too large.
    """
    decoder = getattr(network, "decoder", None)
    layers = getattr(decoder, "seg_layers", None)
    parts = ("encoder", "stages", "transpconvs", "deep_supervision")
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(decoder, part) for part in parts):
        raise ModelError(
            f"The network {type(network).__name__} does not end in the decoder of PlainConvUNet and "
            "ResidualEncoderUNet, which ClassScaleTrainer needs. Choose other plans."
        )
    features = [layer.in_channels for layer in layers]
    dimension = layers[-1].weight.ndim - 2
    head = ClassScaleHead(features, classes, resolve_rank(rank, features[-1]), dimension)
    network.decoder = ClassScaleDecoder(decoder, head)
    return network


def check_rank(rank: int, channels: int) -> None:
    """:raises ModelError: unless ``rank`` is in 1..channels, those of the finest scale."""
    if not 1 <= rank <= channels:
        raise ModelError(
            f"The rank is {rank}, but the finest scale of the network has {channels} channels: choose 1 to {channels}. "
            "A larger one would add weights and no freedom."
        )


def resolve_rank(rank: int | None, channels: int) -> int:
    """The rank asked for, checked; if none is, 32 or what the finest scale has if that is less."""
    if rank is None:
        return min(DEFAULT_RANK, channels)
    check_rank(rank, channels)
    return rank
