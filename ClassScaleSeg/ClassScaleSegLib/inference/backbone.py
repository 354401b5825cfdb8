"""The networks of all folds, called as one function from a patch to its basis."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..models.meshnet_network import MeshNet
from ..models.side_swap import SideSwap
from .network_slabs import SlabNetwork

_ROWS = 16  # of a basis that are flipped at a time


class Backbone:
    """Compute the bases of all folds, concatenated or averaged, each averaged over mirrored patches.

    If the sides are exchanged, the bases of the patch are followed by those of its mirror image, mirrored back. Of
    logits, the channels are exchanged and the mean is taken.

    :param networks: U-Nets with ``encoder`` and ``decoder`` as in dynamic-network-architectures, of which the last of
        ``decoder.seg_layers`` gives the basis; or other networks, whose output is the basis.
    :param mirror_axes: spatial axes of the patch. All combinations are averaged, as nnU-Net does.
    :param average: average the folds, whose outputs are then logits, instead of concatenating them.
    :param sides: how to exchange the sides, if they are exchanged.
    :param check: called many times while a patch is computed on a CPU; an exception that it raises ends the call.
    :param bfloat16: compute in bfloat16 on a CPU.
    """

    def __init__(
        self,
        networks: Sequence[torch.nn.Module],
        mirror_axes: Sequence[int] = (),
        average: bool = False,
        check: Callable[[], object] = lambda: None,
        sides: SideSwap | None = None,
        bfloat16: bool = False,
    ):
        self._on_cpu = torch.bfloat16 if bfloat16 else torch.float32
        self.networks, self.average, self.sides, self._check = list(networks), average, sides, check
        axes = [axis + 2 for axis in mirror_axes]
        self.flips = [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return the basis of a patch, on the patch's device.

        :param patch: ``(1, channels, *patch)`` float32.
        :returns: ``(R, *patch)`` float32, ``(2 R, *patch)`` if the sides are exchanged and folds are not averaged; on a
            CPU the channels of a voxel are adjacent in memory, and a single pass in bfloat16 stays so.
        """
        # before torch 2.5, MPS has no autocast, not even a disabled one
        precision = torch.autocast("cuda") if patch.device.type == "cuda" else contextlib.nullcontext()
        folds, passes = len(self.networks), self._passes()
        result = None
        for fold, network in enumerate(self.networks):
            network.to(patch.device)
            for flip, exchanged in passes:
                with precision:
                    basis = self._forward(network, patch.flip(flip) if flip else patch)[0]
                if folds == len(passes) == 1:
                    return basis if basis.dtype == torch.bfloat16 else basis.float()
                if result is None:
                    parts = 1 if self.average else folds * len(passes) // len(self.flips)
                    result = _zeros(parts * len(basis), basis)
                part = 0 if self.average else (fold + folds * exchanged) * len(basis)
                order = self.sides.rows if self.sides and exchanged and self.average else None
                _add_flipped(result[part : part + len(basis)], basis, [axis - 1 for axis in flip], order)
                del basis  # before the next one is computed
        assert result is not None  # a model has at least one fold
        return result.div_(folds * len(passes) if self.average else len(self.flips))

    def _passes(self) -> list[tuple[tuple[int, ...], bool]]:
        """Return the axes along which the patch is flipped in each pass, and whether its sides are exchanged."""
        plain = [(flip, False) for flip in self.flips]
        if self.sides is None:
            return plain
        return plain + [((*flip, self.sides.axis + 2), True) for flip in self.flips]

    def _forward(self, network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return ``network(x)``, ``(1, r, *patch)``, with as little memory as is sensible on the device of ``x``."""
        if x.device.type == "cpu" and (isinstance(network, MeshNet) or hasattr(network, "up_layers")):
            return SlabNetwork(network, self._check, self._on_cpu)(x)
        if not hasattr(network, "decoder"):  # no U-Net of nnU-Net
            self._check()
            reduced = x.device.type == "cpu" and self._on_cpu != torch.float32
            with torch.no_grad(), torch.autocast("cpu", self._on_cpu) if reduced else contextlib.nullcontext():
                basis = network(x)
            return basis.contiguous(memory_format=torch.channels_last_3d) if x.device.type == "cpu" else basis
        if x.device.type == "cpu":
            return SlabNetwork(network, self._check, self._on_cpu)(x)
        encoder: Any = network.encoder
        decoder: Any = network.decoder
        skips = encoder(x)
        x = skips.pop()
        for upsample, stage in zip(decoder.transpconvs, decoder.stages, strict=True):
            x = upsample(x)
            x = torch.cat((x, skips.pop()), 1)  # released here; the decoder's own ``forward`` keeps all to the end
            x = stage(x)
        return decoder.seg_layers[-1](x)


def _zeros(channels: int, like: torch.Tensor) -> torch.Tensor:
    """Return ``(channels, *patch)`` zeros, float32, that lie in memory as a basis does."""
    if like.stride(0) == 1:
        return like.new_zeros(*like.shape[1:], channels, dtype=torch.float32).movedim(-1, 0)
    return like.new_zeros(channels, *like.shape[1:], dtype=torch.float32)


def _add_flipped(total: torch.Tensor, basis: torch.Tensor, axes: list[int], order: Sequence[int] | None = None) -> None:
    """Add a basis, flipped along these of its axes, with its channels in this order, without a copy of the whole."""
    length = basis.shape[1]
    for first in range(0, length, _ROWS):
        last = min(first + _ROWS, length)
        rows = basis[:, length - last : length - first] if 1 in axes else basis[:, first:last]
        rows = rows.flip(axes) if axes else rows
        total[:, first:last] += rows if order is None else rows[list(order)]
