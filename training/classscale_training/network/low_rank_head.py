"""The low-rank head: a basis of R channels at each scale, and one projection to C classes that all scales share.

It replaces the layers with C channels at the end of nnU-Net's U-Nets (``decoder.seg_layers``). The names of its weights
also begin with ``decoder.seg_layers.``, so that nnU-Net's ``-pretrained_weights`` skips them as it skips its own last
layers. In a Primus, which has one scale, the basis layer is the last transposed convolution of its decoder, and the
names begin with ``up_projection.seg_layers.``.

This module imports torch alone: it recognises networks by their parts, not by their class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.models.networks import DEFAULT_RANK, NETWORKS
from torch import nn
from torch.nn.functional import conv1d

from .plain_unet import initialize


class ClassScaleHead(nn.Module):
    """A last layer with few channels for many classes: ``logits = projection @ basis + bias``.

    The initial weights give logits the variance that they have with nnU-Net's own last layer. The basis layers are
    initialised like all convolutions of nnU-Net (He; instance-normalised features have variance 1), the projection is
    normal with variance 1 / R, and the bias is 0.

    :param features: channels of each scale, coarsest first.
    :param classes: number of classes C.
    :param rank: channels R of the basis, at most those of the finest scale.
    :param dimension: spatial dimensions of the images, 2 or 3.
    :ivar bases: ``bases[s]`` is the 1x1x1 convolution from the features of scale s, coarsest first, to R channels; in a
        Primus, the last transposed convolution.
    :ivar projection: ``(C, R)``.
    :ivar bias: ``(C,)``.
    :raises ModelError: if the rank is less than 1 or exceeds the channels of the finest scale.

    For 1000 classes at two scales this head has 5104 parameters; nnU-Net's last layers would have 26,000:

    >>> import torch
    >>> head = ClassScaleHead([16, 8], classes=1000, rank=4)
    >>> sum(parameter.numel() for parameter in head.parameters())
    5104
    >>> basis = head[-1](torch.randn(2, 8, 6, 5, 4))
    >>> basis.shape
    torch.Size([2, 4, 6, 5, 4])
    >>> logits = torch.einsum("brxyz,cr->bcxyz", basis, head.projection) + head.bias[:, None, None, None]
    >>> torch.allclose(head.logits(basis), logits, atol=1e-5)
    True
    """

    def __init__(self, features: Sequence[int], classes: int, rank: int = DEFAULT_RANK, dimension: int = 3) -> None:
        super().__init__()
        check_rank(rank, features[-1])
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.bases = nn.ModuleList(convolution(channels, rank, 1) for channels in features).apply(initialize)
        self.projection = nn.Parameter(torch.randn(classes, rank) * rank**-0.5)
        self.bias = nn.Parameter(torch.zeros(classes))

    def __len__(self) -> int:
        return len(self.bases)

    def __getitem__(self, scale: int) -> nn.Module:
        """Return the basis layer of a scale. The inference engine takes ``[-1]``, the finest, as the last layer."""
        return self.bases[scale]

    def logits(self, basis: torch.Tensor) -> torch.Tensor:
        """Return all logits ``(B, C, ...)`` of a basis ``(B, R, ...)``: for few classes or small patches."""
        flat = conv1d(basis.flatten(2), self.projection[:, :, None], self.bias)
        return flat.unflatten(2, basis.shape[2:])


class ClassScaleDecoder(nn.Module):
    """nnU-Net's decoder (``UNetDecoder``) with a low-rank head.

    With ``deep_supervision``, that is in training, the output is ``(bases, projection, bias)``, with the bases finest
    first: the loss needs no logits, and distributed training finds every parameter in the output. Without it, the
    output is logits ``(B, C, ...)``, as from any network of nnU-Net.

    :param decoder: nnU-Net's decoder, whose encoder, stages and transposed convolutions are used.
    :param head: replaces the last layers.
    :ivar deep_supervision: which output to return, as above; nnU-Net's trainer switches it.
    """

    def __init__(self, decoder: Any, head: ClassScaleHead) -> None:
        super().__init__()
        self.deep_supervision = decoder.deep_supervision
        self.encoder, self.stages, self.transpconvs = decoder.encoder, decoder.stages, decoder.transpconvs
        self.seg_layers = head

    def forward(
        self, skips: list[torch.Tensor]
    ) -> torch.Tensor | tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Return the output for the feature maps of the encoder, finest first."""
        x, bases = skips[-1], []
        for scale in range(len(self.stages)):
            x = self.transpconvs[scale](x)
            x = self.stages[scale](torch.cat((x, skips[-(scale + 2)]), 1))
            if self.deep_supervision:
                bases.append(self.seg_layers.bases[scale](x))
        if self.deep_supervision:
            return bases[::-1], self.seg_layers.projection, self.seg_layers.bias
        return self.seg_layers.logits(self.seg_layers.bases[-1](x))


class ClassScalePatchDecoder(nn.Module):
    """The decoder of a Primus (``PatchDecode``) with a low-rank head; its output is that of :class:`ClassScaleDecoder`.

    :param decoder: of a Primus that was built for R channels; its last layer becomes the basis layer.
    :param classes: number of classes C.
    :ivar deep_supervision: whether to return the basis, projection and bias, or logits.
    """

    def __init__(self, decoder: Any, classes: int) -> None:
        super().__init__()
        self.deep_supervision = True
        last = decoder.decode[-1]
        self.decode = decoder.decode[:-1]
        self.seg_layers = ClassScaleHead([last.out_channels], classes, last.out_channels)
        self.seg_layers.bases[0] = last

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Return the output for the tokens ``(B, channels, ...)``."""
        basis = self.seg_layers[-1](self.decode(x))
        if self.deep_supervision:
            return [basis], self.seg_layers.projection, self.seg_layers.bias
        return self.seg_layers.logits(basis)


class FinestBasis(nn.Module):
    """A network with a head, reduced to the finest basis.

    :param network: as `add_head` returns it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the basis ``(B, R, ...)``, whatever the network itself returns."""
        decoder = decoder_of(self.network)
        before, decoder.deep_supervision = decoder.deep_supervision, True
        try:
            return self.network(x)[0][0]
        finally:
            decoder.deep_supervision = before


def decoder_of(network: Any) -> Any:
    """Return the decoder of a network of the list, which has the head in its ``seg_layers``."""
    return network.up_projection if hasattr(network, "up_projection") else network.decoder


def has_head(network: Any) -> bool:
    """Tell whether a network ends in a :class:`ClassScaleHead`."""
    return any(isinstance(module, ClassScaleHead) for module in network.modules())


def add_head(network: nn.Module, classes: int, rank: int | None = None) -> nn.Module:
    """Replace the last layers of a network that was built from nnU-Net's plans by a :class:`ClassScaleHead`.

    :param network: a U-Net, or a Primus that was built for ``rank`` channels; it is changed in place.
    :param classes: number of classes C.
    :param rank: channels of the basis; None for 32 or, if it has fewer, the channels of the finest scale.
    :returns: ``network``.
    :raises ModelError: if the network does not end in the decoder of these, or the rank is out of range.

    With deep supervision the network returns bases, finest first, instead of logits:

    >>> import torch
    >>> from dynamic_network_architectures.architectures.unet import PlainConvUNet
    >>> network = PlainConvUNet(
    ...     1, 3, (8, 16, 32), torch.nn.Conv3d, 3, (1, 2, 2), 1, 2, 1, nonlin=torch.nn.ReLU, deep_supervision=True
    ... )
    >>> bases, projection, bias = add_head(network, classes=1000)(torch.randn(1, 1, 16, 16, 16))
    >>> [tuple(basis.shape) for basis in bases], tuple(projection.shape)
    ([(1, 8, 16, 16, 16), (1, 8, 8, 8, 8)], (1000, 8))

    Without it, the network returns logits, as any network of nnU-Net does:

    >>> network.decoder.deep_supervision = False
    >>> network(torch.randn(1, 1, 16, 16, 16)).shape
    torch.Size([1, 1000, 16, 16, 16])
    """
    if hasattr(network, "up_projection"):
        network.up_projection = ClassScalePatchDecoder(network.up_projection, classes)
        return network
    decoder: Any = getattr(network, "decoder", None)
    layers = getattr(decoder, "seg_layers", None)
    parts = ("encoder", "stages", "transpconvs", "deep_supervision")
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(decoder, part) for part in parts):
        raise ModelError(
            f"The network {type(network).__name__} does not end in the decoder of one of {', '.join(NETWORKS)}, which "
            "ClassScaleTrainer needs. Choose plans with one of these networks."
        )
    features = [layer.in_channels for layer in decoder.seg_layers]
    dimension = decoder.seg_layers[-1].weight.ndim - 2
    head = ClassScaleHead(features, classes, min(DEFAULT_RANK, features[-1]) if rank is None else rank, dimension)
    network.decoder = ClassScaleDecoder(decoder, head)
    return network


def check_rank(rank: int, channels: int) -> None:
    """Check a rank against the channels of the finest scale, of which the basis is a linear function.

    :raises ModelError: if ``rank`` is not in 1..``channels``.
    """
    if not 1 <= rank <= channels:
        raise ModelError(
            f"The rank is {rank}, but the finest scale of the network has {channels} channels: choose 1 to {channels}. "
            "A larger rank would add weights without improving what the network can represent."
        )
