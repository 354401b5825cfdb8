"""What the tests of bundles share: a small one, its members, and bundles with other members."""

import hashlib
import json
import zipfile

import pytest
import torch
from conftest import TOY

pytest.importorskip("nnunetv2")
from ClassScaleSegLib.models.packing import pack  # noqa: E402

HEAD = TOY.with_name("head-mr-312.zip")
MEMBERS = ["manifest.json", "README.md", "dataset.json", "labels.csv", "plans.json"]


@pytest.fixture
def bundle(write_model, tmp_path):
    return pack(write_model(seeds=(0, 1)), tmp_path / "small.zip", licence="CC-BY-4.0", modality="CT")


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def rewrite(path, contents, **manifest):
    """The bundle with other members, and the manifest's entries changed; sizes and sums are made to fit."""
    content = json.loads(contents["manifest.json"])
    for name in content["members"]:
        if name in contents:
            sha256 = hashlib.sha256(contents[name]).hexdigest()
            content["members"][name] = {"size": len(contents[name]), "sha256": sha256}
    content.update(manifest)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**contents, "manifest.json": json.dumps(content).encode()}.items():
            archive.writestr(name, data)
    return path


def same_model(one, other):
    weights = [{k: v for net in m.backbones for k, v in net.state_dict().items()} for m in (one, other)]
    return (
        weights[0].keys() == weights[1].keys()
        and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        and torch.equal(one.projection.weight, other.projection.weight)
        and torch.equal(one.projection.bias, other.projection.bias)
        and (one.projection.values, one.projection.regions) == (other.projection.values, other.projection.regions)
    )
