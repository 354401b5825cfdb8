"""Bars 2 and 3 of the losses: memory and time from the basis to its gradients, beside nnU-Net's loss on all logits.

Both sides do the same work on 2 x 64^3 voxels, R = 32, float32, one thread: the 1x1x1 head and nnU-Net's default loss,
forward and backward. Each side runs in its own process. Memory is the peak above the inputs and the gradient of the
basis, which every training step needs. The results are ``results/loss_memory_time.json``. Stock needs 12 GB at
C = 1000; the whole benchmark takes about ten minutes.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from classscale_training import CrossEntropyDiceLoss
from measure import Bar, in_own_process, mebibytes, parse, peak_bytes, report, reset_peak, resident_bytes
from reference_losses import head, nnunet_loss

RANK = 32
MEMORY_LIMIT_MB = 16.0
SPEEDUP = {118: 4.0, 1000: 8.0}


def measure(side: str, classes: int, size: int, repeats: int) -> dict[str, float]:
    """Return seconds (the best of ``repeats``), and bytes above the inputs and the gradient of the basis."""
    torch.set_num_threads(1)
    _step(side, *_inputs(classes, 4))  # libraries load and allocate in this first step
    inputs = _inputs(classes, size)
    reset_peak()
    before = resident_bytes()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        _step(side, *inputs)
        seconds.append(time.perf_counter() - begin)
    basis = inputs[0]
    return {"seconds": min(seconds), "bytes": peak_bytes() - before - basis.numel() * basis.element_size()}


def _inputs(classes: int, size: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(2, RANK, size, size, size, generator=generator).requires_grad_()
    projection = (0.3 * torch.randn(classes, RANK, generator=generator)).requires_grad_()
    labels = torch.randint(0, classes, (2, 1, size, size, size), generator=generator, dtype=torch.int16)
    return basis, projection, torch.zeros(classes, requires_grad=True), labels


def _step(side: str, basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> None:
    if side == "stock":
        loss = nnunet_loss()(head(basis, projection, bias), labels)
    else:
        loss = CrossEntropyDiceLoss()(basis, projection, bias, labels)
    torch.autograd.grad(loss, (basis, projection, bias))


def main() -> int:
    options = parse(__doc__, "loss_memory_time")
    if options.task:
        print(json.dumps(measure(**options.task)))
        return 0
    size = 16 if options.quick else 64
    rows, bars = [], []
    for classes in (16, 118) if options.quick else (16, 118, 300, 1000):
        ours, stock = (
            in_own_process(__file__, side=side, classes=classes, size=size, repeats=repeats)
            for side, repeats in (("ours", 5), ("stock", 1 if classes > 500 else 3))
        )
        ratio = stock["seconds"] / ours["seconds"]
        row = {"classes": classes, "seconds": ours["seconds"], "stock seconds": stock["seconds"], "times faster": ratio}
        rows.append({**row, "MiB": mebibytes(ours["bytes"]), "stock MiB": mebibytes(stock["bytes"])})
        bars.append(Bar(f"MB beyond the gradient of the basis at C = {classes}", ours["bytes"] / 1e6, MEMORY_LIMIT_MB))
        if classes in SPEEDUP and not options.quick:
            bars.append(Bar(f"times faster than stock at C = {classes}", ratio, SPEEDUP[classes], at_least=True))
    return report(options, "loss_memory_time", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
