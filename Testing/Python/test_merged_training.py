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
from classscale_training.data.merged_labels import ENTRY
from classscale_training.data.toy.options import ToyOptions
from classscale_training.data.toy_dataset import write_toy_dataset
from classscale_training.nnunet.case_sampling import CaseSampler
from classscale_training.nnunet.dataset_check import check_dataset
from classscale_training.nnunet.label_index import index_file, label_index
from classscale_training.nnunet.old_splits import replace_splits
from classscale_training.nnunet.trainer import ClassScaleTrainer
from ClassScaleSegLib import open_model
from ClassScaleSegLib.errors import LabelTableError, ModelError
from ClassScaleSegLib.process.exit_codes import ExitCode
from merged_toy_dataset import MERGED
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from tiny_nnunet import CONFIGURATION, PLANS, TRAINER, add_tiny_configuration, set_environment, write_trainer

DATASET = 702


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
    assert (
        "The pseudo Dice is that of cell 1, cell 2, cell 3, cell 4, cell 5, cell 6, cell 7, left, in this order" in log
    )
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
        for run in (["train", "--overwrite"], ["validate"]):
            assert main([*run, *command]) == 3
            assert "not preprocessed for the datasets as they are merged now" in capsys.readouterr().err
            assert (model / "fold_0" / "checkpoint_final.pth").exists()  # not removed for what cannot begin
        plain = json.loads(kept[raw / "dataset.json"])
        del plain["classscale_merged"]  # such as collected again, with another --missing
        (raw / "dataset.json").write_text(json.dumps(plain))
        assert main(["preprocess", "-d", str(DATASET), "-c", CONFIGURATION, "-np", "1", "--no_pbar"]) == 3
        assert "has been merged in another way since it was planned" in capsys.readouterr().err
        (there / "dataset.json").write_text(json.dumps(plain))
        assert main(["train", "--overwrite", *command]) == 3
        assert "were preprocessed with another classscale_merged than" in capsys.readouterr().err
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


def test_the_trainer_draws_by_share_and_centres_patches_on_the_label_that_was_drawn(root, monkeypatch):
    folder = next((root / "preprocessed").glob("Dataset*"))
    plans = {**json.loads((folder / f"{PLANS}.json").read_text()), "continue_training": False}
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset[ENTRY]["datasets"][0]["share"] = 99.0
    trainer = ClassScaleTrainer(plans, CONFIGURATION, 0, dataset, torch.device("cpu"))
    trainer.initialize()
    drawn = []
    corner = nnUNetDataLoader.get_bbox

    def get_bbox(self, shape, force_fg, locations, label=None, **options):
        low, high = corner(self, shape, force_fg, locations, label, **options)
        if force_fg:
            drawn.append((label, [tuple(place[1:]) for place in locations[label]], low, high))
        return low, high

    monkeypatch.setattr(nnUNetDataLoader, "get_bbox", get_bbox)
    np.random.seed(0)
    training, _ = trainer.get_dataloaders()
    names = Counter(str(case) for _ in range(20) for case in next(training)["keys"])
    assert names["d001_0001"] > 35 and names["d001_0001"] + names["d002_0002"] == 40
    assert len(drawn) >= 20 and {label for label, *_ in drawn} > {1, 2}
    for _, places, low, high in drawn:
        assert any(all(a <= x < b for a, x, b in zip(low, place, high, strict=True)) for place in places)


def test_label_maps_are_checked_by_the_labels_of_their_dataset(root, capsys):
    raw = next((root / "raw").iterdir())
    file = raw / "labelsTr" / "d001_0001.nii.gz"
    before = file.read_bytes()
    check_dataset(raw)
    assert "cannot be learned" not in capsys.readouterr().err  # class 8 may be in the background
    try:
        image = sitk.ReadImage(str(file))
        image[0, 0, 5] = 9
        sitk.WriteImage(image, str(file))
        with pytest.raises(LabelTableError, match=r"d001_0001.nii.gz holds left \(9\), which Dataset001_A"):
            check_dataset(raw)
    finally:
        file.write_bytes(before)
