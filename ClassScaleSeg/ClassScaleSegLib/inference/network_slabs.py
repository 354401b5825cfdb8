"""Run U-Nets, SegResNetDS and MeshNet on a CPU with a fraction of the memory that their modules would take, and faster.

A feature map of the full resolution is large: 256 MiB for 32 channels of 128^3 voxels. Module by module, five of them
exist at once, reordered copies that the library makes included. Here, a convolution works through slabs along the first
axis and writes over its input where nothing else needs it. Upsampled and concatenated maps exist for one slab at a
time. Thus one map of the full resolution is enough, and a second one in a residual block.

The channels of a voxel are adjacent in memory (torch's ``channels_last``), as oneDNN's convolutions compute fastest.
The results are those of the modules, up to the order in which float32 numbers are added. With maps in bfloat16, a
convolution adds in float32 and rounds its sums to 8 bits, and normalisations compute in float32, as under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD, StackedResidualBlocks
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU, StackedConvBlocks
from torch import nn

from ..models.meshnet_network import ACTIVATIONS, MeshNet

# Bytes of the input and the output of a convolution for one slab.
SLAB_BYTES = 16 << 20
_PART_BYTES = 1 << 20  # of a map as float32, that several operations pass over while a core has it in its cache
_INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)
_ACTIVATIONS = tuple(ACTIVATIONS.values())


class SlabNetwork:
    """A network as one function from a patch to its last feature map.

    :param network: a ``PlainConvUNet``, ``ResidualEncoderUNet``, ``ResidualUNet``, ``SegResNetDS`` or ``MeshNet`` in
        evaluation mode.
    :param check: called before each slab; an exception that it raises ends the call.
    :param dtype: of the feature maps; ``None``: that of the patch. The weights stay as they are.
    """

    def __init__(
        self, network: nn.Module, check: Callable[[], object] = lambda: None, dtype: torch.dtype | None = None
    ):
        self._network, self._check, self._dtype = network, check, dtype

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``network(x)``.

        :param x: ``(1, channels, *patch)`` on the CPU, with two or three axes.
        :returns: ``(1, r, *patch)``, in ``channels_last`` memory format and of the type of the maps.
        """
        x = _empty(x, x.shape[1], x.shape[2:], self._dtype).copy_(
            x
        )  # of one channel, x is said to have every memory format
        if isinstance(self._network, MeshNet):
            x = self._run(self._network.layers, x, own=True)
            return self._run(self._network.seg_layers[-1], x, own=True)
        if hasattr(self._network, "up_layers"):
            return self._segresnet(self._network, x)
        encoder: Any = self._network.encoder
        decoder: Any = self._network.decoder
        if getattr(encoder, "stem", None) is not None:
            x = self._run(encoder.stem, x, own=False)
        skips = []
        for stage in encoder.stages:
            x = self._run(stage, x, own=False)
            skips.append(x)
        x = skips.pop()
        for upsample, stage in zip(decoder.transpconvs, decoder.stages, strict=True):
            first, *others = _children(stage)
            x = self._join(first, [_Upsampled(upsample, x), _Map(skips.pop())])
            for block in others:
                x = self._run(block, x, own=True)
        return self._run(decoder.seg_layers[-1], x, own=True)

    def _segresnet(self, network: Any, x: torch.Tensor) -> torch.Tensor:
        """Run MONAI's SegResNetDS, whose decoder adds the skips to the upsampled maps."""
        x = self._run(network.encoder.conv_init, x, own=False)
        skips = []
        for level in network.encoder.layers:
            for block in level["blocks"]:
                x = self._preactivated(block, x)
            skips.append(x)
            x = self._run(level["downsample"], x, own=False)
        x = skips.pop()
        for level in network.up_layers:
            x = self._add_upsampled(level["upsample"].deconv, x, skips.pop())
            for block in level["blocks"]:
                x = self._preactivated(block, x)
        return self._run(level["head"], x, own=True)

    def _preactivated(self, block: Any, x: torch.Tensor) -> torch.Tensor:
        """Run a residual block whose convolutions come after normalisation and activation; ``x`` is overwritten."""
        y = _empty(x, x.shape[1], x.shape[2:]).copy_(x)
        for norm, activation, conv in (
            (block.norm1, block.act1, block.conv1),
            (block.norm2, block.act2, block.conv2),
        ):
            y = self._run(conv, _pointwise(activation, _normalized(norm, y)), own=True)
        return x.add_(y)

    def _add_upsampled(self, upsample: Any, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """Add what a transposed convolution makes of ``x`` to a map, in place.

        :param upsample: along the first axis, it has a kernel of 3 and doubles the rows, or a kernel of 1.
        """
        factor, reach = upsample.stride[0], upsample.padding[0]
        step = max(1, SLAB_BYTES // (4 * factor * total[0, :, 0].numel()))
        for first in range(0, x.shape[2], step):
            self._check()
            last = min(first + step, x.shape[2])
            rows = upsample(_exact(x[:, :, first : last + reach]))  # the last row of a slab needs the one after it
            total[:, :, factor * first : factor * last] += rows[:, :, : factor * (last - first)]
        return total

    def _join(self, block: Any, sources: list[_Source]) -> torch.Tensor:
        """Run the first block of a decoder's stage on the concatenated channels of the sources.

        :param sources: the last one is a `_Map`, which is overwritten.
        """
        if isinstance(block, ConvDropoutNormReLU):
            return _finish(block, self._convolve(block.conv, sources, own=True))
        (shortcut,) = block.skip  # the channels are halved, so there is one; the stride is 1
        residual = _finish(shortcut, self._convolve(shortcut.conv, sources, own=False))
        y = _finish(block.conv1, self._convolve(block.conv1.conv, sources, own=True))
        del sources
        return _pointwise(block.nonlin2, self._run(block.conv2, y, own=True).add_(residual))

    def _run(self, module: Any, x: torch.Tensor, own: bool) -> torch.Tensor:
        """Return ``module(x)``.

        :param own: whether ``x`` may be overwritten.
        """
        if isinstance(module, (nn.Sequential, StackedConvBlocks, StackedResidualBlocks)):
            for child in _children(module):
                x, own = self._run(child, x, own), True
            return x
        if isinstance(module, ConvDropoutNormReLU):
            return _finish(module, self._convolve(module.conv, [_Map(x)], own))
        if isinstance(module, (BasicBlockD, BottleneckD)) and not (module.apply_se or module.apply_stochastic_depth):
            return self._residual_block(module, x)
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            return self._convolve(module, [_Map(x)], own)
        if isinstance(module, (nn.AvgPool2d, nn.AvgPool3d)):
            return self._pool(module, x)
        if isinstance(module, _ACTIVATIONS):
            return _pointwise(module, x)
        if isinstance(module, nn.Identity):
            return x
        return module(_exact(x)).to(x.dtype)

    def _pool(self, pool: Any, x: torch.Tensor) -> torch.Tensor:
        """Pool as a residual block does, with a stride as large as the kernel; torch copies what it pools."""
        stride = (pool.stride,) * (x.ndim - 2) if isinstance(pool.stride, int) else pool.stride
        out = _empty(x, x.shape[1], [n // s for n, s in zip(x.shape[2:], stride, strict=True)])
        step = max(1, SLAB_BYTES // (8 * stride[0] * x[0, :, 0].numel()))
        for first in range(0, out.shape[2], step):
            self._check()
            last = min(first + step, out.shape[2])
            out[:, :, first:last] = pool(_exact(x[:, :, first * stride[0] : last * stride[0]]))
        return out

    def _residual_block(self, block: Any, x: torch.Tensor) -> torch.Tensor:
        residual = self._run(block.skip, x, own=False)
        convolutions = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, BottleneckD) else [])]
        y, own = x, False
        for convolution in convolutions:
            y, own = self._run(convolution, y, own), True
        y += residual
        return _pointwise(block.nonlin3 if isinstance(block, BottleneckD) else block.nonlin2, y)

    def _convolve(self, conv: Any, sources: Sequence[_Source], own: bool) -> torch.Tensor:
        """Convolve the concatenated channels of the sources.

        :param sources: the last one is a `_Map`.
        :param own: whether that map may be overwritten.
        """
        whole = sources[-1]
        assert isinstance(whole, _Map)
        spans = [dilation * (n - 1) + 1 for n, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]
        span, stride, padding = spans[0], conv.stride[0], conv.padding[0]
        length, plane = whole.x.shape[2], whole.x.shape[3:]
        sizes = zip(whole.x.shape[2:], conv.padding, spans, conv.stride, strict=True)
        shape = [(n + 2 * p - k) // s + 1 for n, p, k, s in sizes]
        # torch's own convolution copies each voxel as often as the kernel has voxels
        copies = 1 if _by_onednn(whole.x) else math.prod(conv.kernel_size)
        row_bytes = whole.x.itemsize * math.prod(plane) * (conv.in_channels * stride * copies + conv.out_channels)
        step = max(SLAB_BYTES // row_bytes, padding, 1)
        convolution = _Convolution(conv, whole.x.dtype)
        if len(sources) == 1 and step >= shape[0]:
            self._check()
            return convolution(whole.x, conv.padding).contiguous(memory_format=_last(whole.x))
        in_place = own and (conv.out_channels, *shape) == whole.x.shape[1:]
        out = whole.x if in_place else _empty(whole.x, conv.out_channels, shape)
        buffer: torch.Tensor | None = None
        written = 0
        pending = out[:, :, :0]  # rows are written one slab later, when no other slab needs what they overwrite
        for first in range(0, shape[0], step):
            self._check()
            last = min(first + step, shape[0])
            low, high = first * stride - padding, (last - 1) * stride - padding + span
            if len(sources) == 1 and low >= 0 and high <= length:
                slab = whole.read(low, high)
            else:
                if buffer is None:
                    buffer = _empty(whole.x, conv.in_channels, (high - low, *plane))
                slab = buffer[:, :, : high - low]
                _fill(slab, sources, low, length)
            rows = convolution(slab, (0, *conv.padding[1:]))
            out[:, :, written : written + pending.shape[2]] = pending
            written, pending = first, rows
        out[:, :, written:] = pending
        return out


def _children(module: nn.Sequential | StackedConvBlocks | StackedResidualBlocks) -> Iterable[nn.Module]:
    if isinstance(module, StackedConvBlocks):
        return module.convs
    return module.blocks if isinstance(module, StackedResidualBlocks) else module


class _Source(Protocol):
    """Some input channels of a convolution, read slab by slab in order of the rows."""

    channels: int

    def read(self, first: int, last: int) -> torch.Tensor:
        """Return the rows from ``first`` to before ``last``."""


class _Map:
    """A feature map."""

    def __init__(self, x: torch.Tensor):
        self.x, self.channels = x, x.shape[1]

    def read(self, first: int, last: int) -> torch.Tensor:
        return self.x[:, :, first:last]


class _Upsampled:
    """A feature map that a transposed convolution, whose kernel size is its stride, upsamples.

    With such a kernel, each voxel gives a block of voxels, and all of them are one product of matrices.
    """

    def __init__(self, upsample: Any, x: torch.Tensor):
        self._x, self._stride = x, upsample.stride
        self.channels = upsample.out_channels
        self._bias = None if upsample.bias is None else upsample.bias.to(x.dtype)
        matrix = upsample.weight.movedim(1, -1).flatten(1)  # (channels of x, voxels of a block x channels)
        self._matrix = matrix.to(x.dtype)

    def read(self, first: int, last: int) -> torch.Tensor:
        low, high = first // self._stride[0], -(-last // self._stride[0])
        voxels = self._x[0, :, low:high].movedim(0, -1)
        axes = len(self._stride)
        blocks = (voxels.flatten(0, -2) @ self._matrix).view(*voxels.shape[:-1], *self._stride, self.channels)
        order = [axis + part for axis in range(axes) for part in (0, axes)]  # a block's axis after that of its voxel
        shape = [n * s for n, s in zip(voxels.shape[:-1], self._stride, strict=True)]
        rows = blocks.permute(*order, 2 * axes).reshape(*shape, self.channels)
        if self._bias is not None:
            rows += self._bias
        start = low * self._stride[0]
        return rows[first - start : last - start].movedim(-1, 0)[None]


class _Convolution:
    """A convolution of maps of one type, with another padding than that of its module."""

    def __init__(self, conv: Any, dtype: torch.dtype):
        self._conv, self._weight = conv, conv.weight.to(dtype)
        self._bias = None if conv.bias is None else conv.bias.to(dtype)

    def __call__(self, x: torch.Tensor, padding: tuple[int, ...]) -> torch.Tensor:
        stride, dilation = self._conv.stride, self._conv.dilation
        if _by_onednn(x):  # which torch itself leaves only large inputs to; its own function is several times slower
            return torch.mkldnn_convolution(x, self._weight, self._bias, padding, stride, dilation, 1)
        return torch.convolution(x, self._weight, self._bias, stride, padding, dilation, False, [0], 1)


def _by_onednn(x: torch.Tensor) -> bool:
    if x.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _fill(slab: torch.Tensor, sources: Sequence[_Source], low: int, length: int) -> None:
    """Fill a slab with the rows of the sources from ``low`` on, and with zeros before the first and after the last."""
    before, after = max(-low, 0), max(low + slab.shape[2] - length, 0)
    slab[:, :, :before] = 0
    slab[:, :, slab.shape[2] - after :] = 0
    inside = slab[:, :, before : slab.shape[2] - after]
    for part, source in zip(inside.split([s.channels for s in sources], 1), sources, strict=True):
        part.copy_(source.read(low + before, low + before + inside.shape[2]))


def _finish(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Apply what follows the convolution of a block, in place."""
    modules = [m for m in list(block.all_modules)[1:] if not isinstance(m, nn.modules.dropout._DropoutNd)]
    if modules and _is_instance_norm(modules[0]) and not any(map(_has_weights, modules[1:])):
        _normalize(modules[0], x, modules[1:])
        return x
    for module in modules:
        x = _normalized(module, x) if _is_instance_norm(module) else _pointwise(module, x)
    return x


def _is_instance_norm(module: nn.Module) -> bool:
    return isinstance(module, _INSTANCE_NORMS) and not module.track_running_stats


def _normalized(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """Apply a normalisation, in place if its kind allows it."""
    if _is_instance_norm(norm):
        _normalize(norm, x)
        return x
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats:
        return _pointwise(norm, x)
    return norm(_exact(x)).to(x.dtype).contiguous(memory_format=_last(x))


def _normalize(norm: Any, x: torch.Tensor, activations: Sequence[nn.Module] = ()) -> None:
    """Normalise each channel to mean 0 and variance 1, scale and shift it, and apply the activations, in place.

    The mean and the variance of all voxels follow from those of each part, which is read once.
    """
    voxels = x[0].movedim(0, -1).flatten(0, -2)  # (n, channels), a view
    parts = voxels.split(max(1, _PART_BYTES // (4 * voxels.shape[1])))
    work = _exact(parts[0][:0]).new_empty(parts[0].shape)
    means, squares = [], []
    for part in parts:
        values = work[: len(part)].copy_(part)
        means.append(values.mean(0))
        squares.append(values.sub_(means[-1]).square_().sum(0))
    counts = torch.tensor([len(part) for part in parts], dtype=torch.float64)[:, None]
    centres = torch.stack(means).double()
    mean = (counts * centres).sum(0) / len(voxels)
    variance = (torch.stack(squares).double() + counts * (centres - mean).square()).sum(0) / len(voxels)
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    shift = -mean * scale
    if norm.affine:
        shift += norm.bias
    scale, shift = scale.to(work.dtype), shift.to(work.dtype)
    for part in parts:
        values = part if part.dtype == work.dtype else work[: len(part)].copy_(part)
        torch.addcmul(shift, values, scale, out=values)
        for activation in activations:
            values = activation(values)
        if values is not part:
            part.copy_(values)


def _pointwise(module: Any, x: torch.Tensor) -> torch.Tensor:
    """Apply a module that treats each voxel on its own, in place; with its weights, it computes in their type."""
    weighs = _has_weights(module)
    for part in x.split(max(1, _PART_BYTES // (4 * x[0, :, 0].numel())), 2):
        part.copy_(module(_exact(part) if weighs else part))
    return x


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _exact(x: torch.Tensor) -> torch.Tensor:
    """Return a map in the type of the weights, which is not bfloat16."""
    return x.float() if x.dtype == torch.bfloat16 else x


def _empty(like: torch.Tensor, channels: int, shape: Iterable[int], dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.empty((1, channels, *shape), dtype=dtype or like.dtype, memory_format=_last(like))


def _last(x: torch.Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.ndim == 5 else torch.channels_last
