"""Begin a training with the weights of a model: those of the same classes, in any order, and the model's plans."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("nnunetv2")
import torch
from classscale_training.commands import main
from classscale_training.data.toy.options import ToyOptions
from classscale_training.data.toy_dataset import write_toy_dataset
from classscale_training.network.low_rank_head import FinestBasis, add_head
from classscale_training.nnunet.known_classes import LastLayer, Rows, adopt_rows, same_classes
from classscale_training.nnunet.new_classes import Samples, begin_new_classes, fit_rows
from classscale_training.nnunet.pretrained import adopt_head, is_unmirrored, whole_network
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.models.packing import pack
from conftest import small_dataset, small_plans, stock_network, totalsegmentator_plans
from tiny_nnunet import PLANS, TRAINER, set_environment, write_trainer

ORGANS = {"background": 0, "liver": 1, "kidney_left": 2, "kidney_right": 3, "spleen": 4, "aorta": 5}
OTHERS = {"background": 0, "Spleen": 1, "tumour": 2, "left kidney": 3}
IMAGE = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def rows(labels: dict, **more) -> Rows:
    return Rows.of_dataset(small_dataset(labels, **more))


def build(labels: dict = OTHERS, rank: int | None = None, plans: dict | None = None):
    """Returns a function that builds the network to be trained, with random weights."""
    return lambda: add_head(stock_network(plans or small_plans(), small_dataset(labels), seed=7), len(labels), rank)


def begun(source: Path, make=None, here: Rows | None = None) -> tuple[torch.nn.Module, str | None]:
    """Return a network that begins as a training does, and what the log says."""
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    make = make or build()
    network = make()
    with whole_network(source, make, here or rows(OTHERS)) as whole:
        load_pretrained_weights(network, str(whole))
        adopted = adopt_head(network, whole)
        return network, None if adopted is None else adopted[0]


def outputs(network: torch.nn.Module) -> torch.Tensor:
    network.eval()
    network.decoder.deep_supervision = False
    with torch.no_grad():
        return network(IMAGE)[0]


def test_the_same_classes_are_found_by_words_sides_and_codes():
    assert same_classes(rows(ORGANS), rows(OTHERS)) == {0: 0, 1: 4, 3: 2}
    coded = rows({"background": 0, "kidney_left": 1})
    german = replace(coded.table[1], name="Niere links")  # with the codes of the left kidney
    named = replace(coded, table=LabelTable((coded.table[0], german)))
    assert same_classes(named, rows(OTHERS)) == {0: 0, 3: 1}
    twice = rows({"background": 0, "left kidney": 1, "Left_Kidney": 2})
    assert same_classes(rows(ORGANS), twice) == {0: 0}  # none is taken where two would fit


def test_regions_and_labels_have_nothing_in_common():
    regions = {"background": 0, "whole": [1, 2], "spleen": [2]}
    order = {"regions_class_order": [1, 2]}
    assert same_classes(rows(ORGANS), rows(regions, **order)) == {}
    others = {"background": 0, "edema": [3], "Spleen": [1, 2]}
    assert same_classes(rows(regions, **order), rows(others, **order)) == {1: 1}


def test_known_classes_keep_their_logits_and_new_ones_begin_with_their_mean(write_model):
    model = write_model(dataset=small_dataset(ORGANS), seeds=(3,))
    network, told = begun(model)
    assert told == "The network begins with the weights of 2 of its 3 classes. These are new: tumour."
    before = outputs(stock_network(small_plans(), small_dataset(ORGANS), seed=3))
    wanted = torch.stack([before[0], before[4], before.mean(0), before[2]])
    torch.testing.assert_close(outputs(network), wanted, rtol=0, atol=1e-4)
    network.decoder.deep_supervision = True
    bases, _, _ = network(IMAGE)
    assert bases[0].any() and not bases[1].any()  # the coarser scales have nothing to say yet


def test_all_sources_of_the_same_model_give_the_same_network(write_model, tmp_path):
    model = write_model(dataset=small_dataset(ORGANS))
    bundle = pack(model, tmp_path / "model.zip")
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    named = tmp_path / "named.pth"
    torch.save({**content, "init_args": {"dataset_json": small_dataset(ORGANS)}}, named)
    wanted = outputs(begun(model)[0])
    for source in (bundle, named):
        network, told = begun(source)
        assert told is not None
        torch.testing.assert_close(outputs(network), wanted, rtol=0, atol=1e-5)
    nameless, told = begun(file)  # whose rows could be anything
    assert told is None
    assert not torch.allclose(outputs(nameless), wanted, atol=1e-2)
    _, told = begun(model, here=rows({"background": 0, "one": 1, "two": 2, "three": 3}))
    assert told is None


def test_a_model_that_was_trained_without_mirroring_is_known(write_model, tmp_path):
    def unmirrored(source: Path) -> bool:
        with whole_network(source, build(), rows(OTHERS)) as whole:
            return is_unmirrored(whole)

    model = write_model(dataset=small_dataset(ORGANS))
    assert not unmirrored(model)
    file = forget_mirroring(model)
    assert unmirrored(model) and unmirrored(pack(model, tmp_path / "model.zip"))
    content = {**torch.load(file, weights_only=False), "init_args": {"dataset_json": small_dataset(ORGANS)}}
    torch.save(content, tmp_path / "never.pth")
    torch.save({**content, "inference_allowed_mirroring_axes": (0, 1, 2)}, tmp_path / "mirrored.pth")
    assert unmirrored(tmp_path / "never.pth") and not unmirrored(tmp_path / "mirrored.pth")
    torch.save({"network_weights": content["network_weights"]}, tmp_path / "bare.pth")
    assert not unmirrored(tmp_path / "bare.pth")  # which does not say how it was trained


def forget_mirroring(model: Path) -> Path:
    """Let a model be one that was trained without mirroring, and return its checkpoint."""
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "inference_allowed_mirroring_axes": None}, file)
    return file


def test_a_lower_rank_keeps_what_fits_into_it(write_model, tmp_path):
    trained = build(ORGANS, rank=3)()
    model = write_model(dataset=small_dataset(ORGANS))
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "network_weights": trained.state_dict()}, file)
    network, _ = begun(model, build(rank=3))
    before = outputs(trained)
    wanted = torch.stack([before[0], before[4], before.mean(0), before[2]])
    torch.testing.assert_close(outputs(network), wanted, rtol=0, atol=1e-4)
    weight = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]))  # two directions matter most
    network = build({"background": 0, **{f"organ {value}": value for value in range(1, 8)}}, rank=2)()
    assert adopt_rows(network, LastLayer(weight, torch.zeros(8)), {row: row for row in range(8)})
    head = network.decoder.seg_layers
    found = head.projection @ head[-1].weight.flatten(1)
    torch.testing.assert_close(found, torch.diag(torch.tensor([4.0, 3.0, *[0.0] * 6])))


def test_new_rows_are_fitted_and_all_else_stays():
    torch.manual_seed(0)
    network = build({"background": 0, "liver": 1, "new": 2, "not there": 3})()
    head = network.decoder.seg_layers
    centres = torch.eye(3, 8, dtype=torch.float64) * 4
    labels = torch.randint(0, 3, (3000,))
    basis = centres[labels] + torch.randn(3000, 8, dtype=torch.float64)
    with torch.no_grad():  # the known rows tell each other apart, and take the new class for themselves
        head.projection[:2] = 3 * centres[:2].float() + centres[2].float()
        head.projection[2:] = head.projection[:2].mean(0)
        head.bias.zero_()
    before = head.projection.detach().clone(), head.bias.detach().clone()

    def logits():
        return basis @ head.projection.detach().double().T + head.bias.detach().double()

    other = logits()
    other[:, 2] = -torch.inf
    own = logits().gather(1, labels[:, None])[:, 0]
    assert (logits().argmax(1) == labels)[labels == 2].double().mean() < 0.1
    new = torch.where(labels == 2, 0, -1)
    fit_rows(head, [2], Samples(basis, other.logsumexp(1), own, new, torch.ones(3000, dtype=torch.float64)))
    assert (logits().argmax(1) == labels).double().mean() > 0.97
    others = [0, 1, 3]
    assert torch.equal(head.projection[others], before[0][others]) and torch.equal(head.bias[others], before[1][others])


def test_what_only_the_model_knows_becomes_background(write_model):
    model = write_model(small_plans(), small_dataset({"background": 0, "liver": 1, "spleen": 2, "kidney": 3}))
    for names, fitted in (
        ({"background": 0, "spleen": 1, "liver": 2, "kidney": 3}, []),
        ({"background": 0, "spleen": 1, "new": 2, "kidney": 3, "liver": 4}, [2]),
        ({"background": 0, "spleen": 1, "kidney": 2}, [0]),
        ({"background": 0, "spleen": 1, "new": 2}, [0, 2]),
    ):
        with whole_network(model, build(names), rows(names)) as whole:
            assert adopt_head(build(names)(), whole)[1] == fitted, names


@pytest.mark.parametrize("rows", [[0], [0, 3]])  # the new class is in no case
def test_the_background_is_fitted_to_what_it_contains_now(tmp_path, rows):
    """The rows of the model take the background for spleen: its own class for these voxels is gone."""
    torch.manual_seed(0)
    network = build({"background": 0, "liver": 1, "spleen": 2, "new": 3})()
    head = network.decoder.seg_layers
    image = np.random.default_rng(0).normal(size=(1, 24, 24, 24)).astype(np.float32)
    labels = np.zeros(image.shape, np.int16)
    labels[:, 16:, :, :12], labels[:, 20:, :, 12:] = 1, 2
    locations = {value: np.argwhere(labels == value) for value in (1, 2)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"class_locations": locations}))
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.0, 1.0, 5.0, 0.0]))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer = SimpleNamespace(
        bare_network=network,
        device=torch.device("cpu"),
        preprocessed_dataset_folder=str(tmp_path),
        dataset_class=lambda folder, names: SimpleNamespace(load_case=lambda name: (image, labels, None, {})),
        configuration_manager=SimpleNamespace(patch_size=(16, 16, 16)),
        label_manager=SimpleNamespace(ignore_label=None),
    )

    def taken() -> float:
        with torch.no_grad():
            basis = FinestBasis(network)(torch.from_numpy(image)[None, :, :16, :16, :16])
            return float((head.logits(basis).argmax(1) == 0).float().mean())

    network.eval()
    assert taken() < 0.1
    assert begin_new_classes(trainer, rows, ["a"]) == (0, 2 * 1)
    assert taken() > 0.9
    after = network.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"projection", "bias"}
    assert all(torch.equal(after[name][1:], before[name][1:]) for name in changed)


def test_a_primus_takes_over_its_basis_and_its_classes(tmp_path):
    from tiny_primus import stock_primus

    def make(classes=len(OTHERS)):
        return add_head(stock_primus(classes=6, seed=5), classes)

    torch.manual_seed(1)
    trained = make(len(ORGANS))
    file = tmp_path / "primus.pth"
    torch.save({"network_weights": trained.state_dict(), "init_args": {"dataset_json": small_dataset(ORGANS)}}, file)
    network, told = begun(file, make)
    assert told == "The network begins with the weights of 2 of its 3 classes. These are new: tumour."
    for each in (trained, network):
        each.eval()
        each.up_projection.deep_supervision = False
    with torch.no_grad():
        before, after = trained(IMAGE)[0], network(IMAGE)[0]
    torch.testing.assert_close(after[[0, 1, 3]], before[[0, 4, 2]], rtol=0, atol=1e-5)
    other, told = begun(file, lambda: add_head(stock_primus(classes=5, seed=5), len(OTHERS)))
    assert told is None  # its basis has other channels


def test_a_network_without_a_low_rank_head_begins_as_in_nnunet(write_model):
    model = write_model(dataset=small_dataset(ORGANS))
    with whole_network(model, lambda: stock_network(small_plans(), small_dataset(OTHERS)), rows(OTHERS)) as whole:
        assert adopt_head(stock_network(small_plans(), small_dataset(OTHERS)), whole) is None


DATASET = 706


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders of nnU-Net with a toy dataset of two cases."""
    folder = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, folder)
        write_toy_dataset(ToyOptions(classes=3, size=16), DATASET, 2)
        yield folder


def plan(model: Path | str, *more: str) -> int:
    return main(["plan", "-d", str(DATASET), "--like", str(model), "-npfp", "1", "--no_pbar", *more])


def planned(root: Path) -> dict:
    return json.loads((next((root / "preprocessed").iterdir()) / f"{PLANS}.json").read_text())


def test_a_dataset_is_planned_like_a_model_and_begins_with_its_classes(root, tmp_path, write_model, capsys):
    labels = {"background": 0, "cell 2": 1, "kidney_left": 2}
    theirs = small_plans()
    theirs["configurations"]["3d_fullres"]["spacing"] = [8.0, 8.0, 8.0]  # that of the toy
    model = write_model(theirs, small_dataset(labels))
    kidney = LabelTable.from_names({3: "kidney_left"})[3]  # by whose codes the third class of the dataset is called
    LabelTable((replace(kidney, name="cell 3"),)).to_csv(next((root / "raw").iterdir()) / "labels.csv")
    assert plan(model) == 0
    out, err = capsys.readouterr()
    assert "The plans of dataset 706 are ClassScalePlans, with the configuration 3d_fullres of Dataset007_Small." in out
    assert "the model was trained on CT, the dataset has toy" in err
    plans, entries = planned(root), planned(root)["configurations"]["3d_fullres"]
    assert [*plans["configurations"]] == ["3d_fullres"]
    for key in ("spacing", "patch_size", "normalization_schemes"):
        assert entries[key] == theirs["configurations"]["3d_fullres"][key], key
    assert entries["architecture"]["arch_kwargs"]["features_per_stage"] == [8, 12, 16]
    intensities = "foreground_intensity_properties_per_channel"
    assert plans[intensities] == theirs[intensities]
    assert (plans["dataset_name"], plans["plans_name"]) == ("Dataset706_ToyAtlas3", PLANS)
    assert entries["data_identifier"] == f"{PLANS}_3d_fullres"
    assert main(["preprocess", "-d", str(DATASET), "-c", "3d_fullres", "-np", "1", "--no_pbar"]) == 0
    write_trainer(root, 1)
    forget_mirroring(model)
    command = ["train", str(DATASET), "3d_fullres", "all", "-tr", TRAINER, "-device", "cpu"]
    assert main([*command, "-pretrained_weights", str(model)]) == 0
    sentence = "The network begins with the weights of 2 of its 3 classes. These are new: cell 1."
    assert sentence in capsys.readouterr().out
    (log,) = root.rglob("training_log_*.txt")
    assert sentence in log.read_text()
    assert "Of 1 new classes, the rows of 1 were fitted to 2 patches." in log.read_text()
    assert log.read_text().count("This split has") <= 1
    assert "The model was trained without mirroring, but this trainer mirrors images" in log.read_text()


def test_own_configurations_and_another_rank_are_kept(root, write_model, capsys):
    model = write_model()
    assert plan(model) == 0
    file = next((root / "preprocessed").iterdir()) / f"{PLANS}.json"
    plans = planned(root)
    plans["configurations"] |= {
        "mine": {"inherits_from": "3d_fullres", "batch_size": 5},
        "larger": {"inherits_from": "mine", "batch_size": 6},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "flat": {"inherits_from": "2d", "batch_size": 7},
    }
    file.write_text(json.dumps(plans))
    capsys.readouterr()
    assert plan(model, "--rank", "4") == 0
    assert "not derived from that of the model are left out: flat." in capsys.readouterr().err
    configurations = planned(root)["configurations"]
    assert [*configurations] == ["3d_fullres", "mine", "larger"]
    assert configurations["larger"]["batch_size"] == 6
    assert configurations["mine"]["batch_size"] == 5
    assert configurations["3d_fullres"]["classscale_rank"] == 4
    assert plan(model, "--rank", "9") != 0
    assert "The rank is 9, but the finest scale of the network has 8 channels" in capsys.readouterr().err


def test_images_are_turned_as_those_of_the_model(root, tmp_path, write_model, capsys):
    plans = totalsegmentator_plans()  # which are old, and of images in RAS, though they do not say so
    assert plan(write_model(plans)) == 0
    made = planned(root)
    assert made["image_reader_writer"] == "SimpleITKIOWithReorient"
    intensities = "foreground_intensity_properties"
    assert made[f"{intensities}_per_channel"] == plans[f"{intensities}_by_modality"]
    assert made["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] == [32, 64, 64]
    assert "turn them" not in capsys.readouterr().err
    bundle = pack(write_model(), tmp_path / "model.zip", orientation="ASR")
    assert plan(bundle) == 0
    assert planned(root)["image_reader_writer"] == "SimpleITKIO"
    assert "trained on images in ASR, but of the dataset are 2 in LPS: turn them" in capsys.readouterr().err


def test_what_does_not_suit_is_refused(root, tmp_path, write_model, capsys):
    two = write_model(small_plans(channels=2), small_dataset(3, channels=2), root=tmp_path / "two")
    refused = {
        (str(two),): "was trained on 2 channels (CT, CT), but the dataset has 1 (toy)",
        (str(tmp_path / "none.zip"),): "none.zip does not exist",
        ("toy-120", "-pl", "nnUNetPlannerResEncL"): "the model decides what -pl would decide",
        ("toy-120", "-gpu_memory_target", "8"): "the model decides what -gpu_memory_target would decide",
    }
    for arguments, sentence in refused.items():
        assert plan(*arguments) != 0
        assert sentence in capsys.readouterr().err
