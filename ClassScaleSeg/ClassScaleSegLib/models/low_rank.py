"""Convert the low-rank head of ClassScaleTrainer to the last layers with C channels of a stock nnU-Net network."""

from __future__ import annotations

import math

import torch

from ..errors import ModelError
from .primus import decoder_widths

PREFIX = "decoder.seg_layers."  # of nnU-Net's last layers, and of the head that ClassScaleTrainer replaces them by

PATCH_DECODER = "up_projection."  # the decoder of a Primus; the head of ClassScaleTrainer is in its ``seg_layers``


def has_low_rank_head(weights: dict[str, torch.Tensor]) -> bool:
    """Tell whether weights, by nnU-Net's names, have a low-rank head."""
    return f"{PREFIX}projection" in weights


def fold_low_rank_head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Merge basis layers and projection into the last layers of a stock nnU-Net network.

    ``P (A f + a) + b = (P A) f + (P a + b)``, computed in float64.

    :returns: the ``state_dict`` of the stock network; the merged layers are float32.
    :raises ModelError: if there is no low-rank head, or its tensors do not fit each other.
    """
    scales = sum(name.startswith(f"{PREFIX}bases.") and name.endswith(".weight") for name in weights)
    if not scales or not has_low_rank_head(weights):
        raise ModelError("These weights have no low-rank head: they are not from ClassScaleTrainer.")
    folded = {name: tensor for name, tensor in weights.items() if not name.startswith(PREFIX)}
    try:
        projection, bias = (weights[PREFIX + name].double() for name in ("projection", "bias"))
        for scale in range(scales):
            layer = weights[f"{PREFIX}bases.{scale}.weight"].double()
            weight = (projection @ layer.flatten(1)).view(len(projection), *layer.shape[1:])
            offset = projection @ weights[f"{PREFIX}bases.{scale}.bias"].double() + bias
            folded[f"{PREFIX}{scale}.weight"], folded[f"{PREFIX}{scale}.bias"] = weight.float(), offset.float()
    except KeyError as missing:
        raise ModelError(f"The low-rank head of these weights lacks {missing}.") from None
    except RuntimeError as error:
        raise ModelError(f"The parts of the low-rank head do not fit each other ({error}).") from None
    return folded


def split_patch_head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name the head of a Primus as inference does: its basis layer ends the decoder, and a convolution projects.

    :param weights: from ClassScaleTrainer, or of a bundle, which has these names already.
    """
    head = f"{PATCH_DECODER}seg_layers."
    if f"{head}projection" not in weights:
        return weights
    stages = {name.split(".")[2] for name in weights if name.startswith(f"{PATCH_DECODER}decode.")}
    last = f"{PATCH_DECODER}decode.{len(stages)}."
    names = {
        f"{head}bases.0.weight": f"{last}weight",
        f"{head}bases.0.bias": f"{last}bias",
        f"{head}projection": f"{head}0.weight",
        f"{head}bias": f"{head}0.bias",
    }
    named = {names.get(name, name): tensor for name, tensor in weights.items()}
    named[f"{head}0.weight"] = named[f"{head}0.weight"][:, :, None, None, None]
    return named


def fold_patch_head(weights: dict[str, torch.Tensor], block: list[int]) -> dict[str, torch.Tensor]:
    """Merge basis layer and projection of a Primus into the last layer of nnU-Net's.

    nnU-Net makes the layers before it the wider, the more classes there are, and normalises over their channels. The
    weights are therefore embedded into wider layers: an added channel is the mean of the others, and the deviations of
    these from the mean grow by ``sqrt(new / old)``. Mean and variance over all channels are then the old ones. After
    the normalisation, the others are scaled back, and the added ones are 0.

    :param weights: of ClassScaleTrainer.
    :param block: voxels of a token along each axis.
    :returns: the ``state_dict`` of nnU-Net's network, float32; computed in float64.
    :raises ModelError: if the head is not there, or the parts do not fit each other.
    """
    if f"{PATCH_DECODER}seg_layers.projection" not in weights:
        raise ModelError("These weights have no low-rank head: they are not from ClassScaleTrainer.")
    folded = split_patch_head(weights)
    decode, head = f"{PATCH_DECODER}decode.", f"{PATCH_DECODER}seg_layers.0."
    parts = {name: folded.pop(name).double() for name in list(folded) if name.startswith((decode, head))}
    try:
        projection, bias = parts.pop(f"{head}weight").flatten(1), parts.pop(f"{head}bias")
        widths = decoder_widths(parts[f"{decode}0.0.weight"].shape[0], block, len(projection))
        last = f"{decode}{len(widths) - 2}."
        layer = parts[f"{last}weight"]  # (channels, R, ...)
        parts[f"{last}weight"] = torch.einsum("cr,ir...->ic...", projection, layer)
        parts[f"{last}bias"] = projection @ parts[f"{last}bias"] + bias
        for stage, width in enumerate(widths[1:-1]):
            following = f"{decode}{stage + 1}.0.weight" if stage + 1 < len(widths) - 2 else f"{last}weight"
            _widen(parts, f"{decode}{stage}.", following, width)
    except KeyError as missing:
        raise ModelError(f"The low-rank head of these weights lacks {missing}.") from None
    except (IndexError, RuntimeError) as error:
        raise ModelError(f"The parts of the low-rank head do not fit each other ({error}).") from None
    return {**folded, **{name: tensor.float() for name, tensor in parts.items()}}


def _widen(parts: dict[str, torch.Tensor], stage: str, following: str, width: int) -> None:
    """Widen the output of one transposed convolution with its normalisation, without changing what comes after."""
    weight, bias = parts[f"{stage}0.weight"], parts[f"{stage}0.bias"]
    scale, added = math.sqrt(width / len(bias)), width - len(bias)
    if added < 0:
        raise ModelError(f"the layer {stage}0 has {len(bias)} channels, but nnU-Net's would have {width}.")
    for name, tensor, axis in ((f"{stage}0.weight", weight, 1), (f"{stage}0.bias", bias, 0)):
        mean = tensor.mean(axis, keepdim=True)
        parts[name] = torch.cat([mean + scale * (tensor - mean), *[mean] * added], axis)
    for name, divisor in ((f"{stage}1.weight", scale), (f"{stage}1.bias", 1)):
        parts[name] = torch.nn.functional.pad(parts[name] / divisor, (0, added))
    rest = parts[following]
    parts[following] = torch.cat([rest, rest.new_zeros(added, *rest.shape[1:])])
