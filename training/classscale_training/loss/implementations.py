"""Choose what computes the class statistics: torch, the Triton kernels, or torch with label sets."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from .autograd import Statistics
from .tiles import Inputs
from .torch_statistics import SetStatistics, TorchStatistics

Implementation = Literal["auto", "torch", "triton"]


def chosen(
    x: Inputs, label_sets: torch.Tensor | None, implementation: Implementation, set_labels: int | None = None
) -> Statistics:
    """Return the implementation to use.

    :raises ValueError: as :func:`.class_statistics`.
    """
    obstacle = _obstacle(implementation, x, label_sets)
    if obstacle and implementation == "triton":
        raise ValueError(f"implementation='triton' cannot be used: {obstacle}. Choose 'auto' or 'torch'.")
    if label_sets is not None:
        if set_labels is None:
            label_sets = _checked_sets(label_sets, len(x.basis), len(x.projection))
        return SetStatistics(label_sets.to(x.basis.device, torch.int64), set_labels)
    if obstacle:
        return TorchStatistics()
    from .triton_statistics import TritonStatistics

    return TritonStatistics()


def _obstacle(implementation: Implementation, x: Inputs, label_sets: torch.Tensor | None) -> str | None:
    """Return why the Triton kernels are not used, or None if they are."""
    if implementation not in get_args(Implementation):
        raise ValueError(f"implementation is {implementation!r}; expected 'auto', 'torch' or 'triton'.")
    if implementation == "torch":
        return "torch is chosen"
    if label_sets is not None:
        return "the kernels compute ordinary labels, and label_sets is given"
    if not x.basis.is_cuda:
        return f"the basis is on {x.basis.device}, not on a CUDA device"
    try:
        from .triton_statistics import usable
    except ImportError:
        return "Triton is not installed"
    if usable(x.basis, x.projection):
        return None
    return f"the kernels do not work with {x.basis.shape[1]} channels of {x.basis.dtype} on {x.basis.device}"


def _checked_sets(label_sets: torch.Tensor, batch: int, classes: int) -> torch.Tensor:
    if label_sets.shape != (batch, classes):
        raise ValueError(
            f"label_sets has shape {tuple(label_sets.shape)}; expected (samples, classes) = {(batch, classes)}."
        )
    rows = label_sets.long()
    for b, row in enumerate(rows.cpu()):
        if row.min() < 0:
            raise ValueError(f"label_sets assigns label {int(row.min())} in sample {b}; labels start at 0.")
        empty = (torch.bincount(row) == 0).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"label_sets gives label {empty[0]} of sample {b} no class; every label needs at least one."
            )
    return rows
