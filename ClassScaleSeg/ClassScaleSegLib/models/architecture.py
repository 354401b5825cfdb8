"""Check the ``architecture`` in untrusted plans: only classes that nnU-Net's planners write, only plausible sizes.

Class names in ``plans.json`` are import paths, and nnU-Net imports any path. Here they are compared with a list, and
replaced by the path of the class in the installed version.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ModelError
from .json_checks import integers, numbers, short

MAX_STAGES, MAX_CONVOLUTIONS, MAX_FEATURES = 16, 64, 4096  # nnU-Net plans at most 9 stages, 6 blocks, 512 features
MAX_KERNEL, MAX_STRIDE = 31, 16
ARCHITECTURES = ("PlainConvUNet", "ResidualEncoderUNet")  # all that nnU-Net's planners write; both end in a convolution
OPERATIONS = {  # arguments that name a class, and the allowed classes; {d} is 2 or 3, the dimension of the network
    "conv_op": ("Conv{d}d",),
    "norm_op": ("InstanceNorm{d}d", "BatchNorm{d}d", "Identity"),
    "dropout_op": ("Dropout{d}d", "Dropout"),
    "nonlin": ("LeakyReLU", "ReLU", "ELU", "GELU", "SiLU", "Mish", "PReLU"),
    "block": ("BasicBlockD", "BottleneckD"),
}
_RESIDUAL = "dynamic_network_architectures.building_blocks.residual"
_BOUNDS = {
    **dict.fromkeys(("features_per_stage", "stem_channels", "bottleneck_channels"), MAX_FEATURES),
    **dict.fromkeys(("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"), MAX_CONVOLUTIONS),
    "kernel_sizes": MAX_KERNEL,
    "strides": MAX_STRIDE,
}


def check_architecture(entries: dict) -> None:
    """Check the architecture and replace each class name by its path in the installed packages.

    :param entries: of one configuration; ``architecture``, an object with ``arch_kwargs``, is replaced.
    :raises ModelError: if a class is not supported or a size is not plausible; the message names the entry.
    """
    architecture = entries["architecture"]
    name = _last(architecture.get("network_class_name"), "dynamic_network_architectures")
    if name not in ARCHITECTURES:
        raise ModelError(
            f"architecture {short(architecture.get('network_class_name'))} is not supported. "
            f"Use {' or '.join(ARCHITECTURES)}, whose last layer is a 1x1x1 convolution."
        )
    arguments, dimension = dict(architecture["arch_kwargs"]), len(entries["patch_size"])
    stages = arguments.get("n_stages")
    if not isinstance(stages, int) or not 2 <= stages <= MAX_STAGES:
        raise ModelError(f"n_stages is {short(stages)}; 2 to {MAX_STAGES} were expected.")
    for key, value in arguments.items():
        if key in _BOUNDS and value is not None:
            integers(value, _BOUNDS[key], key)
        elif key in OPERATIONS and value is not None:
            known = [choice.format(d=dimension) for choice in OPERATIONS[key]]
            home = _RESIDUAL if key == "block" else "torch.nn"
            operation = _last(value, home)
            if operation not in known:
                raise ModelError(f"{key} {short(value)} is not one of {', '.join(known)} of {home}.")
            arguments[key] = f"{home}.{operation}"
        elif key.endswith("_kwargs") and value is not None:
            fine = isinstance(value, dict) and all(isinstance(entry, bool | int | float) for entry in value.values())
            if not fine or not numbers([value.get("eps", 1e-5)], 1):
                raise ModelError(f"{key} {short(value)} must be an object whose values are numbers, true or false.")
    kernels, strides = (_per_stage(arguments, key, stages, dimension) for key in ("kernel_sizes", "strides"))
    if any(size % 2 == 0 for stage in kernels for size in stage):
        raise ModelError(f"kernel_sizes {short(kernels)} must be odd.")
    for size, per_stage in zip(entries["patch_size"], zip(*strides, strict=True), strict=True):
        if size % math.prod(per_stage):
            raise ModelError(f"patch_size {size} is not divisible by the product of the strides {list(per_stage)}.")
    entries["architecture"] = {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": arguments,
        "_kw_requires_import": [key for key in OPERATIONS if key in arguments],
    }


def _per_stage(arguments: dict, key: str, stages: int, dimension: int) -> list[list[int]]:
    """Return kernel sizes or strides of each stage along each axis; plans may give one number for all of them."""
    value = arguments.get(key)
    per_stage: list[Any] = value if isinstance(value, list) else [value] * stages
    rows: list[list[int]] = [row if isinstance(row, list) else [row] * dimension for row in per_stage]
    if value is None or len(rows) != stages or any(len(row) != dimension for row in rows):
        raise ModelError(f"{key} {short(value)} must give {dimension} sizes for each of {stages} stages.")
    return rows


def _last(path: Any, package: str) -> str | None:
    """Return the last name of a dotted path inside ``package``; ``None`` for any other value."""
    return path.rpartition(".")[2] if isinstance(path, str) and path.startswith(f"{package}.") else None
