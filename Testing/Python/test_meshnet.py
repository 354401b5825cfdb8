"""MeshNets of Brainchop: labels against a plain forward pass, the network slab by slab, and what a summary says."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import json
import zipfile

import numpy as np
import pytest
import torch
from conftest import logits

pytest.importorskip("nnunetv2")
from brainchop_fixtures import (
    DIRECTIONS,
    SIDE,
    colours,
    conformed_by_itk,
    cropped,
    expected_labels,
    head,
    plain_forward,
    turned_back,
    write_brainchop,  # noqa: F401  (fixtures)
)
from ClassScaleSegLib import segment  # noqa: E402
from ClassScaleSegLib.inference import network_slabs  # noqa: E402
from ClassScaleSegLib.inference.memory_estimate import estimate  # noqa: E402
from ClassScaleSegLib.models.meshnet_network import MeshNet  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.packing import pack  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "network",
    [
        {},
        {"dilations": (1, 2, 4, 8, 16, 8, 1), "activation": "elu"},
        {"features": 12, "classes": 7},  # the logits are the smaller basis
        {"bias": False},
    ],
)
def test_labels_are_those_of_a_plain_forward_pass(write_brainchop, network, direction):
    folder, arrays = write_brainchop(**network)
    image = head(direction=direction)
    found = segment(image, open_model(folder), device="cpu").labels
    dilations, activation = network.get("dilations", (1, 2, 4)), network.get("activation", "relu")
    expected = turned_back(expected_labels(image, arrays, dilations, activation), image)
    assert len(np.unique(expected)) >= 4
    assert (found == expected).mean() == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
def test_any_type_of_voxels_is_scaled_to_bytes(write_brainchop, dtype):
    folder, arrays = write_brainchop(seed=3)
    image = head(dtype=dtype, seed=5)
    found = segment(image, open_model(folder), device="cpu").labels
    expected = turned_back(expected_labels(image, arrays, (1, 2, 4)), image)
    assert (found == expected).mean() > 0.999  # of float32, a voxel at the border of two levels may fall on either side


def test_a_bundle_gives_the_same_labels(write_brainchop, tmp_path):
    folder, _arrays = write_brainchop()
    image, bundle = head(), tmp_path / "bundle.zip"
    pack(folder, bundle)
    model, packed = open_model(folder), open_model(bundle)
    assert (packed.orientation, packed.preprocessing) == ("LIA", model.preprocessing)
    found = segment(image, packed, device="cpu")
    np.testing.assert_array_equal(found.labels, segment(image, model, device="cpu").labels)
    assert found.table[3].color == (3, 7, 255)


def test_a_box_of_the_image_has_the_labels_of_the_whole(write_brainchop):
    from ClassScaleSegLib.inference.segmenter import segment_with
    from ClassScaleSegLib.options import Options

    folder, _arrays = write_brainchop()
    image, model = head(direction="ASR"), open_model(folder)
    whole = segment_with(image, model, Options(device="cpu")).labels
    box = (slice(4, 15), slice(9, 12), slice(0, 17))
    found = segment_with(image, model, Options(device="cpu"), box=box).labels
    expected = np.zeros_like(whole)
    expected[box] = whole[box]
    np.testing.assert_array_equal(found, expected)


def test_between_the_voxels_of_the_network_its_logits_are_interpolated(write_brainchop):
    from scipy.ndimage import map_coordinates

    folder, arrays = write_brainchop(seed=1)
    image = head((44, 40, 48), (0.5, 0.6, 0.4), direction="LIA", rim=6)
    found = segment(image, open_model(folder), device="cpu").labels.transpose(2, 1, 0)
    levels, places = conformed_by_itk(image)
    box = cropped(levels)
    scores = plain_forward(levels[box].astype(np.float32) / np.float32(levels.max()), arrays, (1, 2, 4))
    inside = np.ones(found.shape, bool)
    steps = []
    for axis, part in enumerate(box):
        place = np.interp(np.arange(found.shape[axis]), *[v[axis] for v in places])
        shape = [-1 if other == axis else 1 for other in range(3)]
        inside &= ((place >= part.start - 0.5) & (place < part.stop - 0.5)).reshape(shape)
        steps.append(np.clip(place - part.start, 0, part.stop - part.start - 1))
    grid = np.meshgrid(*steps, indexing="ij")
    expected = np.stack([map_coordinates(scores[..., c], grid, order=1, mode="nearest") for c in range(9)]).argmax(0)
    expected[~inside] = 0
    assert 0.2 < inside.mean() < 0.9
    assert (found == expected).mean() > 0.999


# --- the network


@pytest.mark.parametrize("slab_bytes", [1, 1 << 16, 16 << 20])
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_slab_by_slab_is_the_same_as_at_once(monkeypatch, activation, slab_bytes):
    monkeypatch.setattr(network_slabs, "SLAB_BYTES", slab_bytes)
    torch.manual_seed(0)
    network = MeshNet(1, 11, 5, [1, 2, 8, 16, 3, 1], activation).eval()
    image = torch.randn(1, 1, 21, 18, 17)
    before, checks = image.clone(), []
    with torch.inference_mode():
        expected = network(image)
        found = network_slabs.SlabNetwork(network, lambda: checks.append(1))(image)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(image, before) and checks


def test_a_summary_says_what_is_opened_and_memory_does_not_grow(write_brainchop):
    few, many = (write_brainchop(classes=classes, name=str(classes))[0] for classes in (20, 200))
    for folder, classes in ((few, 20), (many, 200)):
        summary, model = summarize(folder), open_model(folder)
        parameters = sum(p.numel() for p in model.backbones[0].parameters())
        assert summary.parameters == parameters + classes * 7
        assert (summary.classes, summary.features, summary.projects, summary.modality) == (classes, 6, True, "MR")
        assert model.patch == (SIDE,) * 3 and not model.average_folds
    needs = [estimate(summarize(folder), (180, 200, 160), (1.0, 1.0, 1.0)) for folder in (few, many)]
    assert needs[0].windows == 1 and needs[0].grid == (180, 200, 160)
    assert needs[0].placement("cpu", "cpu").host_bytes + 4 * 180 * 7 == pytest.approx(
        needs[1].placement("cpu", "cpu").host_bytes, abs=1 << 16
    )
    assert estimate(summarize(few), (512, 512, 512), (0.9, 0.9, 0.9)).grid == (SIDE,) * 3


def test_names_and_colours_are_those_of_the_file_for_as_many_classes(write_brainchop):
    folder, _arrays = write_brainchop(classes=3)
    (folder / "colormap.json").write_text(json.dumps(colours(2)))
    (folder / "colormap3.json").write_text(json.dumps(colours(3, labels=["x", "Same", "Same"])))
    model = open_model(folder)
    assert [label.name for label in model.table] == ["background", "Same", "Same"]
    assert list(model.dataset["labels"]) == ["background", "Same (1)", "Same (2)"]
    for file in ("colormap.json", "colormap3.json"):
        (folder / file).unlink()
    assert [label.name for label in summarize(folder).table] == ["background", "class 1", "class 2"]
    (folder / "colormap.json").write_text(json.dumps(colours(3, labels=["", "ignore", "background"])))
    assert segment(head(), open_model(folder), device="cpu").labels.max() == 2


def test_a_zip_opens_like_the_folder(write_brainchop, tmp_path):
    folder, _arrays = write_brainchop()
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        for file in folder.iterdir():
            stream.write(file, f"some/model/{file.name}")
    assert summarize(archive).table == summarize(folder).table
    ones = torch.ones(1, 1, 4, 4, 4)
    assert torch.equal(logits(open_model(archive), ones), logits(open_model(folder), ones))


def test_all_its_files_count_for_the_identity_of_a_model(write_brainchop):
    from ClassScaleSegLib.models.identity import model_sha256

    folder, _arrays = write_brainchop()
    digests = {model_sha256(folder)}
    for file in ("model.json", "model.bin", "colormap.json"):
        content = (folder / file).read_bytes()
        changed = content + b" " if file.endswith("json") else b"\x01" + content[1:]
        (folder / file).write_bytes(changed)
        digests.add(model_sha256(folder))
        (folder / file).write_bytes(content)
    assert len(digests) == 4
