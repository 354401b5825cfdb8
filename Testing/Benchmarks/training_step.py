"""Measure a whole training step of a real network, beside stock and stock with a compiled loss: peak memory and time.

The network is nnU-Net's PlainConvUNet (six stages, 32 to 320 features, deep supervision), with 96^3 voxels, 500 classes
and one volume, on a CPU in float32. A step is forward, loss at every scale, backward and SGD. Each side runs in its own
process. Memory is the peak above that after a first step on a small patch. The results are
``results/training_step.json``.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from classscale_training import CrossEntropyDiceLoss, DeepSupervisionLoss
from classscale_training.network.low_rank_head import add_head
from measure import Bar, in_own_process, mebibytes, parse, peak_bytes, report, reset_peak, resident_bytes
from random_model import RandomModel
from reference_losses import nnunet_loss

SIDES = ("ours", "stock", "stock, compiled loss")
SCALES = 5


def measure(side: str, classes: int, size: int, repeats: int) -> dict[str, float]:
    """Return seconds (the best of ``repeats`` steps), and bytes above the memory after a step on a small patch."""
    torch.set_num_threads(1)
    network = RandomModel(classes, (size,) * 3, features=(32, 64, 128, 256, 320, 320)).network().train()
    network.decoder.deep_supervision = True
    if side == "ours":
        add_head(network, classes)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True)
    step = _step(side, network, optimizer)
    step(*_inputs(classes, 64))  # in this step libraries load, the optimiser allocates and the loss is compiled
    image, labels = _inputs(classes, size)
    if "compiled" in side:
        step(image, labels)  # the loss is compiled again for this size
    reset_peak()
    before = resident_bytes()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        step(image, labels)
        seconds.append(time.perf_counter() - begin)
    return {"seconds": min(seconds), "bytes": peak_bytes() - before}


def _step(side: str, network: torch.nn.Module, optimizer: torch.optim.Optimizer):
    weights = DeepSupervisionLoss(CrossEntropyDiceLoss()).weights(SCALES)
    loss = nnunet_loss()
    if "compiled" in side:
        loss = torch.compile(loss)

    def ours(image: torch.Tensor, labels: list[torch.Tensor]) -> torch.Tensor:
        return DeepSupervisionLoss(CrossEntropyDiceLoss())(*network(image), labels)

    def stock(image: torch.Tensor, labels: list[torch.Tensor]) -> torch.Tensor:
        scales = zip(weights, network(image), labels, strict=True)
        return sum(weight * loss(logits, label) for weight, logits, label in scales if weight)

    forward = ours if side == "ours" else stock

    def step(image: torch.Tensor, labels: list[torch.Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        forward(image, labels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return step


def _inputs(classes: int, size: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 1, *[size >> scale] * 3) for scale in range(SCALES)]
    labels = [torch.randint(0, classes, shape, generator=generator, dtype=torch.int16) for shape in shapes]
    return torch.randn(1, 1, size, size, size, generator=generator), labels


def main() -> int:
    options = parse(__doc__, "training_step")
    if options.task:
        print(json.dumps(measure(**options.task)))
        return 0
    classes, size, repeats = (60, 64, 1) if options.quick else (500, 96, 2)
    found = {side: in_own_process(__file__, side=side, classes=classes, size=size, repeats=repeats) for side in SIDES}
    common = {"classes": classes, "patch": [size] * 3}
    rows = [
        {"side": side, **common, "seconds a step": figures["seconds"], "peak MiB": mebibytes(figures["bytes"])}
        for side, figures in found.items()
    ]
    ours = found.pop("ours")
    bars = [
        Bar(f"our {figure} as a share of {side}'s", ours[figure] / figures[figure], 1.0)
        for side, figures in found.items()
        for figure in ("bytes", "seconds")
    ]
    return report(options, "training_step", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
