"""Trainers of stock nnU-Net and ours with the same schedule, short enough for a benchmark on two cores.

``nnUNet_extTrainer`` names this folder. The trainers combine two of nnU-Net's own variants: no mirroring (left and
right structures have different labels in the mouse atlas, so mirroring would teach wrong labels) and Adam, which is
faster than SGD at the beginning. Otherwise only the length of the schedule differs. The trainers are defined here and
not in the package because only benchmarks use them; nothing pickles them.

The environment variable ``BENCHMARK_SEED`` makes a training without worker processes repeatable. Each epoch adds a line
to ``clock.jsonl``: the steps and the seconds of training until then, without the validations. The seconds are those of
the process on the processor; with one thread they are those of a clock, if no other program uses its core. On a CPU
both use ``OMP_NUM_THREADS`` threads: nnU-Net's command asks for one for each core, and where ``OMP_THREAD_LIMIT``
allows fewer, oneDNN can wait for ever for the others.
"""

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from classscale_training.nnunet.trainer_variants import ClassScaleTrainer_NoMirroring
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam1en3


class _Short(nnUNetTrainerAdam1en3):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ.get("BENCHMARK_EPOCHS", "5"))
        self.num_iterations_per_epoch = int(os.environ.get("BENCHMARK_STEPS", "200"))
        self.num_val_iterations_per_epoch = 5
        self.save_every = 1
        self._begin = self._in_steps = 0.0
        if seed := os.environ.get("BENCHMARK_SEED"):  # of weights, patches and augmentation in this process
            random.seed(int(seed))
            np.random.seed(int(seed))
            torch.manual_seed(int(seed))
        if self.device.type == "cpu":
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self._begin, self._in_steps = time.process_time(), 0.0

    def train_step(self, batch: dict) -> dict:
        begin = time.process_time()
        done = super().train_step(batch)
        self._in_steps += time.process_time() - begin
        return done

    def on_train_epoch_end(self, train_outputs: list[dict]):
        self._seconds = time.process_time() - self._begin
        super().on_train_epoch_end(train_outputs)

    def on_epoch_end(self):
        file = Path(self.output_folder) / "clock.jsonl"
        before = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        before = [entry for entry in before if entry["epoch"] < self.current_epoch]  # one of them was done again
        last = before[-1] if before else {"steps": 0, "seconds": 0, "seconds in steps": 0}
        entry = {
            "epoch": self.current_epoch,
            "steps": last["steps"] + self.num_iterations_per_epoch,
            "seconds": last["seconds"] + self._seconds,
            "seconds in steps": last["seconds in steps"] + self._in_steps,
            "pseudo Dice": float(self.logger.get_value("mean_fg_dice", step=-1)),
        }
        file.write_text("".join(json.dumps(entry) + "\n" for entry in [*before, entry]))
        super().on_epoch_end()

    def perform_actual_validation(self, save_probabilities: bool = False):
        if os.environ.get("BENCHMARK_VALIDATION") != "no":
            super().perform_actual_validation(save_probabilities)


class nnUNetTrainer_benchmark(_Short, nnUNetTrainerNoMirroring):
    """Stock nnU-Net."""


class ClassScaleTrainer_benchmark(_Short, ClassScaleTrainer_NoMirroring):
    """Our trainer."""
