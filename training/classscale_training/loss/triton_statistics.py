"""Compute the class statistics on a CUDA device with Triton kernels, without logits in device memory.

This module is imported only where Triton is installed. :mod:`.torch_statistics` defines the results. Before the kernels
are used for a new kind of input, :func:`usable` compares them once with torch on a few hundred voxels. So a Triton that
cannot compile (no C compiler, a new device) or that computes something else costs speed, but never gives wrong results.

There are four kernels. In ``log_sum_exp`` and ``basis_gradient`` a program takes a block of voxels and loops over all
classes; the voxels are the rows of the product, so that maxima and sums over classes stay within a warp. In
``class_sums`` and ``projection_gradient`` a program takes a block of classes and loops over voxels; the classes are the
rows, and their sums stay in registers. Each program writes its own partial sums, so there are no atomics and every run
gives the same results.

Logits are in base 2, as in the torch version. Classes are padded with a bias of -1e30, which gives probability 0.
Ignored voxels and those beyond the end have a log-sum-exp of +inf, which also gives probability 0. The products for
logits use float16 for a float16 basis, and otherwise tf32, or float32 where torch's convolutions may not use tf32. The
products for gradients always use tf32: their range (the Dice gradient of an absent class is 1e9 times the gradient of
the mean cross entropy) does not fit float16, and bfloat16 has ten times the error.

Arguments have the same meaning in all kernels: ``basis`` (B, rank, voxels) has the strides ``stride_b``, ``stride_r``
and 1, ``weights`` (classes, RANK) and ``bias`` (classes,) are in base 2 and padded, ``labels`` and the log-sum-exp
``lse`` are (B, voxels), and gradients of sums by class are (B, classes). ``RANK`` is the padded rank, ``VOXELS`` and
``CLASSES`` are the sizes of a block, and ``PRECISION`` is that of the products for logits.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch.nn import functional

from .autograd import Statistics, Tensors
from .tiles import Inputs
from .torch_statistics import TorchStatistics

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
    """Return the largest relative difference in norm between kernels and torch, of any sum or gradient.

    The basis is random and of ``dtype``, with ``voxels`` in each of two samples, of which every seventh is ignored.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(2, rank, voxels, generator=generator).to(device, dtype).requires_grad_()
    projection = (torch.randn(classes, rank, generator=generator) / rank**0.5).to(device).requires_grad_()
    bias = torch.randn(classes, generator=generator).to(device).requires_grad_()
    labels = torch.randint(0, classes, (2, voxels), generator=generator)
    labels[:, ::7] = -1
    labels = labels.to(device)
    results = []
    with torch.inference_mode(False), torch.enable_grad():
        for statistics in (TritonStatistics(), TorchStatistics()):
            sums = statistics(Inputs(basis, projection, bias, labels, -1))
            draw = torch.Generator().manual_seed(1)
            loss = torch.stack([(x * torch.randn(x.shape, generator=draw).to(device)).sum() for x in sums]).sum()
            results.append([*(x.detach() for x in sums), *torch.autograd.grad(loss, (basis, projection, bias))])
    pairs = [(a.float(), b.float()) for a, b in zip(*results, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp_min(1e-6)) for a, b in pairs)


class TritonStatistics(Statistics):
    """Same sums as :class:`.TorchStatistics`; all are float32."""

    def __call__(self, x: Inputs) -> Tensors:
        """Return the sums, after the labels have been checked and everything has an order that the kernels read."""
        labels, check = x.labels, self.check(x)
        if labels.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64):
            labels = labels.int()
        labels = labels.contiguous()
        check.note(0, labels if x.ignore_index is None else torch.where(labels == x.ignore_index, 0, labels))
        check.raise_if_outside()
        basis = x.basis if x.basis.stride(2) == 1 else x.basis.contiguous()
        return super().__call__(x._replace(basis=basis, labels=labels))

    def sums(self, x: Inputs) -> tuple[Tensors, Tensors]:
        (batch, rank, voxels), classes = x.basis.shape, len(x.projection)
        launch = _Launch(x)
        lse = launch.floats(batch, voxels)
        features = launch.floats(batch, launch.voxel_grid[0], launch.blocks.rank)
        sums = launch.floats(batch, launch.class_grid[0], 4, launch.blocks.classes)
        launch.over_voxels(log_sum_exp, lse, features, _NO_LABEL if x.ignore_index is None else x.ignore_index)
        launch.over_classes(class_sums, lse, sums)
        cross_entropy, intersection, predicted, reference = sums[..., :classes].sum(1, dtype=torch.float64).unbind(1)
        lse_sum = lse.masked_fill(lse.isinf(), 0).sum(1, dtype=torch.float64)
        counts = reference.sum(1, keepdim=True)
        feature_sum = torch.cat([features[..., :rank].sum(1, dtype=torch.float64), counts], 1)
        logits = feature_sum @ x.weights.T.double()
        totals = cross_entropy * _LN2, intersection, predicted, reference, lse_sum * _LN2, logits, counts.sum()
        return totals, (lse, feature_sum.float())

    def gradients(self, x: Inputs, saved: Tensors, *of_sums: Any) -> Tensors:
        lse, feature_sum = saved
        grad_logits, classes, rank = of_sums[5], *x.projection.shape
        launch = _Launch(x)
        padded, parts = launch.blocks.classes, (len(x.basis), launch.class_grid[0])
        grad_ce, grad_intersection, grad_predicted = (
            functional.pad(gradient, (0, padded - classes)).contiguous() for gradient in of_sums[:3]
        )
        grad_basis = torch.empty(x.basis.shape, dtype=x.basis.dtype, device=x.basis.device)
        shift, at_label = torch.empty_like(lse), torch.empty_like(lse)
        grad_projection = launch.floats(*parts, padded, launch.blocks.rank)
        grad_bias = launch.floats(*parts, padded)
        launch.over_voxels(
            basis_gradient, lse, grad_ce, grad_intersection, grad_predicted, of_sums[4].contiguous(),
            grad_basis, shift, at_label, *grad_basis.stride()[:2],
        )  # fmt: skip
        launch.over_classes(projection_gradient, lse, grad_predicted, shift, at_label, grad_projection, grad_bias)
        grad_projection = grad_projection.sum((0, 1), dtype=torch.float64)[:classes, :rank]
        grad_bias = grad_bias.sum((0, 1), dtype=torch.float64)[:classes]
        if grad_logits is not None:
            grad_projection += grad_logits.T.double() @ feature_sum[:, :-1].double()
            grad_bias += (grad_logits * feature_sum[:, -1:]).sum(0)
            valid = torch.isfinite(lse)
            for b, row in enumerate(grad_logits @ x.projection.float()):
                grad_basis[b] += (row[:, None] * valid[b]).to(grad_basis.dtype)
        return grad_basis, grad_projection, grad_bias


class _Launch:
    """Padded weights, grids, strides and precision that the kernels of one pass share."""

    def __init__(self, x: Inputs) -> None:
        (batch, rank, voxels), classes = x.basis.shape, len(x.projection)
        self.basis, self.blocks = x.basis, Blocks.fitting(rank, classes)
        padded = self.blocks.classes
        operand = torch.float16 if x.basis.dtype == torch.float16 else torch.float32
        weights = torch.zeros(padded, self.blocks.rank, dtype=operand, device=x.basis.device)
        weights[:classes, :rank] = x.projection.float() / _LN2
        offset = torch.full((padded,), -1e30, device=x.basis.device)
        offset[:classes] = x.bias.float() / _LN2
        self.inputs = x.basis, weights, offset, x.labels, voxels, rank, padded, *x.basis.stride()[:2]
        # For a float32 basis, follow the setting of the torch convolutions that these kernels replace.
        self.precision = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
        self.voxel_grid = triton.cdiv(voxels, self.blocks.voxel_rows["VOXELS"]), batch
        parts = padded // self.blocks.class_rows["CLASSES"]
        tiles = triton.cdiv(voxels, self.blocks.class_rows["VOXELS"])
        self.class_grid = max(1, min(tiles, _PROGRAMS // (parts * batch))), parts, batch

    def floats(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.basis.device)

    def over_voxels(self, kernel: Any, *arguments: Any) -> None:
        self._run(kernel[self.voxel_grid], arguments, self.blocks.voxel_rows)

    def over_classes(self, kernel: Any, *arguments: Any) -> None:
        self._run(kernel[self.class_grid], arguments, self.blocks.class_rows)

    def _run(self, launcher: Any, arguments: tuple[Any, ...], options: dict[str, int]) -> None:
        with torch.cuda.device_of(self.basis):  # no effect on a CPU, where Triton's interpreter runs
            launcher(*self.inputs, *arguments, **options, PRECISION=self.precision)


class Blocks(NamedTuple):
    """Padded sizes, and the options to launch the kernels whose rows are voxels, and those whose rows are classes."""

    rank: int
    classes: int
    voxel_rows: dict[str, int]
    class_rows: dict[str, int]

    @classmethod
    def fitting(cls, rank: int, classes: int) -> Blocks:
        """Choose sizes so that no kernel spills registers or takes over 99 KiB of shared memory, on sm_80 and sm_90.

        The smallest devices with tf32 (sm_86, sm_89) have 99 KiB. ``Testing/Benchmarks/kernel_resources.py`` compiles
        all kernels and lists the registers and shared memory that they take.
        """
        padded = max(16, triton.next_power_of_2(rank))
        voxels, voxel_columns, class_columns = {128: (64, 32, 32), 256: (64, 16, 16)}.get(padded, (128, 64, 32))
        rows = min(voxels, max(16, triton.next_power_of_2(classes)))
        options = {"RANK": padded, "num_warps": 8, "num_stages": 3 if padded <= 32 else 2}
        return cls(
            padded,
            triton.cdiv(classes, rows) * rows,
            {"VOXELS": voxels, "CLASSES": min(voxel_columns, rows), **options},
            {"VOXELS": class_columns, "CLASSES": rows, **options},
        )


@triton.jit
def voxel_rows(basis, weights, voxels, rank, stride_b, stride_r, RANK: tl.constexpr, VOXELS: tl.constexpr):
    """Return sample, voxels and channels of a block of rows, which voxels and entries exist, and the features."""
    b = tl.program_id(1).to(tl.int64)
    v, r = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS), tl.arange(0, RANK)
    inside = v < voxels
    fits = inside[:, None] & (r < rank)[None, :]
    at = basis + b * stride_b + v[:, None] + r[None, :].to(tl.int64) * stride_r
    return b, v, r, inside, fits, tl.load(at, mask=fits, other=0.0).to(weights.dtype.element_ty)


@triton.jit
def class_columns(f, weights, bias, r, start, c, RANK: tl.constexpr, PRECISION: tl.constexpr):
    """Return the weights (RANK, CLASSES) of the classes start + c, and the logits (VOXELS, CLASSES) of features f."""
    w = tl.load(weights + (start + c)[None, :] * RANK + r[:, None])
    return w, tl.dot(f, w, input_precision=PRECISION) + tl.load(bias + start + c)[None, :]


@triton.jit
def class_rows(weights, bias, RANK: tl.constexpr, CLASSES: tl.constexpr):
    """Return the sample, the classes and channels of a block of rows, its weights (CLASSES, RANK), and its bias."""
    c, r = tl.program_id(1) * CLASSES + tl.arange(0, CLASSES), tl.arange(0, RANK)
    return tl.program_id(2).to(tl.int64), c, r, tl.load(weights + c[:, None] * RANK + r[None, :]), tl.load(bias + c)


@triton.jit
def voxel_columns(
    basis, labels, lse, w, offset, b, r, start, voxels, rank, stride_b, stride_r,
    VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the voxels from start, which exist, their features, logits (CLASSES, VOXELS), log-sum-exp and label.

    The last result is which of them are valid and have a label in this block of classes.
    """
    v = start + tl.arange(0, VOXELS)
    inside = v < voxels
    at = basis + b * stride_b + r[:, None].to(tl.int64) * stride_r + v[None, :]
    f = tl.load(at, mask=(r < rank)[:, None] & inside[None, :], other=0.0).to(w.dtype)
    level = tl.load(lse + b * voxels + v, mask=inside, other=float("inf"))
    label = tl.load(labels + b * voxels + v, mask=inside, other=0).to(tl.int32)
    z = tl.dot(w, f, input_precision=PRECISION) + offset[:, None]
    first = tl.program_id(1) * CLASSES
    return v, inside, f, z, level, label, (label >= first) & (label < first + CLASSES) & (level != float("inf"))


@triton.jit
def log_sum_exp(
    basis, weights, bias, labels, voxels, rank, classes, stride_b, stride_r,
    lse, features, ignore, RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write lse (B, N), and the sum of the valid features of each block of voxels: (B, blocks, RANK)."""
    b, v, r, inside, fits, f = voxel_rows(basis, weights, voxels, rank, stride_b, stride_r, RANK, VOXELS)
    c = tl.arange(0, CLASSES)
    valid = inside & (tl.load(labels + b * voxels + v, mask=inside, other=0).to(tl.int32) != ignore)
    maximum = tl.full([VOXELS], -1e38, tl.float32)
    total = tl.zeros([VOXELS], tl.float32)
    for start in range(0, classes, CLASSES):
        w, z = class_columns(f, weights, bias, r, start, c, RANK, PRECISION)
        higher = tl.maximum(maximum, tl.max(z, 1))
        total = total * tl.exp2(maximum - higher) + tl.sum(tl.exp2(z - higher[:, None]), 1)
        maximum = higher
    tl.store(lse + b * voxels + v, tl.where(valid, maximum + tl.log2(total), float("inf")), mask=inside)
    summed = tl.sum(tl.where(valid[:, None], f.to(tl.float32), 0.0), 0)
    tl.store(features + (b * tl.num_programs(0) + tl.program_id(0)) * RANK + r, summed)


@triton.jit
def class_sums(
    basis, weights, bias, labels, voxels, rank, classes, stride_b, stride_r,
    lse, sums, RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the cross entropy (bits), I, P and G of each split of the voxels: (B, splits, 4, classes)."""
    split, splits = tl.program_id(0), tl.num_programs(0)
    b, c, r, w, offset = class_rows(weights, bias, RANK, CLASSES)
    predicted = tl.zeros([CLASSES], tl.float32)
    cross_entropy = tl.zeros([CLASSES], tl.float32)
    intersection = tl.zeros([CLASSES], tl.float32)
    reference = tl.zeros([CLASSES], tl.float32)
    for start in range(split * VOXELS, voxels, splits * VOXELS):
        v, inside, f, z, level, label, here = voxel_columns(
            basis, labels, lse, w, offset, b, r, start, voxels, rank, stride_b, stride_r, VOXELS, CLASSES, PRECISION
        )
        p = tl.exp2(z - level[None, :])
        predicted += tl.sum(p, 1)
        if tl.sum(here.to(tl.int32), 0) > 0:  # a block of voxels has few labels, so most blocks of classes skip this
            hit = (label[None, :] == c[:, None]) & here[None, :]
            intersection += tl.sum(tl.where(hit, p, 0.0), 1)
            cross_entropy += tl.sum(tl.where(hit, level[None, :] - z, 0.0), 1)
            reference += tl.sum(hit.to(tl.float32), 1)
    row = sums + (b * splits + split) * 4 * classes + c
    tl.store(row, cross_entropy)
    tl.store(row + classes, intersection)
    tl.store(row + 2 * classes, predicted)
    tl.store(row + 3 * classes, reference)


@triton.jit
def basis_gradient(
    basis, weights, bias, labels, voxels, rank, classes, stride_b, stride_r,
    lse, grad_ce, grad_intersection, grad_predicted, grad_lse,
    grad_basis, shift, at_label, grad_stride_b, grad_stride_r,
    RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the basis, and shift and at_label (B, N) of dz = p (gP + shift) + [c = y] at_label."""
    b, v, r, inside, fits, f = voxel_rows(basis, weights, voxels, rank, stride_b, stride_r, RANK, VOXELS)
    c = tl.arange(0, CLASSES)
    level = tl.load(lse + b * voxels + v, mask=inside, other=float("inf"))
    valid = level != float("inf")
    label = tl.where(valid, tl.load(labels + b * voxels + v, mask=inside, other=0).to(tl.int32), -1)
    lowest, highest = tl.min(tl.where(valid, label, classes), 0), tl.max(label, 0)
    shared = tl.zeros([VOXELS], tl.float32)
    probability = tl.zeros([VOXELS], tl.float32)
    for start in range(0, classes, CLASSES):
        w, z = class_columns(f, weights, bias, r, start, c, RANK, PRECISION)
        p = tl.exp2(z - level[:, None])
        shared += tl.sum(p * tl.load(grad_predicted + b * classes + start + c)[None, :], 1)
        if (lowest < start + CLASSES) & (highest >= start):
            probability += tl.sum(tl.where((start + c)[None, :] == label[:, None], p, 0.0), 1)
    lam = tl.load(grad_ce + b * classes + label, mask=valid, other=0.0)
    overlap = tl.load(grad_intersection + b * classes + label, mask=valid, other=0.0) * probability
    moved = lam + tl.load(grad_lse + b) - shared - overlap
    extra = overlap - lam
    tl.store(shift + b * voxels + v, moved, mask=inside)
    tl.store(at_label + b * voxels + v, extra, mask=inside)
    gradient = tl.zeros([VOXELS, RANK], tl.float32)
    for start in range(0, classes, CLASSES):
        w, z = class_columns(f, weights, bias, r, start, c, RANK, PRECISION)
        p = tl.exp2(z - level[:, None])
        dz = p * (tl.load(grad_predicted + b * classes + start + c)[None, :] + moved[:, None])
        if (lowest < start + CLASSES) & (highest >= start):
            dz += tl.where((start + c)[None, :] == label[:, None], extra[:, None], 0.0)
        gradient = tl.dot(dz, tl.trans(w).to(tl.float32), gradient, input_precision="tf32")
    gradient *= 0.6931471805599453  # the weights are in base 2
    at = grad_basis + b * grad_stride_b + v[:, None] + r[None, :].to(tl.int64) * grad_stride_r
    tl.store(at, gradient.to(grad_basis.dtype.element_ty), mask=fits)


@triton.jit
def projection_gradient(
    basis, weights, bias, labels, voxels, rank, classes, stride_b, stride_r,
    lse, grad_predicted, shift, at_label, grad_projection, grad_bias,
    RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of projection (B, splits, classes, RANK) and bias (B, splits, classes) of each split."""
    split, splits = tl.program_id(0), tl.num_programs(0)
    b, c, r, w, offset = class_rows(weights, bias, RANK, CLASSES)
    slope = tl.load(grad_predicted + b * classes + c)
    gradient = tl.zeros([CLASSES, RANK], tl.float32)
    summed = tl.zeros([CLASSES], tl.float32)
    for start in range(split * VOXELS, voxels, splits * VOXELS):
        v, inside, f, z, level, label, here = voxel_columns(
            basis, labels, lse, w, offset, b, r, start, voxels, rank, stride_b, stride_r, VOXELS, CLASSES, PRECISION
        )
        moved = tl.load(shift + b * voxels + v, mask=inside, other=0.0)
        dz = tl.exp2(z - level[None, :]) * (slope[:, None] + moved[None, :])
        if tl.sum(here.to(tl.int32), 0) > 0:
            extra = tl.load(at_label + b * voxels + v, mask=inside, other=0.0)
            dz += tl.where((label[None, :] == c[:, None]) & here[None, :], extra[None, :], 0.0)
        summed += tl.sum(dz, 1)
        gradient = tl.dot(dz, tl.trans(f).to(tl.float32), gradient, input_precision="tf32")
    row = (b * splits + split) * classes + c
    tl.store(grad_bias + row, summed)
    tl.store(grad_projection + row[:, None] * RANK + r[None, :], gradient)
