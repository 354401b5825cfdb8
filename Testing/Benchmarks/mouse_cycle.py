"""Run the whole cycle with our trainer on the mouse brains, beside a stock training with the same schedule.

    python Testing/Benchmarks/mouse.py prepare|train          # stock, once
    python Testing/Benchmarks/mouse_cycle.py [--root FOLDER]  # ours; the same command resumes a stopped training

Four brains are for training. ``classscaleseg-train`` plans, preprocesses, trains, validates and exports. The fifth
brain is then segmented three times: by our engine from the bundle, by stock nnU-Net from the ``--stock`` export, and by
stock nnU-Net from the stock training. The configuration is that of ``mouse.py`` (patch 48x80x64, 12 to 96 features).
The results are ``results/mouse_cycle.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from measure import Bar, report, run_job
from mouse import CONFIGURATION, DATASET, environment, stock
from mouse import TRAINER as STOCK_TRAINER

PLANS, TRAINER = "ClassScalePlans", "ClassScaleTrainer_benchmark"
IDENTIFIER = DATASET.partition("_")[0].removeprefix("Dataset")


def ours(root: Path, threads: int, *arguments: str) -> float:
    """Run ``classscaleseg-train`` and return the seconds."""
    return run_job(
        [sys.executable, "-m", "classscale_training.commands", *arguments], threads, **_variables(root, threads)
    ).seconds


def _variables(root: Path, threads: int) -> dict[str, str]:
    return {name: value for name, value in environment(root, threads).items() if os.environ.get(name) != value}


def prepare(root: Path, threads: int) -> None:
    """Plan with our planner, copy the small configuration of the stock training, and preprocess."""
    folder = root / "preprocessed" / DATASET
    plans_file = folder / f"{PLANS}.json"
    ours(root, threads, "plan", "-d", IDENTIFIER, "-npfp", "1")
    plans = json.loads(plans_file.read_text())
    small = json.loads((folder / "nnUNetPlans.json").read_text())["configurations"][CONFIGURATION]
    plans["configurations"][CONFIGURATION] = {**small, "data_identifier": f"{PLANS}_{CONFIGURATION}"}
    plans_file.write_text(json.dumps(plans, indent=2))
    ours(root, threads, "preprocess", "-d", IDENTIFIER, "-c", CONFIGURATION, "-np", "1")


def train(root: Path, threads: int, model: Path) -> None:
    if (model / "fold_0" / "checkpoint_final.pth").exists():
        return
    resume = ["--c"] if any(model.glob("fold_0/checkpoint_*.pth")) else []
    ours(root, threads, "train", IDENTIFIER, CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu", *resume)


def segment(root: Path, threads: int, model: Path, out: Path) -> dict[str, np.ndarray]:
    """Return three label maps of the fifth brain: our engine, stock on our exported model, and the stock training."""
    shutil.rmtree(out, ignore_errors=True)
    chosen = ["-m", str(model), "-f", "0"]
    ours(root, threads, "export", *chosen, "-o", str(out / "model.zip"))
    ours(root, threads, "export", *chosen, "-o", str(out / "stock-export"), "--stock")
    images = root / "raw" / DATASET / "imagesTs"
    common = ["-i", str(images), "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1"]
    stock(
        root, threads, "nnUNetv2_predict_from_modelfolder", *common, "-o", str(out / "exported"),
        "-m", str(out / "stock-export"),
    )  # fmt: skip
    stock(
        root, threads, "nnUNetv2_predict", *common, "-o", str(out / "stock"),
        "-d", IDENTIFIER, "-c", CONFIGURATION, "-tr", STOCK_TRAINER,
    )  # fmt: skip
    image, file = str(images / "mouse_5_0000.nii.gz"), out / "engine" / "mouse_5.nii.gz"
    command = [sys.executable, "-m", "ClassScaleSegLib", "segment", image, "-m", str(out / "model.zip")]
    command += ["-o", str(file), "--device", "cpu", "--threads", str(threads)]
    subprocess.run(command, env=environment(root, threads), check=True)
    return {name: _read(out / name / "mouse_5.nii.gz") for name in ("engine", "exported", "stock")}


def _read(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(np.int64)


def mean_dice(labels: np.ndarray, truth: np.ndarray) -> float:
    classes = int(truth.max()) + 1
    common = np.bincount(truth[labels == truth], minlength=classes)
    sizes = np.bincount(labels.ravel(), minlength=classes) + np.bincount(truth.ravel(), minlength=classes)
    return float((2 * common / sizes)[1:].mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(".benchmarks/mouse"), help="root folder of mouse.py")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    root, threads = options.root.resolve(), options.threads
    results = root / "results" / DATASET
    if not (results / f"{STOCK_TRAINER}__nnUNetPlans__{CONFIGURATION}" / "fold_0" / "checkpoint_final.pth").exists():
        raise SystemExit(f"{root} has no finished stock training: run mouse.py prepare and mouse.py train first.")
    model = results / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    if not (root / "preprocessed" / DATASET / f"{PLANS}_{CONFIGURATION}").exists():
        prepare(root, threads)
    train(root, threads, model)
    labels = segment(root, threads, model, root / "cycle")
    truth = _read(root / "raw" / DATASET / "labelsTs" / "mouse_5.nii.gz")
    dice = {name: mean_dice(found, truth) for name, found in labels.items()}
    agreement = float((labels["engine"] == labels["exported"]).mean())
    rows = [{"label map": name, "mean Dice": value, "threads": threads} for name, value in dice.items()]
    rows[0]["voxels that differ from stock's of the same model"] = int((labels["engine"] != labels["exported"]).sum())
    bars = [
        # stock adds windows in half precision, which changes some boundary voxels
        Bar("share of voxels in which engine and stock agree on our model", agreement, 0.999, at_least=True),
        Bar("mean Dice of the stock training minus ours", dice["stock"] - dice["engine"], 0.02),
    ]
    return report(argparse.Namespace(quick=False, root=root), "mouse_cycle", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
