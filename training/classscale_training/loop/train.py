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
optimizer are rounded, so it then arrives at nearly these weights.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ClassScaleSegLib.errors import ClassScaleError, ModelError
from ClassScaleSegLib.models.projection import Projection

from ..data.brain import IGNORE_INDEX
from ..evaluation.class_counts import class_counts
from ..evaluation.dice import foreground_mean, pooled_dice, reference_dice
from ..loss.label_sets import voxel_weights
from ..loss.losses import CrossEntropyDiceLoss, SoftDice, weighted_mean
from ..network.plain_unet import PlainUNet
from .checkpoints import Checkpoints
from .data import Batch, LoopData, batches, open_data
from .few_bits import in_few_bits, in_full
from .log import Log
from .model_folder import checkpoint_content, write_model_folder
from .options import LoopOptions, add_arguments, options_from
from .start import start_from

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
    :raises ModelError: if the run in the folder has other options, or none of its checkpoints can be read.
    :raises OutputError: if a checkpoint cannot be written. The older ones are then intact.
    :raises ClassScaleError: if the loss or the weights are no longer finite. The last checkpoint was written before.
    """
    device = _device(options.device)
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
    """

    def __init__(self, options: LoopOptions, data: LoopData, device: torch.device) -> None:
        self._options = options
        self.network = PlainUNet(options.arch_kwargs(), 1, len(data.names)).to(device)
        self._loss = _Loss(data, options, device)
        self._optimizer = _optimizer(self.network, options)
        self._scaler = _scaler(options.half_precision and device.type == "cuda")
        self._checkpoints = Checkpoints(options.folder / "fold_0")
        self.step, self.learning_rate, self._seconds_before = 0, options.learning_rate, 0.0
        content = self._checkpoints.load(device)
        if content is not None:
            self._resume(content)
        elif options.weights:
            start_from(self.network, Path(options.weights))
        self.begin = time.monotonic()

    def _resume(self, content: dict[str, Any]) -> None:
        state = content["loop"]
        for name, value in self._options.fixed().items():
            before = state["options"].get(name, getattr(LoopOptions, name))  # an older run had no such option
            if before != value:
                raise ModelError(
                    f"{self._checkpoints.latest} was trained with {name} {before}, not {value}: "
                    "use the same value, or another folder."
                )
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
        state = {"step": self.step, "seconds": self.seconds(), "options": self._options.fixed()}
        optimizer = self._optimizer.state_dict()
        state |= {"optimizer": in_few_bits(optimizer) if self._options.small_checkpoints else optimizer}
        state |= {"scaler": self._scaler.state_dict()}
        self._checkpoints.save(checkpoint_content(self.network.state_dict(), loop=state))

    def save_final(self) -> None:
        """Write the checkpoint of the finished training, with the errors of :meth:`save`."""
        self._checkpoints.save_final(checkpoint_content(self.network.state_dict()))


class _Loss:
    """nnU-Net's loss: cross entropy and batch Dice over the foreground. It is marginal where cases follow label sets.

    The cases of dataset 0 and the other cases of a batch form two groups, each with its own batch Dice; the loss is the
    mean of both, weighted by their numbers of cases. With deep supervision it is the mean over the scales, weighted
    with 1, 1/2, 1/4 and so on. nnU-Net omits the coarsest scale; it is kept here, because most classes differ from
    each other by their place.
    """

    def __init__(self, data: LoopData, options: LoopOptions, device: torch.device) -> None:
        self.deep, self.half = options.deep_supervision, options.half_precision
        self.stride, self.finest_every = options.loss_stride, options.finest_every
        dice = SoftDice(present_only=options.present_only)
        self.plain = CrossEntropyDiceLoss(dice, IGNORE_INDEX, trusted=True)  # our own cases have no wrong labels
        label_sets = data.label_sets and data.label_sets.to(device)
        self.marginal = replace(self.plain, label_sets=label_sets)
        if options.balance and data.shares is not None and data.label_sets is not None:
            weights = voxel_weights(data.shares, data.label_sets.label_of_class, options.balance)
            self.plain = replace(self.plain, class_weights=tuple(weights[0].tolist()))
            self.marginal = replace(self.marginal, label_weights=weights.to(device))

    def __call__(
        self, network: PlainUNet, step: int, images: torch.Tensor, labels: torch.Tensor, datasets: list[int]
    ) -> torch.Tensor:
        """Return the loss ``()`` of images ``(B, 1, X, Y, Z)`` and labels ``(B, X, Y, Z)``.

        :param step: decides which voxels are used, if not all are.
        :param datasets: dataset of each case, ascending.
        """
        finest = step % self.finest_every == 0
        with _autocast(self.half, images.device):
            scales = network.scales(images, finest) if self.deep else [(0, network(images), network.head)]
        terms = []
        for scale, basis, head in scales:
            every = slice(None, None, 2**scale)
            flat, flat_labels = basis.flatten(2), labels[:, every, every, every].flatten(1)
            if not scale:
                chosen = slice(step // self.finest_every % self.stride, None, self.stride)
                flat, flat_labels = flat[..., chosen], flat_labels[..., chosen]
            terms.append((0.5**scale, self._at_one_scale(flat, flat_labels, head, datasets)))
        return weighted_mean(terms)

    def _at_one_scale(
        self, basis: torch.Tensor, labels: torch.Tensor, head: torch.nn.Conv3d, datasets: list[int]
    ) -> torch.Tensor:
        """Return the loss ``()`` of basis ``(B, R, N)`` and labels ``(B, N)``.

        The cases of dataset 0 need no label sets, and their loss is many times faster without.
        """
        if datasets != sorted(datasets):
            raise ValueError(f"datasets {datasets} must ascend: the cases of dataset 0 come first.")
        assert head.bias is not None  # every head of PlainUNet has one
        weight, bias, whole = head.weight.flatten(1), head.bias, datasets.count(0)
        terms = []
        if whole:
            terms.append((whole, self.plain(basis[:whole], weight, bias, labels[:whole])))
        if others := datasets[whole:]:
            which = _index(tuple(others), labels.device)
            terms.append((len(others), self.marginal(basis[whole:], weight, bias, labels[whole:], which)))
        return weighted_mean(terms)


@functools.lru_cache(maxsize=64)
def _index(values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return a tensor of ``values``, made once: numbers of Python wait for a GPU each time they are copied to it."""
    return torch.tensor(values, device=device)


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
        with _autocast(options.half_precision, device):
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


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _autocast(half: bool, device: torch.device) -> contextlib.AbstractContextManager:
    kind = {"cuda": torch.float16, "cpu": torch.bfloat16}.get(device.type)
    return torch.autocast(device.type, kind) if half and kind else contextlib.nullcontext()


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
        result = train(options, report=lambda entry: print(json.dumps(entry), flush=True))
    except ClassScaleError as error:
        print(error, file=sys.stderr)
        return 1
    state = "finished" if result.finished else "stopped; run the same command again to continue"
    print(f"{options.folder}: step {result.step} of {options.steps}, {state}.")
    return 0
