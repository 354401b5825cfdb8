"""Stock nnU-Net, a schedule short enough for a benchmark on two cores.

``nnUNet_extTrainer`` points at this folder. Two of nnU-Net's own variants together: no mirroring (left and right
structures have different labels in the mouse atlas, so mirroring them would teach the wrong thing) and Adam, which is
faster at the beginning (37 classes: mean Dice 0.10 after six epochs with SGD, 0.51 after three with Adam). Nothing else
differs but the length of the schedule.
"""

import os

import torch
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam1en3


class nnUNetTrainer_benchmark(nnUNetTrainerNoMirroring, nnUNetTrainerAdam1en3):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ.get("BENCHMARK_EPOCHS", "5"))
        self.num_iterations_per_epoch = 200
        self.num_val_iterations_per_epoch = 5
        self.save_every = 1
