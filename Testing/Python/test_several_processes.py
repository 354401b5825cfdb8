"""Two processes train with real nnU-Net: they learn what one learns, and are continued after one was killed."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import psutil
import torch
from classscale_training.commands import main
from classscale_training.processes.group import Rank
from classscale_training.processes.launch import launch
from ClassScaleSegLib.errors import ClassScaleError, ModelError
from ClassScaleSegLib.process.exit_codes import ExitCode
from forked_trainings import fork_trainings
from gloo_tensors import free_a_tensor_while_the_process_ends
from tiny_nnunet import PLANS, TRAINER, set_environment, write_trainer
from two_processes import (
    COMMAND,
    CONFIGURATION,
    DATASET,
    WATCHED,
    largest_differences,
    preprocess,
    ten_steps,
    written_by_both,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The dataset, to which nnU-Net's variables point."""
    root = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        preprocess(root)
        yield root


def _steps_and_a_fault(rank: Rank, root: Path) -> None:
    ten_steps(rank, root)
    torch.distributed.barrier()
    if rank.number == 1:
        raise ModelError("The plans do not please process 1.")
    torch.distributed.barrier()  # for which the first process would wait for ever


def test_two_processes_learn_what_one_learns_and_the_reason_of_the_one_that_fails_is_told(root, monkeypatch):
    fork_trainings(monkeypatch)
    launch(ten_steps, (root,), 1, "cpu")
    with pytest.raises(ModelError, match=r"^The plans do not please process 1\.$"):
        launch(_steps_and_a_fault, (root,), 2, "cpu")
    differences = largest_differences(root)
    assert max(differences.values()) < 1e-5, differences
    weights, head = torch.load(root / "0-of-1.pt"), "decoder.seg_layers.projection"
    assert (weights["dice of the batch"][head] - weights["dice of each sample"][head]).abs().max() > 1e-4


def test_two_processes_are_continued_after_one_was_killed_and_validate_as_one_does(root, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # processes for augmentation, which must not be left over either
    monkeypatch.setenv("KILL_IN_EPOCH", "1")
    write_trainer(root, 2, WATCHED.format(root=str(root)))
    assert main(["train", *COMMAND, "-num_gpus", "2"]) == ExitCode.FAULT
    error = capsys.readouterr().err
    assert "Process 2 of 2 (rank 1) was killed by signal 9 (SIGKILL)" in error and "with --c" in error
    _wait_until_none_is_left(root)
    fold = root / "results" / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_0"
    before = torch.load(fold / "checkpoint_latest.pth", weights_only=False)
    monkeypatch.delenv("KILL_IN_EPOCH")
    fork_trainings(monkeypatch)
    assert main(["train", *COMMAND, "-num_gpus", "2", "--c"]) == 0
    after = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert (before["current_epoch"], after["current_epoch"]) == (1, 2)
    assert after["logging"]["train_losses"][:1] == before["logging"]["train_losses"]
    written = [(root / f"written-{rank}").read_text().splitlines() for rank in (0, 1)]
    assert str(fold.parent / "plans.json") in written[0] and str(fold / "validation" / "case_2.nii.gz") in written[1]
    assert not written_by_both(root)
    summary = (fold / "validation" / "summary.json").read_text()
    assert len(json.loads(summary)["metric_per_case"]) == 2
    assert main(["validate", *COMMAND]) == 0
    assert (fold / "validation" / "summary.json").read_text() == summary


def test_a_process_ends_well_while_gloo_frees_a_tensor():
    launch(free_a_tensor_while_the_process_ends, (), 2, "cpu")


def test_forked_processes_write_where_their_test_reads(tmp_path, monkeypatch):
    fork_trainings(monkeypatch)  # now there is a server, with what was standard output when it was started
    kept = os.dup(1)
    with (tmp_path / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        try:
            launch(print, ("is here",), 2, "cpu")
        finally:
            os.dup2(kept, 1)
            os.close(kept)
    assert (tmp_path / "output").read_text().count("is here") == 2


def test_no_more_processes_are_started_under_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(ClassScaleError, match="torchrun starts the processes"):
        launch(print, (), 2, "cpu")


def _wait_until_none_is_left(root: Path) -> None:
    for _ in range(300):
        left = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "spawn_main" in str(process.cmdline()) and str(root) in str(process.environ()):
                    left.append(process)
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"These processes are left: {left}")
