"""Compute the class statistics on a CUDA device with Triton kernels, without logits in device memory.

This module is imported only where Triton is installed. :mod:`.torch_statistics` defines the results. Before the kernels
are used for a new kind of input, :func:`usable` compares them once with torch on a few hundred voxels. So a Triton that
cannot compile (no C compiler, a new device) or that computes something else costs speed, but never gives wrong results.

Four kernels visit the voxels. In ``log_sum_exp`` and ``basis_gradient`` a program takes a block of voxels and loops
over all classes; the voxels are the rows of the product, so that maxima and sums over classes stay within a warp. In
``class_sums`` and ``projection_gradient`` a program takes a block of classes and loops over voxels; the classes are the
rows, and their sums stay in registers. Each program writes its own partial sums, so there are no atomics and every run
gives the same results.

The other kernels check labels, pad weights and gradients, and add up partial sums. Torch could do this too, but in
about 70 operations; launching them took most of the time that did not depend on the number of classes
(``Testing/Benchmarks/loss_launches.py``). Nothing waits for the device except the check of labels, which is left out
for labels that are trusted. A trusted label that is outside the classes makes the loss NaN.

Logits are in base 2, as in the torch version. Classes are padded with a bias of -1e30, which gives probability 0.
Ignored voxels and those beyond the end have a log-sum-exp of +inf, which also gives probability 0. The products for
logits use float16 for a float16 basis, and otherwise tf32, or float32 where torch's convolutions may not use tf32. The
products for gradients always use tf32: their range (the Dice gradient of an absent class is 1e9 times the gradient of
the mean cross entropy) does not fit float16, and bfloat16 has ten times the error.

Arguments have the same meaning in all kernels for voxels: ``basis`` (B, rank, voxels) has the strides ``stride_b``,
``stride_r`` and 1, ``weights`` (classes, RANK) and ``bias`` (classes,) are in base 2 and padded, ``labels`` and the
log-sum-exp ``lse`` are (B, voxels), and ``slopes`` (B, 4, classes) are the gradients of cross entropy, I, P and
log-sum-exp. ``RANK`` is the padded rank, ``VOXELS`` and ``CLASSES`` are the sizes of a block, and ``PRECISION`` is that
of the products for logits.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .autograd import Statistics, Tensors
from .tiles import Inputs
from .torch_statistics import TorchStatistics

_NO_LABEL = -(1 << 31)
# Number of programs that the kernels which keep sums are launched with: several for each of the 108 (A100) to 132
# (H100) multiprocessors of a device.
_PROGRAMS = 1024
_TOLERANCE = 0.01
_CHECKED = 1 << 14  # labels that one program checks


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
    basis = torch.randn(2, rank, voxels, generator=generator).to(device, dtype)
    projection = (torch.randn(classes, rank, generator=generator) / rank**0.5).to(device)
    bias = torch.randn(classes, generator=generator).to(device)
    labels = torch.randint(0, classes, (2, voxels), generator=generator)
    labels[:, ::7] = -1
    results = []
    with torch.no_grad():  # without autograd, which is not available inside an operator of torch.compile
        for statistics in (TritonStatistics(), TorchStatistics()):
            x = statistics.prepared(Inputs(basis, projection, bias, labels.to(device), -1))
            sums, saved = statistics.sums(x)
            draw = torch.Generator().manual_seed(1)
            of_sums = [torch.randn(total.shape, generator=draw).to(device) for total in sums]
            results.append([*sums, *statistics.gradients(x, saved, *of_sums)])
    pairs = [(a.float(), b.float()) for a, b in zip(*results, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp_min(1e-6)) for a, b in pairs)


class TritonStatistics(Statistics):
    """Same sums as :class:`.TorchStatistics`; all are float32."""

    takes_none = True

    def prepared(self, x: Inputs) -> Inputs:
        """Return the inputs in an order that the kernels read, with checked labels: the only synchronisation."""
        labels = x.labels
        if labels.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64):
            labels = labels.int()
        x = x._replace(basis=x.basis if x.basis.stride(2) == 1 else x.basis.contiguous(), labels=labels.contiguous())
        if not x.trusted:
            found = torch.empty(_cdiv(x.labels.numel(), _CHECKED), 2, dtype=torch.int64, device=x.labels.device)
            told = x.labels, found, x.labels.numel(), _ignored(x)
            _run(x.labels, label_range, (len(found),), *told, EACH=_CHECKED, VOXELS=1024)
            lows, highs = zip(*found.tolist(), strict=True)
            self.check(x).raise_if_wrong(0, min(lows), max(highs))
        return x._replace(trusted=True)

    def sums(self, x: Inputs) -> tuple[Tensors, Tensors]:
        (batch, rank, voxels), classes = x.basis.shape, len(x.projection)
        launch = _Launch(x)
        padded, splits = launch.blocks.classes, launch.class_grid[0]
        lse = launch.floats(batch, voxels)
        of_blocks = launch.floats(batch, launch.voxel_grid[0], launch.blocks.rank + 2)
        of_splits = launch.floats(batch, splits, 4, padded)
        launch.over_voxels(log_sum_exp, lse, of_blocks, _ignored(x), classes)
        launch.over_classes(class_sums, lse, of_splits)
        totals = of_blocks.sum(1, dtype=torch.float64)
        *by_class, logits = (launch.floats(batch, classes) for _ in range(5))
        lse_sum, feature_sum, counted = launch.floats(batch), launch.floats(batch, rank + 1), launch.floats()
        launch.finish(
            class_totals, (_cdiv(classes, 32), batch), of_splits, totals, x.projection, x.bias,
            *by_class, logits, lse_sum, feature_sum, counted, splits, classes, padded, rank, batch,
            *x.projection.stride(), *x.bias.stride(), RANK=launch.blocks.rank, CLASSES=32, SPLITS=32,
        )  # fmt: skip
        return (*by_class, lse_sum, logits, counted), (lse, feature_sum, lse.new_empty(0, batch, voxels))

    def gradients(self, x: Inputs, saved: Tensors, *of_sums: Any) -> Tensors:
        (batch, rank, _), classes = x.basis.shape, len(x.projection)
        lse, feature_sum, _ = saved
        launch = _Launch(x)
        padded, splits = launch.blocks.classes, launch.class_grid[0]
        slopes = launch.floats(batch, 4, padded)
        launch.pad_slopes(slopes, [*of_sums[:3], of_sums[4]], classes)
        grad_logits = of_sums[5]
        same = lse if grad_logits is None else grad_logits @ x.projection.float()  # for every voxel of a sample
        grad_basis = torch.empty(x.basis.shape, dtype=x.basis.dtype, device=x.basis.device)
        shift, at_label = torch.empty_like(lse), torch.empty_like(lse)
        of_splits = launch.floats(batch * splits, padded * (launch.blocks.rank + 1))
        launch.over_voxels(
            basis_gradient, lse, slopes, same, grad_basis, shift, at_label, *grad_basis.stride()[:2],
            LOGITS=grad_logits is not None,
        )  # fmt: skip
        launch.over_classes(projection_gradient, lse, slopes, shift, at_label, of_splits)
        grad_projection, grad_bias = launch.floats(classes, rank), launch.floats(classes)
        launch.finish(
            weight_gradients, (_cdiv(of_splits.shape[1], 64),), of_splits, grad_projection, grad_bias,
            len(of_splits), of_splits.shape[1], padded, classes, rank, RANK=launch.blocks.rank, COLUMNS=64, ROWS=32,
        )  # fmt: skip
        if grad_logits is not None:
            grad_projection += (grad_logits.T.double() @ feature_sum[:, :-1].double()).float()
            grad_bias += (grad_logits * feature_sum[:, -1:]).sum(0)
        return grad_basis, grad_projection, grad_bias


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)  # Triton's function takes several microseconds


def _ignored(x: Inputs) -> int:
    return _NO_LABEL if x.ignore_index is None else x.ignore_index


def _run(on: torch.Tensor, kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launch a kernel on the device of ``on``. Every launch of this module is here, where it can be counted."""
    with torch.cuda.device_of(on):  # no effect on a CPU, where Triton's interpreter runs
        kernel[grid](*arguments, **options)


class _Launch:
    """Padded weights, grids, strides and precision that the kernels of one pass share."""

    def __init__(self, x: Inputs) -> None:
        (batch, rank, voxels), classes = x.basis.shape, len(x.projection)
        self.basis, self.blocks = x.basis, Blocks.fitting(rank, classes)
        padded = self.blocks.classes
        operand = torch.float16 if x.basis.dtype == torch.float16 else torch.float32
        weights = torch.empty(padded, self.blocks.rank, dtype=operand, device=x.basis.device)
        offset = self.floats(padded)
        self.finish(
            pad_weights, (_cdiv(padded, 16),), x.projection, x.bias, weights, offset, classes, padded, rank,
            *x.projection.stride(), *x.bias.stride(), RANK=self.blocks.rank, CLASSES=16,
        )  # fmt: skip
        self.inputs = x.basis, weights, offset, x.labels, voxels, rank, padded, *x.basis.stride()[:2]
        # For a float32 basis, follow the setting of the torch convolutions that these kernels replace.
        self.precision = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
        self.voxel_grid = _cdiv(voxels, self.blocks.voxel_rows["VOXELS"]), batch
        parts = padded // self.blocks.class_rows["CLASSES"]
        tiles = _cdiv(voxels, self.blocks.class_rows["VOXELS"])
        self.class_grid = max(1, min(tiles, _PROGRAMS // (parts * batch))), parts, batch

    def floats(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.basis.device)

    def pad_slopes(self, slopes: torch.Tensor, gradients: list[torch.Tensor | None], classes: int) -> None:
        """Write the gradients of three sums by class, and of the log-sum-exp for every class, to one padded array."""
        shape = slopes.shape[0], classes
        zero = slopes.new_zeros(()) if any(gradient is None for gradient in gradients) else slopes
        filled = [zero.expand(shape) if gradient is None else gradient for gradient in gradients]
        filled[3] = filled[3] if filled[3].ndim == 2 else filled[3][:, None].expand(shape)
        strides = [stride for gradient in filled for stride in gradient.stride()]
        grid = _cdiv(slopes.shape[2], 128), shape[0]
        self.finish(pad_slopes, grid, *filled, slopes, classes, slopes.shape[2], *strides, CLASSES=128)

    def over_voxels(self, kernel: Any, *arguments: Any, **options: Any) -> None:
        self._over(kernel, self.voxel_grid, arguments, self.blocks.voxel_rows | options)

    def over_classes(self, kernel: Any, *arguments: Any) -> None:
        self._over(kernel, self.class_grid, arguments, self.blocks.class_rows)

    def finish(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: int) -> None:
        """Launch one of the kernels that prepare or finish arrays without voxels."""
        _run(self.basis, kernel, grid, *arguments, **options)

    def _over(self, kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], options: dict[str, int]) -> None:
        _run(self.basis, kernel, grid, *self.inputs, *arguments, **options, PRECISION=self.precision)


class Blocks(NamedTuple):
    """Padded sizes, and the options to launch the kernels whose rows are voxels, and those whose rows are classes."""

    rank: int
    classes: int
    voxel_rows: dict[str, int]
    class_rows: dict[str, int]

    @classmethod
    @cache
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
            _cdiv(classes, rows) * rows,
            {"VOXELS": voxels, "CLASSES": min(voxel_columns, rows), **options},
            {"VOXELS": class_columns, "CLASSES": rows, **options},
        )


@triton.jit
def label_range(labels, found, count, ignore, EACH: tl.constexpr, VOXELS: tl.constexpr):
    """Write the smallest and the largest of 0 and the labels that are not ignored: (programs, 2), EACH a program."""
    lowest = tl.zeros([VOXELS], tl.int64)
    highest = tl.zeros([VOXELS], tl.int64)
    for start in range(0, EACH, VOXELS):
        n = tl.program_id(0).to(tl.int64) * EACH + start + tl.arange(0, VOXELS)
        label = tl.load(labels + n, mask=n < count, other=0).to(tl.int64)
        label = tl.where(label == ignore, 0, label)
        lowest, highest = tl.minimum(lowest, label), tl.maximum(highest, label)
    tl.store(found + 2 * tl.program_id(0), tl.min(lowest, 0))
    tl.store(found + 2 * tl.program_id(0) + 1, tl.max(highest, 0))


@triton.jit
def pad_weights(
    projection, bias, weights, offset, classes, padded, rank, stride_c, stride_r, stride_bias,
    RANK: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Write projection and bias in base 2 and padded: weights (padded, RANK) and offset (padded,)."""
    c, r = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES), tl.arange(0, RANK)
    exists, inside = c < classes, c < padded
    at = projection + c[:, None] * stride_c + r[None, :] * stride_r
    w = tl.load(at, mask=exists[:, None] & (r < rank)[None, :], other=0.0).to(tl.float32) * 1.4426950408889634
    tl.store(weights + c[:, None] * RANK + r[None, :], w.to(weights.dtype.element_ty), mask=inside[:, None])
    b = tl.load(bias + c * stride_bias, mask=exists, other=0.0).to(tl.float32) * 1.4426950408889634
    tl.store(offset + c, tl.where(exists, b, -1e30), mask=inside)


@triton.jit
def pad_slopes(
    grad_ce, grad_intersection, grad_predicted, grad_lse, slopes, classes, padded,
    ce_b, ce_c, intersection_b, intersection_c, predicted_b, predicted_c, lse_b, lse_c, CLASSES: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the sums, each (B, classes), to slopes (B, 4, padded)."""
    b, c = tl.program_id(1), tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    exists, inside, row = c < classes, c < padded, slopes + b * 4 * padded + c
    tl.store(row, tl.load(grad_ce + b * ce_b + c * ce_c, mask=exists, other=0.0), mask=inside)
    of_intersection = tl.load(grad_intersection + b * intersection_b + c * intersection_c, mask=exists, other=0.0)
    tl.store(row + padded, of_intersection, mask=inside)
    of_predicted = tl.load(grad_predicted + b * predicted_b + c * predicted_c, mask=exists, other=0.0)
    tl.store(row + 2 * padded, of_predicted, mask=inside)
    tl.store(row + 3 * padded, tl.load(grad_lse + b * lse_b + c * lse_c, mask=exists, other=0.0), mask=inside)


@triton.jit
def class_totals(
    of_splits, totals, projection, bias, cross_entropy, intersection, predicted, reference, logits, lse_sum,
    features, counted, splits, classes, padded, rank, batch, stride_c, stride_r, stride_bias,
    RANK: tl.constexpr, CLASSES: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Write all sums, added up in float64. ``totals`` (B, RANK + 2) has those of features, log-sum-exp and voxels."""
    b, c, s = tl.program_id(1), tl.program_id(0) * CLASSES + tl.arange(0, CLASSES), tl.arange(0, SPLITS)
    exists, of_sample = c < classes, totals + b * (RANK + 2)
    ce = tl.zeros([CLASSES], tl.float64)
    shared = tl.zeros([CLASSES], tl.float64)
    found = tl.zeros([CLASSES], tl.float64)
    present = tl.zeros([CLASSES], tl.float64)
    for start in range(0, splits, SPLITS):
        at = of_splits + ((b * splits + start + s) * 4 * padded)[:, None] + c[None, :]
        mask = (start + s < splits)[:, None] & exists[None, :]
        ce += tl.sum(tl.load(at, mask=mask, other=0.0).to(tl.float64), 0)
        shared += tl.sum(tl.load(at + padded, mask=mask, other=0.0).to(tl.float64), 0)
        found += tl.sum(tl.load(at + 2 * padded, mask=mask, other=0.0).to(tl.float64), 0)
        present += tl.sum(tl.load(at + 3 * padded, mask=mask, other=0.0).to(tl.float64), 0)
    row = b * classes + c
    lse = tl.load(of_sample + RANK) * 0.6931471805599453
    ce = tl.where(lse == lse, ce * 0.6931471805599453, float("nan"))  # NaN after a label outside the classes
    tl.store(cross_entropy + row, ce.to(tl.float32), mask=exists)
    tl.store(intersection + row, shared.to(tl.float32), mask=exists)
    tl.store(predicted + row, found.to(tl.float32), mask=exists)
    tl.store(reference + row, present.to(tl.float32), mask=exists)
    r = tl.arange(0, RANK)
    at = projection + c[:, None] * stride_c + r[None, :] * stride_r
    w = tl.load(at, mask=exists[:, None] & (r < rank)[None, :], other=0.0).to(tl.float64)
    z = tl.sum(w * tl.load(of_sample + r)[None, :], 1)
    voxels = tl.load(of_sample + RANK + 1)
    z += tl.load(bias + c * stride_bias, mask=exists, other=0.0).to(tl.float64) * voxels
    tl.store(logits + row, z.to(tl.float32), mask=exists)
    if tl.program_id(0) == 0:
        tl.store(features + b * (rank + 1) + r, tl.load(of_sample + r).to(tl.float32), mask=r < rank)
        tl.store(features + b * (rank + 1) + rank, voxels.to(tl.float32))
        tl.store(lse_sum + b, lse.to(tl.float32))
        if b == 0:
            for sample in range(1, batch):
                voxels += tl.load(totals + sample * (RANK + 2) + RANK + 1)
            tl.store(counted, voxels.to(tl.float32))


@triton.jit
def weight_gradients(
    of_splits, grad_projection, grad_bias, rows, width, padded, classes, rank,
    RANK: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of projection and bias: in float64, the sums over the rows of (rows, padded * (RANK + 1))."""
    i = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float64)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        at = of_splits + row[:, None].to(tl.int64) * width + i[None, :]
        total += tl.sum(tl.load(at, mask=(row < rows)[:, None] & (i < width)[None, :], other=0.0).to(tl.float64), 0)
    of_bias = i >= padded * RANK
    c, r = i // RANK, i % RANK
    value = total.to(tl.float32)
    tl.store(grad_projection + c * rank + r, value, mask=(i < padded * RANK) & (c < classes) & (r < rank))
    tl.store(grad_bias + i - padded * RANK, value, mask=of_bias & (i - padded * RANK < classes))


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
    lse, of_blocks, ignore, labelled, RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write lse (B, N), NaN if the label is not in 0..labelled-1, and sums over each block: (B, blocks, RANK + 2).

    They are the sums of the valid features and of their log-sum-exp, and the number of valid voxels.
    """
    b, v, r, inside, fits, f = voxel_rows(basis, weights, voxels, rank, stride_b, stride_r, RANK, VOXELS)
    c = tl.arange(0, CLASSES)
    label = tl.load(labels + b * voxels + v, mask=inside, other=0).to(tl.int32)
    valid = inside & (label != ignore)
    maximum = tl.full([VOXELS], -1e38, tl.float32)
    total = tl.zeros([VOXELS], tl.float32)
    for start in range(0, classes, CLASSES):
        w, z = class_columns(f, weights, bias, r, start, c, RANK, PRECISION)
        higher = tl.maximum(maximum, tl.max(z, 1))
        total = total * tl.exp2(maximum - higher) + tl.sum(tl.exp2(z - higher[:, None]), 1)
        maximum = higher
    level = tl.where((label >= 0) & (label < labelled), maximum + tl.log2(total), float("nan"))
    tl.store(lse + b * voxels + v, tl.where(valid, level, float("inf")), mask=inside)
    row = of_blocks + (b * tl.num_programs(0) + tl.program_id(0)) * (RANK + 2)
    tl.store(row + r, tl.sum(tl.where(valid[:, None], f.to(tl.float32), 0.0), 0))
    tl.store(row + RANK, tl.sum(tl.where(valid, level, 0.0), 0))
    tl.store(row + RANK + 1, tl.sum(valid.to(tl.float32), 0))


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
    lse, slopes, same, grad_basis, shift, at_label, grad_stride_b, grad_stride_r,
    RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, LOGITS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the basis, and shift and at_label (B, N) of dz = p (gP + shift) + [c = y] at_label.

    With LOGITS, every valid voxel of sample b also gets ``same`` (B, rank), the gradient of the sum of the logits.
    """
    b, v, r, inside, fits, f = voxel_rows(basis, weights, voxels, rank, stride_b, stride_r, RANK, VOXELS)
    c = tl.arange(0, CLASSES)
    level = tl.load(lse + b * voxels + v, mask=inside, other=float("inf"))
    valid = level != float("inf")
    label = tl.where(valid, tl.load(labels + b * voxels + v, mask=inside, other=0).to(tl.int32), -1)
    grad_ce = slopes + b * 4 * classes
    grad_intersection, grad_predicted = grad_ce + classes, grad_ce + 2 * classes
    lowest, highest = tl.min(tl.where(valid, label, classes), 0), tl.max(label, 0)
    shared = tl.zeros([VOXELS], tl.float32)
    probability = tl.zeros([VOXELS], tl.float32)
    for start in range(0, classes, CLASSES):
        w, z = class_columns(f, weights, bias, r, start, c, RANK, PRECISION)
        p = tl.exp2(z - level[:, None])
        shared += tl.sum(p * tl.load(grad_predicted + start + c)[None, :], 1)
        if (lowest < start + CLASSES) & (highest >= start):
            probability += tl.sum(tl.where((start + c)[None, :] == label[:, None], p, 0.0), 1)
    known = (label >= 0) & (label < classes)
    lam = tl.load(grad_ce + label, mask=known, other=0.0)
    overlap = tl.load(grad_intersection + label, mask=known, other=0.0) * probability
    moved = lam + tl.load(grad_ce + 3 * classes) - shared - overlap
    extra = overlap - lam
    tl.store(shift + b * voxels + v, moved, mask=inside)
    tl.store(at_label + b * voxels + v, extra, mask=inside)
    gradient = tl.zeros([VOXELS, RANK], tl.float32)
    for start in range(0, classes, CLASSES):
        w, z = class_columns(f, weights, bias, r, start, c, RANK, PRECISION)
        p = tl.exp2(z - level[:, None])
        dz = p * (tl.load(grad_predicted + start + c)[None, :] + moved[:, None])
        if (lowest < start + CLASSES) & (highest >= start):
            dz += tl.where((start + c)[None, :] == label[:, None], extra[:, None], 0.0)
        gradient = tl.dot(dz, tl.trans(w).to(tl.float32), gradient, input_precision="tf32")
    gradient *= 0.6931471805599453  # the weights are in base 2
    if LOGITS:
        gradient += tl.where(valid[:, None], tl.load(same + b * rank + r, mask=r < rank, other=0.0)[None, :], 0.0)
    at = grad_basis + b * grad_stride_b + v[:, None] + r[None, :].to(tl.int64) * grad_stride_r
    tl.store(at, gradient.to(grad_basis.dtype.element_ty), mask=fits)


@triton.jit
def projection_gradient(
    basis, weights, bias, labels, voxels, rank, classes, stride_b, stride_r,
    lse, slopes, shift, at_label, of_splits,
    RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of each split of the voxels: (B, splits, classes * RANK + classes), projection and bias."""
    split, splits = tl.program_id(0), tl.num_programs(0)
    b, c, r, w, offset = class_rows(weights, bias, RANK, CLASSES)
    slope = tl.load(slopes + (b * 4 + 2) * classes + c)
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
    row = of_splits + (b * splits + split) * classes * (RANK + 1)
    tl.store(row + c[:, None] * RANK + r[None, :], gradient)
    tl.store(row + classes * RANK + c, summed)
