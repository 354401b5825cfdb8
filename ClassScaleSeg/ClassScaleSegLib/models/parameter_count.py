"""Count the parameters of a network from its plans, and the memory of its maps, before torch is there."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from . import meshnet, primus, segresnet
from .architecture import MAX_FEATURES, basis_channels, per_stage_sizes
from .json_checks import integers, short
from .networks import RANK_ENTRY, find_network


def count_parameters(entries: dict, channels: int, classes: int) -> int:
    """Count the parameters of the network that `network.build_network` builds, including its last layer.

    A tensor that nnU-Net registers under several names is counted once, and the heads for deep supervision, which are
    not built, are not counted. Nor are the statistics of batch normalization, which are no parameters.

    :param entries: of one configuration; `check_architecture` has checked its ``architecture``.
    :param channels: of the input.
    :param classes: rows of the last layer.
    :raises ModelError: if the network cannot be built, because a list in its architecture has another length than it
        needs; the message names the entry.
    """
    architecture, dimension = entries["architecture"], len(entries["patch_size"])
    arguments = architecture["arch_kwargs"]
    name, network = find_network(architecture)
    if name == "SegResNetDS":
        return segresnet.count_segresnet(arguments, channels, classes)
    if name == "MeshNet":
        return meshnet.count_meshnet(arguments, channels, classes)
    if not network.projects:
        outputs = basis_channels(entries, classes)
        projection = classes * (outputs + 1) if entries.get(RANK_ENTRY) is not None else 0
        return primus.count_primus(name, arguments, channels, outputs) + projection
    stages, layers = arguments["n_stages"], _Layers.of(arguments)
    features = _whole(arguments, "features_per_stage", stages)
    kernels, strides = (
        [math.prod(sizes) for sizes in per_stage_sizes(arguments, key, stages, dimension)]
        for key in ("kernel_sizes", "strides")
    )
    if network.residual:
        count = _residual_encoder(arguments, layers, channels, features, kernels)
    else:
        convolutions = _whole(arguments, "n_conv_per_stage", stages)
        steps = zip([channels, *features], features, kernels, convolutions, strict=False)
        count = sum(layers.stack(*step) for step in steps)
    convolutions = _whole(arguments, "n_conv_per_stage_decoder", stages - 1)
    for stage, repeats in zip(reversed(range(stages - 1)), convolutions, strict=True):
        below, width = features[stage + 1], features[stage]
        count += width * (below * strides[stage + 1] + layers.bias)  # the transposed convolution
        if name == "ResidualUNet":
            count += layers.residual(2 * width, width, kernels[stage], None)
            count += (repeats - 1) * layers.residual(width, width, kernels[stage], None)
        else:
            count += layers.stack(2 * width, width, kernels[stage], repeats)
    return count + classes * (features[0] + 1)


def peak_channels(name: str, arguments: dict, features: int) -> int:
    """Return how many numbers for each voxel of the patch exist at once where the memory of a network peaks.

    :param name: of the network; all but Primus are run slab by slab, and have no such number.
    :param arguments: `check_architecture` has checked them.
    :param features: channels of the last feature map, or of the last layer of a Primus without projection.
    """
    if not name.startswith("Primus"):
        return 0
    return primus.peak_channels(name, arguments, features)


@dataclass(frozen=True)
class _Layers:
    """The number of parameters of layers.

    :ivar bias: of a convolution, for each channel of its output: 0 or 1.
    :ivar norm: of a normalisation, for each channel: 0 or 2.
    :ivar nonlin: of a nonlinearity.
    """

    bias: int
    norm: int
    nonlin: int

    @classmethod
    def of(cls, arguments: dict) -> _Layers:
        norm, nonlin = (str(arguments.get(key)).rpartition(".")[2] for key in ("norm_op", "nonlin"))
        affine = (arguments.get("norm_op_kwargs") or {}).get("affine", norm.startswith("BatchNorm"))  # torch's defaults
        scaled = affine and norm.startswith(("InstanceNorm", "BatchNorm"))
        slopes = 0
        if nonlin == "PReLU":
            slopes = (arguments.get("nonlin_kwargs") or {}).get("num_parameters", 1)
            integers(slopes, MAX_FEATURES, "num_parameters")
        return cls(int(bool(arguments.get("conv_bias"))), 2 if scaled else 0, slopes)

    def convolution(self, inputs: int, outputs: int, kernel: int) -> int:
        """Count those of a convolution with a normalisation; ``kernel`` is its number of voxels."""
        return outputs * (inputs * kernel + self.bias + self.norm)

    def stack(self, inputs: int, outputs: int, kernel: int, repeats: int) -> int:
        """Count those of convolutions one after the other, each with a normalisation and a nonlinearity."""
        first, more = self.convolution(inputs, outputs, kernel), self.convolution(outputs, outputs, kernel)
        return first + (repeats - 1) * more + repeats * self.nonlin

    def residual(self, inputs: int, outputs: int, kernel: int, bottleneck: int | None) -> int:
        """Count those of a residual block; ``bottleneck`` is the number of channels inside a `BottleneckD`."""
        shortcut = 0 if inputs == outputs else outputs * (inputs + self.norm)
        if bottleneck is None:
            inside = self.convolution(inputs, outputs, kernel) + self.convolution(outputs, outputs, kernel)
            return shortcut + inside + 2 * self.nonlin
        inside = self.convolution(inputs, bottleneck, 1) + self.convolution(bottleneck, bottleneck, kernel)
        return shortcut + inside + self.convolution(bottleneck, outputs, 1) + 3 * self.nonlin


def _residual_encoder(arguments: dict, layers: _Layers, channels: int, features: list[int], kernels: list[int]) -> int:
    """Count the parameters of the stem and of the stages of residual blocks."""
    stages = len(features)
    blocks = _whole(arguments, "n_blocks_per_stage", stages)
    bottlenecks: list[int] | list[None] = [None] * stages
    if str(arguments.get("block")).endswith("BottleneckD"):
        bottlenecks = _whole(arguments, "bottleneck_channels", stages)
    stem = features[0]
    if arguments.get("stem_channels") is not None:
        (stem,) = _whole(arguments, "stem_channels", 1)
    count = layers.stack(channels, stem, kernels[0], 1)
    for (inputs, outputs), kernel, repeats, bottleneck in zip(
        itertools.pairwise([stem, *features]), kernels, blocks, bottlenecks, strict=True
    ):
        count += layers.residual(inputs, outputs, kernel, bottleneck)
        count += (repeats - 1) * layers.residual(outputs, outputs, kernel, bottleneck)
    return count


def _whole(arguments: dict, key: str, count: int) -> list[int]:
    """Return the entry, ``count`` whole numbers, or one for all."""
    value: Any = arguments.get(key)
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count or not all(type(entry) is int for entry in values):
        raise ModelError(f"the architecture cannot be built: {key} {short(value)} must be {count} whole number(s).")
    return values
