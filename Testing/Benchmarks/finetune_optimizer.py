"""What a short fine-tuning learns and what it forgets, by its optimiser and the learning rate with which it begins.

    python Testing/Benchmarks/finetune_optimizer.py [--quick] [--root FOLDER] [--only same|scanner|new]

``classscaleseg-train finetune`` trains the embedded model toy-120 further for one epoch of 250 steps on one thread,
with SGD as by default, with nnU-Net's SGD, and with AdamW, on six volumes:

* ``same``: of its own 120 cells. The model knows all of it already, so a good fine-tuning changes little.
* ``scanner``: of the same cells, but blurred, with another contrast and more noise, as from another scanner.
* ``new``: that label 100 of its cells, and ten others as one new structure, as in ``start_weights.py``.

The Dice is that of the two volumes of fold 0, which are not trained on, before and after. Finished trainings are kept
in the root folder. The results are ``results/finetune_optimizer.json``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import start_weights
from classscale_training.nnunet import optimizer_rates
from classscale_training.nnunet.finetuning.command import RATES
from classscale_training.nnunet.optimizer_rates import ADAMW, SGD
from measure import parse, report, run_job
from nnunet_runs import ours

DATASET, SHIFTED, CASES, MODEL = 5, 6, 6, "toy-120"
RECIPES = ((SGD, RATES[SGD]), (SGD, optimizer_rates.RATES[SGD]), (ADAMW, RATES[ADAMW]))
PARTS = ("same", "scanner", "new")
BLUR, GAMMA, NOISE = 1.0, 1.5, 0.1  # voxels; of grey values from 0 to 1


def dataset(root: Path, part: str, cases: int = CASES) -> Path:
    """Write the volumes, and return the folder of the dataset."""
    if part == "new":
        start_weights.write_dataset(root, cases)
        return root / "raw" / f"Dataset{start_weights.DATASET}_Cells"
    ours(root, "toy", "--classes", 120, "--dataset-id", DATASET, "--size", 64, "--cases", cases, "--seed", 3)
    folder = next((root / "raw").glob(f"Dataset{DATASET:03d}_*"))
    return folder if part == "same" else other_scanner(folder)


def other_scanner(folder: Path) -> Path:
    """Write the volumes of a dataset as another scanner might see them."""
    target = folder.with_name(f"Dataset{SHIFTED:03d}_Scanner")
    if target.exists():
        return target
    unfinished = target.with_suffix(".part")
    shutil.copytree(folder, unfinished, dirs_exist_ok=True)
    for number, file in enumerate(sorted((folder / "imagesTr").iterdir())):
        image = sitk.ReadImage(str(file), sitk.sitkFloat32)
        blurred = sitk.DiscreteGaussian(image, BLUR**2, useImageSpacing=False)
        grey = sitk.GetArrayFromImage(blurred)
        low, high = np.percentile(grey, [0.1, 99.9])
        noise = np.random.default_rng(number).normal(0, NOISE, grey.shape)
        seen = np.clip((grey - low) / (high - low), 0, 1) ** GAMMA + noise
        written = sitk.GetImageFromArray(np.round(1000 * seen).astype(np.int16))
        written.CopyInformation(image)
        sitk.WriteImage(written, str(unfinished / "imagesTr" / file.name))
    return unfinished.rename(target)


def compared(root: Path, folder: Path, optimizer: str, rate: float, epochs: int = 1) -> dict[str, Any]:
    """Fine-tune, and return the figures of ``finetune``."""
    name = f"{optimizer}-{rate:g}"
    cases = ["-i", folder / "imagesTr", "-s", folder / "labelsTr", "--channels", "toy"]
    how = ["--fold", 0, "--epochs", epochs, "--optimizer", optimizer, "--learning-rate", rate, "-device", "cpu"]
    words = ["finetune", *cases, "-m", MODEL, "-o", root / f"{name}.zip", *how, "--overwrite", "--work", root / name]
    run_job([sys.executable, "-m", "classscale_training.commands", *map(str, words)], 1, nnUNet_n_proc_DA="0")
    (facts,) = (root / name).glob("compared/*/comparison.json")
    return json.loads(facts.read_text(encoding="utf-8"))


def measured(optimizer: str, rate: float, facts: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table."""
    before, now = facts["mean_dice_of_all"]
    dices = [one["dice"] for one in facts["structures"]]
    changes = [round(after - first, 3) for first, after in dices if first is not None]
    better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    new = next((after for first, after in dices if first is None), None)
    known = {"optimizer": optimizer, "rate": rate, "before": before, "now": now, "better": better, "worse": worse}
    return {**known, "new_structure": new}


def main() -> int:
    options = parse(__doc__, "finetune_optimizer", PARTS)
    code = 0
    for part in PARTS if options.only is None else [options.only]:
        root = options.root / ("quick" if options.quick else "whole") / part
        folder = dataset(root, part)
        recipes = RECIPES[:1] if options.quick else RECIPES
        rows = [measured(*recipe, compared(root, folder, *recipe)) for recipe in recipes]
        code |= report(options, "finetune_optimizer", rows, [], part)
    return code


if __name__ == "__main__":
    sys.exit(main())
