"""Check the arguments of MONAI's SegResNetDS in untrusted plans, and count its parameters, without torch and MONAI.

SegResNetDS (Myronenko, https://arxiv.org/abs/1810.11654, with deep supervision and anisotropic kernels) is the network
of MONAI's Auto3DSeg. Its levels add the skips to the upsampled maps, and its last layer is a convolution with a kernel
of 1 at the full resolution.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ModelError
from .json_checks import integers, is_number, numbers, short

MAX_FILTERS, MAX_LEVELS, MAX_BLOCKS = 1024, 8, 32  # Auto3DSeg plans 32 filters and 5 levels of 1 to 4 blocks
ACTIVATIONS = ("relu", "leakyrelu", "elu", "gelu", "mish", "prelu", "selu", "swish")
NORMS = ("batch", "group", "instance")
_OPTIONS: dict[str, tuple[type, ...]] = {
    **{"inplace": (bool,), "affine": (bool,), "track_running_stats": (bool,), "num_groups": (int,)},
    **{"eps": (float, int), "momentum": (float, int), "negative_slope": (float, int)},
}
_USUAL = {"act": "relu", "norm": "batch", "init_filters": 32, "blocks_down": [1, 2, 2, 4]}


def check_segresnet(name: str, given: dict, patch: list[int]) -> dict:
    """Return the arguments of a SegResNetDS with the defaults of its class; each is checked.

    :param name: ``SegResNetDS``.
    :param given: ``arch_kwargs`` of the plans, none of which is unknown.
    :param patch: size of the patch.
    :raises ModelError: if a value is not plausible; the message names the entry.
    """
    arguments = {**_USUAL, **given}
    if len(patch) != 3 or arguments.pop("spatial_dims", 3) != 3:
        raise ModelError(f"{name} must have three dimensions, as the patch_size {patch}.")
    if arguments.pop("preprocess", None) is not None:
        raise ModelError(f"{name} may not be given 'preprocess', which would be code.")
    if arguments.pop("upsample_mode", "deconv") != "deconv":
        raise ModelError(f"upsample_mode {short(given['upsample_mode'])} of {name} is not supported, only 'deconv'.")
    _one(arguments["init_filters"], "init_filters", MAX_FILTERS)
    levels = _list(arguments, "blocks_down")
    if not 2 <= len(levels) <= MAX_LEVELS:
        raise ModelError(f"blocks_down {short(levels)} must have 2 to {MAX_LEVELS} levels.")
    integers(levels, MAX_BLOCKS, "blocks_down")
    arguments["blocks_up"] = _list(arguments, "blocks_up") if "blocks_up" in arguments else [1] * (len(levels) - 1)
    if len(arguments["blocks_up"]) != len(levels) - 1:
        raise ModelError(f"blocks_up {short(arguments['blocks_up'])} must have {len(levels) - 1} numbers.")
    integers(arguments["blocks_up"], MAX_BLOCKS, "blocks_up")
    _one(arguments.pop("dsdepth", 1), "dsdepth", MAX_LEVELS)  # the heads of deep supervision are not built
    arguments["act"] = _layer(arguments["act"], "act", ACTIVATIONS)
    arguments["norm"] = _layer(arguments["norm"], "norm", NORMS)
    resolution = arguments.get("resolution")
    if resolution is not None and not (numbers(resolution, 3) and min(resolution) > 0):
        raise ModelError(f"resolution {short(resolution)} must be three positive numbers (mm).")
    scales = _scales(arguments)
    for axis, size in enumerate(patch):
        factor = math.prod(scale[axis] for scale in scales[:-1])
        if size % factor:
            raise ModelError(f"patch_size {patch} must be a multiple of {factor} along axis {axis}.")
    return arguments


def count_segresnet(arguments: dict, channels: int, classes: int) -> int:
    """Count the parameters of a SegResNetDS with one head.

    :param arguments: as `check_segresnet` returns them.
    :param channels: of the input.
    :param classes: rows of the last layer.
    """
    first, down, up = (arguments[key] for key in ("init_filters", "blocks_down", "blocks_up"))
    kernels = [math.prod(3 if side > 1 else 1 for side in scale) for scale in _scales(arguments)]
    affine = _options(arguments["norm"]).get("affine", True)
    activation = 2 * (_name(arguments["act"]) == "prelu")  # one parameter in each of two activations

    def block(width: int, kernel: int) -> int:
        return 2 * width * width * kernel + (4 * width if affine else 0) + activation

    count = first * channels * kernels[0]
    for level, (blocks, kernel) in enumerate(zip(down, kernels, strict=True)):
        width = first * 2**level
        count += blocks * block(width, kernel)
        if level < len(down) - 1:
            count += 2 * width * width * kernel
    for level, blocks in zip(reversed(range(len(up))), up, strict=True):
        width, kernel = first * 2**level, kernels[level]
        count += 2 * width * width * kernel + blocks * block(width, kernel)
    return count + classes * (first + 1)


def _scales(arguments: dict) -> list[tuple[int, ...]]:
    """Return the strides after each level: anisotropic ones first, until the voxels are about cubes."""
    levels, resolution = len(arguments["blocks_down"]), arguments.get("resolution")
    if resolution is None:
        return [(2, 2, 2)] * levels
    halvings = [math.floor(math.log2(max(resolution) / side)) for side in resolution]
    uneven = [tuple(1 if 2**level >= 2**times else 2 for times in halvings) for level in range(max(halvings))]
    return (uneven + [(2, 2, 2)] * levels)[:levels]


def _layer(value: Any, key: str, known: tuple[str, ...]) -> Any:
    """Return a layer's name, or its name and its options, as MONAI takes them."""
    pair = list(value) if isinstance(value, list | tuple) else [value, {}]
    name = pair[0].lower() if pair and isinstance(pair[0], str) else None
    name = "instance" if name == "instance_nvfuser" else name  # the same, of another package
    options = pair[1] if len(pair) > 1 else {}
    if name not in known or len(pair) > 2 or not isinstance(options, dict):
        raise ModelError(f"{key} {short(value)} is not one of {', '.join(known)}, with or without options.")
    for option, given in options.items():
        if option not in _OPTIONS or type(given) not in _OPTIONS[option]:
            raise ModelError(f"{key} {short(value)} has an option that is not known: {short(option)}.")
        if float in _OPTIONS[option] and not (is_number(given) and (option != "eps" or given >= 0)):
            raise ModelError(f"{key} {short(value)} has an option that is no such number: {short(option)}.")
    return [name, options] if options else name


def _name(layer: Any) -> str:
    return layer[0] if isinstance(layer, list) else layer


def _options(layer: Any) -> dict:
    return layer[1] if isinstance(layer, list) else {}


def _list(arguments: dict, key: str) -> list:
    value = arguments[key]
    if not isinstance(value, list | tuple) or any(isinstance(entry, list) for entry in value):
        raise ModelError(f"{key} {short(value)} must be a list of whole numbers.")
    return list(value)


def _one(value: Any, key: str, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise ModelError(f"{key} is {short(value)}; a whole number from 1 to {most} was expected.")
