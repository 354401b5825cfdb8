"""Hide blocks of an image, reconstruct it, and measure the error of what was hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm


def random_visible(
    patch: Sequence[int], block: Sequence[int], ratio: float, generator: torch.Generator
) -> torch.Tensor:
    """Choose the blocks of a patch that stay visible.

    :param patch: size in voxels along each axis, a multiple of ``block``.
    :param block: size of a block in voxels along each axis.
    :param ratio: share of the blocks to hide; at least one is hidden, and at least one stays visible.
    :returns: ``(1, X, Y, Z)``, float32 with one value for each voxel: 1 if it is visible and 0 if it is hidden.

    >>> visible = random_visible((8, 8, 8), (4, 4, 4), 0.75, torch.Generator().manual_seed(0))
    >>> visible.shape, int(visible.sum())  # two of eight blocks of 64 voxels
    (torch.Size([1, 8, 8, 8]), 128)
    """
    blocks = [size // width for size, width in zip(patch, block, strict=True)]
    number = math.prod(blocks)
    hidden = min(max(1, int(ratio * number)), number - 1)
    flat = torch.ones(number)
    flat[torch.randperm(number, generator=generator)[:hidden]] = 0
    visible = flat.reshape(1, *blocks)
    for axis, width in enumerate(block, 1):
        visible = visible.repeat_interleave(width, axis)
    return visible


def check_block(patch: Sequence[int], block: Sequence[int], strides: Sequence[int], sparse: bool) -> None:
    """Check the size of the blocks.

    :param strides: of the whole encoder, in voxels along each axis.
    :param sparse: whether the encoder sees visible voxels alone.
    :raises ModelError: if blocks do not divide the patch into two parts or more, or are smaller than the strides of an
        encoder that is sparse.
    """
    if any(size % width for size, width in zip(patch, block, strict=True)) or list(patch) == list(block):
        raise ModelError(
            f"Blocks of {_size(block)} voxels do not divide the patch of {_size(patch)}: choose a --block that divides "
            "each side of the patch and leaves more than one block."
        )
    if sparse and any(width % stride for width, stride in zip(block, strides, strict=True)):
        raise ModelError(
            f"Blocks of {_size(block)} voxels are no multiples of {_size(strides)}, the size of a voxel at the "
            "bottleneck of this network: choose a larger --block, or leave out --sparse."
        )


def _size(widths: Sequence[int]) -> str:
    return "x".join(map(str, widths))


def reconstruction_error(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error ``()`` of the hidden voxels.

    :param reconstruction: ``(B, C, ...)``, C channels.
    :param target: the image and, as last channel, what is visible: ``(B, C + 1, ...)``.
    """
    image, hidden = target[:, :-1], 1 - target[:, -1:]
    squares = (reconstruction.float() - image).square() * hidden
    return squares.sum() / (hidden.sum() * image.shape[1])


def hidden_variance(target: torch.Tensor) -> torch.Tensor:
    """Return the variance ``()`` of the hidden voxels: the error of a network that predicts their mean.

    :param target: as in :func:`reconstruction_error`.
    """
    image, hidden = target[:, :-1], 1 - target[:, -1:]
    count = hidden.sum() * image.shape[1]
    mean = (image * hidden).sum() / count
    return ((image - mean).square() * hidden).sum() / count


class MaskedAutoencoder(nn.Module):
    """A network that reconstructs images of which it sees parts.

    The last layers of coarse scales are removed. The encoder sees the zeros of hidden voxels as any other value, unless
    :meth:`make_sparse` is called.

    :param network: a U-Net with as many output as input channels; ``network.encoder`` is its encoder.
    :raises ModelError: if the network has no encoder.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self._visible = network, torch.empty(0)
        if not (hasattr(network, "encoder") and hasattr(network, "decoder")):
            raise ModelError(
                f"The network {type(network).__name__} has no convolutional encoder, which pretraining needs. Choose "
                "plans with a PlainConvUNet or a ResidualEncoderUNet."
            )
        network.decoder.deep_supervision, heads = False, network.decoder.seg_layers
        for coarse in range(len(heads) - 1):  # in DDP, every weight must take part
            heads[coarse] = nn.Identity()

    def forward(self, masked: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction ``(B, C, ...)``.

        :param masked: the image and, as last channel, what is visible (1 or 0): ``(B, C + 1, ...)``.
        """
        image, self._visible = masked[:, :-1], masked[:, -1:]
        return self.network(image * self._visible)

    def make_sparse(self) -> None:
        """Let the encoder see visible voxels alone.

        Features of hidden voxels become 0 after each convolution, and norms are computed from the others (Tian et al.,
        "Designing BERT for convolutional networks: sparse and hierarchical masked modeling", ICLR 2023, here without
        mask tokens). Blocks must be multiples of the voxels of the bottleneck.

        :raises ModelError: if the network has batch norm.
        """
        for module in self.network.encoder.modules():
            if isinstance(module, _BatchNorm):
                raise ModelError("A network with batch norm cannot be sparse: leave out --sparse.")
            if isinstance(module, _ConvNd):
                module.register_forward_hook(lambda _module, _inputs, output: output * self._at(output))
            elif isinstance(module, _InstanceNorm):
                module.register_forward_hook(lambda norm, inputs, _output: self._normalised(norm, inputs[0]))

    def _at(self, features: torch.Tensor) -> torch.Tensor:
        """Return what is visible on the grid of feature maps; blocks are multiples of their voxels."""
        steps = [size // own for size, own in zip(self._visible.shape[2:], features.shape[2:], strict=True)]
        return self._visible[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]

    def _normalised(self, norm: _InstanceNorm, features: torch.Tensor) -> torch.Tensor:
        visible = self._at(features)
        axes = tuple(range(2, features.ndim))
        count = visible.sum(axes, keepdim=True)
        mean = (features * visible).sum(axes, keepdim=True) / count
        centred = (features - mean) * visible
        found = centred * (centred.square().sum(axes, keepdim=True) / count + norm.eps).rsqrt()
        if norm.weight is None:
            return found
        shape = (1, -1, *[1] * len(axes))
        return (found * norm.weight.view(shape) + norm.bias.view(shape)) * visible
