"""Train briefly on the toy atlas, for benchmarks that need a loss or a network that the bare loop does not have."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from classscale_training.data.toy.cases import ToyCases
from classscale_training.loop.data import open_data
from classscale_training.loop.options import LoopOptions
from classscale_training.loop.train import evaluate
from classscale_training.network.plain_unet import PlainUNet

LossOfStep = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]


def train_on_toy(options: LoopOptions, network: PlainUNet, loss_of_step: LossOfStep) -> dict[str, float]:
    """Train on a CPU with one volume per step.

    :param loss_of_step: the loss as a function of the step's number, image ``(1, X, Y, Z)`` and labels ``(X, Y, Z)``.
    :returns: seconds, last loss and both mean Dice scores over unseen, fully labelled volumes.
    """
    optimizer = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    cases, begin = ToyCases(options.toy, options.steps), time.perf_counter()
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = options.learning_rate * (1 - step / options.steps) ** 0.9
        value = loss_of_step(step, *cases[step])
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
    seconds, device = round(time.perf_counter() - begin, 1), torch.device("cpu")
    dice = evaluate(network.eval(), options, device, open_data(options, device))
    return {"steps": options.steps, "seconds": seconds, "loss": round(float(value.detach()), 4), **dice}
