"""A configuration and a trainer so small that nnU-Net's whole cycle takes seconds."""

from __future__ import annotations

import json
import os
from multiprocessing.context import SpawnContext
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.utilities import find_class_by_name

PLANS, CONFIGURATION, TRAINER = "ClassScalePlans", "tiny", "ClassScaleTrainer_test"
_begin_extraction = DatasetFingerprintExtractor.__init__
# classes of test trainers are never pickled, so this one may be defined in the folder itself
SHIM = """
from classscale_training.nnunet.trainer import ClassScaleTrainer

class ClassScaleTrainer_test(ClassScaleTrainer):
    epochs = {epochs}

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch, self.save_every = 2, 1, 1
        self.logger.plot_progress_png = lambda folder: None  # takes longer than the epoch
""".replace("*arguments", "plans, configuration, fold, dataset_json, device")


def set_environment(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Point nnU-Net's variables at new folders in ``root``, and let it use this process alone."""
    use_this_process(patch)
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir()
        patch.setenv(f"nnUNet_{name}", str(root / name))
    settings = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}
    for name, value in settings.items():
        patch.setenv(name, value)
    (root / "shim").mkdir()
    patch.setenv("nnUNet_extTrainer", str(root / "shim"))


def use_this_process(patch: pytest.MonkeyPatch) -> None:
    """Let nnU-Net use this process alone, and little of it.

    Threads stand in for the processes of its pools, each of which would import nnU-Net's trainer, for seconds. Where
    a module comes from, which it asks of thousands at each lookup of a trainer, is answered without resolving paths.
    A fingerprint comes from 100000 voxels, instead of 100 million that are drawn from however few there are.
    """
    patch.setattr(SpawnContext, "Pool", lambda _context, *arguments, **more: ThreadPool(*arguments, **more))
    patch.setattr(find_class_by_name, "_module_originates_from_path", _is_module_of, raising=False)
    patch.setattr(DatasetFingerprintExtractor, "__init__", _with_few_voxels)


def _with_few_voxels(self: DatasetFingerprintExtractor, *arguments: Any, **more: Any) -> None:
    _begin_extraction(self, *arguments, **more)
    self.num_foreground_voxels_for_intensitystats = 100_000


def _is_module_of(module: ModuleType, path: str) -> bool:
    return str(getattr(module, "__file__", "")).startswith(path + os.sep)


def write_trainer(root: Path, epochs: int, more: str = "") -> None:
    """Write the trainer, which runs so many epochs of two steps, and more lines below it."""
    (root / "shim" / "shim.py").write_text(SHIM.format(epochs=epochs) + more)


def add_tiny_configuration(folder: Path, splits: list[dict[str, list[str]]]) -> None:
    """Add it to the plans in a folder of preprocessed data."""
    file = folder / f"{PLANS}.json"
    plans = json.loads(file.read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"] |= {
        "n_stages": 3,
        "features_per_stage": [8, 12, 16],
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
    }
    tiny = {"inherits_from": "3d_fullres", "patch_size": [16, 16, 16], "batch_size": 2, "architecture": architecture}
    plans["configurations"][CONFIGURATION] = {**tiny, "data_identifier": f"{PLANS}_{CONFIGURATION}"}
    file.write_text(json.dumps(plans))
    (folder / "splits_final.json").write_text(json.dumps(splits))
