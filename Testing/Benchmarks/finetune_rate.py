"""What a fine-tuning forgets and what it learns, by the learning rate with which it begins.

    python Testing/Benchmarks/finetune_rate.py [--quick] [--root FOLDER] [--only same|new]

``classscaleseg-train finetune`` trains the embedded model toy-120 further for one epoch of 250 steps on one thread,
with nnU-Net's learning rate and with that of ``finetune``, on six volumes:

* ``same``: of its own 120 cells. The model knows all of it already, so a good fine-tuning changes little.
* ``new``: that label 100 of its cells, and ten others as one new structure, as in ``start_weights.py``.

The Dice is that of the two volumes of fold 0, which are not trained on, before and after. Finished trainings are kept
in the root folder. The results are ``results/finetune_rate.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import start_weights
from classscale_training.nnunet.finetuning.command import RATE
from measure import parse, report, run_job
from nnunet_runs import ours

DATASET, CASES, MODEL = 5, 6, "toy-120"
RATES = (0.01, RATE)  # nnU-Net's, and that of finetune
PARTS = ("same", "new")


def dataset(root: Path, part: str) -> Path:
    """Write the volumes, and return the folder of the dataset."""
    if part == "new":
        start_weights.write_dataset(root, CASES)
        return root / "raw" / f"Dataset{start_weights.DATASET}_Cells"
    ours(root, "toy", "--classes", 120, "--dataset-id", DATASET, "--size", 64, "--cases", CASES, "--seed", 3)
    return next((root / "raw").glob(f"Dataset{DATASET:03d}_*"))


def compared(root: Path, folder: Path, rate: float) -> dict[str, Any]:
    """Fine-tune, and return the figures of ``finetune``."""
    work = root / f"rate-{rate:g}"
    cases = ["-i", folder / "imagesTr", "-s", folder / "labelsTr", "--channels", "toy"]
    how = ["--fold", 0, "--epochs", 1, "--learning-rate", rate, "-device", "cpu", "--overwrite", "--work", work]
    words = ["finetune", *cases, "-m", MODEL, "-o", root / f"rate-{rate:g}.zip", *how]
    run_job([sys.executable, "-m", "classscale_training.commands", *map(str, words)], 1, nnUNet_n_proc_DA="0")
    (facts,) = work.glob("compared/*/comparison.json")
    return json.loads(facts.read_text(encoding="utf-8"))


def measured(rate: float, facts: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table."""
    before, now = facts["mean_dice_of_all"]
    dices = [one["dice"] for one in facts["structures"]]
    changes = [round(after - first, 3) for first, after in dices if first is not None]
    better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    new = next((after for first, after in dices if first is None), None)
    known = {"rate": rate, "before": before, "now": now, "better": better, "worse": worse}
    return {**known, "new_structure": new}


def main() -> int:
    options = parse(__doc__, "finetune_rate", PARTS)
    code = 0
    for part in PARTS if options.only is None else [options.only]:
        root = options.root / ("quick" if options.quick else "whole") / part
        folder = dataset(root, part)
        rates = RATES[1:] if options.quick else RATES
        rows = [measured(rate, compared(root, folder, rate)) for rate in rates]
        code |= report(options, "finetune_rate", rows, [], part)
    return code


if __name__ == "__main__":
    sys.exit(main())
