"""Pretrain on images without labels, and train on few labelled ones: against random weights, same steps.

    python Testing/Benchmarks/pretraining.py [--part 1/2] [--root FOLDER] [--data FOLDER]

The subjects, split and network are those of ``miccai2012.py`` (see there for source and licence), at 3 mm with patches
of 48x64x48, which hold most of a brain. The gyri of each side are one structure, so that few steps can learn them.
``classscaleseg-train pretrain`` learns from the twelve training images without labels, with zeros for what is hidden.
``ClassScaleTrainer`` then does 400 steps with 1, 3 or 12 of the subjects labelled, from random weights and from the
encoder, with three seeds, and from an encoder of ``--sparse`` with one. Three further subjects are for testing,
segmented at 1 mm. The results are ``results/pretraining.json``. What was done before is not done again; ``--part 1/2``
and ``--part 2/2`` share the trainings between two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from measure import DATA, Bar, report, run_job
from miccai2012 import CASES, FOLDER, NAME, NUMBER, TEST, command, counts, figures, prepare, variables
from raw_datasets import Case, people

SPACING, PATCH = ("3", "3", "3"), [48, 64, 48]
NETWORK = (PATCH, [16, 32, 64, 96, 128], [1, 1, 2, 2, 2], [1, 1, 1, 1])
LABELLED = (12, 3, 1)  # the folds 0, 1, 2
STARTS = {"random": None, "masked": [], "sparse": ["--sparse"]}
SEEDS = {"random": (0, 1, 2), "masked": (0, 1, 2), "sparse": (0,)}
EPOCHS, STEPS = 12, 50  # of the pretraining
TUNING = 400
FIRST_GYRUS = 100  # larger label values are gyri
TRAINER, PLANS = "ClassScaleTrainer_benchmark", "ClassScalePlans"


def coarse(names: dict[int, str], cases: list[Case]) -> tuple[dict[int, str], list[Case]]:
    """Unite the gyri of each side, so that few steps can learn the structures."""
    gyri = {value: name.split()[0] for value, name in names.items() if value >= FIRST_GYRUS}
    sides = {"Right": FIRST_GYRUS, "Left": FIRST_GYRUS + 1}
    kept = {value: name for value, name in names.items() if value not in gyri}
    united = []
    for image, labels, geometry in cases:
        table = np.arange(int(labels.max()) + 1)
        for value, side in gyri.items():
            table[value] = sides[side]
        united.append((image, table[labels], geometry))
    return {**kept, **{value: f"{side} cerebral cortex" for side, value in sides.items()}}, united


def encoder(root: Path, start: str) -> Path:
    """Pretrain, or continue, and return the checkpoint."""
    from ClassScaleSegLib.locking import is_locked, locked

    results = f"pretrained-{start}"
    folder = root / results / FOLDER / f"ClassScalePretrainer__{PLANS}__small" / "fold_0"
    lock = root / f"{results}.lock"
    while is_locked(lock):  # the other part pretrains it
        time.sleep(5)
    if not (folder / "checkpoint_final.pth").exists():
        arguments = ["-d", NUMBER, "-c", "small", "-f", 0, "-device", "cpu", "--optimizer", "adamw", "--c"]
        arguments += ["--epochs", EPOCHS, "--steps", STEPS]
        with locked(lock, "The encoder is being pretrained"):
            run_job(command(False, "pretrain", *arguments, *STARTS[start]), 1, 2, **variables(root, results))
    return folder / "checkpoint_final.pth"


def tuned(root: Path, start: str, fold: int, seed: int) -> Path:
    """Train from an encoder or from random weights, and return the model folder."""
    results = f"tuned-{start}-{LABELLED[fold]}-{seed}"
    model = root / results / FOLDER / f"{TRAINER}__{PLANS}__small"
    if not (model / f"fold_{fold}" / "checkpoint_final.pth").exists():
        given = ["-pretrained_weights", encoder(root, start)] if STARTS[start] is not None else []
        arguments = [NUMBER, "small", fold, "-tr", TRAINER, "-device", "cpu", "--c", *given]
        environ = variables(root, results, BENCHMARK_EPOCHS=20, BENCHMARK_STEPS=TUNING // 20, BENCHMARK_SEED=seed)
        run_job(command(False, "train", *arguments), 1, 2, **environ)
    return model


def measured(root: Path, start: str, fold: int, seed: int) -> dict[str, float]:
    """Return the figures of a training on the test subjects."""
    from ClassScaleSegLib import open_model

    kept = root / f"tuned-{start}-{LABELLED[fold]}-{seed}.json"
    if not kept.exists():
        model = open_model(tuned(root, start, fold, seed), folds=[str(fold)], checkpoint="final")
        found = np.stack([counts(root, model, case) for case in range(CASES - TEST + 1, CASES + 1)])
        kept.write_text(json.dumps(figures(found)))
    return json.loads(kept.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=Path(".benchmarks/pretraining"), help="folder for models and images"
    )
    parser.add_argument("--data", type=Path, default=DATA / "miccai2012", help="folder with the fifteen subjects")
    parser.add_argument("--part", default="1/1", help="which trainings to do, such as 1/2")
    options = parser.parse_args()
    root = options.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    number, of = map(int, options.part.split("/"))
    if not (root / "preprocessed" / FOLDER / f"{PLANS}_small").exists():
        subjects = [f"{NAME}_{index:02d}" for index in range(1, CASES + 1)]
        splits = [{"train": subjects[:count], "val": subjects[-TEST:]} for count in LABELLED]
        prepare(root, coarse(*people(options.data)), SPACING, {"small": NETWORK}, splits, stock=False)
    jobs = [
        (start, fold, seed)
        for seed in SEEDS["random"]
        for fold in range(len(LABELLED))
        for start in STARTS
        if seed in SEEDS[start]
    ]
    for job in jobs[number - 1 :: of]:
        measured(root, *job)
    if not all((root / f"tuned-{start}-{LABELLED[fold]}-{seed}.json").exists() for start, fold, seed in jobs):
        print("The other parts are not done yet.")
        return 0
    rows, means = [], {}
    for fold, labelled in enumerate(LABELLED):
        for start in STARTS:
            dice = [measured(root, start, fold, seed)["Dice"] for seed in SEEDS[start]]
            pooled = [measured(root, start, fold, seed)["pooled Dice"] for seed in SEEDS[start]]
            means[start, labelled] = float(np.mean(dice))
            rows.append(
                {
                    "labelled": labelled,
                    "start": start,
                    "seeds": len(SEEDS[start]),
                    "Dice": round(float(np.mean(dice)), 4),
                    "lowest": min(dice),
                    "highest": max(dice),
                    "pooled Dice": round(float(np.mean(pooled)), 4),
                }
            )
    gains = {labelled: means["masked", labelled] - means["random", labelled] for labelled in LABELLED}
    bars = [Bar(f"mean Dice pretrained minus random, {n} labelled", gain, 0, True) for n, gain in gains.items()]
    return report(argparse.Namespace(quick=False, root=root), "pretraining", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
