"""Count what the loss asks of a GPU besides its kernels for voxels, which needs no GPU: launches and synchronisations.

    python Testing/Benchmarks/loss_launches.py

A short kernel takes a GPU 2 to 3 microseconds and a CPU 5 to 20 to launch, whatever the number of classes, and a
synchronisation leaves the GPU idle until the CPU has launched again. A dispatch mode sees every operation of torch,
forward and backward. Of the Triton kernels, only the one runs (in Triton's interpreter) whose results decide what is
launched next: it checks the labels. The results are ``results/loss_launches.json``.

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
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from statistics import median  # noqa: E402
from typing import Any  # noqa: E402
from unittest.mock import patch  # noqa: E402

import torch  # noqa: E402
from classscale_training import CrossEntropyDiceLoss, SoftDice  # noqa: E402
from classscale_training.loss import implementations, triton_statistics  # noqa: E402
from measure import Bar, parse, report  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

CLASSES, RANK, VOXELS = 118, 32, 307  # voxels of each of two samples; no other axis is as long
IGNORE = -1
# Methods and functions that copy between CPU and GPU: numbers that Python reads, and tensors of Python's numbers.
SYNCHRONISING = ("tolist", "item", "cpu", "numpy", "nonzero", "new_tensor", "__bool__", "__int__", "__float__")
ALLOCATING = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "lift_fresh")
# Before November 2026, of the losses below in the same order: the kernels, operations of torch, those over voxels,
# synchronisations and milliseconds, counted by this script on commit 7b0510d.
BEFORE = (4, 108, 4, 2, 1.85), (4, 111, 6, 2, 1.57), (4, 113, 6, 2, 1.44), (4, 112, 6, 3, 1.67), (4, 141, 14, 2, 1.76)
COLUMNS = "kernels", "torch", "of these, over voxels", "synchronisations", "CPU ms"
MOST_LAUNCHES = 45

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
        if not view and name not in ALLOCATING:
            self.torch += 1
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.over_voxels += any(VOXELS in tensor.shape for tensor in tensors)
        return out

    def launch(self, run: Callable[..., Any], on: torch.Tensor, kernel: Any, *arguments: Any, **options: Any) -> None:
        self.triton += 1
        if kernel is triton_statistics.label_range:
            with _disable_current_modes():
                run(on, kernel, *arguments, **options)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count all of this, and synchronisations, which on a CPU are no operations of torch."""

        def noticed(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def wrapper(*arguments: Any, **options: Any) -> Any:
                self.synchronisations += 1
                with _disable_current_modes():
                    return function(*arguments, **options)

            return wrapper

        with contextlib.ExitStack() as stack:
            for name in SYNCHRONISING:
                stack.enter_context(patch.object(torch.Tensor, name, noticed(getattr(torch.Tensor, name))))
            stack.enter_context(patch.object(torch, "tensor", noticed(torch.tensor)))
            stack.enter_context(by_kernels(self.launch))
            stack.enter_context(self)
            yield


@contextlib.contextmanager
def by_kernels(launch: Callable[..., Any]) -> Iterator[None]:
    """Compute losses by the Triton kernels, which ``launch`` starts: called with a function and its arguments."""
    run = triton_statistics._run
    with (
        patch.object(implementations, "_obstacle", lambda *_: None),
        patch.object(triton_statistics, "_run", functools.partial(launch, run)),
    ):
        yield


def inputs() -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return basis (2, R, N), projection and bias with gradients, and labels int16 without ignored voxels."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, RANK, VOXELS), (CLASSES, RANK), (CLASSES,)
    leaves = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    return leaves, torch.randint(0, CLASSES, (2, VOXELS), generator=generator, dtype=torch.int16)


def counts(loss: CrossEntropyDiceLoss) -> Counts:
    """Return what a later call of ``loss`` and its gradients launch; the first one may make tensors that stay."""
    leaves, labels = inputs()
    for _ in range(2):
        found = Counts()
        with found.watching():
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


def main() -> int:
    options = parse(__doc__, "loss_launches")
    torch.set_num_threads(1)
    rows = []
    losses = [*zip(LOSSES.items(), BEFORE, strict=True)][
        :: len(LOSSES) - 1 if options.quick else 1
    ]  # or first and last
    for (name, loss), before in losses:
        for when, figures in (("before", before), ("now", measured(loss, options.quick))):
            rows.append({"loss": name, "when": when, **dict(zip(COLUMNS, figures, strict=True))})
    trusted = counts(replace(LOSSES["with an ignore label"], trusted=True))
    now = [row for row in rows if row["when"] == "now"]
    bars = [
        Bar("launches of nnU-Net's loss and its gradients", now[0]["kernels"] + now[0]["torch"], MOST_LAUNCHES),
        Bar("synchronisations of any loss", max(row["synchronisations"] for row in now), 1),
        Bar("synchronisations with trusted labels", trusted.synchronisations, 0),
        Bar("operations of torch over all voxels", max(row["of these, over voxels"] for row in now), 0),
    ]
    return report(options, "loss_launches", rows, bars)


def measured(loss: CrossEntropyDiceLoss, quick: bool) -> tuple[int, int, int, int, float]:
    """Return the figures of :data:`COLUMNS`."""
    found = counts(loss)
    figures = found.triton, found.torch, found.over_voxels, found.synchronisations
    return *figures, round(milliseconds(loss, 5 if quick else 100), 2)


if __name__ == "__main__":
    sys.exit(main())
