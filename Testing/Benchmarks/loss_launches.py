"""Count what the loss asks of a GPU besides its kernels for voxels, which needs no GPU: launches and synchronisations.

    python Testing/Benchmarks/loss_launches.py

A short kernel takes a GPU 2 to 3 microseconds and a CPU 5 to 20 to launch, whatever the number of classes, and a
synchronisation leaves the GPU idle until the CPU has launched again. The Triton kernels run in Triton's interpreter,
and a dispatch mode sees every operation of torch, forward and backward. The results are ``results/loss_launches.json``.

Counted are, for a loss and its gradients from basis, projection and bias: launches of Triton kernels; operations of
torch that launch a kernel, which neither views nor allocations do; those among them that read or write a value for each
voxel; synchronisations, which are copies to the CPU and from it; and milliseconds of one CPU thread with all Triton
kernels left out, on so few voxels that torch's operations take no time.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import contextlib  # noqa: E402
import functools  # noqa: E402
from dataclasses import replace  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from statistics import median  # noqa: E402
from typing import Any  # noqa: E402
from unittest.mock import patch  # noqa: E402

import torch  # noqa: E402
from classscale_training import CrossEntropyDiceLoss, SoftDice  # noqa: E402
from classscale_training.loss import triton_statistics  # noqa: E402
from measure import Bar, parse, report  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

CLASSES, RANK, VOXELS = 118, 32, 600
IGNORE = -1
# Copies between CPU and GPU: reading a number, and making a tensor of Python's numbers.
SYNCHRONISING = ("_local_scalar_dense", "is_nonzero", "nonzero", "lift_fresh", "masked_select", "equal")
ALLOCATING = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "lift_fresh")

LOSSES = {
    "nnU-Net's loss": CrossEntropyDiceLoss(),
    "with an ignore label": CrossEntropyDiceLoss(ignore_index=IGNORE),
    "present classes only, with an ignore label": CrossEntropyDiceLoss(SoftDice(present_only=True), IGNORE),
    "class weights, present classes only": CrossEntropyDiceLoss(
        SoftDice(present_only=True), IGNORE, class_weights=(0.5,) * CLASSES
    ),
    "label smoothing": CrossEntropyDiceLoss(label_smoothing=0.1),
}


class Counts(TorchDispatchMode):
    """Counts operations of torch while it is active; :meth:`launch` counts a Triton kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.triton = self.torch = self.over_voxels = self.synchronisations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
        self.synchronisations += name in SYNCHRONISING
        if not view and name not in (*ALLOCATING, *SYNCHRONISING):
            self.torch += 1
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.over_voxels += any(tensor.numel() >= VOXELS for tensor in tensors)
        return out

    def launch(self, run: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.triton += 1
        with _disable_current_modes():
            return run(*arguments, **options)


@contextlib.contextmanager
def by_kernels(launch: Callable[..., Any]) -> Iterator[None]:
    """Compute losses by the Triton kernels, which ``launch`` starts: called with a function and its arguments."""
    run = triton_statistics._run
    with (
        patch.object(sys.modules["classscale_training.loss.class_statistics"], "_obstacle", lambda *_: None),
        patch.object(triton_statistics, "_run", functools.partial(launch, run)),
    ):
        yield


def inputs() -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return basis (2, R, N), projection and bias with gradients, and labels int16 without ignored voxels."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, RANK, VOXELS // 2), (CLASSES, RANK), (CLASSES,)
    leaves = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    return leaves, torch.randint(0, CLASSES, (2, VOXELS // 2), generator=generator, dtype=torch.int16)


def counts(loss: CrossEntropyDiceLoss) -> Counts:
    """Return what one call of ``loss`` and its gradients launch."""
    leaves, labels = inputs()
    found = Counts()
    with by_kernels(found.launch), found:
        torch.autograd.grad(loss(*leaves, labels), leaves)
    return found


def milliseconds(loss: CrossEntropyDiceLoss, repeats: int) -> float:
    """Return the time of a call and its gradients on one CPU thread, without the Triton kernels."""
    leaves, labels = inputs()
    loss = replace(loss, trusted=True)  # the kernel that checks does not run
    seconds = []
    with by_kernels(lambda *_, **__: None):
        for _ in range(repeats):
            begin = time.perf_counter()
            torch.autograd.grad(loss(*leaves, labels), leaves)
            seconds.append(time.perf_counter() - begin)
    return 1000 * median(seconds)
