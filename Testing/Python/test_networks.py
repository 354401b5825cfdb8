"""Networks beyond the two that nnU-Net's planners write: the engine gives the logits and labels of nnU-Net's own."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import pkgutil
import zipfile

import numpy as np
import pytest
import torch
from conftest import logits, small_dataset, small_plans, stock_network, write_checkpoint
from live_tensors import Live
from odd_json import WEIRD
from tiny_primus import KINDS, PATH, add_fold, primus_plans, stock_primus

pytest.importorskip("nnunetv2")
from ClassScaleSegLib import open_model, pack, segment  # noqa: E402
from ClassScaleSegLib.commands.main import main  # noqa: E402
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.inference.backbone import Backbone  # noqa: E402
from ClassScaleSegLib.inference.memory_estimate import describe_need, estimate  # noqa: E402
from ClassScaleSegLib.models import networks  # noqa: E402
from ClassScaleSegLib.models.advice import advise_on_network  # noqa: E402
from ClassScaleSegLib.models.architecture import check_architecture  # noqa: E402
from ClassScaleSegLib.models.network import construct_network  # noqa: E402
from ClassScaleSegLib.models.primus import count_primus, decoder_strides, decoder_widths, peak_channels  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402
from ClassScaleSegLib.models.torchvision_import import make_torchvision_importable  # noqa: E402

make_torchvision_importable()


def write(folder, plans, dataset, *folds, **more):
    """Write a model folder with these networks, whatever the plans say of them."""
    for fold, network in enumerate(folds):
        add_fold(folder, network, fold, **more)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_primus_of_the_plans_gives_the_logits_of_nnunets_class(tmp_path, kind):
    dataset, folds = small_dataset(20, channels=2), [stock_primus(kind, 2, seed=seed) for seed in range(2)]
    folder = write(tmp_path / "model", primus_plans(kind, 2), dataset, *folds)
    model, x = open_model(folder), torch.randn(1, 2, 16, 16, 16)
    with torch.inference_mode():
        expected = sum(network(x)[0] for network in folds) / 2
    torch.testing.assert_close(logits(model, x), expected, rtol=1e-5, atol=1e-5)
    assert model.average_folds and model.rank == 21 and not model.projects
    summary = summarize(folder)
    assert summary.parameters == sum(p.numel() for p in folds[0].parameters())
    image = ((40, 40, 40), (1.0, 1.0, 1.0))
    assert estimate(summary, *image) == estimate(model, *image)
    assert "; this grows with the number" in describe_need(estimate(summary, *image), "cpu")
    assert "its 21 classes are kept" in advise_on_network(summary)[0]


def test_a_primus_as_a_bundle_is_the_same_model_and_its_facts_have_a_warning(tmp_path, monkeypatch, capsys):
    network = stock_primus()
    folder = write(tmp_path / "model", primus_plans(), small_dataset(20), network)
    bundle, x = pack(folder, tmp_path / "primus.zip"), torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(logits(open_model(bundle), x), logits(open_model(folder), x))
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))
    assert main(["models", "add", str(bundle), "--name", "Primus"]) == 0
    assert main(["models", "info", "own-primus"]) == 0
    assert "warning  The network of this model ends in a transposed convolution" in capsys.readouterr().out
    bundle.write_bytes(b"no zip")
    assert main(["models", "info", "own-primus"]) == 0 and str(bundle) in capsys.readouterr().out.split("warning")[1]


def _stock_labels(network, plans, dataset, image, monkeypatch):
    from nnunetv2.inference import predict_from_raw_data, sliding_window_prediction
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    weights = sliding_window_prediction.compute_gaussian  # nnU-Net adds windows in half precision, see test_trainer
    monkeypatch.setattr(torch, "half", torch.float32)
    monkeypatch.setattr(predict_from_raw_data, "compute_gaussian", functools.partial(weights, dtype=torch.float32))
    predictor = predict_from_raw_data.nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    manager = PlansManager(plans)
    configuration, parameters = manager.get_configuration("3d_fullres"), [network.state_dict()]
    predictor.manual_initialization(network, manager, configuration, parameters, dataset, None, (0, 1, 2))
    return predictor.predict_single_npy_array(image[None], {"spacing": [1.3, 1.0, 1.0]})


@pytest.mark.parametrize("kind", [*KINDS, "ResidualUNet"])
def test_the_labels_are_those_of_nnunets_prediction(tmp_path, kind, monkeypatch):
    import SimpleITK as sitk

    dataset = small_dataset(20)
    plans = small_plans(kind) if kind == "ResidualUNet" else primus_plans(kind)
    network = stock_network(plans, dataset) if kind == "ResidualUNet" else stock_primus(kind)
    voxels = np.random.default_rng(0).normal(50, 30, (13, 18, 16)).astype(np.float32)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1.0, 1.0, 1.3))
    ours = segment(image, open_model(write(tmp_path / "m", plans, dataset, network)), device="cpu").labels
    theirs = _stock_labels(network, plans, dataset, voxels, monkeypatch)
    assert len(np.unique(theirs)) > 1 and np.count_nonzero(ours != theirs) <= 2  # stock decides ties in float32


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_residual_decoder_is_split_like_any_other(tmp_path, dimension):
    plans, dataset = small_plans("ResidualUNet", dimension), small_dataset(30)
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["n_conv_per_stage_decoder"] = [1, 2]
    network = stock_network(plans, dataset)
    model = open_model(write(tmp_path / "model", plans, dataset, network, mirror_axes=tuple(range(dimension))))
    x = torch.randn(1, 1, *[16] * dimension)
    with torch.inference_mode():
        torch.testing.assert_close(logits(model, x), network(x)[0], rtol=1e-5, atol=1e-5)
    assert model.rank == 8 and model.projects
    assert summarize(tmp_path / "model").parameters == sum(
        p.numel() for n, p in network.named_parameters() if not n.startswith("decoder.seg_layers.0.")
    )


def test_what_nnunets_trainers_change_in_the_network_is_known(tmp_path):
    """nnUNetTrainerBN normalises otherwise than its plans say, as does a folder that is only named after it."""
    from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, dataset = small_plans(), small_dataset(20)
    manager = PlansManager(json.loads(json.dumps(plans)))
    network = nnUNetTrainerBN.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 21, False)
    for name, values in network.state_dict().items():
        if name.endswith("running_var"):
            values.uniform_(0.5, 2)
    folder = write(tmp_path / "model", plans, dataset, network.eval(), trainer_name="nnUNetTrainerBN")
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(logits(open_model(folder), x), network(x)[0], rtol=1e-5, atol=1e-5)
    bundle = open_model(pack(folder, tmp_path / "bn.zip"))
    assert torch.equal(logits(bundle, x), logits(open_model(folder), x))
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", network)
    with pytest.raises(ModelError, match="running_mean is not part of the network"):
        open_model(folder)


def _trainers():
    """All trainer classes of nnU-Net that build a network of their own."""
    from nnunetv2.training import nnUNetTrainer as package
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    found = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            members = vars(importlib.import_module(module.name))
        except ImportError:  # a package that this trainer alone needs
            continue
        found |= {n: c for n, c in members.items() if inspect.isclass(c) and issubclass(c, nnUNetTrainer)}
    stock = nnUNetTrainer.build_network_architecture
    own = {n: c for n, c in found.items() if c.build_network_architecture is not stock}
    return {name: trainer for name, trainer in own.items() if not name.startswith("Abstract")}


def test_every_trainer_of_nnunet_that_builds_its_own_network_is_on_the_list():
    found = _trainers()
    assert set(found) == {*networks.PRIMUS_TRAINERS, networks.BATCH_NORM_TRAINER}

    class Configuration:
        patch_size = (64, 64, 32)

    one_of_each = {size: name for name, size in reversed(networks.PRIMUS_TRAINERS.items())}
    for size, name in one_of_each.items():
        if size.endswith(("B", "L")):  # as the others, only larger
            continue
        entries = {"patch_size": [64, 64, 32], "architecture": networks.trained_architecture(name, {}, 3)}
        check_architecture(entries)
        with torch.device("meta"):
            ours = construct_network(entries, 2, 40)
            stock = found[name].build_network_architecture(None, Configuration, 2, 40)
        assert str(ours).partition("(")[2] == str(stock).partition("(")[2]  # the size is in the name of stock's class
        assert {n: t.shape for n, t in ours.state_dict().items()} == {n: t.shape for n, t in stock.state_dict().items()}
        kind, _ = networks.find_network(entries["architecture"])
        count = count_primus(kind, entries["architecture"]["arch_kwargs"], 2, 40)
        assert count == sum(p.numel() for p in ours.parameters())
        assert networks.stock_trainer(entries["architecture"]) == name


@pytest.mark.parametrize("block", [[8, 8, 8], [2, 2, 2], [1, 4, 4], [4, 8, 16], [32, 32, 32], [64, 1, 2]])
@pytest.mark.parametrize("outputs", [2, 32, 1000])
def test_the_widths_of_the_decoder_are_those_of_nnunets_class(block, outputs):
    from dynamic_network_architectures.building_blocks.patch_encode_decode import PatchDecode

    with torch.device("meta"):
        decode = PatchDecode(block, 96, outputs).decode
    layers = [m for m in decode.modules() if isinstance(m, torch.nn.ConvTranspose3d)]
    assert [layers[0].in_channels, *[layer.out_channels for layer in layers]] == decoder_widths(96, block, outputs)
    assert [list(layer.stride) for layer in layers] == decoder_strides(block)


ARGUMENTS = ("configurations", "3d_fullres", "architecture", "arch_kwargs")
REFUSED = {
    "no width": ({"embed_dim": None}, "embed_dim is None"),
    "vast width": ({"embed_dim": 10**9}, "embed_dim is 1000000000"),
    "a bool": ({"eva_depth": True}, "eva_depth is True"),
    "deep": ({"eva_depth": 10**6}, "eva_depth is 1000000"),
    "heads": ({"eva_numheads": 5}, "divisible by eva_numheads"),
    "rotary": ({"embed_dim": 20}, "by 6 times as much"),
    "tokens of 3": ({"patch_embed_size": [3, 3, 3]}, "three powers of 2"),
    "tokens of 1": ({"patch_embed_size": [1, 1, 1]}, "does not fit Primus"),
    "flat": ({"patch_embed_size": [8, 8]}, "three powers of 2"),
    "ratio": ({"mlp_ratio": 1e9}, "mlp_ratio 1000000000"),
    "rate": ({"drop_path_rate": "x"}, "drop_path_rate 'x'"),
    "flag": ({"use_rot_pos_emb": "yes"}, "use_rot_pos_emb 'yes' must be"),
    "scale": ({"init_values": [1]}, "init_values"),
    "own norm": ({"decoder_norm": "evil.Norm"}, "may not be given 'decoder_norm'"),
    "own rotation": ({"rope_impl": "evil.Rope"}, "may not be given 'rope_impl'"),
    "input": ({"input_shape": [8, 8, 8]}, "is not the patch_size"),
    "registers": ({"num_register_tokens": -1}, "num_register_tokens is -1"),
    "deeper": ({"eva_depth": 3}, "the weights do not belong to plans.json: eva.blocks.2"),
}


@pytest.mark.parametrize("changes, sentence", REFUSED.values(), ids=REFUSED)
def test_arguments_of_a_primus_that_are_not_plausible_are_named(tmp_path, changes, sentence):
    plans = primus_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"] |= changes
    folder = write(tmp_path / "model", plans, small_dataset(20), stock_primus())
    with pytest.raises(ModelError, match=sentence):
        open_model(folder)


@pytest.mark.parametrize(
    "more, sentence",
    [
        ({"patch_size": [16, 20, 16]}, "patch_size 20 is not divisible by 8, the size of a token"),
        ({"patch_size": [16, 16], "spacing": [1.0, 1.0]}, "takes images of three dimensions"),
        ({"patch_size": [640, 640, 640]}, "tokens; at most 65536|at most 268435456"),
        ({"classscale_rank": 22}, "classscale_rank is 22; a whole number from 1 to 21"),
        ({"classscale_rank": 4}, "up_projection"),
    ],
)
def test_a_primus_whose_configuration_does_not_fit_is_refused(tmp_path, more, sentence):
    folder = write(tmp_path / "model", primus_plans(**more), small_dataset(20), stock_primus())
    with pytest.raises(ModelError, match=sentence):
        open_model(folder)


def test_another_number_of_classes_is_named_although_other_layers_depend_on_it(tmp_path):
    folder = write(tmp_path / "model", primus_plans(), small_dataset(21), stock_primus())
    with pytest.raises(ModelError, match="they have 21 classes, dataset.json has 22"):
        open_model(folder)


def test_a_size_in_the_name_of_the_class_and_a_trainer_mean_the_same(tmp_path):
    plans = primus_plans("Primus")
    entries = plans["configurations"]["3d_fullres"]
    entries["architecture"] = {"network_class_name": f"{PATH}PrimusS", "arch_kwargs": {"patch_embed_size": [8, 8, 8]}}
    named = dict(entries)
    check_architecture(named)
    trained = {**entries, "architecture": networks.trained_architecture("nnUNet_Primus_S_Trainer", {}, 3)}
    check_architecture(trained)
    assert {**trained["architecture"]["arch_kwargs"], "drop_path_rate": None} == {
        **named["architecture"]["arch_kwargs"],
        "drop_path_rate": None,
    }
    entries["architecture"]["arch_kwargs"]["eva_depth"] = 3
    with pytest.raises(ModelError, match="PrimusS may not be given 'eva_depth'"):
        check_architecture(dict(entries))


def test_what_is_not_on_the_list_is_told_what_would_have_to_be_true():
    for path in ("dynamic_network_architectures.architectures.resnet.ResNetD", "my_networks.SharedDecoderUNet", None):
        with pytest.raises(ModelError, match=r"not supported\. Use PlainConvUNet, .*kernel of 1, or in a transposed"):
            networks.find_network({"network_class_name": path})


@pytest.mark.parametrize("kind, width, rank", [("Primus", 96, 32), ("Primus", 192, 4), ("PrimusV2", 24, 8)])
def test_the_estimate_covers_the_feature_maps(kind, width, rank):
    plans = primus_plans(kind, patch_size=[32, 32, 32])
    entries = plans["configurations"]["3d_fullres"]
    entries["architecture"]["arch_kwargs"]["embed_dim"] = width
    check_architecture(entries)
    network = construct_network(entries, 1, rank).eval().requires_grad_(False)
    x = torch.randn(1, 1, 32, 32, 32)
    with Live(network) as live:
        Backbone([network])(x)
    expected = 4 * peak_channels(kind, entries["architecture"]["arch_kwargs"], rank) * 32**3
    assert live.peak <= expected <= 2 * live.peak


@pytest.mark.parametrize("rank", [None, 4])
def test_whatever_stands_in_the_plans_of_a_primus_it_opens_or_says_why_not(tmp_path, rank):
    """All entries of the architecture of a bundle with all odd values, summarized; a sample of them opened."""
    dataset, network = small_dataset(20), stock_primus("PrimusV3", classes=rank or 21)
    weights, plans = network.state_dict(), primus_plans("PrimusV3", classscale_rank=rank)
    if rank is not None:
        head = {"0.weight": torch.randn(21, rank, 1, 1, 1), "0.bias": torch.zeros(21)}
        weights |= {f"up_projection.seg_layers.{name}": tensor for name, tensor in head.items()}
    folder = write(tmp_path / "model", plans, dataset, weights)
    bundle = tmp_path / "bundle"
    with zipfile.ZipFile(pack(folder, tmp_path / "bundle.zip")) as archive:
        archive.extractall(bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert open_model(bundle).rank == (rank or 21)
    random, opened, tried = np.random.default_rng(0), 0, 0
    for path in [(*ARGUMENTS, key) for key in [*KINDS["PrimusV3"], "mlp_ratio", "add_skips", "use_abs_pos_embed"]] + [
        (*ARGUMENTS[:2], "classscale_rank"),
        (*ARGUMENTS[:2], "patch_size"),
        (*ARGUMENTS[:3], "network_class_name"),
    ]:
        for value in WEIRD:
            content = node = json.loads(json.dumps(plans))
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            text = json.dumps(content).encode()
            member = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
            (bundle / "plans.json").write_bytes(text)
            changed = {**manifest, "members": {**manifest["members"], "plans.json": member}}
            (bundle / "manifest.json").write_text(json.dumps(changed))
            tried += 1
            try:
                opened += (summarize if random.random() < 0.95 else open_model)(bundle).classes == 21
            except ModelError as error:
                assert len(str(error)) < 600 + len(str(bundle)), path
    assert tried > 200 and 5 < opened < tried / 2
