"""MeshNets of Brainchop: files from anyone, the conforming of heads, and labels against a plain forward pass."""

import hashlib
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import logits

pytest.importorskip("nnunetv2")
from ClassScaleSegLib import segment  # noqa: E402
from ClassScaleSegLib.errors import ImageError, ModelError  # noqa: E402
from ClassScaleSegLib.images.reading import read_image  # noqa: E402
from ClassScaleSegLib.inference import conform, network_slabs  # noqa: E402
from ClassScaleSegLib.inference.memory_estimate import estimate  # noqa: E402
from ClassScaleSegLib.models import brainchop  # noqa: E402
from ClassScaleSegLib.models.meshnet_network import MeshNet  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.packing import pack  # noqa: E402
from ClassScaleSegLib.models.preprocessing import Conform, read_preprocessing  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402

SIDE = 256


# --- a model as Brainchop publishes it


def layer(kind, name, before, **config):
    nodes = [[[before, 0, 0, {}]]] if before else []
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def topology(dilations=(1, 2, 4), features=6, classes=9, activation="relu", bias=True, kernels=3, widths=None):
    """``model.json``, as the converter of TensorFlow.js writes it."""
    layers = [layer("InputLayer", "input", None, batch_input_shape=[None, SIDE, SIDE, SIDE, 1], dtype="float32")]
    weights, channels = [], 1
    for number, dilation in enumerate([*dilations, 1]):
        last = number == len(dilations)
        name, size, filters = ("output", 1, classes) if last else (f"conv3d_{number}", kernels, features)
        filters = widths[number] if widths and not last else filters
        options = {
            "filters": filters,
            "kernel_size": [size] * 3,
            "strides": [1, 1, 1],
            "dilation_rate": [dilation] * 3,
            "padding": "same",
            "data_format": "channels_last",
            "activation": "linear",
            "use_bias": bias or last,
            "dtype": "float32",
        }
        layers.append(layer("Conv3D", name, layers[-1]["name"], **options))
        weights.append({"name": f"{name}/kernel", "shape": [size] * 3 + [channels, filters], "dtype": "float32"})
        if bias or last:
            weights.append({"name": f"{name}/bias", "shape": [filters], "dtype": "float32"})
        if not last:
            layers.append(layer("Activation", f"activation_{number}", name, activation=activation))
        channels = filters
    config = {"name": "model", "layers": layers, "input_layers": [["input", 0, 0]], "output_layers": [["output", 0, 0]]}
    return {
        "format": "layers-model",
        "modelTopology": {"backend": "tensorflow", "model_config": {"class_name": "Functional", "config": config}},
        "weightsManifest": [{"paths": ["model.bin"], "weights": weights}],
    }


def random_weights(model, seed=0):
    """Kernels ``(x, y, z, in, out)`` and biases by name, of which every class wins somewhere."""
    random = np.random.default_rng(seed)
    arrays = {}
    for array in model["weightsManifest"][0]["weights"]:
        shape = array["shape"]
        scale = 0.1 if len(shape) == 1 else (2 / np.prod(shape[:-1])) ** 0.5
        arrays[array["name"]] = random.normal(0, scale, shape).astype(np.float32)
    return arrays


def colours(classes, **more):
    names = ["BG", *(f"Left-Part-{value}*" for value in range(1, classes))]
    return {"R": list(range(classes)), "G": [7] * classes, "B": [255] * classes, "labels": names, **more}


@pytest.fixture
def write_brainchop(tmp_path):
    """Writes a model with random weights, and returns its folder and its arrays."""

    def write(seed=0, name="model", **network):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        model = topology(**network)
        arrays = random_weights(model, seed)
        (folder / "model.json").write_text(json.dumps(model))
        (folder / "model.bin").write_bytes(b"".join(array.astype("<f4").tobytes() for array in arrays.values()))
        (folder / "colormap.json").write_text(json.dumps(colours(network.get("classes", 9))))
        return folder, arrays

    return write


def plain_forward(image, arrays, dilations, activation="relu"):
    """Logits ``(x, y, z, classes)`` in float64: each tap of each kernel is a shifted copy of the padded input."""
    maps = image[..., None].astype(np.float64)
    for number, dilation in enumerate(dilations):
        padded = np.pad(maps, [(dilation, dilation)] * 3 + [(0, 0)])
        kernel, total = arrays[f"conv3d_{number}/kernel"], 0
        for x, y, z in np.ndindex(3, 3, 3):
            a, b, c = (slice(i * dilation, i * dilation + n) for i, n in zip((x, y, z), image.shape, strict=True))
            total = total + padded[a, b, c] @ kernel[x, y, z]
        total = total + arrays.get(f"conv3d_{number}/bias", 0)
        maps = np.maximum(total, 0) if activation == "relu" else np.where(total > 0, total, np.expm1(total))
    return maps @ arrays["output/kernel"][0, 0, 0] + arrays["output/bias"]


# --- images


DIRECTIONS = {  # to where the axes x, y, z of the image point
    "LPS": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "RAS": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "LIA": (1, 0, 0, 0, 0, -1, 0, -1, 0),
    "ASR": (0, 0, -1, -1, 0, 0, 0, 1, 0),
}


def head(size=(22, 26, 24), spacing=(1.0, 1.0, 1.0), direction="LPS", seed=0, dtype=np.int16, rim=2):
    """An image ``sitk.Image`` of smooth noise from 0, with a rim of zeros."""
    random = np.random.default_rng(seed)
    coarse = random.normal(0, 1, [max(n // 3, 2) for n in size[::-1]])
    voxels = sitk.GetArrayFromImage(sitk.Expand(sitk.GetImageFromArray(coarse), [4] * 3, sitk.sitkLinear))
    voxels = np.resize(voxels, size[::-1])
    voxels = 900 * (voxels - voxels.min()) / np.ptp(voxels) + random.normal(0, 20, voxels.shape)
    voxels = np.maximum(voxels, 1)
    for axis in range(3):
        np.moveaxis(voxels, axis, 0)[:rim] = 0
        np.moveaxis(voxels, axis, 0)[voxels.shape[axis] - rim :] = 0
    image = sitk.GetImageFromArray((voxels if dtype != np.uint8 else voxels / 8).astype(dtype))
    image.SetSpacing(spacing)
    image.SetDirection(DIRECTIONS[direction])
    image.SetOrigin((-7.0, 11.0, 3.0))
    return image


def xyz(image, orientation="LIA"):
    """Voxels along x, y, z of an image whose axes were turned."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, orientation)).transpose(2, 1, 0)


def bytes_of(voxels):
    """The levels of an image that needs no resampling, as FreeSurfer scales it, after the formula that is published."""
    if voxels.dtype == np.uint8:
        return voxels - voxels.min()
    values = voxels.astype(np.float64)
    counts, edges = np.histogram(values, 1000)
    below = values.size - int((1 - 0.999) * np.count_nonzero(values))
    top = next(index - 1 for index in range(1, 1000) if counts[: index + 1].sum() >= below)
    low, high = values.min(), values.min() + top * (edges[-1] - edges[0]) / 1000
    return np.floor(np.clip(255 / (high - low) * (values - low), 0, 255)).astype(np.uint8)


def cropped(levels, threshold=0.0, margin=0):
    """The box of what is above the threshold."""
    places = np.argwhere(levels > threshold * levels.max())
    return tuple(
        slice(max(low - margin, 0), high + 1 + margin) for low, high in zip(places.min(0), places.max(0), strict=True)
    )


def expected_labels(image, arrays, dilations, activation="relu"):
    """Labels ``(x, y, z)`` in the orientation of the model, of an image of 1 mm, by a plain forward pass."""
    levels = bytes_of(xyz(image))
    box, labels = cropped(levels), np.zeros(levels.shape, np.int64)
    scaled = levels[box].astype(np.float32) / np.float32(levels.max())
    labels[box] = plain_forward(scaled, arrays, dilations, activation).argmax(-1)
    return labels


def turned_back(labels, image):
    """Labels ``(x, y, z)`` in the orientation of the model, on the grid of the image."""
    like = sitk.DICOMOrient(image, "LIA")
    turned = sitk.GetImageFromArray(labels.transpose(2, 1, 0).astype(np.uint16))
    turned.CopyInformation(like)
    here = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(image.GetDirection())
    return sitk.GetArrayFromImage(sitk.DICOMOrient(turned, here))


# --- labels


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


# --- conforming


def conformed_by_itk(image, side=SIDE):
    """Levels ``(side, side, side)`` by ITK's resampling, and for each axis where voxels of image and grid coincide.

    The centre is the voxel at half the size, counted in the file, as FreeSurfer has it.
    """
    source = sitk.Cast(image, sitk.sitkFloat64)
    centre = source.TransformContinuousIndexToPhysicalPoint([n / 2 for n in source.GetSize()])
    directions = np.reshape(DIRECTIONS["LIA"], (3, 3))
    grid = sitk.Image([side] * 3, sitk.sitkFloat64)
    grid.SetDirection(DIRECTIONS["LIA"])
    grid.SetOrigin((np.array(centre) - directions @ ([side / 2] * 3)).tolist())
    values = sitk.GetArrayFromImage(sitk.Resample(source, grid, sitk.Transform(), sitk.sitkLinear, 0.0))
    values = values.transpose(2, 1, 0).astype(np.float32).astype(np.float64)
    voxels = sitk.GetArrayFromImage(image)
    turned = sitk.DICOMOrient(image, "LIA")
    ends = []
    for axis, length in enumerate(turned.GetSize()):
        first, last = ([0, 0, 0], [0, 0, 0])
        last[axis] = length - 1
        points = [turned.TransformIndexToPhysicalPoint(index) for index in (first, last)]
        ends.append([grid.TransformPhysicalPointToContinuousIndex(point)[axis] for point in points])
        outside = np.ones(side, bool)  # ITK goes on for half a voxel beyond the outer voxels' centres
        outside[max(int(np.ceil(ends[-1][0] - 1e-6)), 0) : int(np.floor(ends[-1][1] + 1e-6)) + 1] = False
        np.moveaxis(values, axis, 0)[outside] = 0
    low, scale = conform.intensity_scale(voxels)
    levels = np.floor(np.clip(scale * (values - low), 0, 255)).astype(np.uint8)
    places = [[[0, n - 1] for n in turned.GetSize()], ends]
    return levels, places


def prepared_by(image, how, side):
    """What `conform.prepare` makes of an image for a model whose grid has so many voxels along each axis."""
    axes = SimpleNamespace(transpose_forward=[2, 1, 0], transpose_backward=[2, 1, 0])
    grid = SimpleNamespace(patch_size=[side] * 3, spacing=[1.0] * 3)
    model = SimpleNamespace(plans_manager=axes, configuration=grid, preprocessing=how)
    return conform.prepare(read_image(image, 1, how.orientation), model)


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


# --- files from anyone


def change(path, value):
    """What sets an entry of ``model.json``; the path is a list of keys."""

    def apply(model):
        *most, last = path
        for key in most:
            model = model[key]
        if value is None:
            del model[last]
        else:
            model[last] = value

    return apply


CONFIG = ["modelTopology", "model_config", "config"]
LAYERS = [*CONFIG, "layers"]
GROUP = ["weightsManifest", 0]


@pytest.mark.parametrize(
    "path, value, sentence",
    [
        (["modelTopology"], None, "It has no|has no 'modelTopology'"),
        (["modelTopology", "model_config"], [], "lists no layers"),
        (LAYERS, [{}] * 300, "has 300 layers; 2 to 256"),
        ([*LAYERS, 1, "class_name"], "Lambda", "is of the class 'Lambda'; only InputLayer, Conv3D, Activation are"),
        ([*LAYERS, 1, "class_name"], ["Conv3D"], "is of the class"),
        ([*LAYERS, 1, "name"], "../x", "is missing, not a plain name"),
        ([*LAYERS, 3, "inbound_nodes"], [[["input", 0, 0, {}]]], "is not given what the layer before it returns"),
        ([*LAYERS, 1, "config", "strides"], [2, 2, 2], "has strides"),
        ([*LAYERS, 1, "config", "padding"], "valid", "has padding 'valid'; 'same' is expected"),
        ([*LAYERS, 1, "config", "filters"], 1 << 40, "has filters 1099511627776; 1 to 4096"),
        ([*LAYERS, 1, "config", "filters"], True, "has filters True"),
        ([*LAYERS, 1, "config", "kernel_size"], [4, 4, 4], "odd numbers"),
        ([*LAYERS, 1, "config", "kernel_size"], [5, 5, 5], "conv3d_0/kernel has the shape .3, 3, 3, 1, 6.; its layer"),
        ([*LAYERS, 1, "config", "dilation_rate"], [1, 1, 2], "one dilation for all axes"),
        ([*LAYERS, 1, "config", "dilation_rate"], [99, 99, 99], "whole numbers from 1 to 64"),
        ([*LAYERS, 1, "config", "groups"], 2, "has groups 2; 1 is expected"),
        ([*LAYERS, 1, "config", "dtype"], "float16", "has dtype 'float16'"),
        ([*LAYERS, 3, "config", "filters"], 7, "its layer requires .3, 3, 3, 6, 7."),
        (
            [*LAYERS, 2, "config", "activation"],
            "softmax",
            "activation 'softmax' of MeshNet is not one of relu, elu|first",
        ),
        ([*LAYERS, 2, "config", "activation"], {"class_name": "x"}, "is not a name"),
        ([*LAYERS, 0, "config", "batch_input_shape"], [None, 64, 64, 64, 1], "take .256, 256, 256, 1."),
        ([*LAYERS, 0, "config", "batch_input_shape"], [None, 256, 256, 1 << 60, 1], "must be .null, D, H, W, channels"),
        ([*CONFIG, "output_layers"], [["conv3d_0", 0, 0]], "its output the last one"),
        ([*GROUP, "paths"], ["../model.bin"], "the plain name of a file beside it"),
        ([*GROUP, "paths"], ["/etc/passwd"], "the plain name of a file"),
        ([*GROUP, "paths"], ["a\\b.bin"], "the plain name of a file"),
        ([*GROUP, "paths"], ["other.bin"], "other.bin is missing: it has weights"),
        ([*GROUP, "paths"], ["model.bin", "model.bin"], "bytes, but model.json declares"),
        ([*GROUP, "weights"], [], "does not list conv3d_0/kernel"),
        ([*GROUP, "weights", 0, "name"], "evil", "lists 'evil', which no layer has"),
        ([*GROUP, "weights", 1, "name"], "conv3d_0/kernel", "lists it twice"),
        ([*GROUP, "weights", 0, "shape"], [3, 3, 3, 1, 1 << 50], "its layer requires"),
        ([*GROUP, "weights", 0, "dtype"], "uint8", "stored as 'uint8'"),
        ([*GROUP, "weights", 0, "quantization"], {"dtype": "uint8", "scale": 1, "min": 0}, "only float32 is read"),
        (["weightsManifest"], [7], "does not list 'paths' and 'weights'"),
        (["weightsManifest"], {}, "has no 'modelTopology' and 'weightsManifest'"),
    ],
)
def test_what_is_no_meshnet_is_refused_with_the_entry_at_fault(write_brainchop, path, value, sentence):
    folder, _arrays = write_brainchop()
    file = folder / "model.json"
    model = json.loads(file.read_text())
    change(path, value)(model)
    file.write_text(json.dumps(model))
    with pytest.raises(ModelError, match=sentence) as refused:
        open_model(folder)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize(
    "network, sentence",
    [
        ({"kernels": 5}, "layer 'conv3d_0' must have a kernel of 3 x 3 x 3"),
        ({"widths": (6, 7, 6)}, "layer 'conv3d_1' has 7 filters .* the first layer has 6"),
        ({"activation": "tanh"}, "activation 'tanh' of MeshNet is not one of relu, elu"),
        ({"dilations": (1,) * 65}, "must be a list of 1 to 64 numbers"),
        ({"dilations": ()}, "after others"),
    ],
)
def test_a_chain_of_convolutions_that_is_no_meshnet_is_refused(write_brainchop, network, sentence):
    with pytest.raises(ModelError, match=sentence):
        summarize(write_brainchop(**network)[0])


@pytest.mark.parametrize(
    "content, sentence",
    [
        (colours(8), "has 8 entries in 'labels'; the network has 9 classes"),
        (colours(9, R=3), "has no entries in 'R'"),
        (colours(9, G=[300] * 9), "three numbers of 0 to 255"),
        (colours(9, labels=[1] * 9), "class 0 has no name"),
    ],
)
def test_names_and_colours_that_do_not_fit_are_refused(write_brainchop, content, sentence):
    folder, _arrays = write_brainchop()
    (folder / "colormap.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=rf"colormap.json.*{sentence}"):
        summarize(folder)


def test_weights_of_another_length_or_that_are_no_numbers_are_refused(write_brainchop):
    folder, _arrays = write_brainchop()
    file = folder / "model.bin"
    whole = file.read_bytes()
    for content in (b"", whole[:-1], whole[:-4], whole + b"\0" * 4):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=rf"model.bin: the weights have {len(content)} bytes, but"):
            open_model(folder)
    file.write_bytes(whole[:400] + b"\xff\xff\xff\xff" + whole[404:])
    with pytest.raises(ModelError, match="values that are not finite"):
        open_model(folder)


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


def test_damaged_files_are_refused_or_give_a_network(write_brainchop, tmp_path):
    folder, _arrays = write_brainchop(dilations=(1, 2))
    file, random = folder / "model.json", np.random.default_rng(0)
    whole = file.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="model.json"):
            open_model(folder)
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for position in random.integers(0, len(content), random.integers(1, 4)):
            content[position] ^= 1 << random.integers(7)
        file.write_bytes(content)
        try:
            found = logits(open_model(folder), torch.ones(1, 1, 5, 5, 5))
        except ModelError:
            refused += 1
            continue
        assert found.shape == (9, 5, 5, 5)
    assert refused > 150


def test_entries_of_any_type_are_refused_or_give_a_network(write_brainchop):
    folder, _arrays = write_brainchop(dilations=(1, 2))
    file, random = folder / "model.json", np.random.default_rng(1)
    whole = json.loads(file.read_text())
    values = [
        None,
        True,
        -1,
        0,
        1.5,
        1 << 70,
        float("inf"),
        "",
        "relu",
        "é",
        [],
        [[]],
        {},
        {"a": [1]},
        [None, 1],
        "linear",
    ]

    def places(node, path=()):
        for key, entry in node.items() if isinstance(node, dict) else enumerate(node):
            yield (*path, key)
            if isinstance(entry, dict | list):
                yield from places(entry, (*path, key))

    paths, refused = list(places(whole)), 0
    for _ in range(400):
        model = json.loads(json.dumps(whole))
        *most, last = paths[random.integers(len(paths))]
        node = model
        for key in most:
            node = node[key]
        node[last] = values[random.integers(len(values))]
        file.write_text(json.dumps(model))
        try:
            open_model(folder)
        except ModelError:
            refused += 1
    assert refused > 200


def test_a_zip_opens_like_the_folder(write_brainchop, tmp_path):
    folder, _arrays = write_brainchop()
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        for file in folder.iterdir():
            stream.write(file, f"some/model/{file.name}")
    assert summarize(archive).table == summarize(folder).table
    ones = torch.ones(1, 1, 4, 4, 4)
    assert torch.equal(logits(open_model(archive), ones), logits(open_model(folder), ones))


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
