"""What a fine-tuning of several epochs learns from more volumes, by its optimiser and its learning rate.

    python Testing/Benchmarks/finetune_length.py [--quick] [--root FOLDER] [--only scanner|same]

As ``finetune_optimizer.py``, but five epochs of 250 steps on sixteen volumes, tested on four others. Nearly half an
hour for each row, on one thread. An interrupted training goes on. The results are ``results/finetune_length.json``.
"""

from __future__ import annotations

import sys
from typing import Any

from classscale_training.nnunet import optimizer_rates
from classscale_training.nnunet.finetuning.command import RATES
from classscale_training.nnunet.optimizer_rates import ADAMW, SGD
from finetune_optimizer import compared, dataset, measured
from measure import parse, report

CASES, EPOCHS = 20, 5
RECIPES = ((SGD, RATES[SGD]), (SGD, optimizer_rates.RATES[SGD]), (ADAMW, RATES[ADAMW]), (ADAMW, 1e-4))
PARTS = ("scanner", "same")


def main() -> int:
    options = parse(__doc__, "finetune_length", PARTS)
    code = 0
    for part in PARTS if options.only is None else [options.only]:
        root = options.root / ("quick" if options.quick else "whole") / part
        folder = dataset(root, part, 6 if options.quick else CASES)
        rows: list[dict[str, Any]] = []
        for optimizer, rate in RECIPES[:1] if options.quick else RECIPES:
            figures = compared(root, folder, optimizer, rate, 1 if options.quick else EPOCHS)
            rows.append(measured(optimizer, rate, figures))
            code |= report(options, "finetune_length", rows, [], part)
    return code


if __name__ == "__main__":
    sys.exit(main())
