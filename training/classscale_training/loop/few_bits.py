"""The state of an optimizer in 8 bits a value, so that a checkpoint is half as large.

Moments vary by many orders of magnitude, and what counts is their ratio. So the logarithm is stored: sign and 127
values, or 255 values without a sign, each 2^(1/4) times the next. The error is at most 9 %, which the moments take over
from a single step of the training.
"""

from __future__ import annotations

from typing import Any

import torch

_SIGNED, _POSITIVE = ("exp_avg", "momentum_buffer"), ("exp_avg_sq",)
_STEPS = 4  # values for each factor of 2


def in_few_bits(state: dict[str, Any]) -> dict[str, Any]:
    """Return the ``state_dict`` of an optimizer with its moments in 8 bits.

    >>> state = {"state": {0: {"exp_avg": torch.tensor([1.0, -0.5, 1e-3, 0.0])}}, "param_groups": []}
    >>> stored = in_few_bits(state)
    >>> stored["state"][0]["exp_avg"]["codes"]
    tensor([ 127, -123,   87,    0], dtype=torch.int8)
    >>> in_full(stored)["state"][0]["exp_avg"]
    tensor([ 1.0000e+00, -5.0000e-01,  9.7656e-04,  0.0000e+00])
    """
    return {
        **state,
        "state": {key: {n: _coded(n, x) for n, x in entry.items()} for key, entry in state["state"].items()},
    }


def in_full(state: dict[str, Any]) -> dict[str, Any]:
    """Return the ``state_dict`` that :func:`in_few_bits` was given, but for rounding, or any other unchanged."""
    return {
        **state,
        "state": {key: {n: _decoded(x) for n, x in entry.items()} for key, entry in state["state"].items()},
    }


def _coded(name: str, value: Any) -> Any:
    if name not in _SIGNED + _POSITIVE or not isinstance(value, torch.Tensor):
        return value
    highest = 127 if name in _SIGNED else 255
    size = value.detach().abs().float()
    top = float(size.max()) if size.numel() else 0.0
    if not top > 0:
        codes = torch.zeros_like(size)
    else:
        codes = (highest + _STEPS * (size / top).log2()).round()
        # A second moment of 0 beside a first one that is not would make the next step huge.
        codes = codes.clamp_min(1 if name in _POSITIVE else 0) * (size > 0)
    codes = codes.to(torch.uint8) if name in _POSITIVE else (codes * value.sign()).to(torch.int8)
    return {"codes": codes.cpu(), "top": top, "dtype": str(value.dtype).removeprefix("torch.")}


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    codes = value["codes"]
    highest = 255 if codes.dtype == torch.uint8 else 127
    size = value["top"] * torch.exp2((codes.float().abs() - highest) / _STEPS) * (codes != 0)
    return (size * codes.float().sign()).to(getattr(torch, value["dtype"]))
