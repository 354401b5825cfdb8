"""Measure a whole training step of a real network, beside stock and stock with a compiled loss: peak memory and time.

The network is nnU-Net's PlainConvUNet (six stages, 32 to 320 features, deep supervision), with 96^3 voxels, 500 classes
and one volume, on a CPU, in float32 and, ours, also in bfloat16. A step is forward, loss at every scale, backward and
SGD. Each side runs in its own process. Memory is the peak above that after a first step on a small patch.

Then a small network learns generated volumes in float32 and in bfloat16, from the same weights with the same cases:
Dice of four volumes that it has not seen. The results are ``results/training_step.json``.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from classscale_training import CrossEntropyDiceLoss, DeepSupervisionLoss
from classscale_training.data.toy.cases import ToyCases
from classscale_training.data.toy.options import ToyOptions
from classscale_training.network.fast_on_cpu import train_in_bfloat16
from classscale_training.network.low_rank_head import add_head
from ClassScaleSegLib.images.counts import dice, overlap_counts
from measure import Bar, in_own_process, mebibytes, parse, peak_bytes, report, reset_peak, resident_bytes
from random_model import RandomModel
from reference_losses import nnunet_loss

SIDES = ("ours", "ours, bfloat16", "stock", "stock, compiled loss")
OURS = DeepSupervisionLoss(CrossEntropyDiceLoss())
SCALES = 5


def measure(side: str, classes: int, size: int, repeats: int) -> dict[str, float]:
    """Return seconds (the best of ``repeats`` steps), and bytes above the memory after a step on a small patch."""
    torch.set_num_threads(1)
    network = RandomModel(classes, (size,) * 3, features=(32, 64, 128, 256, 320, 320)).network().train()
    network.decoder.deep_supervision = True
    if side.startswith("ours"):
        add_head(network, classes)
    if "bfloat16" in side:
        train_in_bfloat16(network)
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
    weights = OURS.weights(SCALES)
    loss = nnunet_loss()
    if "compiled" in side:
        loss = torch.compile(loss)

    def ours(image: torch.Tensor, labels: list[torch.Tensor]) -> torch.Tensor:
        return OURS(*network(image), labels)

    def stock(image: torch.Tensor, labels: list[torch.Tensor]) -> torch.Tensor:
        scales = zip(weights, network(image), labels, strict=True)
        return sum(weight * loss(logits, label) for weight, logits, label in scales if weight)

    forward = ours if side.startswith("ours") else stock

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


def learn(side: str, steps: int, classes: int = 30, size: int = 32, unseen: int = 4) -> float:
    """Return the mean Dice of unseen volumes over the classes after a number of steps with two volumes each."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = RandomModel(classes + 1, (size,) * 3, features=(16, 32, 64, 96)).network().train()
    network.decoder.deep_supervision = True
    add_head(network, classes + 1)
    if "bfloat16" in side:
        train_in_bfloat16(network)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    cases = ToyCases(ToyOptions(classes, size=size), 2 * steps + unseen)
    for step in range(steps):
        images, labels = (torch.stack(each) for each in zip(*(cases[2 * step + n] for n in (0, 1)), strict=True))
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps) ** 0.9
        optimizer.zero_grad(set_to_none=True)
        bases, projection, bias = network(images)
        scales = [labels[:, None, :: 2**n, :: 2**n, :: 2**n] for n in range(len(bases))]
        OURS(bases, projection, bias, scales).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
    network.eval()
    network.decoder.deep_supervision = False
    found = []
    with torch.no_grad():
        for index in range(2 * steps, 2 * steps + unseen):
            image, labels = cases[index]
            found.append(overlap_counts(labels.numpy(), network(image[None]).argmax(1)[0].numpy(), classes + 1)[:, 1:])
    return float(np.nanmean([dice(counts) for counts in found]))


def main() -> int:
    options = parse(__doc__, "training_step")
    if options.task:
        work = learn if "steps" in options.task else measure
        print(json.dumps(work(**options.task)))
        return 0
    classes, size, repeats = (60, 64, 1) if options.quick else (500, 96, 2)
    found = {side: in_own_process(__file__, side=side, classes=classes, size=size, repeats=repeats) for side in SIDES}
    common = {"classes": classes, "patch": [size] * 3}
    rows = [
        {"side": side, **common, "seconds a step": figures["seconds"], "peak MiB": mebibytes(figures["bytes"])}
        for side, figures in found.items()
    ]
    ours, half = found.pop("ours"), found.pop("ours, bfloat16")
    steps, halves = 3 if options.quick else 400, SIDES[:2]
    learned = {side: in_own_process(__file__, side=side, steps=steps) for side in halves}
    rows += [{"side": side, "Dice after learning": score} for side, score in learned.items()]
    bars = [
        Bar(f"our {figure} as a share of {side}'s", ours[figure] / figures[figure], 1.0)
        for side, figures in found.items()
        for figure in ("bytes", "seconds")
    ]
    lost = learned[halves[1]] - learned[halves[0]]
    bars += [
        Bar("seconds in bfloat16 as a share of those in float32", half["seconds"] / ours["seconds"], 1.0),
        Bar("Dice after learning in bfloat16 minus in float32", lost, -0.02, True),
    ]
    return report(options, "training_step", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
