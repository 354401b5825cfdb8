"""Stock nnU-Net, a schedule short enough for a benchmark on two cores.

``nnUNet_extTrainer`` points at this folder. Nothing but the schedule and mirroring differs from nnU-Net's own trainer
(left and right structures have different labels in the mouse atlas, so mirroring them would teach the wrong thing).
"""

import os

import torch
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring


class nnUNetTrainer_benchmark(nnUNetTrainerNoMirroring):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ.get("BENCHMARK_EPOCHS", "12"))
        self.num_val_iterations_per_epoch = 5
        self.save_every = 1
