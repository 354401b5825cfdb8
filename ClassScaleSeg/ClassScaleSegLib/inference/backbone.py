"""The networks of all folds: a patch -> its basis, on whatever device it lies."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import torch


class Backbone:
    """Bases of all folds, side by side or averaged, each averaged over mirrorings.

    :param networks: U-Nets with ``encoder`` and ``decoder`` as in dynamic-network-architectures; the last of
        ``decoder.seg_layers`` gives the basis.
    :param mirror_axes: spatial axes of the patch; all combinations are averaged, as nnU-Net does.
    :param average: give the mean of the folds (their outputs are logits) instead of laying them side by side.
    """

    def __init__(self, networks: Sequence[torch.nn.Module], mirror_axes: Sequence[int] = (), average: bool = False):
        self.networks, self.average = list(networks), average
        axes = [axis + 2 for axis in mirror_axes]
        self.flips = [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """``(1, channels, *patch)`` float32 -> ``(R, *patch)`` float32 on the same device."""
        # torch before 2.5 knows no autocast on MPS, not even a disabled one
        precision = torch.autocast("cuda") if patch.device.type == "cuda" else contextlib.nullcontext()
        result = None
        for fold, network in enumerate(self.networks):
            network.to(patch.device)
            for flip in self.flips:
                with precision:
                    basis = forward(network, patch.flip(flip)).flip(flip) if flip else forward(network, patch)
                basis = basis[0].float()
                if len(self.networks) == len(self.flips) == 1:
                    return basis
                if result is None:
                    parts = 1 if self.average else len(self.networks)
                    result = basis.new_zeros(parts * len(basis), *basis.shape[1:])
                part = 0 if self.average else fold * len(basis)
                result[part : part + len(basis)] += basis
        return result.div_(len(self.flips) * (len(self.networks) if self.average else 1))


def forward(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``network(x)``, letting go of each skip connection once it is used.

    The decoder's own ``forward`` keeps them all to the end, which at the full resolution, where memory peaks, is one
    feature map more.
    """
    decoder, skips = network.decoder, network.encoder(x)
    x = skips.pop()
    for upsample, stage in zip(decoder.transpconvs, decoder.stages, strict=True):
        x = upsample(x)
        x = torch.cat((x, skips.pop()), 1)
        x = stage(x)
    return decoder.seg_layers[-1](x)
