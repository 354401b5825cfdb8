"""Summaries: the same facts as the opened model, from JSON and headers alone, without torch and without nnunetv2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.models.summary import summarize
from conftest import TOY, small_dataset, small_plans
from odd_json import WEIRD, entries

CONFIGURATION = ("configurations", "3d_fullres")


def same_facts(summary, model):
    """Whether a summary says what `open_model` found."""
    of_summary = (summary.name, summary.table, summary.classes, summary.channels, summary.modality, summary.licence)
    channels = len(model.configuration.normalization_schemes)
    of_model = (model.name, model.table, model.projection.classes, channels, model.modality, model.licence)
    features = model.configuration.network_arch_init_kwargs["features_per_stage"][0]
    return (
        of_summary == of_model
        and (summary.notice, summary.folds, summary.features) == (model.notice, model.folds, features)
        and summary.spacing == tuple(model.configuration.spacing)
        and summary.patch == model.patch
    )


def test_the_embedded_model_is_summarized_as_it_opens():
    from ClassScaleSegLib.models.model import open_model

    summary, model = summarize(TOY), open_model(TOY)
    assert same_facts(summary, model)
    assert (summary.classes, summary.features, summary.patch, summary.channel_names) == (
        121,
        16,
        (64, 64, 64),
        ("toy",),
    )
    backbone = sum(parameter.numel() for parameter in model.backbones[0].parameters())
    assert summary.parameters == backbone + model.projection.weight.numel() + model.projection.bias.numel()
    assert summary.card.startswith("# Toy atlas, 120 classes\n") and summary.path == TOY


@pytest.mark.parametrize("batch_norm", [False, True])
def test_folder_exported_zip_and_bundle_of_one_model_agree(write_model, tmp_path, batch_norm):
    from ClassScaleSegLib.models.model import open_model
    from ClassScaleSegLib.models.packing import pack

    plans = small_plans(channels=2)
    if batch_norm:
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["norm_op"] = "torch.nn.BatchNorm3d"
    folder = write_model(plans, small_dataset(channels=2), seeds=(0, 1))
    exported = shutil.make_archive(str(tmp_path / "exported"), "zip", tmp_path, folder.parent.name)
    packed = pack(folder, tmp_path / "packed.zip")
    model = open_model(folder)
    summaries = [summarize(source) for source in (folder, folder.parent, exported, packed)]
    assert all(same_facts(summary, model) for summary in summaries)
    weights = sum(parameter.numel() for parameter in model.backbones[0].parameters())
    assert {summary.parameters for summary in summaries} == {weights + model.projection.weight[:, :8].numel() + 21}
    assert summaries[0].card is None
    assert summaries[0].channel_names == ("CT", "CT") and summaries[0].folds == ("0", "1")


def model_folder(tmp_path, plans, dataset, checkpoint="checkpoint_final.pth"):
    """Without weights: whatever would read them fails."""
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    (folder / "fold_0" / checkpoint).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def old_plans():
    """As TotalSegmentator's: written before nnU-Net 2.5, one configuration inheriting from another."""
    plans = small_plans()
    configuration = plans["configurations"]["3d_fullres"]
    del configuration["architecture"], configuration["spacing"]
    configuration |= {"inherits_from": "base", "UNet_base_num_features": 32, "UNet_class_name": "PlainConvUNet"}
    configuration |= {"n_conv_per_stage_encoder": [2, 2], "n_conv_per_stage_decoder": [2], "num_pool_per_axis": [1] * 3}
    configuration |= {"conv_kernel_sizes": [[3] * 3] * 2, "pool_op_kernel_sizes": [[1] * 3, [2] * 3]}
    plans["configurations"]["base"] = {"spacing": [3.0, 1.5, 1.0], "unet_max_num_features": 24, "patch_size": [8] * 3}
    plans["dataset_name"] = "Dataset291_TotalSegmentator_part1_organs_1559subj"
    plans["transpose_forward"], plans["transpose_backward"] = [2, 0, 1], [1, 2, 0]
    configuration["patch_size"] = [16, 32, 48]
    return plans


def test_old_and_inherited_plans_are_understood_and_axes_put_back(tmp_path):
    dataset = small_dataset({"background": 0, "liver": 1, "rib_left_1": "2", "ignore": 3})
    dataset["modality"] = dataset.pop("channel_names")
    summary = summarize(model_folder(tmp_path, old_plans(), dataset, "checkpoint_best.pth"))
    assert (summary.features, summary.classes, summary.folds) == (24, 3, ("0",))
    assert (summary.spacing, summary.patch) == ((1.5, 1.0, 3.0), (32, 48, 16))
    assert (summary.modality, summary.name) == ("CT", "Dataset291_TotalSegmentator_part1_organs_1559subj")
    assert "not a medical device" in summary.notice
    assert list(summary.table.groups) == ["Organs", "Ribs and sternum"]


def test_a_folder_with_another_name_has_the_configuration_of_its_checkpoint(write_model, tmp_path):
    from ClassScaleSegLib.models.model import open_model

    plans = small_plans()
    plans["configurations"]["2d"] = plans["configurations"]["3d_lowres"] = plans["configurations"]["3d_fullres"]
    folder = write_model(plans).rename(tmp_path / "my model")
    model = open_model(folder)
    for summary in (summarize(folder), summarize(folder, "3d_fullres")):
        assert summary.configuration_name == model.configuration_name == "3d_fullres"
    with pytest.raises(ModelError, match="has the configuration 3d_fullres, not 2d"):
        summarize(folder, "2d")
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"old")  # what cannot be read without torch
    assert summarize(folder, "2d").configuration_name == "2d"
    with pytest.raises(ModelError, match="no configuration 'my model', only 3d_fullres, 2d, 3d_lowres"):
        summarize(folder)


def test_regions_are_counted_as_rows(tmp_path):
    labels = {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}
    summary = summarize(model_folder(tmp_path, small_plans(), small_dataset(labels, regions_class_order=[1, 2, 3])))
    assert summary.classes == 3 and summary.table.names == {
        0: "background",
        1: "whole tumor",
        2: "core",
        3: "enhancing",
    }


def test_one_of_several_configurations_is_chosen(tmp_path):
    folder = model_folder(tmp_path, small_plans(), small_dataset(3))
    shutil.copytree(folder, tmp_path / "nnUNetTrainer__nnUNetPlans__2d")
    with pytest.raises(ModelError, match="several models"):
        summarize(tmp_path)
    assert summarize(tmp_path, "3d_fullres").classes == 4
    with pytest.raises(ModelError, match="has the configuration 3d_fullres, not 2d"):
        summarize(folder, "2d")


ARGUMENTS = (*CONFIGURATION, "architecture", "arch_kwargs")
FAULTS = {
    "cycle": ("plans.json", (*CONFIGURATION, "inherits_from"), "3d_fullres", "inherits from itself"),
    "no parent": ("plans.json", (*CONFIGURATION, "inherits_from"), "x", "no configuration 'x', only 3d_fullres"),
    "configurations": ("plans.json", ("configurations",), [], "no object 'configurations'"),
    "patch": ("plans.json", (*CONFIGURATION, "patch_size"), [2**20] * 3, "at most 268435456 voxels"),
    "nothing": ("plans.json", ARGUMENTS, {}, "n_stages is None"),
    "features": ("plans.json", (*ARGUMENTS, "features_per_stage"), [], "channels of the first stage"),
    "channels": ("dataset.json", ("channel_names",), {}, "names no input channels"),
    "gap": ("dataset.json", ("labels",), {"background": 0, "b": 3}, "must be 0 to 1 without gaps"),
    "huge label": ("dataset.json", ("labels",), {"background": 0, "b": 10**400}, "between 0 and 65535"),
}


@pytest.mark.parametrize("file, path, value, sentence", FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_is_named(tmp_path, file, path, value, sentence):
    content = {"plans.json": small_plans(), "dataset.json": small_dataset(4)}
    node = content[file]
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    folder = model_folder(tmp_path, *content.values())
    with pytest.raises(ModelError, match=sentence) as caught:
        summarize(folder)
    assert str(folder / file) in str(caught.value)


@pytest.mark.parametrize("generation", ["new", "old"])
def test_whatever_stands_in_an_entry_there_is_a_summary_or_a_sentence(tmp_path, generation):
    random, summarized = np.random.default_rng(0), 0
    originals = [json.dumps(old_plans() if generation == "old" else small_plans()), json.dumps(small_dataset(4))]
    for _ in range(150):
        contents = [json.loads(text) for text in originals]
        node = contents[random.integers(2)]
        paths = list(entries(node))
        path = paths[random.integers(len(paths))]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = WEIRD[random.integers(len(WEIRD))]
        folder = model_folder(tmp_path, *contents)
        try:
            summarized += summarize(folder).classes == 5
        except ModelError as error:
            assert len(str(error)) < 600 + len(str(folder))
    assert 30 < summarized < 130


def rewritten(tmp_path, weights=None, **members):
    """The embedded model with other members; with other ``weights`` and a manifest that fits them."""
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(TOY) as toy:
        contents = {name: toy.read(name) for name in toy.namelist()} | members
    if weights is not None:
        manifest = json.loads(contents["manifest.json"])
        manifest["members"]["fold_0.safetensors"]["size"] = len(weights)
        contents |= {"fold_0.safetensors": weights, "manifest.json": json.dumps(manifest)}
    with zipfile.ZipFile(path, "w") as other:
        for name, content in contents.items():
            other.writestr(name, content)
    return path


def test_untrusted_zips_are_refused_as_when_they_are_opened(tmp_path):
    with pytest.raises(ModelError, match="leads out of the zip"):
        summarize(rewritten(tmp_path, **{"../evil": b"x"}))
    with pytest.raises(ModelError, match="labels.csv has 5 bytes, but the manifest declares"):
        summarize(rewritten(tmp_path, **{"labels.csv": b"12345"}))
    for header in (b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x0a" + bytes(7) + b'{"a": {}}  '):
        with pytest.raises(ModelError, match="fold_0.safetensors (is not a safetensors file|contains a list)"):
            summarize(rewritten(tmp_path, header))
    with pytest.raises(ModelError, match="fold_0.safetensors has 9 bytes, but the manifest declares 2227012"):
        summarize(rewritten(tmp_path, **{"fold_0.safetensors": b"truncated"}))
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(TOY.read_bytes()[:-100])
    for path, sentence in (
        (damaged, "readable zip"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "e", "no model"),
    ):
        (tmp_path / "e").mkdir(exist_ok=True)
        with pytest.raises(ModelError, match=sentence):
            summarize(path)


def test_the_weights_of_a_bundle_are_not_read(monkeypatch):
    counted, read = [], zipfile.ZipExtFile.read

    def counting(stream, count=-1):
        data = read(stream, count)
        counted.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counting)
    assert summarize(TOY).parameters and 10_000 < sum(counted) < 200_000 < TOY.stat().st_size


def test_a_bundle_keeps_the_groups_of_its_labels(write_model, tmp_path):
    from ClassScaleSegLib.models.model import open_model
    from ClassScaleSegLib.models.packing import pack

    names = {1: "liver", 2: "rib_left_1", 3: "own part"}
    table = LabelTable.from_names(names)
    table = LabelTable(tuple(replace(label, group="Mine") if label.value == 3 else label for label in table))
    table.to_csv(tmp_path / "labels.csv")
    folder = write_model(dataset=small_dataset({"background": 0, "a": 1, "b": 2, "c": 3}))
    packed = pack(folder, tmp_path / "x.zip", labels=tmp_path / "labels.csv")
    assert list(open_model(packed).table.groups) == ["Organs", "Ribs and sternum", "Mine"]
    assert summarize(packed).table == open_model(packed).table


def test_neither_torch_nor_nnunetv2_nor_requests_is_loaded(toy_folder):
    code = (
        "import sys\nfrom ClassScaleSegLib import catalog\nfrom ClassScaleSegLib.commands import models\n"
        "from ClassScaleSegLib.models import summary\n"
        f"for path in {[str(TOY), str(toy_folder)]}: assert summary.summarize(path).classes == 121\n"
        "assert catalog.Catalog(path).entries()\nprint(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "nnunetv2", "SimpleITK", "slicer", "scipy", "matplotlib", "requests", "psutil", "tqdm"}
    assert not heavy & set(loaded)
