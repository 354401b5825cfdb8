"""Trainers of stock nnU-Net and ours with the same schedule, short enough for a benchmark on two cores.

``nnUNet_extTrainer`` names this folder. The trainers combine two of nnU-Net's own variants: no mirroring (left and
right structures have different labels in the mouse atlas, so mirroring would teach wrong labels) and Adam, which is
faster than SGD at the beginning. Otherwise only the length of the schedule differs. The trainers are defined here and
not in the package because only benchmarks use them; nothing pickles them.
"""

import os

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


class nnUNetTrainer_benchmark(_Short, nnUNetTrainerNoMirroring):
    """Stock nnU-Net."""


class ClassScaleTrainer_benchmark(_Short, ClassScaleTrainer_NoMirroring):
    """Our trainer."""
