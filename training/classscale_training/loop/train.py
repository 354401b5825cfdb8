"""A bare training loop on generated data. It needs only torch and NumPy, not nnU-Net.

    python -m classscale_training.loop --folder .benchmarks/demo                   # the embedded 120-class model, CPU
    python -m classscale_training.loop --folder runs/toy-1000 --preset toy-1000    # 1000 classes at 128^3, one GPU
    python -m classscale_training.loop --folder runs/x --classes 300 --size 96     # options replace those of a preset
    python -m classscale_training.loop --folder runs/head --preset head-mr-312     # heads: recipes/head-mr-312.md

The result is an nnU-Net v2 model folder that our engine and stock nnU-Net open: plans.json, dataset.json and
fold_0/checkpoint_final.pth. During the training, fold_0/checkpoint_latest.pth and log.jsonl are written too.

The same command continues a run that was stopped or killed. On a CPU it then arrives at exactly the weights of an
uninterrupted run, if the number of threads is the same and --workers is again zero or again not zero: the cases of a
step follow from its number, and everything else is in the checkpoint. With --small-checkpoints the moments of the
optimizer are rounded, so it then arrives at nearly these weights. A run is not continued with another network or with
other data; --changed-data allows label maps that have changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.models.projection import Projection

from ..evaluation.class_counts import class_counts
from ..evaluation.dice import foreground_mean, pooled_dice, reference_dice
from ..files import alone
from ..network.plain_unet import PlainUNet
from ..processes.device import usable_device
from .checkpoints import Checkpoints
from .continuing import check_continued, check_network, decided_by, refuse_others
from .data import Batch, LoopData, batches, open_data
from .few_bits import in_few_bits, in_full
from .log import Log
from .model_folder import checkpoint_content, write_model_folder
from .options import LoopOptions, add_arguments, options_from
from .start import start_from
from .step_loss import StepLoss, autocast

_WAY_OUT = "run the command again with a lower --learning-rate to continue from the last checkpoint."
_CLIP = 12.0  # largest norm of the gradient, as in nnU-Net


@dataclass(frozen=True)
class LoopResult:
    """Where a call of :func:`train` ended."""

    step: int  # number of steps done
    finished: bool  # whether these are all steps of the training
    last: dict[str, float]  # the last entry of the log, empty if this call added none


def train(options: LoopOptions, report: Callable[[dict[str, float]], None] = lambda entry: None) -> LoopResult:
    """Train a network, or continue the run that is in ``options.folder``.

    :param report: called with each new entry of the log.
    :raises ModelError: if the run in the folder has other options or data, or none of its checkpoints can be read.
    :raises OutputExistsError: if another model is in the folder.
    :raises Busy: if another process trains in the folder.
    :raises OutputError: if a checkpoint cannot be written. The older ones are then intact.
    :raises ClassScaleError: if the loss or the weights are no longer finite. The last checkpoint was written before.
    """
    with alone(options.folder / ".lock", f"{options.folder} is being trained"):
        return _train(options, report)


def _train(options: LoopOptions, report: Callable[[dict[str, float]], None]) -> LoopResult:
    device = usable_device(options.device)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # memory is pinned for the current device
    torch.manual_seed(options.seed)
    data = open_data(options, "cpu" if options.workers else device)
    trainer = Trainer(options, data, device)
    write_model_folder(options.folder, data, options.arch_kwargs())
    log = Log(options.folder, trainer.step, options.tensorboard)
    saved = trainer.begin
    total, counted = torch.zeros((), device=device), 0
    entry: dict[str, float] = {}
    with contextlib.closing(log), contextlib.closing(batches(options, trainer.step, data, device)) as coming:
        for batch in coming:
            total += trainer.learn(batch)
            step, counted = trainer.step, counted + 1
            late = options.minutes is not None and time.monotonic() - trainer.begin > 60 * options.minutes
            last = late or step == options.steps
            if last or step % options.log_every == 0:
                mean = float(total / counted)
                if not math.isfinite(mean):
                    raise ClassScaleError(f"The loss is {mean} at step {step}: {_WAY_OUT}")
                entry = {"step": step, "loss": round(mean, 5), "learning_rate": trainer.learning_rate}
                if step == options.steps or step % options.evaluate_every == 0:
                    entry |= evaluate(trainer.network, options, device, data)
                entry["seconds"] = round(trainer.seconds(), 1)
                log.add(entry)
                report(entry)
                total, counted = torch.zeros_like(total), 0
            if last or time.monotonic() - saved > 60 * options.checkpoint_minutes:
                trainer.save()
                saved = time.monotonic()
            if last:
                break
    finished = trainer.step >= options.steps
    if finished:
        trainer.save_final()
    return LoopResult(trainer.step, finished, entry)


class Trainer:
    """A network in training, continued from the newest checkpoint in the folder if there is one.

    :ivar network: on ``device``.
    :ivar step: number of steps done.
    :ivar learning_rate: that of the last step.
    :ivar begin: when this process began, by :func:`time.monotonic`.
    :raises ModelError: as :func:`train`.
    :raises OutputExistsError: as :func:`train`.
    """

    def __init__(self, options: LoopOptions, data: LoopData, device: torch.device) -> None:
        self._options, self._decided_by = options, decided_by(options, data)
        self.network = PlainUNet(options.arch_kwargs(), 1, len(data.names)).to(device)
        if device.type == "cpu":  # as the maps that PlainUNet makes of them there
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._loss = StepLoss(data, options, device)
        self._optimizer = _optimizer(self.network, options)
        self._scaler = _scaler(options.half_precision and device.type == "cuda")
        self._checkpoints = Checkpoints(options.folder / "fold_0")
        self.step, self.learning_rate, self._seconds_before = 0, options.learning_rate, 0.0
        found = self._checkpoints.load(device)
        if found is not None:
            file, content = found
            check_continued(file, content, options, data)
            check_network(file, content["network_weights"], self.network)
            self._resume(content)
        else:
            refuse_others(options.folder)
            if options.weights:
                start_from(self.network, Path(options.weights))
        self.begin = time.monotonic()

    def _resume(self, content: dict[str, Any]) -> None:
        state = content["loop"]
        self.network.load_state_dict(content["network_weights"])
        self._optimizer.load_state_dict(in_full(state["optimizer"]))
        if state["scaler"]:  # empty if the run was on a CPU until now
            self._scaler.load_state_dict(state["scaler"])
        self.step, self._seconds_before = state["step"], state["seconds"]

    def seconds(self) -> float:
        """Return the time that all processes of this training took together."""
        return self._seconds_before + time.monotonic() - self.begin

    def learn(self, batch: Batch) -> torch.Tensor:
        """Do the next step and return its loss ``()``, still on the device so that nothing waits for it."""
        self.learning_rate = self._options.learning_rate * (1 - self.step / self._options.steps) ** 0.9
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        loss = self._loss(self.network, self.step, *batch)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        return loss.detach()

    def save(self) -> None:
        """Write a checkpoint from which the training can continue.

        :raises OutputError: if it cannot be written.
        :raises ClassScaleError: if the weights are no longer finite.
        """
        if not all(bool(weight.isfinite().all()) for weight in self.network.parameters()):
            raise ClassScaleError(f"The weights are not finite at step {self.step}: {_WAY_OUT}")
        state = {"step": self.step, "seconds": self.seconds(), **self._decided_by}
        optimizer = self._optimizer.state_dict()
        state |= {"optimizer": in_few_bits(optimizer) if self._options.small_checkpoints else optimizer}
        state |= {"scaler": self._scaler.state_dict()}
        self._checkpoints.save(checkpoint_content(self.network.state_dict(), loop=state))

    def save_final(self) -> None:
        """Write the checkpoint of the finished training, with the errors of :meth:`save`."""
        self._checkpoints.save_final(checkpoint_content(self.network.state_dict()))


@torch.no_grad()
def evaluate(network: PlainUNet, options: LoopOptions, device: torch.device, data: LoopData) -> dict[str, float]:
    """Return the mean Dice over the foreground classes on cases that training never sees.

    :param data: the source of the unseen cases.
    :returns: ``dice`` and ``pooled_dice``, the two rules of :mod:`classscale_training.evaluation.dice`.
    """
    assert network.head.bias is not None  # every head of PlainUNet has one
    projection = Projection(network.head.weight.flatten(1), network.head.bias)
    counts = []
    for image, labels in (data.unseen(index) for index in range(options.evaluation_cases)):
        with autocast(options.half_precision, device):
            basis = network(image[None].to(device))
        counts.append(class_counts(basis, projection, labels[None].to(device)).cpu().numpy())
    both = {"dice": reference_dice(np.stack(counts)), "pooled_dice": pooled_dice(np.stack(counts))}
    return {name: round(foreground_mean(values), 5) for name, values in both.items()}


def _optimizer(network: PlainUNet, options: LoopOptions) -> torch.optim.Optimizer:
    if options.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        network.parameters(), options.learning_rate, momentum=0.99, nesterov=True, weight_decay=options.weight_decay
    )


def _scaler(enabled: bool) -> torch.amp.GradScaler:
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler("cuda", enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # torch 2.2


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; print each entry of the log as a line of JSON.

    :param arguments: those of the process if ``None``.
    :returns: the exit code: 0, or 1 after an error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m classscale_training.loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    try:
        options = options_from(parser.parse_args(arguments))
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"Warning: {message}", file=sys.stderr)
            result = train(options, report=lambda entry: print(json.dumps(entry), flush=True))
    except ClassScaleError as error:
        print(error, file=sys.stderr)
        return 1
    state = "finished" if result.finished else "stopped; run the same command again to continue"
    print(f"{options.folder}: step {result.step} of {options.steps}, {state}.")
    return 0
