"""Train one network on two merged datasets in nnU-Net's own loop; compare with full labels and with the naive union.

    python Testing/Benchmarks/merged_toy.py [--quick] [--root FOLDER]

Four trainings of the same length on the same toy volumes of 60 classes, on one thread:

* ``full``: one dataset; every volume has all its labels.
* ``halves``: ``classscaleseg-train merge`` of a dataset with the classes 1 to 30 and one with the classes 31 to 60.
* ``coarse``: the merge of a dataset with all classes and one with twelve labels, each the union of five classes. A
  taxonomy says so.
* ``naive``: the label maps of ``halves`` as one ordinary dataset, in which voxels without a label are background.

All use ``ClassScaleTrainer`` with nnU-Net's augmentation and deep supervision, but Adam and no mirroring. Cases of
merged datasets are drawn by share and label, the others as nnU-Net does. The Dice is that of unseen volumes with all
labels. Finished trainings are kept in the root folder, and stopped ones go on. The results are
``results/merged_toy.json``.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from classscale_training.data.merged_labels import ENTRY
from classscale_training.data.toy.cases import toy_case
from classscale_training.data.toy.options import ToyOptions
from classscale_training.data.toy_dataset import write_toy_dataset
from classscale_training.evaluation.evaluate import EvaluationOptions, evaluate_arrays
from ClassScaleSegLib import open_model, segment
from measure import Bar, in_own_process, parse, report
from nnunet_runs import model_folder, ours, prepare, train

CLASSES, COARSE = 60, 5
HALF = CLASSES // 2
FULL, FIRST, SECOND, FINE, UNIONS, HALVES_MERGED, COARSE_MERGED, NAIVE = range(801, 809)
RUNS = {"full": FULL, "halves": HALVES_MERGED, "coarse": COARSE_MERGED, "naive": NAIVE}
NETWORK = {"features_per_stage": [16, 24, 32, 48], "n_conv_per_stage": [1, 1, 2, 2]}
UNSEEN = 8


def write_datasets(root: Path, size: int, cases: int) -> None:
    """Write the raw datasets, all of the same volumes, and merge them."""
    raw = root / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    full = write_toy_dataset(_toy(size), FULL, cases, raw)
    odd, even = range(1, cases + 1, 2), range(2, cases + 1, 2)
    names = _names(full)
    every = {value: names[value] for value in range(1, CLASSES + 1)}
    groups = {1 + k: f"group {1 + k}" for k in range(CLASSES // COARSE)}
    _derive(full, FIRST, odd, lambda y: np.where(y <= HALF, y, 0), {v: every[v] for v in range(1, HALF + 1)})
    second = {v - HALF: every[v] for v in range(HALF + 1, CLASSES + 1)}
    _derive(full, SECOND, even, lambda y: np.where(y > HALF, y - HALF, 0), second)
    _derive(full, FINE, odd, lambda y: y, every)
    _derive(full, UNIONS, even, lambda y: (y + COARSE - 1) // COARSE, groups)
    taxonomy = root / "taxonomy.csv"
    with taxonomy.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(("dataset", "label", "class"))
        for value in every:
            rows.writerow((UNIONS, groups[(value + COARSE - 1) // COARSE], every[value]))
    ours(root, "merge", "-d", FIRST, SECOND, "--into", HALVES_MERGED, "--name", "Halves")
    ours(root, "merge", "-d", FINE, UNIONS, "--into", COARSE_MERGED, "--name", "Coarse", "--taxonomy", taxonomy)
    naive = raw / f"Dataset{NAIVE}_Naive"
    if not naive.exists():
        shutil.copytree(raw / f"Dataset{HALVES_MERGED}_Halves", naive)
        content = json.loads((naive / "dataset.json").read_text(encoding="utf-8"))
        del content[ENTRY]
        (naive / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def _toy(size: int) -> ToyOptions:
    return ToyOptions(CLASSES, "atlas", size)


def _names(folder: Path) -> dict[int, str]:
    labels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
    return {value: name for name, value in labels.items()}


def _derive(
    full: Path, number: int, cases: range, change: Callable[[np.ndarray], np.ndarray], names: dict[int, str]
) -> None:
    """Write a dataset of some cases of the full one, with other labels."""
    folder = full.parent / f"Dataset{number}_Toy"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case in cases:
        if (folder / f"labelsTr/Toy_{case:04d}.nii.gz").exists():  # merging would notice that it is new
            continue
        shutil.copy(full / f"imagesTr/Toy_{case:04d}_0000.nii.gz", folder / "imagesTr")
        image = sitk.ReadImage(str(full / f"labelsTr/Toy_{case:04d}.nii.gz"))
        labels = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image).astype(np.int64)).astype(np.uint8))
        labels.CopyInformation(image)
        sitk.WriteImage(labels, str(folder / f"labelsTr/Toy_{case:04d}.nii.gz"), useCompression=True)
    content = json.loads((full / "dataset.json").read_text(encoding="utf-8"))
    labels_of = {"background": 0, **{name: value for value, name in sorted(names.items())}}
    changed = {**content, "labels": labels_of, "numTraining": len(cases)}
    (folder / "dataset.json").write_text(json.dumps(changed), encoding="utf-8")


def unseen_dice(root: str, dataset: int, size: int) -> dict[str, float]:
    """Segment unseen volumes, and compare by the names of the classes, whose numbers differ between the trainings."""
    model = open_model(model_folder(Path(root), dataset), folds=("all",))
    number = {name: value for value, name in _names(next((Path(root) / "raw").glob(f"Dataset{FULL}_*"))).items()}
    table = np.zeros(model.classes, np.int64)
    for label in model.table:
        table[label.value] = number[label.name]
    options = ToyOptions(CLASSES, "atlas", size, seed=1)
    cases = []
    for index in range(1, UNSEEN + 1):
        grey, labels = toy_case(index, options, "cpu")
        image = sitk.GetImageFromArray((grey * 1000).round().numpy().astype(np.int16))
        image.SetSpacing([options.spacing] * 3)
        found = segment(image, model, device="cpu").labels
        cases.append((str(index), labels.numpy().astype(np.uint16), table[found].astype(np.uint16), (1.0,) * 3))
    return {"dice": evaluate_arrays(cases, EvaluationOptions(tolerance=None)).mean_dice}


def main() -> int:
    options = parse(__doc__, "merged_toy", RUNS)
    if options.task:
        print(json.dumps(unseen_dice(**options.task)))
        return 0
    size, cases, epochs, steps = (32, 4, 1, 4) if options.quick else (32, 60, 10, 150)
    root = options.root / ("quick" if options.quick else "whole")
    write_datasets(root, size, cases)
    rows: list[dict[str, Any]] = []
    for run in RUNS if options.only is None else [options.only]:
        dataset, kept = RUNS[run], root / f"{run}-{epochs}-{steps}.json"
        if not kept.exists():
            prepare(root, dataset, (size,) * 3, NETWORK)
            train(root, dataset, "all", epochs, steps)
            dice = in_own_process(__file__, root=str(root), dataset=dataset, size=size)
            kept.write_text(json.dumps({"steps": epochs * steps, **dice}))
        rows.append({"labels": run, "classes": CLASSES, "size": size, **json.loads(kept.read_text())})
    if options.only is not None:  # one training of several that run beside each other
        print(rows)
        return 0
    dice = {row["labels"]: row["dice"] for row in rows}
    bars = [
        Bar(f"Dice that the training on {run} loses against all labels", dice["full"] - dice[run], 0.03)
        for run in ("halves", "coarse")
    ]
    bars.append(Bar("Dice that the naive union loses", dice["full"] - dice["naive"], 0.03, at_least=True))
    return report(options, "merged_toy", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
