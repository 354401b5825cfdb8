"""The low-rank head on networks that nnU-Net builds: shapes, gradients, compilation, DDP, and the fold into stock's."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import torch
from classscale_training import ClassScaleHead, CrossEntropyDiceLoss, DeepSupervisionLoss, SoftDice
from classscale_training.network.low_rank_head import add_head
from classscale_training.nnunet.pretrained import whole_network
from ClassScaleSegLib import open_model
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.models.low_rank import fold_low_rank_head
from ClassScaleSegLib.resources import resource
from conftest import small_dataset, small_plans, stock_network
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

CLASSES = 21
ARCHITECTURES = [("PlainConvUNet", 3), ("ResidualEncoderUNet", 3), ("PlainConvUNet", 2)]


def network_with_head(architecture="PlainConvUNet", dimension=3, rank=None, channels=1):
    network = stock_network(small_plans(architecture, dimension, channels), small_dataset(CLASSES - 1, channels))
    network.decoder.deep_supervision = True
    torch.manual_seed(1)
    network = add_head(network, CLASSES, rank).train()
    torch.nn.init.normal_(network.decoder.seg_layers.bias)
    return network


def image(dimension=3, channels=1):
    return torch.randn(2, channels, *[16] * dimension, generator=torch.Generator().manual_seed(2))


def labels_of(bases):
    return [torch.randint(0, CLASSES, (len(b), 1, *b.shape[2:])) for b in bases]


@pytest.mark.parametrize(("architecture", "dimension"), ARCHITECTURES)
def test_training_gives_bases_finest_first_and_evaluation_the_logits_they_stand_for(architecture, dimension):
    network, x = network_with_head(architecture, dimension, rank=6), image(dimension)
    bases, projection, bias = network(x)
    assert [tuple(b.shape[1:]) for b in bases] == [(6, *[16] * dimension), (6, *[8] * dimension)]
    assert projection.shape == (CLASSES, 6) and bias.shape == (CLASSES,)
    network.decoder.deep_supervision = False
    logits = network(x)
    expected = torch.einsum("cr,br...->bc...", projection, bases[0]) + bias.view(1, -1, *[1] * dimension)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "dimension"), ARCHITECTURES)
def test_folded_weights_load_strictly_into_stocks_network_and_give_the_same_logits(architecture, dimension):
    network, x = network_with_head(architecture, dimension, rank=5).eval(), image(dimension)
    stock = stock_network(small_plans(architecture, dimension), small_dataset(CLASSES - 1), seed=9)
    stock.load_state_dict(fold_low_rank_head(network.state_dict()), strict=True)
    bases, projection, bias = network(x)
    stock.decoder.deep_supervision = True
    for basis, logits in zip(bases, stock(x), strict=True):  # every scale
        torch.testing.assert_close(network.decoder.seg_layers.logits(basis), logits, rtol=1e-4, atol=1e-5)


def test_weights_without_our_head_cannot_be_folded():
    with pytest.raises(ModelError, match="no low-rank head"):
        fold_low_rank_head(stock_network(small_plans(), small_dataset()).state_dict())


def test_logits_begin_with_the_variance_that_stocks_have():
    torch.manual_seed(0)
    features = torch.nn.functional.leaky_relu(torch.randn(1, 32, 40, 40, 40))
    head = ClassScaleHead([64, 32], 300)
    ours = head.logits(head[-1](features)).var().item()
    layer = torch.nn.Conv3d(32, 300, 1)
    torch.nn.init.kaiming_normal_(layer.weight, a=1e-2)
    theirs = layer(features).var().item()
    assert ours == pytest.approx(theirs, rel=0.3)


def test_rank_is_32_or_what_the_finest_scale_has_and_a_larger_one_is_refused():
    assert len(ClassScaleHead([320, 64, 32], 1001).projection[0]) == 32
    assert network_with_head().decoder.seg_layers.projection.shape == (CLASSES, 8)
    with pytest.raises(ModelError, match="rank is 9, but the finest scale of the network has 8 channels"):
        network_with_head(rank=9)
    with pytest.raises(ModelError, match="rank is 0"):
        network_with_head(rank=0)


def test_a_network_without_such_a_decoder_is_refused():
    with pytest.raises(ModelError, match="Linear does not end in the decoder"):
        add_head(torch.nn.Linear(2, 2), 5)


def test_every_parameter_gets_a_gradient_and_ddp_finds_them_all():
    network = network_with_head()
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(network)
        loss = DeepSupervisionLoss(CrossEntropyDiceLoss(SoftDice(ddp=True)), ddp=True)
        for _ in range(2):  # DDP complains of parameters without gradient at the second step
            parallel.zero_grad()
            bases, projection, bias = parallel(image())
            loss(bases, projection, bias, labels_of(bases)).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.decoder.seg_layers.parameters())


def test_compilation_traces_the_network_whole_in_both_modes():
    network, x = network_with_head(), image()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    for deep_supervision in (True, False):
        network.decoder.deep_supervision = deep_supervision
        found, expected = compiled(x), network(x)
        if deep_supervision:
            bases, projection, bias = found
            torch.testing.assert_close(bases, expected[0])
            DeepSupervisionLoss(CrossEntropyDiceLoss())(bases, projection, bias, labels_of(bases)).backward()
            assert network.decoder.seg_layers.projection.grad.abs().sum() > 0
            assert network.encoder.stages[0][0].convs[0].conv.weight.grad.abs().sum() > 0
        else:
            torch.testing.assert_close(found, expected)


def test_nnunets_pretrained_weights_pass_over_the_head(tmp_path, capsys):
    pretrained = stock_network(small_plans(), small_dataset(3), seed=5)
    torch.save({"network_weights": pretrained.state_dict()}, tmp_path / "checkpoint.pth")
    network = network_with_head()
    before = copy.deepcopy(network.decoder.seg_layers.state_dict())
    load_pretrained_weights(network, str(tmp_path / "checkpoint.pth"))
    weights = network.state_dict()
    same = [name for name, value in pretrained.state_dict().items() if name in weights and value.equal(weights[name])]
    assert len(same) == sum(".seg_layers." not in name for name in weights)
    assert all(value.equal(before[name]) for name, value in network.decoder.seg_layers.state_dict().items())


@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_an_encoder_as_nnssl_writes_it_is_taken_over_and_its_first_layer_repeated(tmp_path, architecture):
    encoder = stock_network(small_plans(architecture), small_dataset(3), seed=5)
    plan = {
        "key_to_encoder": f"net.{encoder.key_to_encoder}",
        "key_to_stem": f"net.{encoder.key_to_stem}",
        "keys_to_in_proj": [f"net.{key}" for key in encoder.keys_to_in_proj],
        "pretrain_num_input_channels": 1,
    }
    weights = {f"net.{name}": value for name, value in encoder.state_dict().items() if name.startswith("encoder.")}
    file = tmp_path / "openmind.pth"
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": plan}, file)
    network = network_with_head(architecture, channels=2)
    with whole_network(file, lambda: network_with_head(architecture, channels=2)) as whole:
        load_pretrained_weights(network, str(whole))
    first = f"{encoder.keys_to_in_proj[0]}.weight"
    for name, value in encoder.state_dict().items():
        if not name.startswith("encoder."):
            continue
        if value.ndim == 5 and value.shape[1] == 1:
            value = value.repeat(1, 2, 1, 1, 1) / 2
        assert value.equal(network.state_dict()[name]), name
    assert network.state_dict()[first].shape[1] == 2


def test_a_model_of_the_catalogue_gives_all_but_its_last_layer():
    model = open_model(resource("Models", "toy-120.zip"))
    plans = {**small_plans(), "configurations": {"3d_fullres": dict(model.configuration.configuration)}}
    stock = stock_network(plans, small_dataset(CLASSES - 1), seed=5)
    stock.decoder.deep_supervision = True
    network = add_head(stock, CLASSES)
    with whole_network(Path("toy-120"), lambda: network) as whole:
        weights = torch.load(whole, weights_only=True)["network_weights"]
    known = model.backbones[0].state_dict()
    shared = [name for name in known if ".seg_layers." not in name]
    assert shared and all(known[name].equal(weights[name]) for name in shared)
    with pytest.raises(ModelError, match="toy-120: the model does not fit the plans: encoder.stages.0"):
        with whole_network(Path("toy-120"), network_with_head):
            pass


def test_an_encoder_of_another_architecture_is_refused_by_name(tmp_path):
    encoder = stock_network(small_plans("ResidualEncoderUNet"), small_dataset(3))
    plan = {"key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stem"}
    file = tmp_path / "openmind.pth"
    torch.save({"network_weights": encoder.state_dict(), "nnssl_adaptation_plan": plan}, file)
    with pytest.raises(ModelError, match="openmind.pth: the encoder does not fit the plans"):
        with whole_network(file, network_with_head):
            pass
    with pytest.raises(ModelError, match="missing.pth does not exist"):
        with whole_network(tmp_path / "missing.pth", network_with_head):
            pass
