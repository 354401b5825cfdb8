"""Models of Auto3DSeg that are damaged, contradict themselves or are made to harm get a sentence."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from odd_json import WEIRD, entries
from pickle_bombs import bombs

pytest.importorskip("monai")
from auto3dseg_fixtures import images, package  # noqa: E402, F401  (fixtures)
from ClassScaleSegLib import open_model, pack  # noqa: E402
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402

FAULTS = {
    "another class": ({"network": {"_target_": "UNet"}}, "Its network is 'UNet'; of MONAI's networks only SegResNetDS"),
    "a path": ({"network": {"_target_": "os.system"}}, "Its network is 'os.system'.*No other name was looked up"),
    "code to run": ({"network": {"_requires_": "$print(1)"}}, "may not be given '_requires_'"),
    "a slope": ({"network": {"act": ["leakyrelu", {"negative_slope": float("nan")}]}}, "option that is no such number"),
    "an eps": ({"network": {"norm": ["INSTANCE", {"eps": -1}]}}, "option that is no such number: 'eps'"),
    "an expression": ({"network": {"act": "$import os"}}, "act '.import os' is not one of relu"),
    "a reference": ({"network": {"out_channels": "@classes"}}, "out_channels of its network is '@classes'"),
    "a preprocess": ({"network": {"preprocess": {"_target_": "os.system"}}}, "may not be given 'preprocess'"),
    "no network": ({"network": {"_target_": None}}, "Its network is None"),
    "an unknown argument": ({"network": {"mode": 3}}, "SegResNetDS may not be given 'mode' in plans"),
    "another upsampling": ({"network": {"upsample_mode": "pixelshuffle"}}, "upsample_mode 'pixelshuffle'"),
    "a huge network": ({"network": {"init_filters": 10**6}}, "init_filters is 1000000; a whole number from 1 to 1024"),
    "two dimensions": ({"network": {"spatial_dims": 2}}, "SegResNetDS must have three dimensions"),
    "odd blocks": ({"network": {"blocks_up": [1]}}, "blocks_up .1. must have 2 numbers"),
    "an odd norm": ({"network": {"norm": ["GROUP", {"num_groups": "8"}]}}, "norm .* has an option that is not known"),
    "an odd patch": ({"roi_size": [30, 32, 20]}, "patch_size .30, 32, 20. must be a multiple of 4 along axis 0"),
    "no patch": ({"roi_size": None}, "roi_size is None; 3 numbers were expected"),
    "no spacing": ({"resample_resolution": None}, "resample_resolution is None; 3 numbers were expected"),
    "a spacing of zero": ({"resample_resolution": [0, 1, 1]}, "spacing .* must be 3 positive numbers"),
    "an odd mode": ({"normalize_mode": "$x"}, "normalize_mode '.x' is not one of none, range, ct"),
    "no bounds": ({"intensity_bounds": None}, "has a bounds that is not valid: None"),
    "too few channels": ({"channels": 3, "extra_modalities": {"t2": "mri"}}, "takes 3 channels, .* how to normalise 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_configuration_that_is_not_one_is_a_sentence(package, fault):
    changes, sentence = FAULTS[fault]
    folder = package(**copy.deepcopy(changes))
    for read in (summarize, open_model):
        with pytest.raises(ModelError, match=f"model.pt: .*{sentence}"):
            read(folder)


class Boom:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("place", ["config", "state_dict", "other"])
def test_a_model_with_more_than_plain_values_does_not_run(package, tmp_path, monkeypatch, place):
    folder = package()
    monkeypatch.chdir(tmp_path)
    content = torch.load(folder / "model.pt", weights_only=True)
    content.setdefault(place, {})["boom"] = Boom()
    torch.save(content, folder / "model.pt")
    for read in (summarize, open_model):
        with pytest.raises(ModelError, match=r"model.pt contains more than weights and plain values .(posix|nt)"):
            read(folder)
    assert not (tmp_path / "ran").exists()


def test_pickles_of_other_kinds_are_refused(package):
    folder = package()
    operations = {
        "a state for a function": pickle.GLOBAL + b"_codecs\nencode\n" + pickle.EMPTY_DICT + pickle.BUILD,
        "a class": pickle.GLOBAL + b"builtins\neval\n",
        "an operation that is not needed": pickle.EXT1 + b"\x01",
        "a memo of 16 GB": pickle.NONE + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f",
        "an endless text": pickle.BINUNICODE + b"\xff\xff\xff\x7f",
        "nothing": b"",
    }
    for what, code in operations.items():
        with zipfile.ZipFile(folder / "model.pt", "w") as archive:
            archive.writestr("archive/data.pkl", pickle.PROTO + b"\x02" + code + pickle.STOP)
        with pytest.raises(ModelError) as caught:
            summarize(folder)
        assert "model.pt " in str(caught.value) and len(str(caught.value)) < 600, what


@pytest.mark.parametrize("bomb", bombs())
def test_a_pickle_that_never_ends_is_a_sentence(package, bomb):
    folder = package()
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\x02" + bombs()[bomb] + pickle.STOP)
    script = "import sys; from ClassScaleSegLib.models.summary import summarize; summarize(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "ModelError: " in done.stderr.splitlines()[-1], done.stderr[-500:]


def test_a_truncated_or_altered_model_is_an_error_or_harmless(package):
    folder = package()
    whole, random = (folder / "model.pt").read_bytes(), np.random.default_rng(0)
    refused = 0
    for attempt in range(150):
        content = bytearray(whole[: random.integers(len(whole))] if attempt % 3 == 0 else whole)
        for _ in range(random.integers(1, 20)):
            if content:
                content[random.integers(min(len(content), 6000))] = random.integers(256)  # where the pickle is
        (folder / "model.pt").write_bytes(content)
        for read in (summarize, open_model):
            try:
                read(folder)
            except ModelError as error:
                refused += 1
                assert "model.pt" in str(error) and len(str(error)) < 800
    assert refused > 200


def test_whatever_stands_in_the_configuration_it_opens_or_says_why_not(package):
    random, refused, opened = np.random.default_rng(1), 0, 0
    folder = package()
    content = torch.load(folder / "model.pt", weights_only=True)
    places = [("network", key) for key in content["config"]["network"]] + [(key,) for key in content["config"]]
    for place in places:
        for value in [*WEIRD, (1, 2), 3 * [2], "SegResNetDS", "monai.networks.nets.SegResNetDS"]:
            changed = copy.deepcopy(content)
            inner = changed["config"]["network"] if len(place) == 2 else changed["config"]
            inner[place[-1]] = value
            buffer = io.BytesIO()
            torch.save({**changed, "state_dict": {}} if random.random() < 0.9 else changed, buffer)
            (folder / "model.pt").write_bytes(buffer.getvalue())
            try:
                (summarize if random.random() < 0.9 else open_model)(folder)
                opened += 1
            except ModelError as error:
                refused += 1
                assert len(str(error)) < 700, place
    assert refused > 100 and opened > 50


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "Its first line has no columns LabelValue and Name"),
        ("LabelValue,Name\nliver,1\n", "not a label table .*LabelValue is"),
        ("LabelValue,Name\n1,a\n1,b\n", "not a label table .*label value 1 was used before"),
        ("LabelValue,Name\n12,a\n", "has the label 12, which the network does not give; it gives 0 to 11"),
        (b"LabelValue,Name\n1,\xff\n", "not a CSV file in UTF-8"),
    ],
)
def test_labels_that_do_not_fit_are_a_sentence(package, text, sentence):
    folder = package()
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    for read in (summarize, open_model):
        with pytest.raises(ModelError, match=f"labels.csv.*{sentence}"):
            read(folder)
    (folder / "labels.csv").unlink()
    with pytest.raises(ModelError, match="labels.csv is missing: a model of Auto3DSeg needs the names"):
        summarize(folder)


def test_labels_may_lack_columns_values_and_codes(package):
    folder = package()
    type_code = "SegmentedPropertyTypeCodeSequence"
    header = f"Name,LabelValue,{type_code}.CodingSchemeDesignator,{type_code}.CodeValue,{type_code}.CodeMeaning,Other"
    (folder / "labels.csv").write_text(f"{header}\nliver,3,SCT,10200004,Liver,x\n\nspleen,4\nother,5,SCT,,x\n")
    table = summarize(folder).table
    assert [table[value].name for value in (0, 1, 3, 4, 11)] == ["background", "label 1", "liver", "spleen", "label 11"]
    assert table[3].type.value == "10200004" and table[4].type is None and table[5].type is None


def test_weights_of_another_network_are_refused(package):
    folder = package()
    content = torch.load(folder / "model.pt", weights_only=True)
    for name, tensor, sentence in (
        ("up_layers.1.head.weight", torch.zeros(13, 8, 1, 1, 1), "they have 13 classes"),
        ("encoder.conv_init.weight", torch.zeros(8, 2, 3, 3, 3), "they take 2 channels"),
        ("encoder.layers.1.blocks.0.conv1.weight", torch.zeros(3), "has shape .3,."),
        ("up_layers.1.head.bias", torch.full((12,), float("nan")), "not finite"),
        ("more.weight", torch.zeros(1), "more.weight is not part of the network"),
    ):
        changed = {**content, "state_dict": {**content["state_dict"], name: tensor}}
        torch.save(changed, folder / "model.pt")
        with pytest.raises(ModelError, match=f"model.pt: .*{sentence}"):
            open_model(folder)
    torch.save(
        {**content, "state_dict": {f"module.{k}": v for k, v in content["state_dict"].items()}}, folder / "model.pt"
    )
    assert open_model(folder).classes == 12
    with pytest.raises(ModelError, match="has no folds: it is a single network"):
        open_model(folder, folds=(1,))


def test_whatever_stands_in_the_plans_of_its_bundle_it_opens_or_says_why_not(package, tmp_path):
    bundle = tmp_path / "bundle"
    with zipfile.ZipFile(pack(package(), tmp_path / "bundle.zip")) as archive:
        archive.extractall(bundle)
    plans, manifest = (json.loads((bundle / name).read_text()) for name in ("plans.json", "manifest.json"))
    random, opened, refused = np.random.default_rng(2), 0, 0
    for path in [path for path in entries(plans) if path[0] == "configurations"]:
        for value in [*WEIRD, "monai.networks.nets.UNet", "meanstd", "auto3dseg", "conform"]:
            content = node = copy.deepcopy(plans)
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            text = json.dumps(content).encode()
            (bundle / "plans.json").write_bytes(text)
            member = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
            changed = {**manifest, "members": {**manifest["members"], "plans.json": member}}
            (bundle / "manifest.json").write_text(json.dumps(changed))
            try:
                (summarize if random.random() < 0.95 else open_model)(bundle)
                opened += 1
            except ModelError as error:
                refused += 1
                assert len(str(error)) < 700 + len(str(bundle)), (path, value)
    assert refused > 300 and opened > 20
