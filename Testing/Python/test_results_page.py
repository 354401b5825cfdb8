"""The page of results: what was not found is a dash, and every structure is there, by group."""

import results_page
import torch
from classscale_training.network.plain_unet import architecture
from toy_sweep import LowRankUNet


def test_figures_that_do_not_exist_are_dashes():
    rows = [
        {
            "what": "structures of at least 125 voxels",
            "kind": "summary",
            "structures": 1,
            "dice": 0.5,
            "pooled_dice": 0.6,
        },
        {"what": "thalamus", "kind": "set", "dice": None, "pooled_dice": None},
        {"what": "pons", "kind": "structure", "group": "Brain stem", "voxels": 900.0, "dice": 0.5, "pooled_dice": 0.6},
        {"what": "uvula", "kind": "structure", "group": "Tongue", "voxels": 3.0, "dice": None, "pooled_dice": None},
    ]
    text = results_page.brain_model({"cases": rows, "bars": []})
    assert "Brain stem: 1 structures, median Dice 0.5</summary>" in text and "| pons | 900 | 0.5 | 0.6 |" in text
    assert "Tongue: 1 structures, median Dice -</summary>" in text and "| uvula | 3 | - | - |" in text
    assert "| thalamus | - | - |" in text


def test_every_result_that_is_there_can_be_rendered(monkeypatch):
    monkeypatch.setattr(results_page, "plot", lambda name, draw, size=(9, 3.4): f"![{name}]({name}.png)")
    page = "\n".join(results_page.sections())
    assert "## 1. Memory and time" in page and "![toy_sweep]" in page and "## 8. On a GPU" in page


def test_the_basis_of_the_sweep_has_as_many_channels_as_its_rank():
    network = LowRankUNet(architecture((8, 12, 16), (1, 1, 1), (1, 1)), classes=21, rank=3)
    assert network(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)
    assert network.head.weight.shape == (21, 3, 1, 1, 1)
