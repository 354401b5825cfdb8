"""How much of a good model a fine-tuning leaves, by the learning rate with which it begins.

    python Testing/Benchmarks/finetune_rate.py [--quick] [--root FOLDER]

``classscaleseg-train finetune`` trains the embedded model toy-120 further on six volumes of its own 120 cells, for one
epoch of 250 steps on one thread, with nnU-Net's learning rate and with that of ``finetune``. The model knows all of it
already, so a good fine-tuning changes little. The Dice is that of the two volumes of fold 0, which are not trained on,
before and after. Finished trainings are kept in the root folder. The results are ``results/finetune_rate.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from classscale_training.nnunet.finetune_command import RATE
from measure import parse, report, run_job
from nnunet_runs import ours

DATASET, CASES, MODEL = 5, 6, "toy-120"
RATES = (0.01, RATE)  # nnU-Net's, and that of finetune


def compared(root: Path, rate: float) -> dict[str, Any]:
    """Fine-tune, and return the figures of ``finetune``."""
    folder, work = next((root / "raw").glob("Dataset*")), root / f"rate-{rate:g}"
    cases = ["-i", folder / "imagesTr", "-s", folder / "labelsTr", "--channels", "toy"]
    how = ["--fold", 0, "--epochs", 1, "--learning-rate", rate, "-device", "cpu", "--overwrite", "--work", work]
    words = ["finetune", *cases, "-m", MODEL, "-o", root / f"rate-{rate:g}.zip", *how]
    run_job([sys.executable, "-m", "classscale_training.commands", *map(str, words)], 1, nnUNet_n_proc_DA="0")
    (facts,) = work.glob("compared/*/comparison.json")
    return json.loads(facts.read_text(encoding="utf-8"))


def main() -> int:
    options = parse(__doc__, "finetune_rate")
    root = options.root / ("quick" if options.quick else "whole")
    ours(root, "toy", "--classes", 120, "--dataset-id", DATASET, "--size", 64, "--cases", CASES, "--seed", 3)
    rows = []
    for rate in RATES[1:] if options.quick else RATES:
        facts = compared(root, rate)
        before, now = facts["mean_dice_of_all"]
        changes = [round(now - before, 3) for before, now in (one["dice"] for one in facts["structures"])]
        better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        rows.append({"rate": rate, "before": before, "now": now, "better": better, "worse": worse})
    return report(options, "finetune_rate", rows, [])


if __name__ == "__main__":
    sys.exit(main())
