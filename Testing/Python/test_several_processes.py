"""Two processes train with real nnU-Net: they learn what one learns, and are continued after one was killed."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import numpy as np
import psutil
import SimpleITK as sitk
import torch
from classscale_training.commands import main
from classscale_training.data.merged_labels import ENTRY
from classscale_training.nnunet.trainer import ClassScaleTrainer
from classscale_training.processes.group import Rank
from classscale_training.processes.launch import launch
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.process.exit_codes import ExitCode
from conftest import small_dataset, small_plans
from merged_toy_dataset import MERGED
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_nnunet import PLANS, TRAINER, set_environment, write_trainer

DATASET, CONFIGURATION = "Dataset703_Two", "3d_fullres"
COMMAND = ["703", CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu"]
LABELS = {"background": 0, **{f"cell {value}": value for value in range(1, 5)}}
REGIONS = {"background": 0, "all": [1, 2, 3, 4], "core": [2, 3], "tip": 3}
KINDS = {  # the labels of the dataset, the table from random numbers to those of its second case, batch_dice
    "dice of the batch": ({"labels": LABELS}, range(5), True),
    "dice of each sample": ({"labels": LABELS}, range(5), False),
    "regions": ({"labels": REGIONS, "regions_class_order": [1, 2, 3]}, range(5), True),
    "merged": ({"labels": MERGED.labels(), ENTRY: MERGED.entry()}, (0, 5, 6, 7, 9), True),
}
# Each process notes the files that it writes; the second one can be killed in the middle of an epoch.
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
        if rank == 1 and self.current_epoch == {killed}:
            os.kill(os.getpid(), 9)
        ClassScaleTrainer.on_train_epoch_end(self, outputs)

    sys.addaudithook(note)
    ClassScaleTrainer_test.on_train_epoch_end = end_of_training
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three small cases, preprocessed without the processes that nnU-Net starts; its variables point at them."""
    root = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        _preprocess(root / "preprocessed" / DATASET)
        yield root


def _preprocess(folder: Path) -> None:
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


def _steps(rank: Rank, folder: Path) -> None:
    """Train ten steps with each kind of loss, on this process's part of each batch, and write the weights."""
    weights = {}
    for kind, (dataset, table, batch_dice) in KINDS.items():
        preprocessed = folder / "preprocessed" / DATASET
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
    torch.save(weights, folder / f"{rank.number}-of-{rank.count}.pt")
    if rank.count > 1:
        torch.distributed.barrier()
        if rank.number == 1:
            raise ModelError("The plans do not please process 1.")
        torch.distributed.barrier()  # for which the first process would wait for ever


def _part_of_batch(rank: Rank, seed: int, table: torch.Tensor) -> dict:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 5, (2, 1, 16, 16, 16), generator=generator)
    target = torch.stack([drawn[0], table[drawn[1]]]).short()
    part = slice(rank.number * 2 // rank.count, (rank.number + 1) * 2 // rank.count)
    data = torch.randn(2, 1, 16, 16, 16, generator=generator)[part]
    return {
        "data": data,
        "target": [target[part], target[part, ..., ::2, ::2, ::2]],
        "keys": ["d001_x", "d002_y"][part],
    }


def test_two_processes_learn_what_one_learns_and_the_reason_of_the_one_that_fails_is_told(root):
    launch(_steps, (root,), 1, "cpu")
    with pytest.raises(ModelError, match=r"^The plans do not please process 1\.$"):
        launch(_steps, (root,), 2, "cpu")
    one, *both = (torch.load(root / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    for kind, weights in one.items():
        for name, expected in weights.items():
            for found in both:
                torch.testing.assert_close(found[kind][name], expected, rtol=0, atol=1e-5, msg=lambda m: f"{kind}, {name}: {m}")
    head = "decoder.seg_layers.projection"
    assert (one["dice of the batch"][head] - one["dice of each sample"][head]).abs().max() > 1e-4


def test_two_processes_are_continued_after_one_was_killed_and_validate_as_one_does(root, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # processes for augmentation, which must not be left over either
    write_trainer(root, 2, WATCHED.format(root=str(root), killed=1))
    assert main(["train", *COMMAND, "-num_gpus", "2"]) == ExitCode.FAULT
    error = capsys.readouterr().err
    assert "Process 2 of 2 (rank 1) was killed by signal 9 (SIGKILL)" in error and "with --c" in error
    _wait_until_none_is_left(root)
    model = root / "results" / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    before = torch.load(model / "fold_0" / "checkpoint_latest.pth", weights_only=False)
    write_trainer(root, 2, WATCHED.format(root=str(root), killed=-1))
    assert main(["train", *COMMAND, "-num_gpus", "2", "--c"]) == 0
    after = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert (before["current_epoch"], after["current_epoch"]) == (1, 2)
    assert after["logging"]["train_losses"][:1] == before["logging"]["train_losses"]
    written = [set((root / f"written-{rank}").read_text().splitlines()) for rank in (0, 1)]
    assert {Path(file).name for file in written[0] if file.startswith(str(root))} >= {"plans.json", "dataset.json"}
    assert not [file for file in written[0] & written[1] if file.startswith(str(root))]
    assert str(model / "fold_0" / "validation" / "case_2.nii.gz") in written[1] - written[0]
    summary = (model / "fold_0" / "validation" / "summary.json").read_text()
    assert len(json.loads(summary)["metric_per_case"]) == 2
    assert main(["validate", *COMMAND]) == 0
    assert (model / "fold_0" / "validation" / "summary.json").read_text() == summary


def _wait_until_none_is_left(root: Path) -> None:
    for _ in range(300):
        left = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "spawn_main" in "".join(process.cmdline()) and str(root) in process.environ()["nnUNet_results"]:
                    left.append(process)
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"These processes are left: {left}")
