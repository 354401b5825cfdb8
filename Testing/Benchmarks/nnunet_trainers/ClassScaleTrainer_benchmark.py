"""ClassScaleTrainer with the schedule and optimiser of ``nnUNetTrainer_benchmark``, so that both can be compared.

Defined here and not in the package, because it is for benchmarks only; nothing pickles it.
"""

import os

import torch
from classscale_training.trainer_variants import ClassScaleTrainer_NoMirroring
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam1en3


class ClassScaleTrainer_benchmark(ClassScaleTrainer_NoMirroring, nnUNetTrainerAdam1en3):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ.get("BENCHMARK_EPOCHS", "5"))
        self.num_iterations_per_epoch = 200
        self.num_val_iterations_per_epoch = 5
        self.save_every = 1
