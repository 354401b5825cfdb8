"""The operator as ``torch.compile`` sees it: one operation for the sums and one for their gradients, of known shapes.

Eager code does not use them, because calling an operator that is registered with torch takes longer than the launches
of its kernels. Label sets are not traced: how many labels there are follows from the values of a tensor.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from .autograd import Statistics, Tensors
from .implementations import Implementation, chosen
from .tiles import Inputs

_GRADIENTS = 0, 1, 2, 4, 5  # of the sums that have one


def can_be_traced() -> bool:
    """Return whether this torch (2.4 or later) can register the operators; else tracing stops before them."""
    return hasattr(torch.library, "custom_op")


def traced(x: Inputs, implementation: str) -> Tensors:
    """Return the sums, which are differentiable, of inputs of which torch knows only the shapes."""
    assert _traced is not None  # asked before
    sums: Tensors = _traced(*x, implementation)[:7]
    return sums


def _sums(
    basis: torch.Tensor,
    projection: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int | None,
    trusted: bool,
    implementation: str,
) -> Tensors:
    statistics, x = _prepared(Inputs(basis, projection, bias, labels, ignore_index, trusted), implementation)
    with torch.autocast(basis.device.type, enabled=False):
        sums, saved = statistics.sums(x)
    return (*(total.to(x.dtype) for total in sums), *saved)


def _gradients(
    basis: torch.Tensor,
    projection: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int | None,
    implementation: str,
    saved: list[torch.Tensor],
    of_sums: list[torch.Tensor],
) -> Tensors:
    statistics, x = _prepared(Inputs(basis, projection, bias, labels, ignore_index, True), implementation)
    every: list[torch.Tensor | None] = [None] * 7
    for number, gradient in zip(_GRADIENTS, of_sums, strict=True):
        every[number] = gradient
    with torch.autocast(basis.device.type, enabled=False):
        grad_basis, *others = statistics.gradients(x, tuple(saved), *every)
    pairs = zip(others, (projection, bias), strict=True)
    return grad_basis.contiguous(), *(gradient.to(parameter.dtype).contiguous() for gradient, parameter in pairs)


def _prepared(x: Inputs, implementation: str) -> tuple[Statistics, Inputs]:
    statistics = chosen(x, None, cast(Implementation, implementation))
    return statistics, statistics.prepared(x)


def _shapes(basis: torch.Tensor, projection: torch.Tensor, *others: Any) -> Tensors:
    (batch, rank, voxels), classes = basis.shape, len(projection)
    by_class = (batch, classes)
    shapes: tuple[tuple[int, ...], ...] = (*(by_class,) * 4, (batch,), by_class, ())
    shapes += (batch, voxels), (batch, rank + 1), (0, batch, voxels)
    dtype = torch.float64 if basis.dtype == torch.float64 else torch.float32
    return tuple(basis.new_empty(shape, dtype=dtype) for shape in shapes)


def _like(*tensors: Any) -> Tensors:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors[:3])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    *tensors, ctx.ignore_index, _, ctx.implementation = inputs
    ctx.save_for_backward(*tensors, *output[7:])


def _backward(ctx: Any, *of_sums: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    tensors, saved = ctx.saved_tensors[:4], list(ctx.saved_tensors[4:])
    used = [of_sums[number].contiguous() for number in _GRADIENTS]
    found = torch.ops.classscaleseg.class_gradients(*tensors, ctx.ignore_index, ctx.implementation, saved, used)
    return (*found, None, None, None, None)


def _register() -> Any:
    inputs = "Tensor basis, Tensor projection, Tensor bias, Tensor labels, int? ignore_index"
    sums = torch.library.custom_op(
        "classscaleseg::class_sums",
        _sums,
        mutates_args=(),
        schema=f"({inputs}, bool trusted, str implementation) -> ({', '.join(['Tensor'] * 10)})",
    )
    gradients = torch.library.custom_op(
        "classscaleseg::class_gradients",
        _gradients,
        mutates_args=(),
        schema=f"({inputs}, str implementation, Tensor[] saved, Tensor[] of_sums) -> (Tensor, Tensor, Tensor)",
    )
    sums.register_fake(_shapes)
    gradients.register_fake(_like)
    sums.register_autograd(_backward, setup_context=_save)
    return torch.ops.classscaleseg.class_sums


_traced = _register() if can_be_traced() else None
