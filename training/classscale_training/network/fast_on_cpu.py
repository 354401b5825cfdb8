"""Let networks train faster on a processor: bfloat16, and layers of which torch has slow ones there."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes of a batch


class InstanceNorm3d(nn.InstanceNorm3d):
    """The same in a fraction of the time on a CPU: torch's own copies maps to another memory format and back.

    A batch of one case is normalised as the case is, so each case is.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _normalised(self, x) if _is_usual(self, x) else super().forward(x)


class InstanceNorm2d(nn.InstanceNorm2d):
    """As :class:`InstanceNorm3d`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _normalised(self, x) if _is_usual(self, x) else super().forward(x)


class ConvTranspose3d(nn.ConvTranspose3d):
    """The same in half the time in training steps in bfloat16: oneDNN has no fast gradient of the bias there."""

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        if self.bias is None or output_size is not None or not (self.training and x.device.type == "cpu"):
            return super().forward(x, output_size)
        assert isinstance(self.padding, tuple)  # only other convolutions take words
        raised = nn.functional.conv_transpose3d(
            x, self.weight, None, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )
        return raised + self.bias.to(raised.dtype).view(1, -1, 1, 1, 1)


_FASTER: dict[type, type] = {
    nn.InstanceNorm3d: InstanceNorm3d,
    nn.InstanceNorm2d: InstanceNorm2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}


def _is_usual(norm: nn.InstanceNorm3d | nn.InstanceNorm2d, x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.ndim in _LAYOUTS and not norm.track_running_stats


def _normalised(norm: nn.InstanceNorm3d | nn.InstanceNorm2d, x: torch.Tensor) -> torch.Tensor:
    parts = [
        nn.functional.batch_norm(case, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
        for case in x.split(1)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def train_in_bfloat16(network: nn.Module) -> None:
    """Let a network on a CPU compute the maps of training steps in bfloat16; its weights stay as they are.

    Worth it only where :func:`~ClassScaleSegLib.inference.devices.has_bfloat16`. Evaluation is not changed.

    :param network: takes a batch ``(B, C, X, Y, Z)`` or ``(B, C, X, Y)`` as its only argument. Changed in place.
    """
    for module in network.modules():
        module.__class__ = _FASTER.get(type(module), module.__class__)
    forward = network.forward

    @functools.wraps(forward)
    def reduced(x: torch.Tensor) -> Any:
        if not network.training or x.device.type != "cpu":
            return forward(x)
        with torch.autocast("cpu", torch.bfloat16):
            return forward(x.contiguous(memory_format=_LAYOUTS.get(x.ndim, torch.contiguous_format)))

    network.forward = reduced
