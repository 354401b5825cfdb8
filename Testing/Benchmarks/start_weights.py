"""Begin a short training with the weights of a model: with those of its classes, without them, and at random.

    python Testing/Benchmarks/start_weights.py [--quick] [--root FOLDER]

The embedded model toy-120 is trained further on a dataset that labels other things: of its 120 cells, 100 keep their
names, ten are united to a new structure, and ten are background. ``plan --like toy-120`` plans its network. The
trainings are those of ``ClassScaleTrainer`` with nnU-Net's augmentation, but Adam and no mirroring, on one thread:

* ``random``: random weights.
* ``network``: the weights of toy-120 without its last layer, as nnU-Net's ``-pretrained_weights`` takes them.
* ``classes``: the weights of toy-120, also those of the 100 classes in its last layer; the row of the new structure is
  fitted to four patches.

The Dice is that of unseen volumes. Finished trainings are kept in the root folder. The results are
``results/start_weights.json``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from classscale_training.data.toy.cases import toy_case
from classscale_training.data.toy.options import ToyOptions
from classscale_training.data.toy_dataset import write_toy_dataset
from classscale_training.evaluation.dice import mean_of_known
from classscale_training.evaluation.evaluate import EvaluationOptions, evaluate_arrays
from ClassScaleSegLib import open_model, segment
from measure import Bar, in_own_process, parse, report
from nnunet_runs import PLANS, TRAINER, ours

TOY, DATASET, MODEL, CONFIGURATION = 811, 812, "toy-120", "3d_fullres"
CLASSES, KNOWN, UNITED = 120, 100, 110
RUNS = ("random", "network", "classes")
UNSEEN = 6


def relabelled(labels: np.ndarray) -> np.ndarray:
    """Return the labels of the new dataset: cells 1 to 100, and 101 for the next ten."""
    return np.where(labels <= KNOWN, labels, np.where(labels <= UNITED, KNOWN + 1, 0)).astype(np.uint16)


def write_dataset(root: Path, cases: int) -> None:
    """Write the raw dataset."""
    raw = root / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    toy = write_toy_dataset(ToyOptions(CLASSES, "atlas", 64, seed=5), TOY, cases, raw)
    folder = raw / f"Dataset{DATASET}_Cells"
    if (folder / "dataset.json").exists():
        return
    shutil.copytree(toy / "imagesTr", folder / "imagesTr", dirs_exist_ok=True)
    (folder / "labelsTr").mkdir(exist_ok=True)
    for file in sorted((toy / "labelsTr").glob("*.nii.gz")):
        image = sitk.ReadImage(str(file))
        labels = sitk.GetImageFromArray(relabelled(sitk.GetArrayFromImage(image)))
        labels.CopyInformation(image)
        sitk.WriteImage(labels, str(folder / "labelsTr" / file.name), useCompression=True)
    content = json.loads((toy / "dataset.json").read_text(encoding="utf-8"))
    names = {"background": 0, **{f"cell {value}": value for value in range(1, KNOWN + 1)}, "ten cells": KNOWN + 1}
    (folder / "dataset.json").write_text(json.dumps({**content, "labels": names}), encoding="utf-8")


def prepare(root: Path, cases: int) -> None:
    """Write the dataset, plan it like the model, and preprocess it."""
    write_dataset(root, cases)
    if (root / "prepared").exists():
        return
    ours(root, "plan", "-d", DATASET, "--like", MODEL, "-npfp", 1, "--no_pbar")
    ours(root, "preprocess", "-d", DATASET, "-c", CONFIGURATION, "-np", 1, "--no_pbar")
    (root / "prepared").touch()


def start_of(root: Path, run: str) -> list[Any]:
    """Return the arguments that say with which weights a training begins."""
    if run == "random":
        return []
    if run == "classes":
        return ["-pretrained_weights", MODEL]
    from classscale_training.nnunet.pretrained import whole_network
    from classscale_training.nnunet.trainer import ClassScaleTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    file = root / "network.pth"
    if not file.exists():
        manager = PlansManager(str(root / "preprocessed" / f"Dataset{DATASET}_Cells" / f"{PLANS}.json"))
        configuration = manager.get_configuration(CONFIGURATION)
        build = ClassScaleTrainer.build_network_architecture
        with whole_network(Path(MODEL), lambda: build(manager, configuration, 1, KNOWN + 2)) as whole:
            shutil.copy(whole, file)
    return ["-pretrained_weights", file]


def trained(root: Path, run: str, epochs: int, steps: int) -> Path:
    """Train, and return the model folder."""
    results = f"{run}-{epochs}-{steps}"
    folder = root / results / f"Dataset{DATASET}_Cells" / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    more = ["--c"] if any(folder.glob("fold_all/checkpoint_*.pth")) else start_of(root, run)
    arguments = [DATASET, CONFIGURATION, "all", "-tr", TRAINER, "-device", "cpu", *more]
    ours(root, "train", *arguments, epochs=epochs, steps=steps, results=results)
    return folder


def unseen_dice(folder: str) -> dict[str, float]:
    """Segment unseen volumes."""
    model = open_model(folder, folds=("all",))
    options = ToyOptions(CLASSES, "atlas", 64, seed=6)
    cases = []
    for index in range(1, UNSEEN + 1):
        grey, labels = toy_case(index, options, "cpu")
        image = sitk.GetImageFromArray((grey * 1000).round().numpy().astype(np.int16))
        image.SetSpacing([options.spacing] * 3)
        found = segment(image, model, device="cpu").labels
        cases.append((str(index), relabelled(labels.numpy()), found.astype(np.uint16), (1.0,) * 3))
    dice = evaluate_arrays(cases, EvaluationOptions(tolerance=None)).dice
    return {"dice": mean_of_known(dice[1:]), "known": mean_of_known(dice[1 : KNOWN + 1]), "new": float(dice[KNOWN + 1])}


def main() -> int:
    options = parse(__doc__, "start_weights", RUNS)
    if options.task:
        print(json.dumps(unseen_dice(**options.task)))
        return 0
    cases, lengths = (2, [(1, 2)]) if options.quick else (12, [(1, 10), (2, 20), (4, 20)])
    root = options.root / ("quick" if options.quick else "whole")
    prepare(root, cases)
    rows: list[dict[str, Any]] = []
    for epochs, steps in lengths:
        for run in RUNS if options.only is None else [options.only]:
            kept = root / f"{run}-{epochs}-{steps}.json"
            if not kept.exists():
                folder = trained(root, run, epochs, steps)
                kept.write_text(json.dumps(in_own_process(__file__, folder=str(folder))))
            rows.append({"start": run, "steps": epochs * steps, **json.loads(kept.read_text())})
    if options.only is not None:  # one of several that run beside each other
        print(rows)
        return 0
    dice = {(row["start"], row["steps"]): row["dice"] for row in rows}
    bars = [
        Bar(
            f"Dice gained by the classes' weights, {steps} steps",
            dice["classes", steps] - dice["network", steps],
            0,
            True,
        )
        for steps in dict.fromkeys(row["steps"] for row in rows)
    ]
    return report(options, "start_weights", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
