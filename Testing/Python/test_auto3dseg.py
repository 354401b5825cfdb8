"""Models of MONAI's Auto3DSeg: the labels are those of MONAI's own transforms, network and inferer."""

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
import SimpleITK as sitk
import torch
from live_tensors import Live
from odd_json import WEIRD, entries

pytest.importorskip("monai")
from ClassScaleSegLib import open_model, pack, segment  # noqa: E402
from ClassScaleSegLib.errors import ClassScaleError, ImageError, ModelError  # noqa: E402
from ClassScaleSegLib.inference import network_slabs  # noqa: E402
from ClassScaleSegLib.inference.backbone import Backbone  # noqa: E402
from ClassScaleSegLib.inference.memory_estimate import estimate  # noqa: E402
from ClassScaleSegLib.models.identity import model_sha256  # noqa: E402
from ClassScaleSegLib.models.pickle_outline import read_outline  # noqa: E402
from ClassScaleSegLib.models.segresnet import check_segresnet, count_segresnet  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402
from ClassScaleSegLib.resources import resource  # noqa: E402
from monai_pipeline import configuration, monai_labels, network_of, write_package  # noqa: E402

KINDS = {
    "ct": {},
    "mri": {"normalize_mode": "meanstd", "intensity_bounds": None, "modality": "mri"},
    "tanh": {"normalize_mode": "meanstdtanh"},
    "pet": {"normalize_mode": "pet"},
    "raw": {"normalize_mode": "none", "orientation_ras": False},
    "as stored": {"orientation_ras": False},
    "whole": {"crop_foreground": False},
    "two channels": {"channels": 2, "extra_modalities": {"adc": "meanstd"}, "normalize_mode": "meanstd"},
    "regions": {"classes": 3, "channels": 4, "sigmoid": True, "normalize_mode": "meanstd"},
    "anisotropic": {"network": {"resolution": [1.0, 1.0, 3.0]}, "resample_resolution": [1.1, 1.1, 2.6]},
    "other blocks": {"network": {"blocks_down": [1, 2], "blocks_up": [2], "norm": ["GROUP", {"num_groups": 4}]}},
    "batch norm": {"network": {"norm": "BATCH", "act": "prelu", "dsdepth": 1}},
}


def images(folder, channels=1, spacing=(1.1, 0.9, 2.3), direction=None, size=(40, 44, 21), seed=0):
    """Write images with smooth intensities and a dark margin; return their files."""
    from scipy.ndimage import gaussian_filter

    random, files = np.random.default_rng(seed), []
    for channel in range(channels):
        voxels = gaussian_filter(random.normal(size=size[::-1]), 2) * 1500
        voxels[:, :, :14] = -900 if channel == 0 else 0  # not above zero: outside of the crop, except for its margin
        image = sitk.GetImageFromArray(voxels.astype(np.int16))
        image.SetSpacing(spacing)
        image.SetOrigin((10, -20, 30))
        if direction is not None:
            image.SetDirection(direction)
        files.append(folder / f"image {channel}.nii.gz")
        sitk.WriteImage(image, str(files[-1]))
    return files


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_labels_are_those_of_monais_pipeline(tmp_path, kind, interpolation):
    config = configuration(**KINDS[kind])
    network = network_of(config)
    values = (1, 2, 3) if config["sigmoid"] else None
    model = open_model(write_package(tmp_path / "mini-v1.0.0", config, network, values))
    flipped = (-1, 0, 0, 0, 0, 1, 0, 1, 0) if kind == "raw" else (0, 1, 0, -1, 0, 0, 0, 0, 1)
    files = images(tmp_path, model.channels, direction=None if kind == "as stored" else flipped)
    ours = segment(files, model, device="cpu", interpolation=interpolation).labels
    theirs = monai_labels(config, network, files, interpolation).transpose(2, 1, 0)
    assert len(np.unique(theirs)) > 2
    assert ours.shape == theirs.shape and np.count_nonzero(ours != theirs) <= 2


@pytest.fixture
def package(tmp_path):
    """Write a package with these changes of its configuration; returns its folder."""

    def write(name="mini-v1.0.0", classes=None, **changes):
        config = configuration(classes or 12, **changes)
        try:
            network = network_of(config)
        except Exception:  # a configuration that is refused: the weights do not matter
            network = network_of(configuration())
        return write_package(tmp_path / name, config, network, range(1, classes or 12))

    return write


def test_a_package_is_described_without_torch_and_monai(package):
    folder = package(classes=20)
    script = (
        "import sys; from ClassScaleSegLib.models.summary import summarize; s = summarize(sys.argv[1]); "
        "print(s.name, s.classes, s.spacing, s.patch, s.parameters, s.packages, s.orientation, s.modality, "
        "s.usual_step, s.table[7].name, s.table[7].type.meaning, 'torch' in sys.modules, 'monai' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    parameters = sum(p.numel() for name, p in network_of(configuration(20)).named_parameters() if "0.head" not in name)
    assert done.stdout.split("\n")[0] == (
        f"mini-v1.0.0 20 (1.5, 1.5, 1.5) (20, 32, 24) {parameters} ('monai>=1.3',) RAS CT 0.375 organ 7 Liver False "
        "False"
    )


@pytest.mark.parametrize("zipped", [False, True])
def test_a_package_as_a_zip_or_a_bundle_is_the_same_model(package, tmp_path, zipped):
    folder = package(classes=20)
    if zipped:
        with zipfile.ZipFile(tmp_path / "mini.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"mini-v1.0.0/{file.name}")
    source = tmp_path / "mini.zip" if zipped else folder
    bundle = pack(source, tmp_path / "bundle.zip", licence="CC-BY-4.0")
    (file,) = images(tmp_path)
    first, second = open_model(source), open_model(bundle)
    assert len({model_sha256(source), model_sha256(folder), model_sha256(bundle)}) == 2 + zipped
    assert first.preprocessing == second.preprocessing and first.rank == 8 and second.licence == "CC-BY-4.0"
    assert summarize(source).parameters == summarize(bundle).parameters
    found = [segment(file, model, device="cpu") for model in (first, second)]
    assert np.array_equal(found[0].labels, found[1].labels) and found[1].table[7].type.value == "10200004"


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_the_network(kind):
    config = configuration(**KINDS[kind])
    network, given = network_of(config), dict(config["network"])
    channels, classes = given.pop("in_channels"), given.pop("out_channels")
    arguments = check_segresnet("SegResNetDS", {k: v for k, v in given.items() if k != "_target_"}, [32, 32, 32])
    last = len(network.up_layers) - 1
    unused = tuple(f"up_layers.{index}.head" for index in range(last))
    expected = sum(p.numel() for name, p in network.named_parameters() if not name.startswith(unused))
    assert count_segresnet(arguments, channels, classes) == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "network" in KINDS[kind]])
def test_slab_by_slab_the_network_is_the_same_and_holds_two_maps(kind, monkeypatch):
    monkeypatch.setattr(network_slabs, "SLAB_BYTES", 40_000)
    monkeypatch.setattr(network_slabs, "_PART_BYTES", 20_000)
    config = configuration(**KINDS[kind])
    network = network_of(config)
    x = torch.randn(1, 1, 32, 48, 32)
    with torch.inference_mode():
        expected = network(x)
        torch.testing.assert_close(Backbone([network])(x)[None], expected, rtol=1e-4, atol=1e-4)
        network.up_layers[-1]["head"] = torch.nn.Identity()
        with Live(network) as live:
            Backbone([network])(x)
    maps = live.peak / (4 * config["network"]["init_filters"] * x.numel())
    assert maps < (3.4 if kind == "other blocks" else 2.6)  # group normalisation has no way to work in place


def test_memory_does_not_grow_with_the_classes_and_the_estimate_knows_the_grid(package):
    needs = []
    for classes in (20, 117):
        summary = summarize(package(f"mini-{classes}", classes=classes))
        needs.append(estimate(summary, (60, 60, 60), (1.0, 1.0, 1.4)))
        assert summary.projects
    assert needs[0].basis == needs[1].basis and needs[0].ring == needs[1].ring
    assert needs[0].grid == (40, 40, 60)  # z, y, x; 1.4 mm is near enough to 1.5 mm
    assert needs[0].windows == 4 * 2 * 5


def test_a_model_that_needs_a_package_says_so_before_it_runs(package, monkeypatch):
    folder = package()
    for name in [name for name in sys.modules if name.startswith("monai")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "monai", None)
    assert summarize(folder).packages == ("monai>=1.3",)
    with pytest.raises(ModelError, match="model.pt: its network, SegResNetDS, needs the package monai .*pip install"):
        open_model(folder)


FAULTS = {
    "another class": ({"network": {"_target_": "UNet"}}, "Its network is 'UNet'; of MONAI's networks only SegResNetDS"),
    "a path": ({"network": {"_target_": "os.system"}}, "Its network is 'os.system'.*No other name was looked up"),
    "code to run": ({"network": {"_requires_": "$print(1)"}}, "may not be given '_requires_'"),
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


def _bombs():
    """Pickles of kilobytes that Python's unpickler would be busy with for ever, or would not survive."""
    mark, tuple1, tuple2, dup = pickle.MARK, pickle.TUPLE1, pickle.TUPLE2, pickle.BINPUT + b"\x00" + pickle.BINGET
    encode = pickle.GLOBAL + b"_codecs\nencode\n"
    hexed = b"".join(
        encode
        + pickle.BINGET
        + b"\x01"
        + pickle.BINUNICODE
        + b"\x03\x00\x00\x00hex"
        + tuple2
        + pickle.REDUCE
        + pickle.BINPUT
        + b"\x01"
        for _ in range(60)
    )
    text = pickle.BINUNICODE + (1 << 16).to_bytes(4, "little") + b"x" * (1 << 16)
    shared = text + pickle.BINPUT + b"\x00"
    for _ in range(6):
        shared += pickle.BINPUT + b"\x00" + pickle.EMPTY_LIST + mark + (pickle.BINGET + b"\x00") * 200 + pickle.APPENDS
    config = pickle.BINUNICODE + b"\x06\x00\x00\x00config" + pickle.EMPTY_DICT
    config += pickle.BINUNICODE + b"\x07\x00\x00\x00network"
    numbers = [(n * (2**61 - 1)).to_bytes(10, "little") for n in range(1, 40_000)]
    keys = [pickle.LONG1 + b"\x0a" + number + pickle.NONE for number in numbers]
    state = pickle.BINUNICODE + b"\x0a\x00\x00\x00state_dict" + pickle.EMPTY_DICT + pickle.SETITEM
    return {
        "a deep key": pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + tuple1 * 1_000_000 + pickle.NONE + pickle.SETITEM,
        "a key that doubles": pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + (dup + b"\x00" + tuple2) * 60 + pickle.NONE
        + pickle.SETITEM,
        "a deep set": pickle.GLOBAL + b"__builtin__\nset\n" + pickle.EMPTY_LIST + pickle.EMPTY_TUPLE
        + tuple1 * 1_000_000 + pickle.APPEND + tuple1 + pickle.REDUCE,
        "hex of hex": text + pickle.BINPUT + b"\x01" + hexed,
        "keys of one hash": pickle.EMPTY_DICT + mark + b"".join(keys) + pickle.SETITEMS,
        "lists that share lists": pickle.EMPTY_DICT + config + shared + pickle.SETITEM + pickle.SETITEM + state,
    }  # fmt: skip


@pytest.mark.parametrize("bomb", _bombs())
def test_a_pickle_that_never_ends_is_a_sentence(package, bomb):
    folder = package()
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\x02" + _bombs()[bomb] + pickle.STOP)
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


def test_an_image_without_foreground_or_of_another_kind_is_a_sentence(package, tmp_path):
    model = open_model(package())
    dark = sitk.GetImageFromArray(np.full((20, 20, 20), -1000, np.int16))
    with pytest.raises(ImageError, match="no voxel above zero, so there is nothing to segment"):
        segment(dark, model, device="cpu")
    model = open_model(package("mri", normalize_mode="meanstd"))
    constant = sitk.GetImageFromArray(np.full((20, 20, 20), 7, np.int16))
    assert segment(constant, model, device="cpu").labels.shape == (20, 20, 20)
    with pytest.raises(ClassScaleError, match="interpolation"):
        segment(constant, model, device="cpu", interpolation="cubic")


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


def test_the_nearest_label_is_copied_for_models_of_nnunet_too():
    toy = open_model(resource("Models", "toy-120.zip"))
    image = sitk.ReadImage(str(resource("SampleData", "toy-120.nrrd")))[20:60, 20:60, 20:60]
    fine = sitk.Resample(image, [60] * 3, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [1.3] * 3)
    linear, nearest = (segment(fine, toy, device="cpu", interpolation=way).labels for way in ("linear", "nearest"))
    agree = np.mean(linear == nearest)
    assert 0.8 < agree < 1


def test_the_outline_of_a_checkpoint_has_values_and_shapes():
    buffer = io.BytesIO()
    values = {"a": [1, 2.5, None, True, "x", b"y"], "b": (1, (2,)), "n": np.float64(0.5), "2": torch.Size([3])}
    weights = torch.nn.BatchNorm1d(3).state_dict()
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    torch.save({"config": values, "state_dict": weights, "parameter": parameter}, buffer)
    buffer.seek(0)
    outline = read_outline(buffer)
    assert {**outline["config"], "2": None} == {**values, "2": None}
    assert outline["state_dict"]["weight"].shape == (3,) and outline["parameter"].shape == (2, 2)
