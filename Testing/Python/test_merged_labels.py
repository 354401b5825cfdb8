"""Labels of merged datasets that stand for several classes: in the loss, in counts, and in the evaluation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("nnunetv2")
import numpy as np
import SimpleITK as sitk
import torch
from classscale_training.commands import main
from classscale_training.data.merged_labels import ENTRY, Merged
from classscale_training.evaluation.class_counts import label_counts
from classscale_training.loss.soft_dice import SoftDice
from classscale_training.nnunet.case_validation import merged_case_metrics
from classscale_training.nnunet.merged_training import MergedLoss, of_network, with_datasets
from ClassScaleSegLib.errors import LabelTableError
from ClassScaleSegLib.models.projection import Projection
from ClassScaleSegLib.process.exit_codes import ExitCode
from merged_toy_dataset import MERGED


def test_the_loss_is_that_of_the_logits_summed_over_each_label(monkeypatch):
    torch.manual_seed(0)
    bases = [torch.randn(2, 4, 6, 6, 6, dtype=torch.float64), torch.randn(2, 4, 3, 3, 3, dtype=torch.float64)]
    projection, bias = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    values = torch.stack(
        [torch.randint(0, 5, (1, 6, 6, 6)), torch.tensor([0, 5, 6, 7, 9])[torch.randint(5, (1, 6, 6, 6))]]
    )
    values[:, :, 0] = MERGED.ignore
    batch = {"target": [values.short(), values[..., ::2, ::2, ::2].short()], "keys": ["d001_x", "d002_y"], "data": None}
    target = with_datasets(MERGED, batch)["target"]
    found = MergedLoss(MERGED, SoftDice(), False)((bases, projection, bias), target)
    probability = (torch.einsum("brxyz,cr->bcxyz", bases[0], projection) + bias[:, None, None, None]).softmax(1)
    cross_entropy, dice = [], {}
    for sample, source in enumerate(MERGED.datasets):
        counted = values[sample, 0] != MERGED.ignore
        for value, members in source.labels.items():
            p, here = probability[sample, list(members)].sum(0)[counted], (values[sample, 0] == value)[counted]
            cross_entropy.append(-p[here].log())
            if value:
                dice[value] = (2 * p[here].sum() + 1e-5) / (p.sum() + here.sum() + 1e-5)
    expected = torch.cat(cross_entropy).mean() - sum(dice.values()) / len(dice)
    assert torch.isclose(found, expected, rtol=1e-9)  # the weight of the coarser scale is 0


def test_a_value_that_the_dataset_of_a_case_does_not_have_stops_the_training():
    basis = [torch.randn(1, 4, 2, 2, 2)]
    for value in (5, 11, 200):  # of the other dataset, and of none
        target = with_datasets(MERGED, {"target": torch.full((1, 1, 2, 2, 2), value), "keys": ["d001_x"]})["target"]
        with pytest.raises(ValueError, match="label"):
            MergedLoss(MERGED, SoftDice(), False)((basis, torch.randn(9, 4), torch.zeros(9)), target)
    with pytest.raises(LabelTableError, match="case x belongs to none of the merged datasets"):
        with_datasets(MERGED, {"target": torch.zeros(1, 1, 2), "keys": ["x"]})


def test_predictions_count_as_the_labels_of_the_dataset():
    reference, prediction = np.array([0, 0, 9, 9, 5, 10]), np.array([0, 3, 1, 2, 8, 5])
    metrics = merged_case_metrics(MERGED, "d002_x", reference, prediction)
    assert set(metrics) == {5, 6, 7, 9} and metrics[9]["Dice"] == 1 and metrics[5]["Dice"] == 0
    unlabelled = replace(MERGED, datasets=(replace(MERGED.datasets[0], labels={0: (0,)}),))
    empty = merged_case_metrics(unlabelled, "d001_x", reference, prediction)
    assert not empty
    assert metrics[5]["FN"] == 1 and metrics[5]["FP"] == 0  # the ignored voxel does not count
    head, sets = Projection(torch.eye(9), torch.zeros(9)), MERGED.label_sets
    basis = torch.nn.functional.one_hot(torch.from_numpy(prediction), 9).T[None].float() * 9
    datasets = torch.tensor([1])
    labels = MergedLoss(MERGED, SoftDice(), False).labels(torch.from_numpy(reference)[None], datasets)
    counts = sets.by_set(
        label_counts(basis, head, labels, sets.label_of_class[datasets], -1)[:, 0], datasets[[0, 0, 0]]
    )
    by_name = {name: counts[:, sets.set_of_label[1, label]].tolist() for label, name in enumerate("b567L")}
    assert by_name == {"b": [2, 2, 2], "5": [0, 0, 1], "6": [0, 0, 0], "7": [0, 0, 0], "L": [2, 2, 2]}


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 12},
        {"classes": "x"},
        {"datasets": []},
        {"datasets": [{"name": "A", "prefix": "a", "share": 0, "labels": {"0": [0]}}]},
        {"datasets": [{"name": "A", "prefix": "a", "share": 1, "labels": {"1": [1]}}]},
        {"datasets": [{"name": "A", "prefix": "a", "share": 1, "labels": {"0": [0], "1": [0]}}]},
        {"datasets": [{"name": "A", "prefix": "a", "share": 1, "labels": {"0": [0], "1": [9]}}]},
        {"datasets": [{"name": "A", "prefix": "a", "share": 1, "labels": {"0": [0], "1": []}}]},
        {"datasets": [{"name": "A", "prefix": "a", "share": 1, "labels": {"0": [1], "1": [0]}}]},
        {"datasets": [{"name": "A", "prefix": "a", "share": float("inf"), "labels": {"0": [0], "1": [1]}}]},
        {"datasets": [{"name": n, "prefix": n, "share": 1, "labels": {"0": [0], "1": [1]}} for n in ("d1", "d12")]},
    ],
)
def test_an_entry_that_does_not_fit_is_refused(change):
    assert Merged.of({"labels": MERGED.labels(), ENTRY: MERGED.entry()}) == MERGED
    with pytest.raises(LabelTableError, match="classscale_merged of dataset.json cannot be used"):
        Merged.of({"labels": MERGED.labels(), ENTRY: {**MERGED.entry(), **change}})


def test_label_values_that_nnunet_cannot_hold_are_refused():
    names = {f"cell {number}": number for number in range(1, 32_767)}
    entry = {**MERGED.entry(), "classes": 9}
    assert Merged.of({"labels": {"background": 0, **names, "ignore": 32_767}, ENTRY: entry}).ignore == 32_767
    for labels in ({**names, "more": 32_767, "ignore": 32_768}, {**names, "ignore": 40_000}):
        with pytest.raises(LabelTableError, match="cannot be used"):
            Merged.of({"labels": {"background": 0, **labels}, ENTRY: entry})


def _samples() -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Return bases of one scale, projection and bias, which need gradients, and label values, one sample a dataset."""
    torch.manual_seed(1)
    leaves = torch.randn(2, 4, 5, 5, 5), torch.randn(9, 4), torch.randn(9)
    values = torch.stack([torch.randint(0, 5, (5, 5, 5)), torch.tensor([0, 5, 6, 7, 9])[torch.randint(5, (5, 5, 5))]])
    return tuple(leaf.double().requires_grad_() for leaf in leaves), values


def _gradients(rows: slice, ddp: bool, batch_dice: bool) -> list[torch.Tensor]:
    (bases, *head), values = _samples()
    batch = {"target": values[rows], "keys": ["d001_x", "d002_y"][rows]}
    loss = MergedLoss(MERGED, SoftDice(batch_dice, ddp=ddp), ddp)(
        ([bases[rows]], *head), with_datasets(MERGED, batch)["target"]
    )
    return list(torch.autograd.grad(loss, (bases, *head)))


def _rank(rank: int, folder: str) -> None:
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = [_gradients(slice(rank, rank + 1), True, batch_dice) for batch_dice in (True, False)]
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_gpus_with_cases_of_different_datasets_learn_what_one_learns_from_both(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for batch_dice, *parts in zip((True, False), *ranks, strict=True):
        for first, second, whole in zip(*parts, _gradients(slice(0, 2), False, batch_dice), strict=True):
            torch.testing.assert_close((first + second) / 2, whole)  # as DDP averages


def test_predictions_for_a_merged_dataset_are_evaluated_by_the_labels_of_each_case(tmp_path, capsys):
    arrays = {
        "labelsTr/d001_x": [0, 1, 2, 0], "predictions/d001_x": [0, 1, 2, 5],
        "labelsTr/d002_y": [9, 9, 5, 0], "predictions/d002_y": [1, 2, 8, 3],
    }  # fmt: skip
    for name, voxels in arrays.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image = sitk.GetImageFromArray(np.array([[voxels]], np.uint8))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    content = {"labels": MERGED.labels(), ENTRY: MERGED.entry()}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "predictions" / "dataset.json").write_text(json.dumps(of_network(content, MERGED)))
    folders = [str(tmp_path / "labelsTr"), str(tmp_path / "predictions")]
    assert main(["evaluate", *folders, "-o", str(tmp_path / "out"), "--no-surface"]) == 0
    assert "4 classes in the references: mean Dice 0.7500" in capsys.readouterr().out  # of 1, 2, left and 5
    options = ["-o", str(tmp_path / "out"), "--no-surface"]
    of_the_network = str(tmp_path / "predictions" / "dataset.json")
    assert main(["evaluate", *folders, *options, "--dataset-json", of_the_network]) == ExitCode.FAULT
    assert "d001_x belongs to a merged dataset" in capsys.readouterr().err
    for file in (tmp_path / "dataset.json", tmp_path / "predictions" / "dataset.json"):
        file.rename(file.with_suffix(".kept"))
    assert main(["evaluate", *folders, *options]) == 0
    assert "the names are those of a merged dataset" in capsys.readouterr().err
    (tmp_path / "dataset.kept").rename(tmp_path / "dataset.json")
    image = sitk.GetImageFromArray(np.array([[[9, 0, 0, 0]]], np.uint8))
    sitk.WriteImage(image, str(tmp_path / "predictions" / "d001_x.nii.gz"))
    assert main(["evaluate", *folders, *options]) == 4
    assert "has the classes 0 to 8" in capsys.readouterr().err
