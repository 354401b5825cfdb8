"""Masked pretraining: what is hidden, its error, and nnU-Net's cycle from images to a training that starts from it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("nnunetv2")
import torch
from classscale_training.commands import main
from classscale_training.data.toy.options import ToyOptions
from classscale_training.data.toy_dataset import write_toy_dataset
from classscale_training.nnunet.pretrained import whole_network
from classscale_training.nnunet.pretraining.masking import (
    MaskedAutoencoder,
    check_block,
    hidden_variance,
    random_visible,
    reconstruction_error,
)
from classscale_training.nnunet.pretraining.patches import Share
from classscale_training.nnunet.pretraining.pretrainer import ClassScalePretrainer
from ClassScaleSegLib.errors import ModelError
from conftest import small_dataset, small_plans, stock_network
from forked_trainings import fork_trainings
from tiny_nnunet import CONFIGURATION, PLANS, TRAINER, add_tiny_configuration, set_environment, write_trainer

DATASET = 705
FOLDER = f"ClassScalePretrainer__{PLANS}__{CONFIGURATION}/fold_0"


def visible_of(patch, block, ratio=0.75, seed=0):
    return random_visible(patch, block, ratio, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("patch, block", [((16, 24, 8), (8, 8, 4)), ((12, 8), (4, 4))])
def test_whole_blocks_are_hidden_as_many_as_asked_for(patch, block):
    visible = visible_of(patch, block)
    assert visible.shape == (1, *patch)
    coarse = visible[(0, *(slice(None, None, width) for width in block))]
    assert int((coarse == 0).sum()) == int(0.75 * coarse.numel())
    again = coarse
    for axis, width in enumerate(block):
        again = again.repeat_interleave(width, axis)
    assert again.equal(visible[0])
    assert not visible.equal(visible_of(patch, block, seed=1))


@pytest.mark.parametrize("ratio, hidden", [(0.01, 1), (0.99, 7)])
def test_something_is_hidden_and_something_stays_visible(ratio, hidden):
    assert int((visible_of((8, 8, 8), (4, 4, 4), ratio) == 0).sum()) == hidden * 64


def test_only_hidden_voxels_count():
    target = torch.tensor([[[[1.0, 2.0, 3.0, 5.0]], [[1.0, 1.0, 0.0, 0.0]]]])  # image and visibility, (1, 2, 1, 4)
    assert reconstruction_error(torch.tensor([[[[9.0, 9.0, 3.0, 1.0]]]]), target) == (0 + 16) / 2
    assert hidden_variance(target) == 1


def test_processes_with_uneven_batches_learn_what_one_process_with_all_of_them_learns():
    output, image = torch.randn(3, 1, 2, 2, 2), torch.randn(3, 1, 2, 2, 2)
    target = torch.cat([image, torch.zeros_like(image)], 1)  # all is hidden
    errors = []
    for own in (slice(0, 2), slice(2, 3)):
        size = own.stop - own.start
        process = SimpleNamespace(batch_size=size, of_all_processes=lambda own_size: [2, 1])
        errors.append(ClassScalePretrainer._build_loss(process)(output[own], target[own]))
    assert torch.stack(errors).mean().item() == pytest.approx(reconstruction_error(output, target).item())


def test_sparse_features_do_not_depend_on_what_is_hidden():
    torch.manual_seed(0)
    network = stock_network(small_plans("ResidualEncoderUNet"), small_dataset(1), seed=3).train()
    network.decoder.deep_supervision = False
    sparse, dense = MaskedAutoencoder(network), network.encoder
    visible = visible_of((16, 16, 16), (8, 8, 8))[None]
    image = torch.randn(1, 1, 16, 16, 16)
    before = dense(image * visible)
    sparse.make_sparse()
    seen = sparse._visible = visible
    after, other = network.encoder(image * seen), network.encoder((image + 7 * (1 - seen)) * seen)
    assert not torch.allclose(before[0], after[0], atol=1e-3)  # zeros counted before
    for scale, own in zip(after, other, strict=True):
        assert scale.equal(own)
        step = 16 // scale.shape[-1]
        hidden = visible[..., ::step, ::step, ::step] == 0
        assert not scale[hidden.expand_as(scale)].any()


def test_a_sparse_norm_of_a_whole_image_is_the_ordinary_one():
    network = stock_network(small_plans(), small_dataset(1), seed=3).train()
    network.decoder.deep_supervision = False
    image = torch.randn(2, 1, 16, 16, 16)
    expected = network(image)
    sparse = MaskedAutoencoder(network)
    sparse.make_sparse()
    torch.testing.assert_close(sparse(torch.cat([image, torch.ones_like(image)], 1)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "block, sparse, sentence",
    [((5, 5, 5), False, "do not divide"), ((16, 16, 16), False, "do not divide"), ((2, 2, 2), True, "--sparse")],
)
def test_blocks_that_do_not_fit_are_refused(block, sparse, sentence):
    with pytest.raises(ModelError, match=sentence):
        check_block((16, 16, 16), block, (4, 4, 4), sparse)
    check_block((16, 16, 16), (8, 8, 8), (4, 4, 4), True)


def test_processes_share_batches_without_gaps():
    whole = list(Share(3, 5, [4], 0))
    parts = [list(Share(3, 5, [3, 1], rank)) for rank in (0, 1)]
    assert whole == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A toy dataset, planned and preprocessed; nnU-Net's variables point at it."""
    root = tmp_path_factory.mktemp("pretraining")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        write_toy_dataset(ToyOptions(4, "atlas", 24), DATASET, 3)
        assert main(["plan", "-d", str(DATASET), "-npfp", "1", "-overwrite_target_spacing", "6", "6", "6"]) == 0
        splits = [{"train": ["Toy_0001", "Toy_0002"], "val": ["Toy_0003"]}]
        add_tiny_configuration(next((root / "preprocessed").iterdir()), splits)
        assert main(["preprocess", "-d", str(DATASET), "-c", CONFIGURATION, "-np", "1", "--no_pbar"]) == 0
        yield root


def pretrain(*arguments, epochs=3) -> int:
    chosen = ["-d", str(DATASET), "-c", CONFIGURATION, "-f", "0", "-device", "cpu"]
    return main(["pretrain", *chosen, "--epochs", str(epochs), "--steps", "2", *map(str, arguments)])


def read(results: Path) -> dict:
    (file,) = results.rglob("checkpoint_final.pth")
    return torch.load(file, weights_only=True)


def test_a_pretraining_that_was_stopped_goes_on_as_if_it_had_not_been(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "whole"))
    assert pretrain("--learning-rate", 0.001) == 0
    assert "checkpoint_final.pth" in capsys.readouterr().out
    assert next((tmp_path / "whole").rglob("reconstruction.png")).stat().st_size > 1000
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "stopped"))
    train_step, steps = ClassScalePretrainer.train_step, []

    def stop(self, batch):
        steps.append(1)
        if len(steps) == 4:  # in the second epoch
            raise KeyboardInterrupt
        return train_step(self, batch)

    monkeypatch.setattr(ClassScalePretrainer, "train_step", stop)
    assert pretrain("--learning-rate", 0.001) != 0
    monkeypatch.setattr(ClassScalePretrainer, "train_step", train_step)
    assert pretrain("--learning-rate", 0.001) != 0
    assert "continue with --c" in capsys.readouterr().err
    assert pretrain("--learning-rate", 0.002, "--c") != 0
    assert "learning_rate 0.001, not 0.002" in capsys.readouterr().err
    assert pretrain("--learning-rate", 0.001, "--c") == 0
    whole, resumed = read(tmp_path / "whole"), read(tmp_path / "stopped")
    for name, weights in whole["network_weights"].items():
        assert weights.equal(resumed["network_weights"][name]), name
    assert whole["logging"]["val_losses"] == resumed["logging"]["val_losses"]
    assert len(resumed["logging"]["val_losses"]) == 3


def test_a_checkpoint_with_a_flipped_bit_is_noticed(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    assert pretrain(epochs=1) == 0
    (file,) = tmp_path.rglob("checkpoint_final.pth")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x80
    file.write_bytes(content)
    assert pretrain("--c", epochs=1) != 0
    assert "No checkpoint can be read" in capsys.readouterr().err
    with pytest.raises(ModelError, match="its bytes were altered"):
        with whole_network(file, lambda: None):
            pass


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_with_the_encoder_again(
    root, encoder, tmp_path, monkeypatch
):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    given = []
    monkeypatch.setattr(
        "nnunetv2.run.run_training.maybe_load_checkpoint",
        lambda _trainer, resume, _val, file: given.append((resume, file)),
    )
    monkeypatch.setattr("classscale_training.nnunet.trainer.ClassScaleTrainer.run_training", lambda _: None)
    monkeypatch.setattr(
        "classscale_training.nnunet.trainer.ClassScaleTrainer.perform_actual_validation", lambda *_: None
    )
    write_trainer(root, 1)
    command = ["train", str(DATASET), CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu", "--c"]
    assert main([*command, "-pretrained_weights", str(encoder)]) == 0
    folder = tmp_path / next((root / "preprocessed").iterdir()).name / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_0"
    (folder / "checkpoint_best.pth").touch()
    assert main([*command, "-pretrained_weights", str(encoder)]) == 0
    assert [(resume, file is not None) for resume, file in given] == [(False, True), (True, False)]


def test_two_processes_learn_what_one_does(root, tmp_path, monkeypatch, capfd):
    fork_trainings(monkeypatch)
    found = []
    for number in (1, 2):
        monkeypatch.setenv("nnUNet_results", str(tmp_path / str(number)))
        assert pretrain("--learning-rate", 0.001, "-num_gpus", number, epochs=2) == 0
        found.append(read(tmp_path / str(number))["network_weights"])
        assert capfd.readouterr().out.count("The pretrained encoder is") == 1
    for name, weights in found[0].items():
        torch.testing.assert_close(found[1][name], weights, rtol=0, atol=1e-5)


def test_images_without_labels_count_too_and_are_preprocessed_once(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    raw, images = next((root / "raw").iterdir()), tmp_path / "images"
    images.mkdir()
    file = images / "Other_0000.nii.gz"
    file.write_bytes((raw / "imagesTr" / "Toy_0001_0000.nii.gz").read_bytes())
    (images / "._Other_0000.nii.gz").write_bytes(b"left by macOS")
    assert pretrain("--images", images, "-np", 1, epochs=1) == 0
    assert "on 3 images" in capsys.readouterr().out
    place = next((root / "preprocessed").iterdir()) / f"{PLANS}_{CONFIGURATION}_unlabelled"
    assert [folder.name for folder in place.iterdir()] == ["Other"]
    place = place / "Other"
    names = ["Other.b2nd", "Other.pkl", "Other_seg.b2nd", "source.json"]
    assert sorted(found.name for found in place.iterdir()) == names
    written = (place / "Other.b2nd").stat().st_mtime_ns
    assert pretrain("--images", images, "--c", epochs=1) == 0
    assert (place / "Other.b2nd").stat().st_mtime_ns == written
    plans_file = next((root / "preprocessed").iterdir()) / f"{PLANS}.json"
    plans = plans_file.read_text()
    plans_file.write_text(json.dumps({**json.loads(plans), "foreground_intensity_properties_per_channel": {"0": {}}}))
    assert pretrain("--images", images, "--c", epochs=1) == 0
    assert (place / "Other.b2nd").stat().st_mtime_ns > written  # another normalisation may depend on it
    plans_file.write_text(plans)
    assert pretrain("--images", images, "--c", epochs=1) == 0
    written = (place / "Other.b2nd").stat().st_mtime_ns
    file.write_bytes(b"no image")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "other"))
    assert pretrain("--images", images, "-np", 1, epochs=1) != 0
    assert "Other_0000.nii.gz cannot be preprocessed" in capsys.readouterr().err
    assert (place / "Other.b2nd").stat().st_mtime_ns == written
    file.rename(images / "Other_0001.nii.gz")
    assert pretrain("--images", images, epochs=1) != 0
    assert "has Other_0001.nii.gz of Other, but the dataset has one file" in capsys.readouterr().err
    assert pretrain("--images", tmp_path, epochs=1) != 0
    assert "has no images NAME_0000.nii.gz" in capsys.readouterr().err


@pytest.fixture(scope="module")
def encoder(root) -> Path:
    """A sparse encoder, pretrained for one epoch."""
    assert pretrain("--sparse", epochs=1) == 0
    return next((root / "results").iterdir()) / FOLDER / "checkpoint_final.pth"


def test_a_training_starts_from_the_encoder(root, encoder, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(root / "shim"))
    started = {}

    def run_training(self):
        started.update(copied(self.network.state_dict()))

    monkeypatch.setattr("classscale_training.nnunet.trainer.ClassScaleTrainer.run_training", run_training)
    monkeypatch.setattr(
        "classscale_training.nnunet.trainer.ClassScaleTrainer.perform_actual_validation", lambda *_: None
    )
    write_trainer(root, 1)
    arguments = ["train", str(DATASET), CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu"]
    assert main([*arguments, "-pretrained_weights", str(encoder)]) == 0
    content = torch.load(encoder, weights_only=True)["network_weights"]
    own = [name for name in content if name.startswith("encoder.")]
    assert own and all(content[name].equal(started[name]) for name in own)
    decoder = [name for name in content if name.startswith("decoder.stages.")]
    assert not all(content[name].equal(started[name]) for name in decoder)


def copied(weights: dict) -> dict:
    return {name: tensor.clone() for name, tensor in weights.items()}


def test_the_checkpoint_says_what_nnssl_says(root, encoder):
    content = torch.load(encoder, weights_only=True)
    plan = content["nnssl_adaptation_plan"]
    plans = json.loads((next((root / "preprocessed").iterdir()) / f"{PLANS}.json").read_text())
    assert plan["architecture_plans"]["arch_class_name"] == "PlainConvUNet"
    assert plan["architecture_plans"]["arch_kwargs"]["features_per_stage"] == [8, 12, 16]
    (configuration,) = plan["pretrain_plan"]["configurations"].values()
    assert configuration["patch_size"] == plan["recommended_downstream_patchsize"] == [16, 16, 16]
    assert plan["pretrain_plan"]["dataset_name"] == plans["dataset_name"]
    for key in ("key_to_encoder", "key_to_stem"):
        assert any(name.startswith(plan[key] + ".") for name in content["network_weights"])
    assert any(f"{name}.weight" in content["network_weights"] for name in plan["keys_to_in_proj"])


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--mask-ratio", "1"], "--mask-ratio must be between 0 and 1"),
        (["--steps", "0"], "--steps must be 1 or more"),
        (["--block", "5"], "do not divide the patch"),
        (["--block", "2", "--sparse"], "leave out --sparse"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["-f", "zero"], "-f must be all"),
        (["-c", "3d_fullres"], "run `classscaleseg-train preprocess` first"),
        (["-num_gpus", "3"], "3 processes need a batch of as many patches"),
        (["-p", "Other"], "Other.json does not exist"),
        (["-c", "4d"], "have no configuration 4d"),
    ],
)
def test_what_is_not_possible_gets_a_sentence(root, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    assert pretrain(*arguments, epochs=1) != 0
    assert sentence in capsys.readouterr().err


def test_other_checkpoints_are_not_continued(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    folder = tmp_path / next((root / "preprocessed").iterdir()).name / FOLDER
    folder.mkdir(parents=True)
    torch.save({"network_weights": {}}, folder / "checkpoint_latest.pth")
    assert pretrain("--c", epochs=1) != 0
    assert "is no checkpoint of `classscaleseg-train pretrain`" in capsys.readouterr().err
