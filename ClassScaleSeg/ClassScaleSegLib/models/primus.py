"""Check the arguments of a Primus in untrusted plans, and count its parameters, without torch.

Primus (Wald et al. 2025, https://arxiv.org/abs/2503.01835) turns blocks of voxels into tokens, passes them through a
transformer, and turns the tokens back into voxels by a few transposed convolutions. Its second and third versions make
the tokens by residual blocks.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from ..errors import ModelError
from .json_checks import integers, numbers, short
from .networks import last_name

MAX_WIDTH, MAX_DEPTH, MAX_HEADS, MAX_REGISTERS = 2048, 64, 64, 64  # L has 1056 channels, 24 blocks, 16 heads
MAX_TOKENS = 1 << 16  # a patch of 320^3 in blocks of 8^3; attention takes the square of this number
MAX_BLOCK, MAX_RATIO, MAX_SCALE = 64, 16, 100
NONLINEARITIES = ("LeakyReLU", "ReLU", "ELU", "SiLU", "Mish")  # those that work in place, as PrimusV3 calls them
_FLAGS = ("use_rot_pos_emb", "use_abs_pos_embed", "scale_attn_inner", "add_skips")
_RATES = ("drop_path_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate")
# Maps that exist at once in a normalisation of the decoder, in a residual block of the stem, and in a block of the
# transformer beside four of its hidden layer; `Testing/Python/test_networks.py` counts them.
_MAPS_IN_NORM, _MAPS_IN_STEM, _MAPS_OF_TOKENS = 4, 5, 3
_USUAL = {  # the defaults of the classes that determine how many parameters there are
    **{"eva_depth": 24, "eva_numheads": 16, "num_register_tokens": 0, "mlp_ratio": 4 * 2 / 3},
    **{"use_rot_pos_emb": True, "use_abs_pos_embed": True, "init_values": None, "scale_attn_inner": False},
}
_USUAL_V3 = {
    **_USUAL,
    **{"init_values": 0.1, "scale_attn_inner": True, "add_skips": True, "nonlin": "torch.nn.LeakyReLU"},
    **{"depth_per_level": [1, 1, 1], "ch_per_level": [32, 64, 256, 1024]},
}
_STEM_V2 = [32, 32, 64, 128]  # channels of the stem and of three levels


def check_primus(name: str, given: dict, patch: list[int]) -> dict:
    """Return the arguments of a Primus with the defaults of its class; each is checked.

    :param name: ``Primus``, ``PrimusV2`` or ``PrimusV3``.
    :param given: ``arch_kwargs`` of the plans, none of which is unknown.
    :param patch: size of the patch, which is also the ``input_shape``.
    :raises ModelError: if a value is not plausible; the message names the entry.
    """
    arguments = {**(_USUAL_V3 if name == "PrimusV3" else _USUAL), **given}
    if len(patch) != 3:
        raise ModelError(f"{name} takes images of three dimensions, but patch_size {patch} has {len(patch)}.")
    if arguments.get("input_shape") not in (None, patch):
        raise ModelError(f"input_shape {short(arguments['input_shape'])} is not the patch_size {patch}.")
    arguments["input_shape"] = patch
    for key, most in (("embed_dim", MAX_WIDTH), ("eva_depth", MAX_DEPTH), ("eva_numheads", MAX_HEADS)):
        _one(arguments, key, 1, most)
    _one(arguments, "num_register_tokens", 0, MAX_REGISTERS)
    block = arguments.get("patch_embed_size")
    powers = [2**power for power in range(7)]
    if not isinstance(block, list) or len(block) != 3 or any(type(b) is not int or b not in powers for b in block):
        raise ModelError(f"patch_embed_size {short(block)} must be three powers of 2, at most {MAX_BLOCK}.")
    if max(block) < 2 or (name != "Primus" and block != [8, 8, 8]):
        wanted = "more than one voxel" if name == "Primus" else "8 x 8 x 8 voxels"
        raise ModelError(f"patch_embed_size {block} does not fit {name}, whose tokens have {wanted}.")
    for size, side in zip(patch, block, strict=True):
        if size % side:
            raise ModelError(
                f"patch_size {size} is not divisible by {side}, the size of a token of {name}: it cannot have been "
                "trained so. Train with a patch of multiples of it."
            )
    tokens = math.prod(patch) // math.prod(block)
    if tokens > MAX_TOKENS:
        raise ModelError(f"a patch of {patch} would have {tokens} tokens; at most {MAX_TOKENS} are supported.")
    for key in _FLAGS:
        if key in arguments and type(arguments[key]) is not bool:
            raise ModelError(f"{key} {short(arguments[key])} must be true or false.")
    width, heads = arguments["embed_dim"], arguments["eva_numheads"]
    if width % heads or (arguments["use_rot_pos_emb"] and width // heads % 6):
        raise ModelError(
            f"embed_dim {width} must be divisible by eva_numheads {heads}, and with use_rot_pos_emb by 6 times as much."
        )
    for key in _RATES:
        if not _within(arguments.get(key, 0), 0, 0.999):
            raise ModelError(f"{key} {short(arguments[key])} must be a number from 0 to below 1.")
    if not _within(arguments["mlp_ratio"], 1 / width, MAX_RATIO):
        raise ModelError(f"mlp_ratio {short(arguments['mlp_ratio'])} must be a number above 0, at most {MAX_RATIO}.")
    if arguments["init_values"] is not None and not _within(arguments["init_values"], -MAX_SCALE, MAX_SCALE):
        raise ModelError(f"init_values {short(arguments['init_values'])} must be a number, or null.")
    if name == "PrimusV3":
        _check_stem(arguments)
    return arguments


def _check_stem(arguments: dict) -> None:
    """Check the arguments that only PrimusV3 has."""
    for key, count, most in (("depth_per_level", 3, MAX_DEPTH), ("ch_per_level", 4, MAX_WIDTH)):
        value = arguments[key]
        if not isinstance(value, list) or len(value) != count:
            raise ModelError(f"{key} {short(value)} must be {count} whole numbers: a token has 8 x 8 x 8 voxels.")
        for entry in value:
            integers(entry, most, key)
    name = last_name(arguments["nonlin"], "torch.nn")
    if name not in NONLINEARITIES:
        raise ModelError(f"nonlin {short(arguments['nonlin'])} is not one of {', '.join(NONLINEARITIES)} of torch.nn.")
    arguments["nonlin"] = f"torch.nn.{name}"


def _one(arguments: dict, key: str, least: int, most: int) -> None:
    value = arguments.get(key)
    if type(value) is not int or not least <= value <= most:
        raise ModelError(f"{key} is {short(value)}; a whole number from {least} to {most} was expected.")


def _within(value: Any, least: float, most: float) -> bool:
    return numbers([value], 1) and least <= value <= most


def decoder_widths(width: int, block: list[int], outputs: int) -> list[int]:
    """Return the channels before and after each transposed convolution of the decoder, as ``PatchDecode`` plans them.

    :param width: channels of a token.
    :param block: voxels of a token along each axis.
    :param outputs: channels of the output, which also determine the widths between.

    >>> decoder_widths(864, [8, 8, 8], 32)
    [864, 360, 152, 32]
    """
    stages = int(math.log(max(block)) / math.log(2))
    reduction = (width / (2 * outputs)) ** (1 / stages)
    between = [max(8, round((width / reduction ** (stage + 1) + 1e-6) / 8) * 8) for stage in range(stages - 1)]
    return [width, *between, outputs]


def decoder_strides(block: list[int]) -> list[list[int]]:
    """Return the strides of the transposed convolutions, which are also their kernels."""
    stages = int(math.log(max(block)) / math.log(2))
    return [[2 if (side / 2**stage) % 2 == 0 else 1 for side in block] for stage in reversed(range(stages))]


def peak_channels(name: str, arguments: dict, outputs: int) -> int:
    """Return how many numbers for each voxel of the patch exist at once where the memory of a Primus peaks.

    That is in the decoder or, if the tokens are made by residual blocks, in the first of these, at the full resolution.

    :param arguments: as `check_primus` returns them.
    :param outputs: channels of the last transposed convolution.
    """
    width, block = arguments["embed_dim"], arguments["patch_embed_size"]
    widths, strides = decoder_widths(width, block, outputs), decoder_strides(block)
    last = widths[-2] / math.prod(strides[-1])
    maps = last + 2 * outputs  # the output, and a copy in another order
    if len(widths) > 2:
        maps = max(maps, _MAPS_IN_NORM * last + widths[-3] / math.prod(strides[-1]) / math.prod(strides[-2]))
    tokens = width / math.prod(block)  # of which the network holds two maps to the end
    decoder = max(maps + 2 * tokens + 1, (_MAPS_OF_TOKENS + 4 * arguments["mlp_ratio"]) * tokens)
    if name == "Primus":
        return math.ceil(decoder)
    stem = arguments["ch_per_level"][0] if name == "PrimusV3" else _STEM_V2[0]
    return math.ceil(max(decoder, _MAPS_IN_STEM * stem))


def count_primus(name: str, arguments: dict, channels: int, outputs: int) -> int:
    """Count the parameters of a Primus.

    :param arguments: as `check_primus` returns them.
    :param channels: of the input.
    :param outputs: channels of the last transposed convolution.
    """
    width, block, registers = (arguments[key] for key in ("embed_dim", "patch_embed_size", "num_register_tokens"))
    hidden, scaled = int(width * arguments["mlp_ratio"]), arguments["init_values"] is not None
    attention = 4 * width * width + 3 * width + (2 * width if arguments["scale_attn_inner"] else 0)
    gated = 3 * width * hidden + 2 * hidden + width + 2 * hidden  # two layers in, one out, a normalisation between
    count = arguments["eva_depth"] * (4 * width + attention + gated + (2 * width if scaled else 0)) + 2 * width
    tokens = math.prod(arguments["input_shape"]) // math.prod(block)
    count += registers * width + ((tokens + registers) * width if arguments["use_abs_pos_embed"] else 0)
    widths = decoder_widths(width, block, outputs)
    for (below, above), strides in zip(pairwise(widths), decoder_strides(block), strict=True):
        count += above * (below * math.prod(strides) + 1)
    count += 2 * sum(widths[1:-1])
    if name == "Primus":
        return count + width * (channels * math.prod(block) + 1)
    v3 = name == "PrimusV3"
    stem = arguments["ch_per_level"] if v3 else _STEM_V2
    depths = arguments["depth_per_level"] if v3 else [1, 1, 1]
    count += _residual(channels, stem[0], bias=1) + width * (stem[-1] + 1)
    for (below, above), depth in zip(pairwise(stem), depths, strict=True):
        count += _residual(below, above) + (depth - 1) * _residual(above, above)
    if v3 and arguments["add_skips"]:
        count += sum(width * (level * side**3 + 1) + 1 for level, side in zip(stem, (8, 4, 2), strict=False))
    return count


def _residual(inputs: int, outputs: int, bias: int = 0) -> int:
    """Count the parameters of a residual block of two convolutions with kernels of 3 and instance normalisation."""
    shortcut = 0 if inputs == outputs else outputs * (inputs + 2)
    return shortcut + outputs * (27 * (inputs + outputs) + 2 * (bias + 2))
