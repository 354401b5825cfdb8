"""What in a model's plans and files cannot be used is named in a sentence, and nothing in them imports or allocates."""

import json
import math
import shutil
import sys

import numpy as np
import pytest
from conftest import small_dataset, small_plans

pytest.importorskip("nnunetv2")
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from odd_json import WEIRD, entries

CONFIGURATION = ("configurations", "3d_fullres")
NETWORK = (*CONFIGURATION, "architecture", "arch_kwargs")


def edit(folder, name, path, value):
    """Set one entry of a JSON file of the model; ``None`` removes it."""
    content = json.loads((folder / name).read_text())
    node = content
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    (folder / name).write_text(json.dumps(content))


FAULTS = {
    "no plans": ("plans.json", None, None, "contains no model"),
    "no dataset": ("dataset.json", None, None, "dataset.json is missing"),
    "previous_stage": ("plans.json", (*CONFIGURATION, "previous_stage"), "3d_lowres", "is a cascade"),
    "primus": (
        "plans.json",
        (*CONFIGURATION, "architecture", "network_class_name"),
        "dynamic_network_architectures.architectures.primus.Primus",
        "Primus may not be given 'n_stages' in plans",
    ),
    "own network": (
        "plans.json",
        (*CONFIGURATION, "architecture", "network_class_name"),
        "evil.PlainConvUNet",
        "not supp",
    ),
    "no class name": ("plans.json", (*CONFIGURATION, "architecture", "network_class_name"), ["x"], "not supported"),
    "own convolution": (
        "plans.json",
        (*NETWORK, "conv_op"),
        "evil.Conv3d",
        "conv_op 'evil.Conv3d' is not one of Conv3d",
    ),
    "2D convolution": ("plans.json", (*NETWORK, "conv_op"), "torch.nn.Conv2d", "conv_op .* is not one of Conv3d"),
    "own norm": ("plans.json", (*NETWORK, "norm_op"), "os.system", "norm_op 'os.system' is not one of"),
    "own nonlin": ("plans.json", (*NETWORK, "nonlin"), "torch.nn.Module", "nonlin 'torch.nn.Module' is not one of"),
    "no architecture": ("plans.json", (*CONFIGURATION, "architecture"), None, "not even as plans written before"),
    "architecture list": ("plans.json", (*CONFIGURATION, "architecture"), [1], "'architecture' must be an object"),
    "stages": ("plans.json", (*NETWORK, "n_stages"), 10**9, "n_stages is 1000000000"),
    "features": ("plans.json", (*NETWORK, "features_per_stage"), [8, 12, 10**7], "features_per_stage"),
    "too many parameters": ("plans.json", (*NETWORK, "features_per_stage"), [4096] * 3, "parameters. At most"),
    "other features": ("plans.json", (*NETWORK, "features_per_stage"), [8, 12, 24], "has shape .* plans.json requires"),
    "too few features": ("plans.json", (*NETWORK, "features_per_stage"), [8, 12], "the architecture cannot be built"),
    "blocks": ("plans.json", (*NETWORK, "n_conv_per_stage"), [1, 2, 3], "stages.2.0.convs.2.conv.weight is missing"),
    "unknown argument": ("plans.json", (*NETWORK, "x"), 1, "the architecture cannot be built"),
    "even kernels": ("plans.json", (*NETWORK, "kernel_sizes"), [[2] * 3] * 3, "must be odd"),
    "patch": ("plans.json", (*CONFIGURATION, "patch_size"), [18, 16, 16], "patch_size 18 is not divisible"),
    "vast patch": ("plans.json", (*CONFIGURATION, "patch_size"), [2**20] * 3, "at most 268435456 voxels"),
    "empty patch": ("plans.json", (*CONFIGURATION, "patch_size"), [0, 16, 16], "patch_size"),
    "spacing": ("plans.json", (*CONFIGURATION, "spacing"), [1, -1, 1], "must be 3 positive numbers"),
    "huge spacing": ("plans.json", (*CONFIGURATION, "spacing"), [10**400, 1, 1], "must be 3 positive numbers"),
    "transposition": ("plans.json", ("transpose_forward",), [0, 1, 1], "is not a permutation"),
    "way back": ("plans.json", ("transpose_backward",), [2, 1, 0], "is not the inverse"),
    "normalization": (
        "plans.json",
        (*CONFIGURATION, "normalization_schemes"),
        ["os"],
        "'os' is not part of the installed",
    ),
    "schemes": ("plans.json", (*CONFIGURATION, "normalization_schemes"), [], "names 1 channel"),
    "intensities": ("plans.json", ("foreground_intensity_properties_per_channel",), {"0": {}}, "lack one of mean, std"),
    "std": (
        "plans.json",
        ("foreground_intensity_properties_per_channel", "0", "std"),
        -1,
        "channel 0 have a negative std",
    ),
    "percentiles": (
        "plans.json",
        ("foreground_intensity_properties_per_channel", "0", "percentile_00_5"),
        301,
        "percentiles in the wrong order",
    ),
    "eps": ("plans.json", (*NETWORK, "norm_op_kwargs", "eps"), -1e-5, "must not have a negative eps"),
    "momentum": ("plans.json", (*NETWORK, "norm_op_kwargs", "momentum"), math.nan, "values are numbers, true or false"),
    "slope": ("plans.json", (*NETWORK, "nonlin_kwargs", "negative_slope"), math.inf, "values are numbers, true or"),
    "preprocessor": ("plans.json", (*CONFIGURATION, "preprocessor_name"), "a.b", "preprocessor_name 'a.b' is not part"),
    "reader": ("plans.json", ("image_reader_writer",), "np", "image_reader_writer 'np' is not part"),
    "label manager": ("plans.json", ("label_manager",), "torch", "label_manager 'torch' is not part"),
    "resampling": ("plans.json", (*CONFIGURATION, "resampling_fn_data"), "deepcopy", "'deepcopy' is not part"),
    "resampling class": ("plans.json", (*CONFIGURATION, "resampling_fn_data"), "OrderedDict", "is not part"),
    "resampling options": (
        "plans.json",
        (*CONFIGURATION, "resampling_fn_probabilities_kwargs"),
        {"evil": 1},
        "are not options of resample_data_or_seg_to_shape",
    ),
    "configurations": ("plans.json", ("configurations",), [], "no object 'configurations'"),
    "other configuration": (
        "plans.json",
        ("configurations",),
        {"2d": {}},
        "has no configuration '3d_fullres', only 2d",
    ),
    "inheritance": ("plans.json", (*CONFIGURATION, "inherits_from"), "3d_fullres", "inherits from itself"),
    "channels": ("dataset.json", ("channel_names",), {}, "names no input channels"),
    "labels": ("dataset.json", ("labels",), ["liver"], "'labels' is a list of names"),
    "labels of v1": ("dataset.json", ("labels",), {"0": "background"}, "names and values are exchanged"),
    "gap": ("dataset.json", ("labels",), {"background": 0, "a": 1, "b": 3}, "must be 0 to 2 without gaps"),
    "class count": ("dataset.json", ("labels", "organ 21"), 21, "they have 21 classes, dataset.json has 22"),
    "region order": ("dataset.json", ("labels", "organ 1"), [1, 2], "no 'regions_class_order'"),
}


@pytest.mark.parametrize("file, path, value, sentence", FAULTS.values(), ids=FAULTS)
def test_what_does_not_fit_is_named(write_model, file, path, value, sentence):
    folder = write_model()
    if path is None:
        (folder / file).unlink()
    else:
        edit(folder, file, path, value)
    with pytest.raises(ModelError, match=sentence) as caught:
        open_model(folder)
    assert str(folder) in str(caught.value) and len(str(caught.value)) < 600 + len(str(folder))


def test_weights_of_another_number_of_channels_are_named(write_model):
    folder = write_model()
    other = small_plans(channels=2)
    (folder / "plans.json").write_text(json.dumps(other))
    edit(folder, "dataset.json", ("channel_names",), {"0": "CT", "1": "PET"})
    with pytest.raises(ModelError, match=r"checkpoint_final.pth .*they take 1 channels, dataset.json has 2"):
        open_model(folder)


@pytest.mark.parametrize("file", ["plans.json", "dataset.json"])
def test_whatever_stands_in_an_entry_the_model_opens_or_says_why_not(write_model, file):
    """All 5270 changes of the plans of both generations were tried once; here a sample."""
    folder = write_model(dataset=small_dataset(4))
    original = (folder / file).read_text()
    paths = list(entries(json.loads(original)))
    random, opened = np.random.default_rng(0), 0
    for _ in range(50):
        (folder / file).write_text(original)
        path = paths[random.integers(len(paths))]
        content = node = json.loads(original)
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = WEIRD[random.integers(len(WEIRD))]
        (folder / file).write_text(json.dumps(content))
        try:
            opened += open_model(folder).classes == 5
        except ModelError as error:
            assert len(str(error)) < 600 + len(str(folder))
    assert 2 <= opened <= 40


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("[1]", "contains a list"),
        ("{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ('{"a":' * 2000 + "1" + "}" * 2000, "not valid JSON|nested more than"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested more than 64"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON|no object 'configurations'"),
    ],
)
def test_json_that_is_no_plans_is_refused(write_model, text, sentence):
    folder = write_model()
    (folder / "plans.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=sentence):
        open_model(folder)


def test_an_oversized_json_is_not_read(write_model, monkeypatch):
    monkeypatch.setattr("ClassScaleSegLib.models.files.MAX_JSON", 1000)
    with pytest.raises(ModelError, match="at most 1000 are read"):
        open_model(write_model())


def test_a_missing_fold_names_what_there_is(write_model, tmp_path):
    folder = write_model()
    with pytest.raises(ModelError, match="fold_3/checkpoint_final.pth was not found .fold_0 has checkpoint_final.pth"):
        open_model(folder, folds=(3,))
    with pytest.raises(ModelError, match="checkpoint_best.pth was not found .fold_0 has checkpoint_final.pth"):
        open_model(folder, checkpoint="best")
    shutil.rmtree(folder / "fold_0")
    with pytest.raises(ModelError, match="there are no folds"):
        open_model(folder)
    with pytest.raises(ModelError, match="does not exist"):
        open_model(tmp_path / "nowhere")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(ModelError, match="neither a model folder nor a readable zip"):
        open_model(tmp_path / "text.txt")


def test_no_name_in_the_plans_imports_a_module(write_model, tmp_path, monkeypatch):
    (tmp_path / "evilmodule.py").write_text("raise SystemExit('this ran')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = write_model()
    places = [("architecture", "network_class_name"), ("preprocessor_name",), ("resampling_fn_data",)]
    places += [
        ("architecture", "arch_kwargs", name) for name in ("conv_op", "norm_op", "nonlin", "dropout_op", "block")
    ]
    places += [("resampling_fn_probabilities",)]
    original = (folder / "plans.json").read_text()
    for place in places:
        for name in ("evilmodule.X", "evilmodule", "torch.nn.evilmodule.X"):
            (folder / "plans.json").write_text(original)
            edit(folder, "plans.json", (*CONFIGURATION, *place), name)
            with pytest.raises(ModelError):
                open_model(folder)
    assert "evilmodule" not in sys.modules
