"""Models of MONAI's Auto3DSeg: the labels are those of MONAI's own transforms, network and inferer."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from live_tensors import Live

pytest.importorskip("monai")
from auto3dseg_fixtures import images, package  # noqa: E402, F401  (fixtures)
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
