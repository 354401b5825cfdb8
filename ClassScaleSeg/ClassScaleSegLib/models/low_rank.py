"""Weights with the low-rank head of ClassScaleTrainer -> the C-channel last layers that nnU-Net's networks have."""

from __future__ import annotations

import torch

from ..errors import ModelError

PREFIX = "decoder.seg_layers."  # of nnU-Net's last layers, and of what ClassScaleTrainer puts in their place


def has_low_rank_head(weights: dict[str, torch.Tensor]) -> bool:
    return f"{PREFIX}projection" in weights


def fold_low_rank_head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fold basis layers and projection of a ``state_dict`` into the last layers that stock nnU-Net has.

    ``P (A f + a) + b = (P A) f + (P a + b)``, computed in float64.

    :raises ModelError: if there is no such head, or its tensors do not fit each other.
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
