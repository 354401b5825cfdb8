"""Weights in 8 bits, so that a bundle has a quarter of its size.

A tensor of two or more axes becomes int8, a number between -127 and 127 for each weight, beside one float32 factor for
each index of its first axis, by which they are multiplied again when the bundle is opened. The error of a weight is at
most 1/254 of the largest weight with the same index. Tensors of one axis, biases and norms, are few and stay float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    import torch

SCALE = ".int8_scale"  # appended to the name of a tensor, for its factors
_LARGEST = 127


def in_eight_bits(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return finite float32 tensors with those of two or more axes in int8, each followed by its factors.

    >>> import torch
    >>> stored = in_eight_bits({"weight": torch.tensor([[1.0, -0.5], [0.0, 0.02]]), "bias": torch.tensor([0.3])})
    >>> stored["weight"]
    tensor([[127, -64],
            [  0, 127]], dtype=torch.int8)
    >>> {name: tuple(tensor.shape) for name, tensor in stored.items()}
    {'weight': (2, 2), 'weight.int8_scale': (2,), 'bias': (1,)}
    """
    import torch

    stored = {}
    for name, tensor in tensors.items():
        if tensor.dim() < 2:
            stored[name] = tensor
            continue
        rows = tensor.flatten(1)
        scale = rows.abs().amax(1) / _LARGEST
        scale[scale < torch.finfo(torch.float32).tiny] = 0  # of zeros, and of what is as good as zero
        codes = torch.where(scale[:, None] > 0, rows / scale[:, None], 0).round()
        stored[name] = codes.to(torch.int8).view(tensor.shape)
        stored[name + SCALE] = scale
    return stored


def in_full(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the float32 tensors that :func:`in_eight_bits` was given, but for rounding, or any others unchanged.

    :raises ModelError: if an int8 tensor has no factors, not one for each index of its first axis, or one that is not
        positive; 0 is the factor of zeros.
    """
    import torch

    tensors = {}
    for name, tensor in stored.items():
        scaled = stored.get(name.removesuffix(SCALE)) if name.endswith(SCALE) else None
        if scaled is not None and scaled.dtype == torch.int8:
            continue
        if tensor.dtype == torch.int8:
            factors = name + SCALE
            scale = stored.get(factors)
            if scale is None or scale.dtype != torch.float32 or scale.shape != tensor.shape[:1] or tensor.dim() < 2:
                raise ModelError(f"{name} has 8 bits, but {factors} is not one float32 factor for each row of it.")
            empty = (tensor.flatten(1) == 0).all(1)
            if not bool(((scale > 0) | ((scale == 0) & empty)).all()) or not bool(scale.isfinite().all()):
                raise ModelError(
                    f"{name} has factors ({factors}) that are not positive numbers: the file is damaged. Get it again."
                )
            tensor = tensor.float().flatten(1).mul(scale[:, None]).view(tensor.shape)
        tensors[name] = tensor
    return tensors
