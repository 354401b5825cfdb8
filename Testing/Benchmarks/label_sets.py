"""Compare training on label sets (datasets that annotate different classes) with full labels and the naive union.

    python Testing/Benchmarks/label_sets.py [--quick] [--root FOLDER]

There are four trainings of the same length on the same toy volumes, with 60 classes, on one thread, about five minutes
each:

* ``full``: every volume has all its labels.
* ``halves``: every other volume has only the labels 1 to 30, the others only 31 to 60. Voxels without a label belong to
  the set of the background and the classes that the volume does not annotate.
* ``naive``: the same labels, but voxels without a label count as background.
* ``coarse``: every other volume has all its labels, the others only twelve, each the union of five classes.

Results of finished trainings are kept in the root folder, so the same command continues a stopped benchmark. The
results are ``results/label_sets.json``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from classscale_training import CrossEntropyDiceLoss
from classscale_training.loop.options import LoopOptions
from classscale_training.loss.label_sets import LabelSets
from classscale_training.network.plain_unet import PlainUNet
from measure import Bar, in_own_process, parse, report
from toy_training import train_on_toy

CLASSES, COARSE = 60, 5
HALVES = (range(1, CLASSES // 2 + 1), range(CLASSES // 2 + 1, CLASSES + 1))
RUNS = ("full", "halves", "naive", "coarse")


@dataclass(frozen=True)
class Supervision:
    """The labels of the two kinds of volumes: label of each class ``(2, C)``, and the sets that the labels mean."""

    label_of_class: torch.Tensor
    sets: LabelSets | None

    @classmethod
    def of(cls, run: str) -> Supervision:
        every = {c: [c] for c in range(1, CLASSES + 1)}
        unions = {1 + k: range(1 + COARSE * k, 1 + COARSE * (k + 1)) for k in range(CLASSES // COARSE)}
        half = [{1 + k: [c] for k, c in enumerate(classes)} for classes in HALVES]
        tables = {"full": [every, every], "coarse": [every, unions]}.get(run, half)
        sets = LabelSets.from_classes(CLASSES + 1, tables)
        if run == "naive":  # values of the union, without sets for the omitted classes
            values = torch.zeros(2, CLASSES + 1, dtype=torch.long)
            for dataset, classes in enumerate(HALVES):
                values[dataset, list(classes)] = torch.tensor(classes)
            return cls(values, None)
        return cls(sets.label_of_class, None if run == "full" else sets)


def train(run: str, folder: str, size: int, steps: int) -> dict[str, float]:
    """Train; return the seconds and both mean Dice scores over unseen volumes that are fully labelled."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features, convolutions = (16, 24, 32, 48), (1, 1, 2, 2)
    options = LoopOptions(
        Path(folder), classes=CLASSES, size=size, features=features, convolutions=convolutions,
        decoder_convolutions=(1, 1, 1), steps=steps, evaluation_cases=8, device="cpu",
    )  # fmt: skip
    supervision = Supervision.of(run)
    network = PlainUNet(options.arch_kwargs(), 1, CLASSES + 1)
    loss = CrossEntropyDiceLoss(label_sets=supervision.sets)

    def loss_of_step(step: int, image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        given = supervision.label_of_class[step % 2][labels.long()]
        call = partial(loss, network(image[None]), network.head.weight.flatten(1), network.head.bias, given[None])
        return call() if supervision.sets is None else call(datasets=torch.tensor([step % 2]))

    return train_on_toy(options, network, loss_of_step)


def main() -> int:
    options = parse(__doc__, "label_sets")
    if options.task:
        print(json.dumps(train(**options.task)))
        return 0
    size, steps = (32, 20) if options.quick else (32, 1500)
    rows = []
    for run in RUNS:
        kept = options.root / f"{run}-{size}-{steps}.json"
        if not kept.exists():
            found = in_own_process(__file__, run=run, folder=str(options.root), size=size, steps=steps)
            kept.write_text(json.dumps(found))
        rows.append({"labels": run, "classes": CLASSES, "size": size, **json.loads(kept.read_text())})
    dice = {row["labels"]: row["dice"] for row in rows}
    bars = [
        Bar(f"Dice that the run with {run} labels loses against all labels", dice["full"] - dice[run], 0.03)
        for run in ("halves", "coarse")
    ]
    bars.append(Bar("Dice that the naive union loses", dice["full"] - dice["naive"], 0.03, at_least=True))
    return report(options, "label_sets", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
