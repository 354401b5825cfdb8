"""Bundles with weights in 8 bits: a quarter of the size, each weight near, and factors that do not fit are refused."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import json
import re

import pytest
import torch

pytest.importorskip("nnunetv2")
from bundle_fixtures import (
    bundle,  # noqa: F401  (fixtures)
    members_of,
    rewrite,
)
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.models.eight_bits import in_eight_bits, in_full  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.packing import pack  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402


def test_eight_bits_take_a_quarter_and_keep_each_weight_to_a_254th_of_the_largest_of_its_row(bundle, tmp_path):
    small = pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "small8.zip", bits=8)
    sizes = [len(members_of(file)["fold_0.safetensors"]) for file in (bundle, small)]
    assert sizes[1] < 0.45 * sizes[0]  # the rest is names, factors, biases and norms
    exact, rounded = (open_model(file) for file in (bundle, small))
    for one, other in zip(exact.backbones, rounded.backbones, strict=True):
        for weight, near in zip(one.parameters(), other.parameters(), strict=True):
            assert near.dtype == torch.float32
            if weight.dim() < 2:
                assert torch.equal(weight, near)
            else:
                allowed = weight.flatten(1).abs().amax(1) / 254 * 1.0001
                off = (weight - near).flatten(1).abs().amax(1)
                assert (off <= allowed).all() and off.max() > 0


def test_only_a_bundle_with_weights_in_eight_bits_needs_a_newer_version(bundle, tmp_path):
    small = pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "small8.zip", bits=8)
    versions = [json.loads(members_of(file)["manifest.json"])["version"] for file in (bundle, small)]
    assert versions == [1, 2]


def test_summaries_count_the_parameters_of_eight_bits_without_their_factors(bundle, tmp_path):
    small = pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "small8.zip", bits=8)
    assert summarize(small).parameters == summarize(bundle).parameters > 0


@pytest.mark.parametrize("fault", ["missing", "short", "half", "one axis", torch.inf, torch.nan, -0.01, 0.0])
def test_factors_that_do_not_fit_are_refused_by_name(fault, bundle, tmp_path):
    from safetensors.torch import load, save

    contents = members_of(pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "small8.zip", bits=8))
    weights = load(contents["fold_1.safetensors"])
    name = next(key for key, value in weights.items() if value.dtype == torch.int8)
    scale = weights.pop(f"{name}.int8_scale")
    changed = {
        "missing": {},
        "short": {f"{name}.int8_scale": scale[:-1].clone()},
        "half": {f"{name}.int8_scale": scale.half()},
        "one axis": {name: weights[name].flatten(), f"{name}.int8_scale": scale},
    }
    if isinstance(fault, float):
        scale[-1] = fault
    changed = changed.get(fault, {f"{name}.int8_scale": scale})
    file = rewrite(tmp_path / "bad.zip", contents | {"fold_1.safetensors": save(weights | changed)})
    expected = "factors .* that are not positive numbers: the file is damaged"
    if isinstance(fault, str):
        expected = "is not one float32 factor for each row"
    with pytest.raises(ModelError, match=f"fold_1.*{re.escape(name)}.*{expected}"):
        open_model(file)


def test_rows_of_zeros_and_of_the_smallest_numbers_stay_finite():
    rows = torch.tensor([[0.0, 0.0], [1e-45, -1e-45], [1e-38, 3e-39], [3.4e38, -1.0]])
    back = in_full(in_eight_bits({"weight": rows}))["weight"]
    assert ((back - rows).abs() <= rows.abs().amax(1, keepdim=True) / 254 * 1.0001 + 127 * torch.finfo().tiny).all()


def test_factors_of_weights_that_are_not_in_eight_bits_are_not_passed_over():
    stored = {"weight": torch.ones(2, 3), "weight.int8_scale": torch.full((2,), 0.5)}
    assert in_full(stored).keys() == stored.keys()  # of which the second is no part of any network


@pytest.mark.parametrize("bits", [4, 0, "8"])
def test_other_numbers_of_bits_are_refused(bits, tmp_path):
    with pytest.raises(ValueError, match="bits is one of"):
        pack(tmp_path / "no model", tmp_path / "small.zip", bits=bits)
