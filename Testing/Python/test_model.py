"""Opening models: every layout that nnU-Net v2 writes gives the network nnU-Net would build."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import (
    MODEL,
    TOY,
    logits,
    small_dataset,
    small_plans,
    stock_network,
    totalsegmentator_plans,
    write_checkpoint,
)

pytest.importorskip("nnunetv2")
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402


def stock_logits(networks, patch):
    """``(C, *patch)``: nnU-Net adds the folds' logits and divides."""
    with torch.inference_mode():
        return sum(network(patch)[0] for network in networks) / len(networks)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("classes, folds", [(40, 2), (40, 1), (9, 2), (3, 1)])
def test_backbones_and_projection_give_the_mean_logits_of_the_folds(
    write_model, architecture, dimension, classes, folds
):
    plans, dataset = small_plans(architecture, dimension, channels=2), small_dataset(classes - 1, channels=2)
    model = open_model(write_model(plans, dataset, seeds=range(folds)))
    patch = torch.randn(1, 2, *[16] * dimension)
    expected = stock_logits([stock_network(plans, dataset, seed) for seed in range(folds)], patch)
    torch.testing.assert_close(logits(model, patch), expected, rtol=1e-5, atol=1e-5)
    assert model.rank == min(classes, 8 * folds) and model.average_folds == (classes < 8 * folds)
    assert model.classes == classes and model.channels == 2 and model.patch == (16,) * dimension
    assert model.mirror_axes == tuple(range(dimension)) and model.folds == tuple(map(str, range(folds)))
    assert model.table.names == {0: "background", **{value: f"organ {value}" for value in range(1, classes)}}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A results folder as the real nnUNetTrainer leaves it after initialisation and save_checkpoint."""
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    cases = tmp_path / "preprocessed" / "Dataset007_Small" / "nnUNetPlans_3d_fullres"
    cases.mkdir(parents=True)
    (cases / "case.npz").touch()  # the trainer looks how its data are stored
    folder = tmp_path / "results" / "Dataset007_Small" / MODEL
    plans, dataset = small_plans(), small_dataset()
    networks = []
    for fold in (0, 1):
        trainer = module.nnUNetTrainer(
            {**plans, "continue_training": False}, "3d_fullres", fold, dataset, torch.device("cpu")
        )
        trainer.initialize()
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # sets the mirroring axes
        trainer._best_ema = np.float64(0.5)
        for name in ("final", "best"):
            trainer.save_checkpoint(str(folder / f"fold_{fold}" / f"checkpoint_{name}.pth"))
        trainer.network.decoder.deep_supervision = False
        networks.append(trainer.network.eval())
        (folder / f"fold_{fold}" / "progress.png").write_bytes(b"")
        (folder / f"fold_{fold}" / "validation").mkdir()
        (folder / f"fold_{fold}" / "validation" / "summary.json").write_text("{}")
    for name, content in (("plans", plans), ("dataset", dataset), ("dataset_fingerprint", {})):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder, networks


def test_the_checkpoints_of_the_real_trainer_open_from_folder_parent_and_exported_zip(trained, tmp_path, monkeypatch):
    from nnunetv2.model_sharing import model_export

    folder, networks = trained
    monkeypatch.setattr(model_export, "maybe_convert_to_dataset_name", lambda name: name)
    exported = tmp_path / "exported.zip"
    model_export.export_pretrained_model("Dataset007_Small", str(exported), ("3d_fullres",), folds=(0, 1))
    patch = torch.randn(1, 1, 16, 16, 16)
    expected = stock_logits(networks, patch)
    for source in (folder, folder.parent, folder.parent.parent, exported):
        model = open_model(source)
        torch.testing.assert_close(logits(model, patch), expected, rtol=1e-5, atol=1e-5)
        assert model.configuration_name == "3d_fullres" and model.name == "Dataset007_Small"
        assert model.mirror_axes == (0, 1, 2)
    one = open_model(exported, folds=(1,))
    torch.testing.assert_close(logits(one, patch), stock_logits(networks[1:], patch), rtol=1e-5, atol=1e-5)
    assert open_model(folder, checkpoint="best").folds == ("0", "1")
    with pytest.raises(ModelError, match="checkpoint_best.pth was not found .fold_0 has checkpoint_final.pth; fold_1"):
        open_model(exported, checkpoint="best")


def test_plans_from_before_nnunet_2_5_as_in_totalsegmentator_are_converted(write_model):
    plans = totalsegmentator_plans()
    dataset = small_dataset(117)
    dataset["modality"] = dataset.pop("channel_names")
    model = open_model(write_model(plans, dataset))
    patch = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(
        logits(model, patch), stock_logits([stock_network(plans, dataset)], patch), rtol=1e-5, atol=1e-5
    )
    assert (model.classes, model.rank, model.orientation, model.modality) == (118, 32, "RAS", "CT")
    assert "not a medical device" in model.notice


def test_old_plans_of_a_residual_encoder_are_converted_too(write_model):
    plans = small_plans("ResidualEncoderUNet")
    configuration = plans["configurations"]["3d_fullres"]
    new = configuration.pop("architecture")["arch_kwargs"]
    configuration.update(
        UNet_class_name="ResidualEncoderUNet",
        UNet_base_num_features=8,
        unet_max_num_features=16,
        n_conv_per_stage_encoder=[1, 2, 2],
        n_conv_per_stage_decoder=[1, 1],
        num_pool_per_axis=[2, 2, 2],
        pool_op_kernel_sizes=new["strides"],
        conv_kernel_sizes=new["kernel_sizes"],
    )
    assert open_model(write_model(plans)).rank == 8


def test_regions_and_an_ignore_label_are_understood_as_nnunet_does(write_model):
    labels = {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}
    model = open_model(write_model(dataset=small_dataset(labels, regions_class_order=[1, 2, 3])))
    assert model.projection.regions and model.projection.values == (1, 2, 3) and model.classes == 3
    assert model.table.names == {0: "background", 1: "whole tumor", 2: "core", 3: "enhancing"}


def test_label_values_may_be_text_and_the_ignore_label_is_no_class(write_model):
    labels = {"background": "0", "liver": "1", "spleen": [2], "ignore": 3}
    model = open_model(write_model(dataset=small_dataset(labels)))
    assert not model.projection.regions and model.projection.values == (0, 1, 2)
    assert model.table.names == {0: "background", 1: "liver", 2: "spleen"}
    assert model.table[1].type.value == "10200004"  # SNOMED CT: Liver


@pytest.mark.parametrize(
    "dataset_name, reader, orientation",
    [
        ("Dataset007_Small", "SimpleITKIO", None),
        ("Dataset007_Small", "NibabelIO", None),
        ("Dataset007_Small", "NibabelIOWithReorient", "RAS"),
        ("Dataset007_Small", "SimpleITKIOWithReorient", "RAS"),
        ("Dataset291_TotalSegmentator_part1_organs_1559subj", "SimpleITKIO", "RAS"),
        ("TotalSegmentator_part3_cardiac", "NibabelIO", "RAS"),
        ("Dataset850_TotalSegMRI_part1_organs_1088subj", "NibabelIO", "RAS"),
    ],
)
def test_the_orientation_a_network_was_trained_in_is_known(write_model, dataset_name, reader, orientation):
    plans = small_plans()
    plans.update(dataset_name=dataset_name, image_reader_writer=reader)
    assert open_model(write_model(plans)).orientation == orientation


@pytest.mark.parametrize(
    "names, modality", [(["CT"], "CT"), (["T1", "T2w", "FLAIR"], "MR"), (["MRI"], "MR"), (["CT", "PET"], None)]
)
def test_the_modality_is_taken_from_the_channel_names(write_model, names, modality):
    dataset = small_dataset(channel_names=dict(enumerate(names)))
    assert open_model(write_model(small_plans(channels=len(names)), dataset)).modality == modality


def test_prefixes_half_precision_and_single_names_do_not_matter(write_model):
    folder = write_model()
    state = stock_network(small_plans(), small_dataset()).state_dict()
    prefixed = {
        f"module._orig_mod.{k}": v.half() for k, v in state.items() if ".all_modules." in k or "encoder" not in k
    }
    prefixed |= {f"_orig_mod.{k}": v for k, v in state.items() if k.startswith("decoder.encoder")}
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", prefixed, None)
    model = open_model(folder)
    assert model.mirror_axes == () and {p.dtype for p in model.backbones[0].parameters()} == {torch.float32}
    patch = torch.randn(1, 1, 16, 16, 16)
    stock = stock_logits([stock_network(small_plans(), small_dataset())], patch)
    assert (logits(model, patch) - stock).abs().max() < 0.01


def test_batch_normalization_in_the_plans_is_built_and_its_statistics_used(write_model):
    plans = small_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["norm_op"] = "torch.nn.BatchNorm3d"
    model = open_model(write_model(plans))
    patch = torch.randn(1, 1, 16, 16, 16)
    stock = stock_logits([stock_network(plans, small_dataset())], patch)
    torch.testing.assert_close(logits(model, patch), stock, rtol=1e-5, atol=1e-5)
    assert not any(buffer.is_meta for buffer in model.backbones[0].buffers())


def test_numbered_folds_are_preferred_and_fold_all_serves_where_it_is_alone(write_model):
    folder = write_model(seeds=(0, 1, 2))
    (folder / "fold_1").rename(folder / "fold_all")
    (folder / "fold_2").rename(folder / "fold_10")
    assert open_model(folder).folds == ("0", "10")
    assert open_model(folder, folds=("all", 0)).folds == ("all", "0")
    shutil.rmtree(folder / "fold_0")
    shutil.rmtree(folder / "fold_10")
    assert open_model(folder).folds == ("all",)


def test_several_models_are_listed_and_one_is_chosen_by_its_configuration(write_model, tmp_path):
    folder = write_model()
    second = folder.parent / "nnUNetTrainer__nnUNetPlans__3d_lowres"
    shutil.copytree(folder, second)
    archive = shutil.make_archive(str(tmp_path / "two"), "zip", tmp_path, folder.parent.name)
    for source in (folder.parent, archive):
        with pytest.raises(ModelError, match="several models.*3d_fullres.*3d_lowres"):
            open_model(source)
        assert open_model(source, configuration="3d_fullres").configuration_name == "3d_fullres"
        with pytest.raises(ModelError, match="not exactly one model 2d"):
            open_model(source, configuration="2d")
    with pytest.raises(ModelError, match="has the configuration 3d_fullres, not 2d"):
        open_model(folder, configuration="2d")


def test_the_only_configuration_is_taken_where_neither_checkpoint_nor_folder_names_one(write_model):
    folder = write_model()
    folder = folder.rename(folder.with_name("organs"))
    write_checkpoint(
        folder / "fold_0" / "checkpoint_final.pth", stock_network(small_plans(), small_dataset()), init_args={}
    )
    assert open_model(folder).configuration_name == summarize(folder).configuration_name == "3d_fullres"
    plans = small_plans()
    plans["configurations"]["2d"] = plans["configurations"]["3d_fullres"]
    (folder / "plans.json").write_text(json.dumps(plans))
    for read in (open_model, summarize):
        with pytest.raises(ModelError, match="has no configuration 'organs', only 3d_fullres, 2d"):
            read(folder)


def test_the_shipped_model_opens_in_a_moment():
    model = open_model(TOY)
    assert (model.classes, model.rank, model.patch) == (121, 16, (64, 64, 64))
    assert model.licence == "Apache-2.0" and "not for clinical use" in model.notice.lower()
