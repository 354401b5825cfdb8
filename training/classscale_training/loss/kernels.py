"""Triton kernels that compute what :mod:`.torch_statistics` computes, without logits in device memory.

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

from typing import NamedTuple

import triton
import triton.language as tl


@triton.jit
def log_sum_exp(
    basis, weights, bias, labels, lse, features, voxels, rank, classes, ignore,
    stride_b, stride_r, RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write lse (B, N), and the sum of the valid features of each block of voxels: (B, blocks, RANK)."""
    block, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    v = block * VOXELS + tl.arange(0, VOXELS)
    r, c = tl.arange(0, RANK), tl.arange(0, CLASSES)
    inside = v < voxels
    at = basis + b * stride_b + v[:, None] + r[None, :].to(tl.int64) * stride_r
    f = tl.load(at, mask=inside[:, None] & (r < rank)[None, :], other=0.0).to(weights.dtype.element_ty)
    valid = inside & (tl.load(labels + b * voxels + v, mask=inside, other=0).to(tl.int32) != ignore)
    maximum = tl.full([VOXELS], -1e38, tl.float32)
    total = tl.zeros([VOXELS], tl.float32)
    for start in range(0, classes, CLASSES):
        w = tl.load(weights + (start + c)[None, :] * RANK + r[:, None])
        z = tl.dot(f, w, input_precision=PRECISION) + tl.load(bias + start + c)[None, :]
        higher = tl.maximum(maximum, tl.max(z, 1))
        total = total * tl.exp2(maximum - higher) + tl.sum(tl.exp2(z - higher[:, None]), 1)
        maximum = higher
    tl.store(lse + b * voxels + v, tl.where(valid, maximum + tl.log2(total), float("inf")), mask=inside)
    summed = tl.sum(tl.where(valid[:, None], f.to(tl.float32), 0.0), 0)
    tl.store(features + (b * tl.num_programs(0) + block) * RANK + r, summed)


@triton.jit
def class_sums(
    basis, weights, bias, labels, lse, sums, voxels, rank, classes,
    stride_b, stride_r, RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the cross entropy (bits), I, P and G of each split of the voxels: (B, splits, 4, classes)."""
    split, splits = tl.program_id(0), tl.num_programs(0)
    first, b = tl.program_id(1) * CLASSES, tl.program_id(2).to(tl.int64)
    r, c, v = tl.arange(0, RANK), first + tl.arange(0, CLASSES), tl.arange(0, VOXELS)
    w = tl.load(weights + c[:, None] * RANK + r[None, :])
    offset = tl.load(bias + c)
    channels = basis + b * stride_b + r[:, None].to(tl.int64) * stride_r
    predicted = tl.zeros([CLASSES], tl.float32)
    cross_entropy = tl.zeros([CLASSES], tl.float32)
    intersection = tl.zeros([CLASSES], tl.float32)
    reference = tl.zeros([CLASSES], tl.float32)
    for start in range(split * VOXELS, voxels, splits * VOXELS):
        at = start + v
        inside = at < voxels
        f = tl.load(channels + at[None, :], mask=(r < rank)[:, None] & inside[None, :], other=0.0).to(w.dtype)
        level = tl.load(lse + b * voxels + at, mask=inside, other=float("inf"))
        label = tl.load(labels + b * voxels + at, mask=inside, other=0).to(tl.int32)
        z = tl.dot(w, f, input_precision=PRECISION) + offset[:, None]
        p = tl.exp2(z - level[None, :])
        predicted += tl.sum(p, 1)
        here = (label >= first) & (label < first + CLASSES) & (level != float("inf"))
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
    basis, weights, bias, labels, lse, grad_ce, grad_intersection, grad_predicted, grad_lse,
    grad_basis, shift, at_label, voxels, rank, classes,
    stride_b, stride_r, grad_stride_b, grad_stride_r,
    RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the basis, and shift and at_label (B, N) of dz = p (gP + shift) + [c = y] at_label."""
    block, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    v = block * VOXELS + tl.arange(0, VOXELS)
    r, c = tl.arange(0, RANK), tl.arange(0, CLASSES)
    inside = v < voxels
    fits = inside[:, None] & (r < rank)[None, :]
    at = basis + b * stride_b + v[:, None] + r[None, :].to(tl.int64) * stride_r
    f = tl.load(at, mask=fits, other=0.0).to(weights.dtype.element_ty)
    level = tl.load(lse + b * voxels + v, mask=inside, other=float("inf"))
    valid = level != float("inf")
    label = tl.where(valid, tl.load(labels + b * voxels + v, mask=inside, other=0).to(tl.int32), -1)
    lowest, highest = tl.min(tl.where(valid, label, classes), 0), tl.max(label, 0)
    shared = tl.zeros([VOXELS], tl.float32)
    probability = tl.zeros([VOXELS], tl.float32)
    for start in range(0, classes, CLASSES):
        w = tl.load(weights + (start + c)[None, :] * RANK + r[:, None])
        z = tl.dot(f, w, input_precision=PRECISION) + tl.load(bias + start + c)[None, :]
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
        w = tl.load(weights + (start + c)[None, :] * RANK + r[:, None])
        z = tl.dot(f, w, input_precision=PRECISION) + tl.load(bias + start + c)[None, :]
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
    basis, weights, bias, labels, lse, grad_predicted, shift, at_label, grad_projection, grad_bias,
    voxels, rank, classes,
    stride_b, stride_r, RANK: tl.constexpr, VOXELS: tl.constexpr, CLASSES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of projection (B, splits, classes, RANK) and bias (B, splits, classes) of each split."""
    split, splits = tl.program_id(0), tl.num_programs(0)
    first, b = tl.program_id(1) * CLASSES, tl.program_id(2).to(tl.int64)
    r, c, v = tl.arange(0, RANK), first + tl.arange(0, CLASSES), tl.arange(0, VOXELS)
    w = tl.load(weights + c[:, None] * RANK + r[None, :])
    offset = tl.load(bias + c)
    slope = tl.load(grad_predicted + b * classes + c)
    channels = basis + b * stride_b + r[:, None].to(tl.int64) * stride_r
    gradient = tl.zeros([CLASSES, RANK], tl.float32)
    summed = tl.zeros([CLASSES], tl.float32)
    for start in range(split * VOXELS, voxels, splits * VOXELS):
        at = start + v
        inside = at < voxels
        f = tl.load(channels + at[None, :], mask=(r < rank)[:, None] & inside[None, :], other=0.0).to(w.dtype)
        level = tl.load(lse + b * voxels + at, mask=inside, other=float("inf"))
        label = tl.load(labels + b * voxels + at, mask=inside, other=0).to(tl.int32)
        z = tl.dot(w, f, input_precision=PRECISION) + offset[:, None]
        moved = tl.load(shift + b * voxels + at, mask=inside, other=0.0)
        dz = tl.exp2(z - level[None, :]) * (slope[:, None] + moved[None, :])
        here = (label >= first) & (label < first + CLASSES) & (level != float("inf"))
        if tl.sum(here.to(tl.int32), 0) > 0:
            extra = tl.load(at_label + b * voxels + at, mask=inside, other=0.0)
            dz += tl.where((label[None, :] == c[:, None]) & here[None, :], extra[None, :], 0.0)
        summed += tl.sum(dz, 1)
        gradient = tl.dot(dz, tl.trans(f).to(tl.float32), gradient, input_precision="tf32")
    row = (b * splits + split) * classes + c
    tl.store(grad_bias + row, summed)
    tl.store(grad_projection + row[:, None] * RANK + r[None, :], gradient)


class Blocks(NamedTuple):
    """Padded sizes, and the options with which the kernels are launched.

    :ivar rank: padded rank.
    :ivar classes: padded number of classes.
    :ivar voxel_rows: options of the two kernels whose rows are voxels.
    :ivar class_rows: options of the two kernels whose rows are classes.
    """

    rank: int
    classes: int
    voxel_rows: dict[str, int]
    class_rows: dict[str, int]

    @classmethod
    def fitting(cls, rank: int, classes: int) -> Blocks:
        """Choose sizes so that no kernel spills registers or takes over 99 KiB of shared memory, on sm_80 and sm_90.

        The smallest devices with tf32 (sm_86, sm_89) have 99 KiB. ``Testing/Benchmarks/kernel_resources.py`` compiles
        all kernels and lists the registers and shared memory that they take.

        :param rank: channels of the basis, at most 256.
        :param classes: number of classes.
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
