"""Bundles from anyone: a damaged, foreign or malicious one is refused."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import io
import json
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from conftest import small_dataset, small_plans, stock_network

pytest.importorskip("nnunetv2")
from bundle_fixtures import (
    MEMBERS,
    bundle,  # noqa: F401  (fixtures)
    members_of,
    rewrite,
    same_model,
)
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402


def test_a_newer_version_and_a_foreign_manifest_say_so(bundle):
    members = members_of(bundle)
    with pytest.raises(ModelError, match="made by a newer ClassScaleSeg .bundle version 3, this one reads 2"):
        open_model(rewrite(bundle, members, version=3))
    with pytest.raises(ModelError, match="does not belong to a ClassScaleSeg bundle"):
        open_model(rewrite(bundle, members, format="other"))
    with pytest.raises(ModelError, match="has no version"):
        open_model(rewrite(bundle, members, version="1"))


@pytest.mark.parametrize("name", [*MEMBERS[1:], "fold_0.safetensors"])
def test_every_member_is_compared_with_the_manifest(bundle, name):
    members = members_of(bundle)
    manifest = json.loads(members["manifest.json"])
    changed = bytearray(members[name])
    changed[len(changed) // 2] ^= 1

    def write(content):
        with zipfile.ZipFile(bundle, "w") as archive:
            for key, data in {**members, name: bytes(content)}.items():
                archive.writestr(key, data)

    write(changed)
    with pytest.raises(ModelError, match=f"{name} is damaged: its SHA-256"):
        open_model(bundle)
    write(members[name] + b" ")
    with pytest.raises(
        ModelError, match=f"{name} has .* bytes, but the manifest declares {manifest['members'][name]['size']}"
    ):
        open_model(bundle)
    del members[name]
    with zipfile.ZipFile(bundle, "w") as archive:
        for key, data in members.items():
            archive.writestr(key, data)
    with pytest.raises(ModelError, match=f"{name} is missing"):
        open_model(bundle)


def test_a_member_the_manifest_does_not_list_is_never_read(bundle, monkeypatch):
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("fold_9.safetensors", b"x")
        archive.writestr("__MACOSX/manifest.json", b"x")
    assert open_model(bundle).folds == ("0", "1")
    with pytest.raises(ModelError, match="has the folds 0, 1; 9 was requested"):
        open_model(bundle, folds=(9,))


ENTRIES = [
    ("members", {"../evil": {"size": 1, "sha256": "0" * 64}}),
    ("members", {"checkpoint.pth": {"size": 1, "sha256": "0" * 64}}),
    ("members", {"plans.json": {"size": "1", "sha256": "0" * 64}}),
    ("members", []),
    ("folds", ["2"]),
    ("folds", [0]),
    ("members", 5),
    ("folds", []),
    ("folds", "0"),
    ("mirror_axes", "012"),
    ("mirror_axes", [5]),
    ("swap_sides", "yes"),
    ("swap_sides", None),
    ("orientation", "RAL"),
    ("orientation", 1),
    ("name", ""),
    ("name", "two\nlines"),
    ("configuration", None),
    ("configuration", "2d"),
    ("licence", 5),
]


@pytest.mark.parametrize("key, value", ENTRIES)
def test_a_manifest_with_a_wrong_entry_is_refused(bundle, key, value):
    members = members_of(bundle)
    with pytest.raises(ModelError, match=f"{key}|mirroring axes"):
        open_model(rewrite(bundle, members, **{key: value}))


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("plans.json", b"[]", "plans.json contains a list"),
        ("labels.csv", b"LabelValue,Name\n1,liver\n", "labels.csv has no label 2"),
        ("labels.csv", b"x", "labels.csv.*no column LabelValue"),
        ("fold_0.safetensors", b"x" * 100, "fold_0.safetensors is not a safetensors file"),
        ("fold_0.safetensors", (2**62).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        ("fold_0.safetensors", (2**23).to_bytes(8, "little") + b" " * 2**23, "its header has more than 4194304 bytes"),
    ],
)
def test_members_that_fit_the_manifest_are_still_not_trusted(bundle, name, content, sentence):
    with pytest.raises(ModelError, match=sentence):
        open_model(rewrite(bundle, {**members_of(bundle), name: content}))


def test_a_pickle_in_the_place_of_weights_is_not_opened(bundle):
    stream = io.BytesIO()
    torch.save(stock_network(small_plans(), small_dataset()).state_dict(), stream)
    with pytest.raises(ModelError, match="is not a safetensors file"):
        open_model(rewrite(bundle, {**members_of(bundle), "fold_0.safetensors": stream.getvalue()}))


def test_plans_in_a_bundle_are_checked_as_strictly_as_in_a_folder(bundle):
    members = members_of(bundle)
    for old, new, sentence in (
        (b"torch.nn.LeakyReLU", b"os.system", "nonlin 'os.system' is not one of"),
        (b"architectures.unet.PlainConvUNet", b"architectures.resnet.ResNetD", "is not supported"),
        (b"architectures.unet.PlainConvUNet", b"architectures.primus.Primus", "may not be given 'n_stages'"),
        (b'"n_stages": 3', b'"n_stages": 4', "3 sizes for each of 4 stages"),
    ):
        with pytest.raises(ModelError, match=sentence):
            open_model(rewrite(bundle, {**members, "plans.json": members["plans.json"].replace(old, new)}))


def test_any_truncation_or_flipped_bit_is_an_error_or_changes_nothing(bundle, tmp_path):
    whole, expected = bundle.read_bytes(), open_model(bundle)
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.zip"
    for length in (0, 1, 30, *random.integers(0, len(whole), 12), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            open_model(path)
    texts = re.search(rb"fold_0\.safetensors", whole).start()  # members before the weights: manifest, plans, labels
    directory = whole.index(b"PK\x01\x02")
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        low, high = [(0, texts), (texts, directory), (directory, len(whole))][random.integers(3)]
        damaged[random.integers(low, high)] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                assert same_model(open_model(path), expected)
            except ModelError:
                refused += 1
    assert refused > 100


def test_variances_below_zero_are_refused(write_model):
    plans = small_plans()
    norm = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    norm["norm_op"] = "torch.nn.modules.batchnorm.BatchNorm3d"
    folder = write_model(plans)
    open_model(folder)
    file = next(folder.rglob("checkpoint_final.pth"))
    content = torch.load(file, weights_only=False)
    name = next(key for key in content["network_weights"] if key.endswith("running_var"))
    content["network_weights"][name][0] = -1
    torch.save(content, file)
    with pytest.raises(ModelError, match=f"{re.escape(name)} has variances below 0"):
        open_model(folder)
