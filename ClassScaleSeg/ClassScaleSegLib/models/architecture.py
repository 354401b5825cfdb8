"""Check the ``architecture`` in untrusted plans: only networks of one list (:mod:`.networks`), only plausible sizes.

Class names in ``plans.json`` are import paths, and nnU-Net imports any path. Here they are compared with a list, and
replaced by the path of the class in the installed version.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ModelError
from .json_checks import integers, is_number, numbers, short
from .meshnet import check_meshnet
from .networks import PACKAGE, RANK_ENTRY, check_arguments, find_network, last_name, without_size
from .primus import check_primus
from .segresnet import check_segresnet

MAX_STAGES, MAX_CONVOLUTIONS, MAX_FEATURES = 16, 64, 4096  # nnU-Net plans at most 9 stages, 6 blocks, 512 features
MAX_KERNEL, MAX_STRIDE = 31, 16
OPERATIONS = {  # arguments that name a class, and the allowed classes; {d} is 2 or 3, the dimension of the network
    "conv_op": ("Conv{d}d",),
    "norm_op": ("InstanceNorm{d}d", "BatchNorm{d}d", "Identity"),
    "dropout_op": ("Dropout{d}d", "Dropout"),
    "nonlin": ("LeakyReLU", "ReLU", "ELU", "GELU", "SiLU", "Mish", "PReLU"),
    "block": ("BasicBlockD", "BottleneckD"),
}
_UNET = f"{PACKAGE}.architectures.unet"
_RESIDUAL = f"{PACKAGE}.building_blocks.residual"
_FLAGS = ("conv_bias", "nonlin_first", "deep_supervision")
_OLD = (  # entries of plans from before nnU-Net 2.5, which have no architecture
    "UNet_class_name",
    "UNet_base_num_features",
    "unet_max_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "conv_kernel_sizes",
    "pool_op_kernel_sizes",
)
_BOUNDS = {
    **dict.fromkeys(("features_per_stage", "stem_channels", "bottleneck_channels"), MAX_FEATURES),
    **dict.fromkeys(("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"), MAX_CONVOLUTIONS),
    "kernel_sizes": MAX_KERNEL,
    "strides": MAX_STRIDE,
}


def planned_architecture(entries: dict) -> dict:
    """Return the architecture of a configuration; for plans from before nnU-Net 2.5, as nnU-Net converts them.

    :param entries: of one configuration, with the inherited ones.
    :raises ModelError: if it has none, neither new nor old.
    """
    if "architecture" in entries:
        architecture = entries["architecture"]
        if not isinstance(architecture, dict) or not isinstance(architecture.get("arch_kwargs"), dict):
            raise ModelError("'architecture' must be an object with 'arch_kwargs'.")
        return architecture
    missing = next((key for key in _OLD if key not in entries), None)
    if missing is not None:
        raise ModelError(f"It describes no network, not even as plans written before nnU-Net 2.5 do: no {missing!r}.")
    name, base, most, blocks, decoder, kernels, strides = (entries[key] for key in _OLD)
    dimension = len(entries["patch_size"])
    if not all(type(limit) is int and 1 <= limit <= MAX_FEATURES for limit in (base, most)):
        raise ModelError(
            f"UNet_base_num_features {short(base)} and unet_max_num_features {short(most)} must be whole numbers "
            f"from 1 to {MAX_FEATURES}."
        )
    if not isinstance(blocks, list) or len(blocks) > MAX_STAGES:
        raise ModelError(f"n_conv_per_stage_encoder {short(blocks)} must be a list of at most {MAX_STAGES} numbers.")
    arguments = {
        "n_stages": len(blocks),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(blocks))],
        "conv_op": f"torch.nn.Conv{dimension}d",
        "kernel_sizes": kernels,
        "strides": strides,
        "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage": blocks,
        "n_conv_per_stage_decoder": decoder,
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {"network_class_name": f"{_UNET}.{name}", "arch_kwargs": arguments}


def check_architecture(entries: dict) -> None:
    """Check the architecture and replace each class name by its path in the installed packages.

    :param entries: of one configuration; ``architecture``, an object with ``arch_kwargs``, is replaced.
    :raises ModelError: if a class is not supported or a size is not plausible; the message names the entry.
    """
    architecture = without_size(entries["architecture"])
    name, network = find_network(architecture)
    path = f"{network.package}.{network.module}.{name}"
    arguments, dimension = dict(architecture["arch_kwargs"]), len(entries["patch_size"])
    check_arguments(name, arguments, network.arguments)
    if not network.unet:
        given = {key: value for key, value in arguments.items() if value is not None or key == "init_values"}
        check = {"SegResNetDS": check_segresnet, "MeshNet": check_meshnet}.get(name, check_primus)
        arguments = check(name, given, list(entries["patch_size"]))
        entries["architecture"] = {"network_class_name": path, "arch_kwargs": arguments, "_kw_requires_import": []}
        return
    stages = arguments.get("n_stages")
    if not isinstance(stages, int) or not 2 <= stages <= MAX_STAGES:
        raise ModelError(f"n_stages is {short(stages)}; 2 to {MAX_STAGES} were expected.")
    for key, value in arguments.items():
        if key in _BOUNDS and value is not None:
            integers(value, _BOUNDS[key], key)
        elif key in OPERATIONS and value is not None:
            known = [choice.format(d=dimension) for choice in OPERATIONS[key]]
            home = _RESIDUAL if key == "block" else "torch.nn"
            operation = last_name(value, home)
            if operation not in known:
                raise ModelError(f"{key} {short(value)} is not one of {', '.join(known)} of {home}.")
            arguments[key] = f"{home}.{operation}"
        elif key in _FLAGS and type(value) not in (bool, int, type(None)):
            raise ModelError(f"{key} {short(value)} must be true or false.")
        elif key.endswith("_kwargs") and value is not None:
            fine = isinstance(value, dict) and all(type(entry) is bool or is_number(entry) for entry in value.values())
            if not fine or not numbers([value.get("eps", 1e-5)], 1):
                raise ModelError(f"{key} {short(value)} must be an object whose values are numbers, true or false.")
            if value.get("eps", 1e-5) < 0:
                raise ModelError(f"{key} {short(value)} must not have a negative eps.")
    kernels, strides = (per_stage_sizes(arguments, key, stages, dimension) for key in ("kernel_sizes", "strides"))
    if any(size % 2 == 0 for stage in kernels for size in stage):
        raise ModelError(f"kernel_sizes {short(kernels)} must be odd.")
    for size, per_stage in zip(entries["patch_size"], zip(*strides, strict=True), strict=True):
        if size % math.prod(per_stage):
            raise ModelError(f"patch_size {size} is not divisible by the product of the strides {list(per_stage)}.")
    entries["architecture"] = {
        "network_class_name": path,
        "arch_kwargs": arguments,
        "_kw_requires_import": [key for key in OPERATIONS if key in arguments],
    }


def basis_channels(entries: dict, classes: int) -> int:
    """Return the channels that one fold's network computes for each voxel before its projection.

    :param entries: of one configuration; `check_architecture` has checked its ``architecture``.
    :param classes: rows of the last layer, which is also what a Primus without projection computes.
    :raises ModelError: if a Primus has a rank that is not one.
    """
    _, network = find_network(entries["architecture"])
    if network.projects:
        per_stage = entries["architecture"]["arch_kwargs"].get(network.features)
        first = per_stage[0] if isinstance(per_stage, list) and per_stage else per_stage
        if type(first) is not int or not 1 <= first <= MAX_FEATURES:
            raise ModelError(f"the channels of the first stage are {short(first)}; 1 to {MAX_FEATURES} were expected.")
        return first
    rank = entries.get(RANK_ENTRY)
    if rank is None:
        return classes
    if type(rank) is not int or not 1 <= rank <= classes:
        raise ModelError(
            f"{RANK_ENTRY} is {short(rank)}; a whole number from 1 to {classes}, the classes, was expected."
        )
    return rank


def per_stage_sizes(arguments: dict, key: str, stages: int, dimension: int) -> list[list[int]]:
    """Return kernel sizes or strides of each stage along each axis; plans may give one number for all of them."""
    value = arguments.get(key)
    per_stage: list[Any] = value if isinstance(value, list) else [value] * stages
    rows: list[list[int]] = [row if isinstance(row, list) else [row] * dimension for row in per_stage]
    if value is None or len(rows) != stages or any(len(row) != dimension for row in rows):
        raise ModelError(f"{key} {short(value)} must give {dimension} sizes for each of {stages} stages.")
    return rows
