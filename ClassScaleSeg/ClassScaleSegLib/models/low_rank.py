"""Convert the low-rank head of ClassScaleTrainer to the last layers with C channels of a stock nnU-Net network."""

from __future__ import annotations

import torch

from ..errors import ModelError

PREFIX = "decoder.seg_layers."  # of nnU-Net's last layers, and of the head that ClassScaleTrainer replaces them by


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
