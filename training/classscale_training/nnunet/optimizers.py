"""AdamW with a warm-up, instead of nnU-Net's SGD: for few steps that begin with good weights.

nnU-Net's learning rate falls from epoch to epoch, which is too coarse for a training of a few epochs; this one changes
from step to step. What that brings is measured by ``Testing/Benchmarks/finetune_optimizer.py``; it is not what
``finetune`` does by default, because more steps overfit few cases.
"""

from __future__ import annotations

from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from .optimizer_rates import ADAMW, RATES, SGD

_WEIGHT_DECAY = 1e-2  # of AdamW, as in PyTorch
_WARM_UP = 0.1  # of all steps
_POWER = 0.9  # as in nnU-Net
_INITIAL = "initial_lr"  # PyTorch's name for it in a group of parameters, which checkpoints keep


def learning_rate(step: int, steps: int, initial: float) -> float:
    """Return the learning rate of a step: it rises linearly for a tenth of them, and falls to 0 as nnU-Net's does.

    >>> [round(learning_rate(step, 100, 1.0), 3) for step in (0, 8, 9, 50, 99)]
    [0.1, 0.835, 0.919, 0.536, 0.016]
    """
    warm = max(1, round(_WARM_UP * steps))
    return initial * (1 - step / steps) ** _POWER * min(1.0, (step + 1) / warm)


class StepSchedule:
    """Sets the learning rate of each step.

    :param optimizer: whose groups of parameters name the highest rate, ``initial_lr``.
    :param epochs: of the training.
    :param steps: of each epoch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, epochs: int, steps: int) -> None:
        self._optimizer, self._steps, self._all = optimizer, steps, epochs * steps
        self._step = 0

    def step(self, epoch: int) -> None:
        """Begin an epoch; nnU-Net calls it, and then logs the rate."""
        self._step = epoch * self._steps
        self._set()

    def next(self) -> None:
        """Set the rate of the step that begins."""
        self._set()
        self._step += 1

    def _set(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(min(self._step, self._all - 1), self._all, group[_INITIAL])


class ChosenOptimizer(nnUNetTrainer):
    """A trainer whose optimiser can be chosen before it is initialised.

    :cvar trains_primus: whether the network may be a Primus, which has an optimiser of its own.
    :ivar optimizer_name: one of :data:`.RATES`; ``None`` for the trainer's own. A checkpoint decides if a training
        goes on.
    """

    trains_primus = False
    optimizer_name: str | None = None
    initial_lr: float  # nnU-Net's, as these
    optimizer: Any
    lr_scheduler: Any

    def configure_optimizers(self, *stage: Any) -> tuple[Any, Any]:
        """Return the optimiser and its schedule.

        :param stage: of trainers that have several.
        """
        if self.optimizer_name != ADAMW:
            return super().configure_optimizers(*stage)
        group = {"params": [*self.network.parameters()], _INITIAL: self.initial_lr}
        optimizer = torch.optim.AdamW([group], self.initial_lr, weight_decay=_WEIGHT_DECAY)
        return optimizer, StepSchedule(optimizer, self.num_epochs, self.num_iterations_per_epoch)

    def train_step(self, batch: dict) -> dict:
        """Train on one batch as nnU-Net does."""
        if isinstance(self.lr_scheduler, StepSchedule):
            self.lr_scheduler.next()
        return super().train_step(batch)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint, and go on with its optimiser."""
        if not self.was_initialized:
            self.initialize()
        if takes_optimizer(type(self)):
            self._choose_as(filename_or_checkpoint)
        super().load_checkpoint(filename_or_checkpoint)

    def _choose_as(self, checkpoint: str) -> None:
        """Take the optimiser of a checkpoint, if it is another one, with the learning rate of its first epoch."""
        content = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
        group = content["optimizer_state"]["param_groups"][0]
        there = ADAMW if "betas" in group else SGD
        here = ADAMW if isinstance(self.optimizer, torch.optim.AdamW) else SGD
        if there == here:
            return
        if self.optimizer_name is None:
            self.print_to_log_file(f"The optimiser is that of the checkpoint: {there}.")
        else:
            self.print_to_log_file(f"WARNING: The checkpoint was trained with {there}, which goes on, not {here}.")
        self.optimizer_name, self.initial_lr = there, group.get(_INITIAL, RATES[there])
        self.optimizer, self.lr_scheduler = self.configure_optimizers()


def takes_optimizer(trainer: type) -> bool:
    """Return whether the optimiser of a trainer can be chosen: it has none of its own."""
    if not issubclass(trainer, ChosenOptimizer) or trainer.trains_primus:
        return False
    return trainer.configure_optimizers is ChosenOptimizer.configure_optimizers


def refuse_optimizer(trainer: type) -> None:
    """Refuse to choose the optimiser of a trainer that has one of its own.

    :raises ModelError: if it has.
    """
    if not takes_optimizer(trainer):
        name = trainer.__name__
        raise ModelError(f"{name} has an optimiser of its own: leave --optimizer out, or name another trainer.")
