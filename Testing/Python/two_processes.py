"""What two processes train in tests: a dataset of three cases, ten steps with fixed batches, a watched trainer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from classscale_training.data.merged_labels import ENTRY
from classscale_training.nnunet.trainer import ClassScaleTrainer
from classscale_training.processes.group import Rank
from conftest import small_dataset, small_plans
from merged_toy_dataset import MERGED
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_nnunet import PLANS, TRAINER

DATASET, CONFIGURATION = "Dataset703_Two", "3d_fullres"
COMMAND = ["703", CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu"]
LABELS = {"background": 0, **{f"cell {value}": value for value in range(1, 5)}}
REGIONS = {"background": 0, "all": [1, 2, 3, 4], "core": [2, 3], "tip": 3}
KINDS = {  # entries of dataset.json, the table from random numbers to the labels of the second case, batch_dice
    "dice of the batch": ({"labels": LABELS}, range(5), True),
    "dice of each sample": ({"labels": LABELS}, range(5), False),
    "regions": ({"labels": REGIONS, "regions_class_order": [1, 2, 3]}, range(5), True),
    "merged": ({"labels": MERGED.labels(), ENTRY: MERGED.entry()}, (0, 5, 6, 7, 9), True),
}
# Each process notes which files it writes. The second one kills itself in the epoch that KILL_IN_EPOCH names.
WATCHED = """
import os
import sys

import torch

if torch.distributed.is_initialized():
    rank = torch.distributed.get_rank()
    record = os.open(os.path.join({root!r}, f"written-{{rank}}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event, arguments):
        if event == "os.rename" or event == "open" and isinstance(arguments[2], int) and arguments[2] & 3:
            path = arguments[event == "os.rename"]
            if not isinstance(path, int):
                os.write(record, os.fsencode(path) + b"\\n")

    def end_of_training(self, outputs):
        if rank == 1 and str(self.current_epoch) == os.environ.get("KILL_IN_EPOCH"):
            open(os.path.join({root!r}, "killed"), "w").close()  # when it died
            os.kill(os.getpid(), 9)
        ClassScaleTrainer.on_train_epoch_end(self, outputs)

    sys.addaudithook(note)
    ClassScaleTrainer_test.on_train_epoch_end = end_of_training
"""


def preprocess(root: Path) -> None:
    """Write the dataset as nnU-Net's preprocessing does, but without the processes that it starts."""
    folder = root / "preprocessed" / DATASET
    plans = {**small_plans(), "dataset_name": DATASET, "plans_name": PLANS}
    splits = [{"train": ["case_0"], "val": ["case_1", "case_2"]}]
    contents = {PLANS: plans, "dataset": small_dataset(LABELS), "dataset_fingerprint": {}, "splits_final": splits}
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    for part in (configuration.data_identifier, "gt_segmentations"):
        (folder / part).mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    generator = np.random.default_rng(0)
    for case in ("case_0", "case_1", "case_2"):
        labels = generator.integers(0, 5, (4, 4, 4), np.uint8).repeat(5, 0).repeat(5, 1).repeat(5, 2)
        files = folder.parent / f"{case}.nii.gz", folder / "gt_segmentations" / f"{case}.nii.gz"
        for array, file in zip((labels * 60.0 - 40, labels), files, strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
        output = str(folder / configuration.data_identifier / case)
        image, label = map(str, files)
        DefaultPreprocessor(False).run_case_save(output, [image], label, manager, configuration, contents["dataset"])
        files[0].unlink()


def ten_steps(rank: Rank, root: Path) -> None:
    """Train ten steps with each kind of loss, on this process's part of each batch, and write the weights."""
    weights = {}
    for kind, (dataset, table, batch_dice) in KINDS.items():
        preprocessed = root / "preprocessed" / DATASET
        plans = json.loads((preprocessed / f"{PLANS}.json").read_text())
        plans["configurations"][CONFIGURATION]["batch_dice"] = batch_dice
        dataset = {**json.loads((preprocessed / "dataset.json").read_text()), **dataset}
        torch.manual_seed(rank.number)  # the second process begins with the weights of the first, whatever it drew
        trainer = ClassScaleTrainer({**plans, "continue_training": False}, CONFIGURATION, 0, dataset, rank.device)
        trainer.initialize()
        assert trainer.batch_size == 2 // rank.count
        for step in range(10):
            trainer.train_step(_part_of_batch(rank, step, torch.tensor(table)))
        network = trainer.network if rank.count == 1 else trainer.network.module
        weights[kind] = network.state_dict()
    torch.save(weights, root / f"{rank.number}-of-{rank.count}.pt")


def _part_of_batch(rank: Rank, seed: int, table: torch.Tensor) -> dict:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 5, (2, 1, 16, 16, 16), generator=generator)
    rare = torch.rand(drawn[0].shape, generator=generator) < 0.1  # the samples differ, and so do the two kinds of Dice
    target = torch.stack([drawn[0] * rare, table[drawn[1]]]).short()
    part = slice(rank.number * 2 // rank.count, (rank.number + 1) * 2 // rank.count)
    data, keys = torch.randn(2, 1, 16, 16, 16, generator=generator), ["d001_x", "d002_y"]
    return {"data": data[part], "target": [target[part], target[part, ..., ::2, ::2, ::2]], "keys": keys[part]}


def written_by_both(root: Path) -> set[str]:
    """Return the files below a folder that both processes of the watched trainer have written."""
    first, second = ({*(root / f"written-{rank}").read_text().splitlines()} for rank in (0, 1))
    return {file for file in first & second if file.startswith(str(root))}


def largest_differences(root: Path) -> dict[str, float]:
    """Return the largest difference of a weight after ten steps between one process and two, for each kind of loss.

    Those of the coarsest scale are left out: DDP wants a gradient of every weight, so that this scale counts 1e-6
    then, as in nnU-Net, and not at all in one process. No model needs it after training.
    """
    one, *both = (torch.load(root / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    used = [name for name in one["regions"] if "seg_layers.bases.0." not in name]
    return {
        kind: max(float((found[kind][name] - weights[name]).abs().max()) for found in both for name in used)
        for kind, weights in one.items()
    }
