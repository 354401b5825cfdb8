"""A toy training becomes a bundle whose card says what was measured."""

from dataclasses import replace

import numpy as np
import pack_toy_model  # noqa: E402
import pytest
from classscale_training.loop.options import LoopOptions
from classscale_training.loop.train import train
from ClassScaleSegLib import open_model
from ClassScaleSegLib.errors import ModelError

COUNTS = np.full((1, 3, 13), 100)  # common, predicted and reference voxels of one volume
COUNTS[0, 0, 3], COUNTS[0, 0, 12] = 50, 0


def test_the_bundle_opens_and_its_card_states_what_was_measured(tmp_path, capsys):
    folder, bundle = tmp_path / "run", tmp_path / "toy-12.zip"
    options = LoopOptions(
            folder, classes=12, size=16, features=(16, 24), convolutions=(1, 1), decoder_convolutions=(1,), steps=40,
            learning_rate=0.01, log_every=1, evaluate_every=20, evaluation_cases=1, device="cpu",
    )  # fmt: skip
    result = train(options)
    assert pack_toy_model.main([str(folder), "--cases", "2", "--output", str(bundle)]) == 0
    assert "toy-12.zip: 0." in capsys.readouterr().out
    model = open_model(bundle)
    assert model.name == "Toy atlas, 12 classes" and "not for clinical use" in model.notice
    again = train(replace(options, folder=tmp_path / "again", weights=str(bundle), steps=1, learning_rate=1e-9))
    assert abs(again.last["dice"] - result.last["dice"]) < 1e-3  # goes on from there
    with pytest.raises(ModelError, match=r"was trained with weights .*toy-12.zip, not other.zip"):
        train(replace(options, folder=tmp_path / "again", weights="other.zip"))
    with pytest.raises(
        ModelError, match=r"toy-12.zip belongs to another network: .* Use the options it was trained with"
    ):
        train(replace(options, folder=tmp_path / "other", weights=str(bundle), classes=13))
    card = pack_toy_model.card(
        {"classes": 12, "size": 16, "features": [16, 24], "batch": 1},
        [
            {"step": 20, "loss": 0.5, "seconds": 6.0, "dice": 0.25},
            {"step": 40, "loss": -0.5, "seconds": 60.0, "dice": 0.5},
        ],
        COUNTS,
        "a CPU",
    )
    assert "mean Dice over the 12 classes on 1 unseen volumes: 0.875; pooled over all volumes, 0.875" in card
    assert "2 of 12 classes have a Dice below 0.8: 3 (0.50), 12 (0.00)." in card
    assert "40 steps, volumes per step: 1; 1 minutes on a CPU" in card and "| 20 | 0.5000 | 6 | 0.2500 |" in card
    assert "| 11 | 1.000 | 0.000 |" in card


def test_a_folder_without_a_training_gets_a_sentence(tmp_path, capsys):
    assert pack_toy_model.main([str(tmp_path)]) == 1
    assert "checkpoint_latest.pth" in capsys.readouterr().err
