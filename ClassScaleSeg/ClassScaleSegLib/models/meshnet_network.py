"""MeshNet: a stack of dilated convolutions at the full resolution, and a last layer with a kernel of 1.

Such stacks are due to F. Yu and V. Koltun (2016, arXiv:1511.07122). A. Fedorov et al. (2017, arXiv:1612.00940) named
this one, and trained it to parcellate heads. In models of Brainchop, batch normalisation is merged with convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .meshnet import KERNEL

ACTIVATIONS: dict[str, type[nn.ReLU] | type[nn.ELU]] = {"relu": nn.ReLU, "elu": nn.ELU}


class MeshNet(nn.Module):
    """The network, which maps ``(B, input_channels, X, Y, Z)`` to ``(B, num_classes, X, Y, Z)``.

    :ivar layers: convolutions, each with its activation: together they give the basis, ``features`` channels.
    :ivar seg_layers: one layer, the projection: a convolution with a kernel of 1. As in a U-Net, it may be replaced.
    :param features: channels of every layer.
    :param dilations: distance in voxels between neighbours of each layer's kernel of 3 x 3 x 3. As many zeros surround
        its input on every side, so that the size stays.
    :param activation: of every layer, a key of ``ACTIVATIONS``.

    >>> MeshNet(1, 104, 21, [1, 2], "relu")(torch.zeros(1, 1, 4, 5, 6)).shape
    torch.Size([1, 104, 4, 5, 6])
    """

    def __init__(
        self, input_channels: int, num_classes: int, features: int, dilations: Sequence[int], activation: str
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, dilation in enumerate(dilations):
            channels = features if number else input_channels
            layers.append(nn.Conv3d(channels, features, KERNEL, padding=dilation, dilation=dilation))
            layers.append(ACTIVATIONS[activation](inplace=True))
        self.layers = nn.Sequential(*layers)
        self.seg_layers = nn.ModuleList([nn.Conv3d(features, num_classes, 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, or the basis if the projection was removed."""
        return self.seg_layers[-1](self.layers(x))
