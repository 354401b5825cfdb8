"""The autograd function that all operators share: they differ only in how they compute sums and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from .tiles import Inputs, LabelCheck

Tensors = tuple[torch.Tensor, ...]


class Statistics:
    """A way to compute sums over voxels, and the gradients of the inputs from those of the sums.

    :cvar takes_none: whether :meth:`gradients` takes None for the gradient of any sum that was not used. Otherwise the
        first five are then zeros, except that of the fourth sum, which has no gradient.
    """

    takes_none = False

    def __call__(self, x: Inputs) -> Tensors:
        """Return the sums, which are differentiable."""
        x = self.prepared(x)
        return _Operator.apply(self, x.ignore_index, x.trusted, *x[:4])

    def prepared(self, x: Inputs) -> Inputs:
        """Return the inputs as :meth:`sums` and :meth:`gradients` take them."""
        return x

    def check(self, x: Inputs) -> LabelCheck:
        """Return a check of the labels; here each label is a class."""
        return LabelCheck([len(x.projection)] * len(x.basis), "classes of this model")

    def sums(self, x: Inputs) -> tuple[Tensors, Tensors]:
        """Return the sums, of which the fourth and the last count voxels, and what :meth:`gradients` needs of them."""
        raise NotImplementedError

    def gradients(self, x: Inputs, saved: Tensors, *of_sums: Any) -> Tensors:
        """Return the gradients of basis, projection and bias."""
        raise NotImplementedError


class _Operator(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, statistics: Statistics, ignore_index: int | None, trusted: bool, *tensors: torch.Tensor
    ) -> Tensors:
        x = Inputs._make((*tensors, ignore_index, trusted))
        with torch.autocast(x.basis.device.type, enabled=False):
            sums, saved = statistics.sums(x)
        results = tuple(total.to(x.dtype) for total in sums)
        ctx.statistics, ctx.ignore_index, ctx.shapes = statistics, ignore_index, [total.shape for total in results]
        ctx.save_for_backward(*tensors, *saved)
        ctx.set_materialize_grads(False)  # most losses use few of the sums, and each array of zeros costs a launch
        ctx.mark_non_differentiable(results[3], results[-1])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, saved = Inputs._make((*ctx.saved_tensors[:4], ctx.ignore_index, True)), ctx.saved_tensors[4:]
        with torch.autocast(x.basis.device.type, enabled=False):
            filled = _with_zeros(gradients, ctx.shapes, x) if not ctx.statistics.takes_none else gradients
            basis, projection, bias = ctx.statistics.gradients(x, saved, *filled)
        return None, None, None, basis, projection.to(x.projection.dtype), bias.to(x.bias.dtype), None


def _with_zeros(
    gradients: tuple[torch.Tensor | None, ...], shapes: list[torch.Size], x: Inputs
) -> list[torch.Tensor | None]:
    return [
        torch.zeros(shape, dtype=x.dtype, device=x.basis.device)
        if gradient is None and number in (0, 1, 2, 4)
        else gradient
        for number, (gradient, shape) in enumerate(zip(gradients, shapes, strict=True))
    ]
