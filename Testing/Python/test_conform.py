"""Heads on the grid of a MeshNet: as ITK resamples them, with levels as FreeSurfer and Brainchop scale them."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import hashlib

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("nnunetv2")
from brainchop_fixtures import (
    DIRECTIONS,
    SIDE,
    bytes_of,
    conformed_by_itk,
    cropped,
    head,
    prepared_by,
    write_brainchop,  # noqa: F401  (fixtures)
)
from ClassScaleSegLib import segment  # noqa: E402
from ClassScaleSegLib.errors import ImageError, ModelError  # noqa: E402
from ClassScaleSegLib.inference import conform  # noqa: E402
from ClassScaleSegLib.models import brainchop  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.preprocessing import Conform, read_preprocessing  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "size, spacing",
    [((31, 40, 27), (1.0, 1.0, 1.0)), ((50, 33, 20), (0.8, 0.94, 2.5)), ((80, 9, 12), (1.0, 3.0, 1.5))],
)
def test_heads_are_conformed_as_itk_resamples_them(monkeypatch, size, spacing, direction):
    monkeypatch.setattr(conform, "ROWS", 5)
    image, side = head(size, spacing, direction, rim=0), 64
    heads, made = [], conform.conformed
    monkeypatch.setattr(conform, "conformed", lambda *args: heads.append(made(*args)) or heads[0])
    prepared = prepared_by(image, Conform("LIA", "range", 0.0, 0), side)
    expected, _places = conformed_by_itk(image, side)
    assert heads[0].dtype == np.uint8 and heads[0].shape == (side,) * 3
    difference = np.abs(heads[0].astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3 * (expected > 0).mean()  # at the border of two levels
    rows = prepared.image.whole()[0].numpy()
    np.testing.assert_array_equal(rows, heads[0][cropped(heads[0])].astype(np.float32) / np.float32(heads[0].max()))


@pytest.mark.parametrize("case", range(12))
def test_intensities_are_scaled_by_the_published_formula(case):
    random = np.random.default_rng(case)
    dtype = [np.int16, np.uint16, np.float32, np.float64][case % 4]
    voxels = random.gamma(2, 100, (17, 13, 11)) * (random.random((17, 13, 11)) < 0.6)
    if case % 3 == 0 and dtype != np.uint16:
        voxels -= 30
    if case % 3 == 1:
        voxels[0, 0, :3] = 30_000  # outliers
    voxels = voxels.astype(dtype)
    low, scale = conform.intensity_scale(voxels.transpose(2, 0, 1)[::-1])
    found = np.clip(scale * (voxels.astype(np.float64) - low), 0, 255).astype(np.uint8)
    assert np.abs(found.astype(int) - bytes_of(voxels)).max() <= 1  # a value at the border of two bins
    assert (found != bytes_of(voxels)).mean() < 0.02


@pytest.mark.parametrize("value", [0, 7, -5])  # what is around the head is 0
def test_a_constant_image_is_refused_with_a_sentence(write_brainchop, value):
    image = sitk.GetImageFromArray(np.full((9, 9, 9), value, np.int16))
    with pytest.raises(ImageError, match=f"with intensities from {value} to {value}, has no contrast"):
        segment(image, open_model(write_brainchop()[0]), device="cpu")


def test_a_single_slice_is_refused_with_a_sentence(write_brainchop):
    with pytest.raises(ImageError, match=r"has 20 x 1 x 22 voxels: .* Give the whole head, not a slice"):
        segment(head((20, 22, 1), rim=0), open_model(write_brainchop()[0]), device="cpu")


@pytest.mark.parametrize("quantiles", [(0, 1), (0.05, 0.95)])
def test_levels_are_normalised_between_two_ranks(quantiles):
    random = np.random.default_rng(0)
    voxels = np.clip(random.normal(90, 40, 5003), 0, 255).astype(np.uint8)
    found = conform.normalized_levels(np.bincount(voxels, minlength=256), "range" if quantiles[1] == 1 else "quantiles")
    ranks = np.sort(voxels)
    low = float(ranks[int(len(ranks) * quantiles[0])])
    high = float(ranks[int(np.ceil(len(ranks) * quantiles[1])) - 1])
    np.testing.assert_allclose(found[voxels], (voxels - low) / (high - low), rtol=1e-6, atol=1e-7)
    assert (found[voxels].max() > 1) == (quantiles[1] < 1)  # not clipped


def test_what_is_beyond_256_mm_is_background_and_said(write_brainchop):
    model, told = open_model(write_brainchop()[0]), []
    image = head((300, 20, 24), rim=0)
    labels = segment(image, model, device="cpu", progress=lambda report: told.append(report.message)).labels
    assert "The image has 300 x 24 x 20 mm; what lies more than 128 mm from its centre is background." in told
    assert labels[:, :, :22].max() == labels[:, :, 278:].max() == 0
    assert (labels[:, :, 22:278] > 0).mean() > 0.2


# --- settings that only Brainchop's list has


def test_published_weights_have_the_settings_of_the_list(write_brainchop, monkeypatch):
    folder, arrays = write_brainchop()
    checksum = hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
    settings = {"normalization": "quantiles", "threshold": 0.2, "margin": 3}
    monkeypatch.setitem(brainchop.SETTINGS, checksum, settings)
    how = summarize(folder).preprocessing
    assert (how.normalization, how.threshold, how.margin) == ("quantiles", 0.2, 3)
    image = head((30, 28, 32), direction="LIA", rim=0)  # more than 5 % of the grid are not zero
    prepared = prepared_by(image, how, 64)
    levels, _places = conformed_by_itk(image, 64)
    ranks = np.sort(levels.ravel())
    low, high = (np.float32(ranks[index]) for index in (int(0.05 * ranks.size), int(np.ceil(0.95 * ranks.size)) - 1))
    normal = (levels - low) / (high - low)
    np.testing.assert_array_equal(prepared.image.whole()[0].numpy(), normal[cropped(normal, 0.2, 3)])


def test_the_published_checksums_are_those_of_the_list():
    assert all(
        len(checksum) == 64 and set(more) <= set(brainchop.USUAL) for checksum, more in brainchop.SETTINGS.items()
    )
    assert len(brainchop.SETTINGS) == 5


@pytest.mark.parametrize(
    "entry, value, sentence",
    [
        ("kind", "conforming", "of a kind that is not known"),
        ("orientation", None, "an? orientation that is not valid"),
        ("normalization", ["range"], "an? normalization that is not valid"),
        ("threshold", 1.0, "an? threshold that is not valid"),
        ("margin", 1.5, "an? margin that is not valid"),
    ],
)
def test_plans_with_another_preprocessing_are_refused(entry, value, sentence):
    entries = {"patch_size": [SIDE] * 3, "classscale_preprocessing": {**brainchop.USUAL, entry: value}}
    with pytest.raises(ModelError, match=sentence):
        read_preprocessing(entries, 1)
