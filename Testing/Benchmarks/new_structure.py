"""A new structure for a model that knows many: only the new one is drawn, and the model fills in the others, or not.

    python Testing/Benchmarks/new_structure.py [--quick] [--root FOLDER] [--only all|filled|alone]

Ten cells of the embedded model toy-120 are united to a structure that it does not know. ``classscaleseg-train
finetune`` trains it further on six volumes for one epoch of 250 steps on one thread:

* ``all``: all structures are drawn, as somebody with much time would.
* ``filled``: only the new one is drawn, with ``--fill``.
* ``alone``: only the new one is drawn, without.

The Dice is that of six volumes that no training has seen, of the new structure, and of the 110 other cells, which the
model knew before. Finished trainings are kept in the root folder. The results are ``results/new_structure.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from classscale_training.data.toy.cases import toy_case
from classscale_training.data.toy.options import ToyOptions
from classscale_training.evaluation.dice import mean_of_known
from classscale_training.evaluation.evaluate import EvaluationOptions, evaluate_arrays
from ClassScaleSegLib import LabelTable, open_model, segment
from measure import in_own_process, parse, report, run_job

MODEL, CLASSES, CASES, UNSEEN = "toy-120", 120, 6, 6
FIRST, LAST, NEW = 101, 110, 121  # cells that are united, and their label
NAME = "ten cells"
RUNS = ("all", "filled", "alone")


def united(labels: np.ndarray) -> np.ndarray:
    """Return labels with the new structure in place of the ten cells."""
    return np.where((labels >= FIRST) & (labels <= LAST), NEW, labels).astype(np.uint16)


def volume(index: int, seed: int) -> tuple[sitk.Image, np.ndarray]:
    """Return an image and its labels."""
    options = ToyOptions(CLASSES, "atlas", 64, seed=seed)
    grey, labels = toy_case(index, options, "cpu")
    image = sitk.GetImageFromArray((grey * 1000).round().numpy().astype(np.int16))
    image.SetSpacing([options.spacing] * 3)
    return image, united(labels.numpy())


def write_cases(root: Path, cases: int) -> tuple[Path, Path, Path]:
    """Write the volumes with all structures, and with the new one alone; return the folders."""
    images, every, alone = folders = root / "images", root / "all", root / "alone"
    if (alone / f"case{cases}.nii.gz").exists():
        return folders
    names = {value: f"cell {value}" for value in range(1, CLASSES + 1) if not FIRST <= value <= LAST} | {NEW: NAME}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(1, cases + 1):
        image, labels = volume(index, seed=5)
        written = [(image, images, "_0000")]
        for folder, found in ((every, labels), (alone, np.where(labels == NEW, NEW, 0).astype(np.uint16))):
            drawn = sitk.GetImageFromArray(found)
            drawn.CopyInformation(image)
            written.append((drawn, folder, ""))
            LabelTable.from_names(names).to_csv(folder / f"case{index}.labels.csv", overwrite=True)
        for each, folder, ending in written:
            sitk.WriteImage(each, str(folder / f"case{index}{ending}.nii.gz"), useCompression=True)
    return folders


def trained(root: Path, run: str, folders: tuple[Path, Path, Path]) -> Path:
    """Fine-tune, and return the new model."""
    images, every, alone = folders
    bundle = root / f"{run}.zip"
    cases = ["-i", images, "-s", every if run == "all" else alone, "--channels", "toy"]
    how = ["--epochs", 1, "-device", "cpu", "--overwrite", *(["--fill"] if run == "filled" else [])]
    words = ["finetune", *cases, "-m", MODEL, "-o", bundle, *how]
    run_job([sys.executable, "-m", "classscale_training.commands", *map(str, words)], 1, nnUNet_n_proc_DA="0")
    return bundle


def unseen_dice(model: str, unseen: int) -> dict[str, float | None]:
    """Segment unseen volumes."""
    opened = open_model(model)
    values = {f"cell {value}": value for value in range(1, CLASSES + 1)} | {NAME: NEW}
    lookup = np.zeros(1 << 16, np.uint16)
    for label in opened.table.foreground:
        lookup[label.value] = values[label.name]
    cases = []
    for index in range(1, unseen + 1):
        image, labels = volume(index, seed=6)
        found = segment(image, opened, device="cpu").labels
        cases.append((str(index), labels, lookup[found], (1.0,) * 3))
    dice = evaluate_arrays(cases, EvaluationOptions(tolerance=None)).dice
    known = [value for value in range(1, CLASSES + 1) if not FIRST <= value <= LAST]
    new = float(dice[NEW]) if len(dice) > NEW else None
    return {"known": mean_of_known(dice[known]), "new": new}


def main() -> int:
    options = parse(__doc__, "new_structure", RUNS)
    if options.task:
        print(json.dumps(unseen_dice(**options.task)))
        return 0
    root, unseen = options.root / ("quick" if options.quick else "whole"), 1 if options.quick else UNSEEN
    folders = write_cases(root, 2 if options.quick else CASES)
    rows: list[dict[str, Any]] = [{"drawn": "before", **in_own_process(__file__, model=MODEL, unseen=unseen)}]
    for run in RUNS if options.only is None else [options.only]:
        bundle = root / f"{run}.zip"
        bundle = bundle if bundle.exists() else trained(root, run, folders)
        rows.append({"drawn": run, **in_own_process(__file__, model=str(bundle), unseen=unseen)})
    if options.only is not None:  # one of several that run beside each other
        print(rows)
        return 0
    return report(options, "new_structure", rows, [])


if __name__ == "__main__":
    sys.exit(main())
