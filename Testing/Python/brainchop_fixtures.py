"""What the tests of Brainchop's models share: models with random weights, heads, and what is expected of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("nnunetv2")
from ClassScaleSegLib.images.reading import read_image  # noqa: E402
from ClassScaleSegLib.inference import conform  # noqa: E402

SIDE = 256


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


def write_folder(folder, seed=0, **network):
    """Write a model with random weights, and return its folder and its arrays."""
    folder.mkdir(exist_ok=True)
    model = topology(**network)
    arrays = random_weights(model, seed)
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "model.bin").write_bytes(b"".join(array.astype("<f4").tobytes() for array in arrays.values()))
    (folder / "colormap.json").write_text(json.dumps(colours(network.get("classes", 9))))
    return folder, arrays


@pytest.fixture
def write_brainchop(tmp_path):
    """`write_folder`, in the folder of the test."""
    return lambda seed=0, name="model", **network: write_folder(tmp_path / name, seed, **network)


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
