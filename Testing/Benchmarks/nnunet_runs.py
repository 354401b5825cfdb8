"""Run nnU-Net's whole cycle with our commands on a small machine: folders, a small configuration, one thread."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import HERE, Job, run_job

PLANS, CONFIGURATION, TRAINER = "ClassScalePlans", "small", "ClassScaleTrainer_benchmark"
# a network for which a step takes a second or two on one thread
SMALL = {"features_per_stage": [12, 24, 48, 96, 96], "n_conv_per_stage": [1, 2, 2, 2, 2]}


def ours(root: Path, *arguments: Any, epochs: int = 1, steps: int = 200, results: str = "results") -> Job:
    """Run ``classscaleseg-train`` with nnU-Net's folders in ``root``."""
    names = {"raw": "raw", "preprocessed": "preprocessed", "results": results}
    folders = {f"nnUNet_{variable}": str(root / name) for variable, name in names.items()}
    for folder in folders.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    variables = {
        "nnUNet_extTrainer": str(HERE / "nnunet_trainers"),
        "nnUNet_n_proc_DA": "0",
        "OMP_THREAD_LIMIT": "1",  # without a GPU, training uses every core
        "BENCHMARK_EPOCHS": str(epochs),
        "BENCHMARK_STEPS": str(steps),
    }
    command = [sys.executable, "-m", "classscale_training.commands", *map(str, arguments)]
    return run_job(command, 1, **folders, **variables)


def prepare(root: Path, dataset: int, patch: Sequence[int], architecture: dict[str, Any] = SMALL) -> dict[str, Job]:
    """Plan a dataset, add a small configuration to its plans, and preprocess it."""
    planned = ours(root, "plan", "-d", dataset, "-npfp", 1, "--no_pbar")
    folder = next((root / "preprocessed").glob(f"Dataset{dataset:03d}_*"))
    file = folder / f"{PLANS}.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    network = json.loads(json.dumps(plans["configurations"]["3d_fullres"]["architecture"]))
    stages = len(architecture["features_per_stage"])
    network["arch_kwargs"] |= {
        "n_stages": stages,
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        **architecture,
    }
    plans["configurations"][CONFIGURATION] = {
        "inherits_from": "3d_fullres",
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "patch_size": list(patch),
        "batch_size": 2,
        "architecture": network,
    }
    file.write_text(json.dumps(plans, indent=2), encoding="utf-8")
    preprocessed = ours(root, "preprocess", "-d", dataset, "-c", CONFIGURATION, "-np", 1, "--no_pbar")
    return {"plan": planned, "preprocess": preprocessed}


def train(root: Path, dataset: int, fold: str, epochs: int, steps: int) -> Job:
    """Train, or continue a training that was stopped."""
    folder = model_folder(root, dataset) / f"fold_{fold}"
    more = ["--c"] if any(folder.glob("checkpoint_*.pth")) else []
    options = [dataset, CONFIGURATION, fold, "-tr", TRAINER, "-device", "cpu", *more]
    return ours(root, "train", *options, epochs=epochs, steps=steps)


def model_folder(root: Path, dataset: int) -> Path:
    """Return the folder that a training writes."""
    name = next((root / "raw").glob(f"Dataset{dataset:03d}_*")).name
    return root / "results" / name / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
