"""Compute the class statistics on a CUDA device with the Triton kernels of :mod:`.kernels`.

This module is imported only where Triton is installed. :mod:`.torch_statistics` defines the results. Before the kernels
are used for a new kind of input, :func:`usable` compares them once with torch on a few hundred voxels. So a Triton that
cannot compile (no C compiler, a new device) or that computes something else costs speed, but never gives wrong results.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
import triton
from torch.autograd.function import once_differentiable

from . import kernels
from .tiles import LabelCheck

_LN2 = 0.6931471805599453
_NO_LABEL = -(1 << 31)
# Number of programs that the kernels which keep sums are launched with: several for each of the 108 (A100) to 132
# (H100) multiprocessors of a device.
_PROGRAMS = 1024
_TOLERANCE = 0.01


def usable(basis: torch.Tensor, projection: torch.Tensor) -> bool:
    """Return whether the kernels can be used for this input.

    They can if the basis has half or single precision, its rank is at most 256, and the kernels agree with torch. The
    comparison runs once for each device, dtype, rank and number of classes.

    :param basis: ``(B, R, N)``.
    :param projection: ``(C, R)``.
    """
    if basis.dtype == torch.float64 or not 1 <= basis.shape[1] <= 256 or basis.numel() == 0:
        return False
    return _agree(basis.device, basis.dtype, basis.shape[1], len(projection))


@cache
def _agree(device: torch.device, dtype: torch.dtype, rank: int, classes: int) -> bool:
    if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return False  # the products need tensor cores with tf32; AMD devices have not been tested
    try:
        error = disagreement(device, dtype, rank, classes)
    except Exception as fault:  # Triton passes on any exception of its compiler, the linker and the driver
        error, reason = float("nan"), f"{type(fault).__name__}: {fault}"
    else:
        reason = f"their results differ from those of torch by {error:.2g}"
    if not error <= _TOLERANCE:
        warnings.warn(
            f"The Triton kernels are not used on {device} ({reason}). The loss is computed by torch, which is slower.",
            stacklevel=4,
        )
        return False
    return True


def disagreement(device: torch.device, dtype: torch.dtype, rank: int, classes: int, voxels: int = 300) -> float:
    """Return the largest relative difference between kernels and torch on a random input.

    The difference is taken in norm, for each sum and each gradient.

    :param device: a CUDA device.
    :param dtype: of the basis.
    :param rank: channels of the basis.
    :param classes: number of classes.
    :param voxels: per sample, of two samples; every seventh voxel is ignored.
    """
    from .torch_statistics import TorchStatistics

    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(2, rank, voxels, generator=generator).to(device, dtype).requires_grad_()
    projection = (torch.randn(classes, rank, generator=generator) / rank**0.5).to(device).requires_grad_()
    bias = torch.randn(classes, generator=generator).to(device).requires_grad_()
    labels = torch.randint(0, classes, (2, voxels), generator=generator)
    labels[:, ::7] = -1
    labels = labels.to(device)
    results = []
    with torch.inference_mode(False), torch.enable_grad():
        for statistics in (TritonStatistics.apply, TorchStatistics.apply):
            sums = statistics(basis, projection, bias, labels, -1)
            draw = torch.Generator().manual_seed(1)
            loss = sum((x * torch.randn(x.shape, generator=draw).to(device)).sum() for x in sums)
            results.append([*(x.detach() for x in sums), *torch.autograd.grad(loss, (basis, projection, bias))])
    pairs = [(a.float(), b.float()) for a, b in zip(*results, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp_min(1e-6)) for a, b in pairs)


class TritonStatistics(torch.autograd.Function):
    """Same arguments and results as :class:`.TorchStatistics` without label sets; all results are float32."""

    @staticmethod
    def forward(
        ctx: Any,
        basis: torch.Tensor,
        projection: torch.Tensor,
        bias: torch.Tensor,
        labels: torch.Tensor,
        ignore_index: int | None,
    ) -> tuple[torch.Tensor, ...]:
        batch, rank, voxels = basis.shape
        classes = len(projection)
        basis = basis if basis.stride(2) == 1 else basis.contiguous()
        labels = _checked(labels, classes, ignore_index)
        launch = _Launch(basis, projection, bias, labels)
        lse = launch.floats(batch, voxels)
        features = launch.floats(batch, launch.voxel_grid[0], launch.blocks.rank)
        ignored = _NO_LABEL if ignore_index is None else ignore_index
        with launch.device:
            kernels.log_sum_exp[launch.voxel_grid](
                *launch.inputs, lse, features, voxels, rank, launch.blocks.classes, ignored, *launch.strides,
                **launch.blocks.voxel_rows, PRECISION=launch.precision,
            )  # fmt: skip
            sums = launch.floats(batch, launch.class_grid[0], 4, launch.blocks.classes)
            kernels.class_sums[launch.class_grid](
                *launch.inputs, lse, sums, voxels, rank, launch.blocks.classes, *launch.strides,
                **launch.blocks.class_rows, PRECISION=launch.precision,
            )  # fmt: skip
        cross_entropy, intersection, predicted, reference = sums[..., :classes].sum(1, dtype=torch.float64).unbind(1)
        lse_sum = lse.masked_fill(lse.isinf(), 0).sum(1, dtype=torch.float64)
        feature_sum = features[..., :rank].sum(1, dtype=torch.float64)
        counts = reference.sum(1, keepdim=True)
        logits = feature_sum @ projection.T.double() + counts * bias.double()
        ctx.save_for_backward(basis, projection, bias, labels, lse, feature_sum.float(), counts.float())
        totals = cross_entropy * _LN2, intersection, predicted, reference, lse_sum * _LN2, logits, counts.sum()
        results = tuple(x.float() for x in totals)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(results[3], results[6])
        return results

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_ce: torch.Tensor | None,
        grad_intersection: torch.Tensor | None,
        grad_predicted: torch.Tensor | None,
        _reference: torch.Tensor | None,
        grad_lse: torch.Tensor | None,
        grad_logits: torch.Tensor | None,
        _voxels: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        basis, projection, bias, labels, lse, feature_sum, counts = ctx.saved_tensors
        batch, rank, voxels = basis.shape
        classes = len(projection)
        launch = _Launch(basis, projection, bias, labels)
        padded, splits = launch.blocks.classes, launch.class_grid[0]

        def given(gradient: torch.Tensor | None) -> torch.Tensor:
            full = basis.new_zeros(batch, padded, dtype=torch.float32)
            if gradient is not None:
                full[:, :classes] = gradient
            return full

        grad_ce, grad_intersection, grad_predicted = map(given, (grad_ce, grad_intersection, grad_predicted))
        grad_lse = lse.new_zeros(batch) if grad_lse is None else grad_lse.float().contiguous()
        grad_basis = torch.empty(basis.shape, dtype=basis.dtype, device=basis.device)
        shift, at_label = torch.empty_like(lse), torch.empty_like(lse)
        grad_projection = launch.floats(batch, splits, padded, launch.blocks.rank)
        grad_bias = launch.floats(batch, splits, padded)
        with launch.device:
            kernels.basis_gradient[launch.voxel_grid](
                *launch.inputs, lse, grad_ce, grad_intersection, grad_predicted, grad_lse, grad_basis, shift, at_label,
                voxels, rank, padded, *launch.strides, *grad_basis.stride()[:2],
                **launch.blocks.voxel_rows, PRECISION=launch.precision,
            )  # fmt: skip
            kernels.projection_gradient[launch.class_grid](
                *launch.inputs, lse, grad_predicted, shift, at_label, grad_projection, grad_bias,
                voxels, rank, padded, *launch.strides,
                **launch.blocks.class_rows, PRECISION=launch.precision,
            )  # fmt: skip
        grad_projection = grad_projection.sum((0, 1), dtype=torch.float64)[:classes, :rank]
        grad_bias = grad_bias.sum((0, 1), dtype=torch.float64)[:classes]
        if grad_logits is not None:
            grad_projection += grad_logits.T.double() @ feature_sum.double()
            grad_bias += (grad_logits * counts).sum(0)
            valid = torch.isfinite(lse)
            for b, row in enumerate(grad_logits @ projection.float()):
                grad_basis[b] += (row[:, None] * valid[b]).to(basis.dtype)
        return grad_basis, grad_projection.to(projection.dtype), grad_bias.to(bias.dtype), None, None


def _checked(labels: torch.Tensor, classes: int, ignore_index: int | None) -> torch.Tensor:
    """Return the labels, contiguous and of a dtype that the kernels read.

    :raises ValueError: naming a label outside 0..C-1.
    """
    if labels.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64):
        labels = labels.int()
    labels = labels.contiguous()
    check = LabelCheck([classes], "classes of this model")
    check.note(0, labels if ignore_index is None else torch.where(labels == ignore_index, 0, labels))
    check.raise_if_outside()
    return labels


class _Launch:
    """Padded weights, grids, strides and precision that the kernels of one pass share."""

    def __init__(self, basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> None:
        batch, rank, voxels = basis.shape
        classes = len(projection)
        self.blocks = blocks = kernels.Blocks.fitting(rank, classes)
        operand = torch.float16 if basis.dtype == torch.float16 else torch.float32
        weights = torch.zeros(blocks.classes, blocks.rank, dtype=operand, device=basis.device)
        weights[:classes, :rank] = projection.float() / _LN2
        offset = torch.full((blocks.classes,), -1e30, device=basis.device)
        offset[:classes] = bias.float() / _LN2
        self.inputs = basis, weights, offset, labels
        self.strides = basis.stride()[:2]
        # For a float32 basis, follow the setting of the torch convolutions that these kernels replace.
        self.precision = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
        self.voxel_grid = triton.cdiv(voxels, blocks.voxel_rows["VOXELS"]), batch
        parts = blocks.classes // blocks.class_rows["CLASSES"]
        tiles = triton.cdiv(voxels, blocks.class_rows["VOXELS"])
        self.class_grid = max(1, min(tiles, _PROGRAMS // (parts * batch))), parts, batch
        self.device = torch.cuda.device_of(basis)  # no effect on a CPU, where Triton's interpreter runs

    def floats(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.inputs[0].device)
