"""The autograd function that all operators share: they differ only in how they compute sums and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from .tiles import Inputs, LabelCheck

Tensors = tuple[torch.Tensor, ...]


class Statistics:
    """A way to compute sums over voxels, and the gradients of the inputs from those of the sums."""

    def __call__(self, x: Inputs) -> Tensors:
        """Return the sums, which are differentiable."""
        return _Operator.apply(self, x.ignore_index, *x[:4])

    def check(self, x: Inputs) -> LabelCheck:
        """Return a check of the labels; here each label is a class."""
        return LabelCheck([len(x.projection)] * len(x.basis), "classes of this model")

    def sums(self, x: Inputs) -> tuple[Tensors, Tensors]:
        """Return the sums, of which the fourth and the last count voxels, and what :meth:`gradients` needs of them."""
        raise NotImplementedError

    def gradients(self, x: Inputs, saved: Tensors, *of_sums: Any) -> Tensors:
        """Return the gradients of basis, projection and bias. Those of the sixth sum and on are None if unused."""
        raise NotImplementedError


class _Operator(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, statistics: Statistics, ignore_index: int | None, *tensors: torch.Tensor) -> Tensors:
        x = Inputs._make((*tensors, ignore_index))
        with torch.autocast(x.basis.device.type, enabled=False):
            sums, saved = statistics.sums(x)
        results = tuple(total.to(x.dtype) for total in sums)
        ctx.statistics, ctx.ignore_index, ctx.shapes = statistics, ignore_index, [total.shape for total in results]
        ctx.save_for_backward(*tensors, *saved)
        ctx.set_materialize_grads(False)  # the sum of the logits is seldom used, and its gradient costs time
        ctx.mark_non_differentiable(results[3], results[-1])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, saved = Inputs._make((*ctx.saved_tensors[:4], ctx.ignore_index)), ctx.saved_tensors[4:]
        filled = [
            torch.zeros(shape, dtype=x.dtype, device=x.basis.device) if gradient is None else gradient
            for gradient, shape in zip(gradients[:5], ctx.shapes, strict=False)
        ]
        with torch.autocast(x.basis.device.type, enabled=False):
            basis, projection, bias = ctx.statistics.gradients(x, saved, *filled, *gradients[5:])
        return None, None, basis, projection.to(x.projection.dtype), bias.to(x.bias.dtype), None
