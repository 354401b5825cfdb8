"""Folds that were trained with other plans or labels than the latest one are not exported together."""

from __future__ import annotations

import copy
import json

import pytest

pytest.importorskip("nnunetv2")
import torch
from classscale_training.nnunet.export import export_bundle, export_stock
from ClassScaleSegLib.errors import ModelError, OutputError, OutputExistsError

LABELS = {"background": 0, "liver": 1, "spleen": 2}
CONFIGURATION = {"spacing": [1.0, 1.0, 1.0], "normalization_schemes": ["ZScoreNormalization"], "batch_size": 2}
PLANS = {"configurations": {"3d_fullres": CONFIGURATION, "more": {"inherits_from": "3d_fullres", "batch_size": 4}}}
WEIGHTS = "have no low-rank head"
DATASET = {"labels": LABELS, "channel_names": {"0": "MR"}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda plans, dataset: None, WEIGHTS),  # what comes next: these are no weights of the trainer
        (
            lambda plans, dataset: dataset.update(labels={**LABELS, "liver": 2, "spleen": 1}),
            "liver is 1 there, and 2 in",
        ),
        (
            lambda plans, dataset: plans["configurations"]["3d_fullres"].update(spacing=[2.0, 1.0, 1.0]),
            "another spacing",
        ),
        (lambda plans, dataset: plans["configurations"]["more"].update(batch_size=8), WEIGHTS),
        (lambda plans, dataset: dataset.update(channel_names={"0": "CT"}), "another channel_names"),
    ],
)
@pytest.mark.parametrize("export", [export_stock, export_bundle])
def test_a_fold_with_other_plans_or_labels_is_named(tmp_path, change, sentence, export):
    arguments = {"plans": PLANS, "dataset_json": DATASET, "configuration": "more", "fold": 0}
    fold = tmp_path / "training" / "fold_0"
    fold.mkdir(parents=True)
    weights = {"encoder.weight": torch.zeros(1)}
    torch.save({"network_weights": weights, "init_args": arguments, "trainer_name": "x"}, fold / "checkpoint_final.pth")
    plans, dataset = copy.deepcopy((PLANS, DATASET))
    change(plans, dataset)
    (fold.parent / "plans.json").write_text(json.dumps(plans))
    (fold.parent / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(ModelError) as caught:
        export(fold.parent, tmp_path / "out")
    assert sentence in str(caught.value), caught.value
    if sentence != WEIGHTS:
        assert "checkpoint_final.pth was trained with" in str(caught.value)
        assert str(caught.value).endswith("Train this fold again, or leave it out (-f).")


def test_a_model_folder_is_not_written_over_its_training_or_into_another_model(tmp_path):
    training, output = tmp_path / "training", tmp_path / "out"
    for folder, dataset in ((training, DATASET), (output, {**DATASET, "labels": {"background": 0}})):
        (folder / "fold_0").mkdir(parents=True)
        (folder / "plans.json").write_text(json.dumps(PLANS))
        (folder / "dataset.json").write_text(json.dumps(dataset))
    (training / "fold_0" / "checkpoint_best.pth").write_bytes(b"x")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    for overwrite in (False, True):  # as checkpoint_final.pth, which the training does not have yet
        with pytest.raises(OutputError, match="is the training itself, which would be lost"):
            export_stock(training, tmp_path / "out" / ".." / "training", checkpoint="best", overwrite=overwrite)
    with pytest.raises(OutputExistsError, match="dataset.json is of another model. Choose another folder, or replace"):
        export_stock(training, output, checkpoint="best")
    (output / "fold_1").mkdir()
    with pytest.raises(OutputExistsError, match="fold_1 is of another model. Delete it"):
        export_stock(training, output, checkpoint="best", overwrite=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*")} == before
    (output / "fold_1").rmdir()
    with pytest.raises(ModelError, match="checkpoint_best.pth"):  # what comes next: it cannot be read
        export_stock(training, output, checkpoint="best", overwrite=True)
