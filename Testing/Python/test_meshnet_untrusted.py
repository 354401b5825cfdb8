"""Files of Brainchop from anyone: refused with the entry at fault, or a network."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import json

import numpy as np
import pytest
import torch
from conftest import logits

pytest.importorskip("nnunetv2")
from brainchop_fixtures import (
    colours,
    write_brainchop,  # noqa: F401  (fixtures)
)
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402


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
