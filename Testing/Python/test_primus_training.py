"""Primus with the low-rank head: training, continuing, and the exports for the engine and for stock nnU-Net."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import torch
from classscale_training.network.low_rank_head import add_head
from classscale_training.nnunet.export import export_bundle, export_stock
from classscale_training.nnunet.pretrained import whole_network
from classscale_training.nnunet.primus_trainers import ClassScaleTrainer_Primus, ClassScaleTrainer_Primus_M
from classscale_training.nnunet.trainer import ClassScaleTrainer
from ClassScaleSegLib import open_model
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.models import networks
from ClassScaleSegLib.models.low_rank import fold_patch_head
from ClassScaleSegLib.models.summary import summarize
from conftest import logits, small_dataset, small_plans
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_nnunet import set_environment
from tiny_primus import primus_plans, stock_primus

CLASSES, RANK = 40, 6


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Returns a trainer of a class under plans; nnU-Net's folders hold nothing but the name of a case."""
    set_environment(monkeypatch, tmp_path)
    (tmp_path / "preprocessed" / "Dataset007_Small" / "nnUNetPlans_3d_fullres").mkdir(parents=True)
    (tmp_path / "preprocessed" / "Dataset007_Small" / "nnUNetPlans_3d_fullres" / "case.b2nd").touch()

    def make(kind: type = ClassScaleTrainer_Primus, plans: dict | None = None) -> ClassScaleTrainer:
        torch.manual_seed(0)
        plans = json.loads(json.dumps(plans or primus_plans(classscale_rank=RANK)))
        dataset = small_dataset(CLASSES - 1)
        made = kind({**plans, "continue_training": False}, "3d_fullres", 0, dataset, torch.device("cpu"))
        made.initialize()
        return made

    return make


def _batch() -> dict:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, CLASSES, (2, 1, 16, 16, 16), generator=generator).short()
    return {"data": torch.randn(2, 1, 16, 16, 16, generator=generator), "target": [target], "keys": ["a", "b"]}


def _save(trainer: ClassScaleTrainer) -> Path:
    """Write the files that a training leaves, and return the model folder."""
    folder = Path(trainer.output_folder_base)
    trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    (folder / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    (folder / "dataset.json").write_text(json.dumps(trainer.dataset_json))
    return folder


def _logits(network, x):
    with torch.inference_mode():
        return network.eval()(x)[0]


def test_a_primus_learns_continues_and_becomes_a_bundle(train, tmp_path):
    trainer, x = train(), torch.randn(1, 1, 16, 16, 16)
    assert (trainer.initial_lr, trainer.weight_decay, trainer.warmup_duration_whole_net) == (3e-4, 5e-2, 50)
    assert isinstance(trainer.optimizer, torch.optim.AdamW) and trainer._get_deep_supervision_scales() == [[1.0] * 3]
    bases, projection, bias = trainer.network(_batch()["data"])
    assert [basis.shape for basis in bases] == [(2, RANK, 16, 16, 16)]
    assert projection.shape == (CLASSES, RANK) and bias.shape == (CLASSES,)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 1e-2
    losses = [float(trainer.train_step(_batch())["loss"]) for _ in range(4)]
    assert losses[-1] < losses[0]
    missing = [name for name, p in trainer.network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert missing == []
    with torch.no_grad():
        counts = trainer.validation_step(_batch())
    assert counts["tp_hard"].shape == (CLASSES - 1,) and float(counts["loss"]) < losses[0]
    trainer.current_epoch = 51
    folder = _save(trainer)
    again = train()
    again.load_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    assert again.training_stage == "train" and again.current_epoch == 52
    state = trainer.network.state_dict()
    assert all(value.equal(state[name]) for name, value in again.network.state_dict().items())

    backbone, split = trainer._split_network()
    trainer.set_deep_supervision_enabled(False)
    expected, basis = _logits(trainer.network, x), _logits(backbone.networks[0], x)
    mine = (split.weight @ basis.flatten(1) + split.bias[:, None]).view_as(expected)
    opened = open_model(folder), open_model(export_bundle(folder, tmp_path / "primus.zip"))
    for found in (mine, *(logits(model, x) for model in opened)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert all(model.rank == RANK and model.projects and not model.average_folds for model in opened)
    assert summarize(folder).parameters == sum(p.numel() for p in trainer.network.parameters())
    with pytest.raises(ModelError, match="no trainer of nnU-Net builds this Primus"):
        export_stock(folder, tmp_path / "stock")
    assert not (tmp_path / "stock").exists()


def test_a_published_size_is_trained_under_any_plans_and_read_by_stock_nnunet(train, tmp_path, monkeypatch):
    monkeypatch.setitem(networks._SIZES, "M", (24, 2, 2))
    trainer = train(ClassScaleTrainer_Primus_M, small_plans())
    trainer.set_deep_supervision_enabled(False)
    head = trainer.network.up_projection.seg_layers
    assert head.projection.shape == (CLASSES, 32) and trainer.network.eva.blocks[1].drop_path1.drop_prob == 0.2
    for tensor in trainer.network.up_projection.state_dict().values():  # as after training
        tensor.copy_(torch.randn(tensor.shape) / 3)
    folder = _save(trainer)
    stock = export_stock(folder, tmp_path / "stock")
    checkpoint = torch.load(stock / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNet_Primus_M_Trainer"
    network, x = stock_primus(classes=CLASSES), torch.randn(1, 1, 16, 16, 16)
    network.load_state_dict(checkpoint["network_weights"], strict=True)
    expected = _logits(trainer.network, x)
    torch.testing.assert_close(_logits(network, x), expected, rtol=1e-4, atol=1e-4)
    plans, weights = json.loads((folder / "plans.json").read_text()), trainer.network.state_dict()
    managers = PlansManager(plans), PlansManager(plans).get_configuration("3d_fullres")
    rebuilt = ClassScaleTrainer_Primus_M.build_network_architecture(*managers, 1, CLASSES, False)  # nnUNetv2_predict
    rebuilt.load_state_dict(weights, strict=True)
    assert torch.equal(_logits(rebuilt, x), expected)
    first, second = open_model(folder), open_model(stock)
    assert (first.rank, second.rank) == (32, CLASSES) and second.average_folds
    for model in (first, second):
        torch.testing.assert_close(logits(model, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rank", "classes"), [(6, 300), (6, 6), (2, 21)])
def test_weights_embedded_into_wider_layers_give_the_same_logits(rank, classes):
    torch.manual_seed(1)
    network = add_head(stock_primus(classes=rank), classes)
    network.up_projection.deep_supervision = False
    torch.nn.init.normal_(network.up_projection.seg_layers.bias)
    wide, x = stock_primus(classes=classes, seed=9), torch.randn(1, 1, 16, 16, 16)
    wide.load_state_dict(fold_patch_head(network.state_dict(), [8, 8, 8]), strict=True)
    torch.testing.assert_close(_logits(wide, x), _logits(network, x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="no low-rank head"):
        fold_patch_head(wide.state_dict(), [8, 8, 8])


def test_the_plans_and_the_trainer_must_fit_each_other(train):
    with pytest.raises(ModelError, match=r"names a Primus, .* with -tr ClassScaleTrainer_Primus"):
        train(ClassScaleTrainer)
    with pytest.raises(ModelError, match="they name a U-Net. Choose a trainer with a size"):
        train(ClassScaleTrainer_Primus, small_plans())
    odd = small_plans()
    odd["configurations"]["3d_fullres"]["patch_size"] = [16, 20, 16]
    with pytest.raises(ModelError, match="patch_size 20 is not divisible by 8"):
        train(ClassScaleTrainer_Primus_M, odd)
    with pytest.raises(ModelError, match="classscale_rank is 41; a whole number from 1 to 40"):
        train(ClassScaleTrainer_Primus, primus_plans(classscale_rank=41))
    own = small_plans()
    own["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "my_networks.SharedDecoderUNet"
    with pytest.raises(ModelError, match="'my_networks.SharedDecoderUNet' is not supported"):
        train(ClassScaleTrainer, own)
    network = train(ClassScaleTrainer, small_plans("ResidualUNet")).network
    assert network.decoder.seg_layers.projection.shape == (CLASSES, 8)


def test_a_pretrained_primus_is_taken_over_with_its_positions(tmp_path):
    """The encoder as nnssl writes it: the names of its parts stand in its plan."""
    encoder = stock_primus(seed=5)
    names = {"key_to_encoder": "eva", "key_to_stem": "down_projection", "key_to_lpe": "eva.pos_embed"}
    weights = {name: value for name, value in encoder.state_dict().items() if not name.startswith("up_projection")}
    file = tmp_path / "openmind.pth"
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": names}, file)

    def build():
        return add_head(stock_primus(channels=2, classes=RANK), CLASSES)

    network = build()
    with whole_network(file, build) as whole:
        load_pretrained_weights(network, str(whole))
    for name, value in weights.items():
        if name.startswith(("eva.", "down_projection.")):
            if name == "down_projection.proj.weight":
                value = value.repeat(1, 2, 1, 1, 1) / 2
            assert value.equal(network.state_dict()[name]), name
    weights["eva.pos_embed"] = torch.zeros(1, 27, 24)
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": names}, file)
    with pytest.raises(ModelError, match=r"eva.pos_embed has shape \(1, 27, 24\), the network has \(1, 8, 24\)"):
        with whole_network(file, build):
            pass
