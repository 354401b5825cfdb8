"""Check the arguments of a MeshNet in untrusted plans, and count its parameters, without torch."""

from __future__ import annotations

from ..errors import ModelError
from .json_checks import integers, short

MAX_LAYERS, MAX_FEATURES, MAX_DILATION = 64, 512, 64  # Brainchop's largest has 9 layers, 30 channels, a dilation of 16
ACTIVATIONS = ("relu", "elu")
KERNEL = 3


def check_meshnet(name: str, given: dict, patch: list[int]) -> dict:
    """Return the arguments of a MeshNet; each is checked.

    :param name: ``MeshNet``.
    :param given: ``arch_kwargs`` of the plans, none of which is unknown.
    :param patch: size of the patch.
    :raises ModelError: if a value is missing or not plausible; the message names the entry.
    """
    if len(patch) != 3:
        raise ModelError(f"{name} must have three dimensions, as the patch_size {patch}.")
    features, dilations, activation = (given.get(key) for key in ("features", "dilations", "activation"))
    if type(features) is not int or not 1 <= features <= MAX_FEATURES:
        raise ModelError(f"features of {name} is {short(features)}; a whole number up to {MAX_FEATURES} was expected.")
    if not isinstance(dilations, list) or not 1 <= len(dilations) <= MAX_LAYERS:
        raise ModelError(f"dilations {short(dilations)} of {name} must be a list of 1 to {MAX_LAYERS} numbers.")
    for dilation in dilations:
        if isinstance(dilation, list):
            raise ModelError(f"dilations {short(dilations)} of {name} must be one number for each layer.")
        integers(dilation, MAX_DILATION, f"dilations of {name}")
    if activation not in ACTIVATIONS:
        raise ModelError(f"activation {short(activation)} of {name} is not one of {', '.join(ACTIVATIONS)}.")
    return {"features": features, "dilations": dilations, "activation": activation}


def count_meshnet(arguments: dict, channels: int, classes: int) -> int:
    """Count the parameters of a MeshNet.

    :param arguments: as `check_meshnet` returns them.
    :param channels: of the input.
    :param classes: rows of the last layer.
    """
    features, layers = arguments["features"], len(arguments["dilations"])
    inputs = channels + (layers - 1) * features
    return inputs * features * KERNEL**3 + layers * features + classes * (features + 1)
