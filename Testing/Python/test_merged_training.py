"""Training on a merged dataset inside nnU-Net: plan, preprocess, train, resume, validate and export."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import numpy as np
import SimpleITK as sitk
import torch
from classscale_training.commands import main
from classscale_training.data.merged_labels import ENTRY, Merged, SourceDataset
from classscale_training.data.toy import ToyOptions
from classscale_training.data.toy_dataset import write_toy_dataset
from classscale_training.evaluation.class_counts import label_counts
from classscale_training.loss.losses import SoftDice
from classscale_training.nnunet.case_sampling import CaseSampler
from classscale_training.nnunet.case_validation import merged_case_metrics
from classscale_training.nnunet.label_index import index_file, label_index
from classscale_training.nnunet.merged_training import MergedLoss, of_network, with_datasets
from classscale_training.nnunet.old_splits import replace_splits
from ClassScaleSegLib import open_model
from ClassScaleSegLib.errors import LabelTableError, ModelError
from ClassScaleSegLib.models.projection import Projection
from ClassScaleSegLib.process.exit_codes import ExitCode
from tiny_nnunet import CONFIGURATION, PLANS, TRAINER, add_tiny_configuration, set_environment, write_trainer

DATASET = 702
# The first dataset has the classes 1 to 4; the second has 5 to 7, and 1 and 2 as one label, but no class 8.
MERGED = Merged(
    ("background", *(f"cell {number}" for number in range(1, 9))),
    ("left",),
    10,
    (
        SourceDataset("Dataset001_A", "d001_", 1.0, {0: (0, 5, 6, 7, 8), 1: (1,), 2: (2,), 3: (3,), 4: (4,)}),
        SourceDataset("Dataset002_B", "d002_", 3.0, {0: (0, 3, 4), 5: (5,), 6: (6,), 7: (7,), 9: (1, 2)}),
    ),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A merged toy dataset, planned and preprocessed; nnU-Net's variables point at it."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        write_toy_dataset(ToyOptions(8, "atlas", 24), DATASET, 4)
        _merge(next((root / "raw").iterdir()))
        assert main(["plan", "-d", str(DATASET), "-npfp", "1", "-overwrite_target_spacing", "6", "6", "6"]) == 0
        splits = [{"train": ["d001_0001", "d002_0002"], "val": ["d001_0003", "d002_0004"]}]
        add_tiny_configuration(next((root / "preprocessed").iterdir()), splits)
        assert main(["preprocess", "-d", str(DATASET), "-c", CONFIGURATION, "-np", "1", "--no_pbar"]) == 0
        yield root


def _merge(folder: Path) -> None:
    """Make a toy dataset a merged one: cases 1 and 3 belong to the first dataset, 2 and 4 to the second."""
    for number in range(1, 5):
        index = (number + 1) % 2
        name = f"{MERGED.datasets[index].prefix}{number:04d}"
        (folder / f"imagesTr/Toy_{number:04d}_0000.nii.gz").rename(folder / f"imagesTr/{name}_0000.nii.gz")
        label = folder / f"labelsTr/Toy_{number:04d}.nii.gz"
        image = sitk.ReadImage(str(label))
        values = MERGED.value_of_class[index] % 11  # class 8, which the second dataset does not have, is background
        voxels = values[sitk.GetArrayFromImage(image)].astype(np.uint8)
        voxels[0, :4] = MERGED.ignore
        changed = sitk.GetImageFromArray(voxels)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(folder / f"labelsTr/{name}.nii.gz"))
        label.unlink()
    file = folder / "dataset.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "labels": MERGED.labels(), ENTRY: MERGED.entry()}), encoding="utf-8")


@pytest.fixture(scope="module")
def model(root) -> Path:
    write_trainer(root, 1)
    command = ["train", str(DATASET), CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu"]
    assert main(command) == 0
    write_trainer(root, 2)
    assert main([*command, "--c"]) == 0
    return next((root / "results").iterdir()) / f"{TRAINER}__{PLANS}__{CONFIGURATION}"


def test_the_network_has_the_classes_and_each_case_is_validated_by_the_labels_of_its_dataset(model, tmp_path):
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["current_epoch"] == 2
    assert checkpoint["network_weights"]["decoder.seg_layers.projection"].shape[0] == 9
    assert len(checkpoint["logging"]["dice_per_class_or_region"][1]) == 8  # 1 to 4, 5 to 7, left
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    labels = [sorted(case["metrics"]) for case in summary["metric_per_case"]]
    assert labels == [["1", "2", "3", "4"], ["5", "6", "7", "9"]] and sorted(summary["mean"]) == sorted("12345679")
    log = max((model / "fold_0").glob("training_log_*"), key=lambda file: file.stat().st_mtime).read_text()
    means = [
        np.mean([case["metrics"][label]["Dice"] for label in case["metrics"]]) for case in summary["metric_per_case"]
    ]
    assert f"Mean Validation Dice of Dataset001_A:  {means[0]}" in log
    assert f"Mean Validation Dice of Dataset002_B:  {means[1]}" in log
    dataset = json.loads((model / "dataset.json").read_text())
    assert len(dataset["labels"]) == 10 and dataset["labels"]["ignore"] == 9 and ENTRY not in dataset
    bundle = tmp_path / "model.zip"
    assert main(["export", "-m", str(model), "-o", str(bundle), "--licence", "CC0-1.0"]) == 0
    assert open_model(bundle).classes == 9


def test_a_checkpoint_of_other_labels_or_of_another_network_is_refused_with_what_differs(root, model, capsys):
    command = ["train", str(DATASET), CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu", "--c"]
    folder = next((root / "preprocessed").iterdir())
    kept = {file: file.read_text() for file in (folder / "dataset.json", folder / f"{PLANS}.json")}
    try:
        (folder / "dataset.json").write_text(
            kept[folder / "dataset.json"].replace('"cell 1"', '"cell x"').replace("cell 2", "cell 1")
        )
        assert main(command) == 3
        assert "was trained with other labels: cell 1 is 1 there, and 2 in the dataset now" in capsys.readouterr().err
        (folder / "dataset.json").write_text(kept[folder / "dataset.json"])
        plans = json.loads(kept[folder / f"{PLANS}.json"])
        plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]["features_per_stage"] = [8, 12, 20]
        (folder / f"{PLANS}.json").write_text(json.dumps(plans))
        assert main(command) == 3
        told = capsys.readouterr().err
        assert "holds the weights of another network: encoder.stages.2" in told and "(16, 12, 3, 3, 3)" in told
        command[-1:] = ["-pretrained_weights", str(model / "fold_0" / "checkpoint_final.pth")]
        assert main(command) == 3
        assert "Plan with the architecture of these weights" in capsys.readouterr().err
    finally:
        for file, text in kept.items():
            file.write_text(text)


def test_an_index_of_labels_is_kept_and_made_again_where_a_case_has_changed(root):
    folder = next((root / "preprocessed").glob("Dataset*")) / f"{PLANS}_{CONFIGURATION}"
    cases = ["d001_0001", "d002_0002"]
    found = label_index(folder, cases, MERGED)
    assert set(found["d001_0001"]) <= {1, 2, 3, 4} and set(found["d002_0002"]) <= {5, 6, 7, 9} and found["d002_0002"]
    before = index_file(folder).read_text()
    try:
        content = json.loads(before)
        content["cases"]["d001_0001"]["labels"] = [3]  # it is believed as long as the case is as it was
        content["cases"]["d002_0002"] = {"labels": [5], "modified": 0}
        index_file(folder).write_text(json.dumps(content))
        assert label_index(folder, cases, MERGED) == {**found, "d001_0001": [3]}
        content["cases"]["d001_0001"]["labels"] = [3, 9]
        index_file(folder).write_text(json.dumps(content))
        with pytest.raises(LabelTableError, match="case d001_0001 holds 9, which Dataset001_A does not have"):
            label_index(folder, cases, MERGED)
        with pytest.raises(ModelError, match="case d001_7 of splits_final.json is not in"):
            label_index(folder, ["d001_7"], MERGED)
        for text in ("{", json.dumps({**content, "meanings": replace(MERGED, sets=("right",)).meanings()}), "[]"):
            index_file(folder).write_text(text)
            with pytest.raises(ModelError, match="not preprocessed for the datasets as they are merged now"):
                label_index(folder, cases, MERGED)
    finally:
        index_file(folder).write_text(before)


def test_a_dataset_that_was_merged_anew_is_planned_and_preprocessed_again(root, model, capsys):
    raw, there = next((root / "raw").iterdir()), next((root / "preprocessed").glob("Dataset*"))
    files = raw / "dataset.json", there / "dataset.json", there / "splits_final.json"
    kept = {file: file.read_text() for file in files}
    command = [str(DATASET), CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu"]
    try:
        (raw / "dataset.json").write_text(kept[raw / "dataset.json"].replace('"left"', '"right"'))
        assert main(["preprocess", "-d", str(DATASET), "-c", CONFIGURATION, "-np", "1", "--no_pbar"]) == 3
        assert "has been merged in another way since it was planned" in capsys.readouterr().err
        (there / "dataset.json").write_text((raw / "dataset.json").read_text())  # planned, but not preprocessed
        for run in ("train", "validate"):
            assert main([run, *command]) == 3
            assert "not preprocessed for the datasets as they are merged now" in capsys.readouterr().err
        folds = [{"train": ["d001_0001"], "val": ["d002_0002"]}]
        (raw / "splits_final.json").write_text(json.dumps(folds))
        assert main(["plan", "-d", str(DATASET), "-npfp", "1"]) == ExitCode.FAULT
        assert "divide the cases in different ways" in capsys.readouterr().err
        (raw / "dataset.json").write_text(kept[raw / "dataset.json"])
        assert replace_splits(raw, json.loads((raw / "dataset.json").read_text()))
        assert json.loads((there / "splits_final.json").read_text()) == folds
    finally:
        (raw / "splits_final.json").unlink(missing_ok=True)
        for file, text in kept.items():
            file.write_text(text)


def test_cases_are_drawn_by_share_and_rare_labels_as_often_as_common_ones():
    cases = {f"d001_{number:03d}": [1] for number in range(99)} | {"d001_rare": [1, 2], "d002_a": [5], "d002_b": []}
    sampler = CaseSampler(MERGED, cases)
    np.random.seed(0)
    drawn = Counter(sampler.case_with_label() for _ in range(4000))
    rare, second = drawn["d001_rare", 2], drawn["d002_a", 5]
    assert 400 < rare < 600 and 2900 < second < 3100  # half of a quarter; three quarters
    lines = list(sampler.describe())
    assert lines[0] == "Dataset001_A: 100 cases, drawn with probability 0.250; no case has cell 3, cell 4."
    assert lines[1] == "Dataset002_B: 2 cases, drawn with probability 0.750; no case has cell 6, cell 7, left."
    alone = CaseSampler(MERGED, {"d002_a": [5]}).describe()
    assert next(alone) == "Dataset001_A has no case here: its labels are not learned."
    assert 650 < sum(Counter(sampler.case() for _ in range(1000))[case] for case in ("d002_a", "d002_b")) < 850


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


def _gradients(rows: slice, ddp: bool) -> list[torch.Tensor]:
    (bases, *head), values = _samples()
    batch = {"target": values[rows], "keys": ["d001_x", "d002_y"][rows]}
    loss = MergedLoss(MERGED, SoftDice(ddp=ddp), ddp)(([bases[rows]], *head), with_datasets(MERGED, batch)["target"])
    return list(torch.autograd.grad(loss, (bases, *head)))


def _rank(rank: int, folder: str) -> None:
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(_gradients(slice(rank, rank + 1), True), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_gpus_with_cases_of_different_datasets_learn_what_one_learns_from_both(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for *parts, whole in zip(*ranks, _gradients(slice(0, 2), False), strict=True):
        torch.testing.assert_close(sum(parts) / 2, whole)  # as DDP averages


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
    image = sitk.GetImageFromArray(np.array([[[9, 0, 0, 0]]], np.uint8))
    sitk.WriteImage(image, str(tmp_path / "predictions" / "d001_x.nii.gz"))
    assert main(["evaluate", *folders, *options]) == 4
    assert "has the classes 0 to 8" in capsys.readouterr().err
