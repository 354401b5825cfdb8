"""Read an untrusted model of TensorFlow.js (``layers-model``) that is a chain of 3D convolutions.

``model.json`` names the layers in ``modelTopology``, and in ``weightsManifest`` the files with the weights: the numbers
of all arrays, one after another, little-endian. Only three classes of layers are known here, none is looked up by its
name, and the files may only be neighbours of ``model.json``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError, named
from .files import Files, read_json
from .json_checks import short

MODEL = "model.json"
MAX_LAYERS, MAX_FILTERS, MAX_KERNEL, MAX_DILATION, MAX_SIDE = 256, 4096, 31, 256, 4096
MAX_WEIGHTS = 1 << 30  # bytes
MAX_FILES = 64
KNOWN = ("InputLayer", "Conv3D", "Activation")
_FIXED = {  # what a convolution must say, or leave out, because that is what it means then
    "padding": ("same",),
    "strides": ([1, 1, 1],),
    "data_format": ("channels_last", None),
    "groups": (1, None),
    "dtype": ("float32", None),
}


@dataclass(frozen=True)
class Convolution:
    """A convolution and the activation after it.

    :ivar name: of the layer; its arrays are ``NAME/kernel`` and ``NAME/bias``.
    :ivar filters: channels of its output.
    :ivar kernel: voxels along the three axes.
    :ivar dilation: distance between neighbours of the kernel along the three axes, in voxels.
    :ivar activation: such as ``relu``; ``linear`` for none.
    :ivar bias: whether it has one.
    """

    name: str
    filters: int
    kernel: tuple[int, int, int]
    dilation: tuple[int, int, int]
    activation: str
    bias: bool


@dataclass(frozen=True)
class Chain:
    """A chain of convolutions, each of which is given what the one before returns.

    :ivar shape: of the input, ``(D, H, W, channels)``.
    :ivar convolutions: at least one.
    """

    shape: tuple[int, int, int, int]
    convolutions: tuple[Convolution, ...]


def read_chain(files: Files) -> tuple[Chain, list[dict]]:
    """Read ``model.json``.

    :returns: the layers, and the groups of the manifest, which are not checked yet.
    :raises ModelError: if it is no such chain; the message names the layer at fault.
    """
    content = read_json(files, MODEL)
    with named(files.where(MODEL)):
        topology, groups = content.get("modelTopology"), content.get("weightsManifest")
        if not isinstance(topology, dict) or not isinstance(groups, list):
            raise ModelError(
                "It has no 'modelTopology' and 'weightsManifest': it is not a model in TensorFlow.js's format for "
                "layers (layers-model)."
            )
        return _chain(topology.get("model_config", topology)), groups


def _chain(model: Any) -> Chain:
    """Return the layers of a functional model, and require them to be a chain."""
    config = model.get("config") if isinstance(model, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(layers, list) or not isinstance(config, dict):
        raise ModelError("It lists no layers: 'model_config' must have a 'config' with 'layers'.")
    if not 2 <= len(layers) <= MAX_LAYERS:
        raise ModelError(f"It has {len(layers)} layers; 2 to {MAX_LAYERS} were expected.")
    names: list[str] = []
    convolutions: list[Convolution] = []
    shape = None
    for layer in layers:
        kind, name, options = _layer(layer, names)
        if (kind == "InputLayer") != (not names):
            raise ModelError(f"layer {short(name)}: the first layer, and no other, must be an InputLayer.")
        if kind == "InputLayer":
            shape = _input_shape(options)
        elif kind == "Conv3D":
            convolutions.append(_convolution(name, options))
        else:
            if not convolutions or convolutions[-1].activation != "linear" or convolutions[-1].name != names[-1]:
                raise ModelError(f"layer {short(name)}: an activation must follow a convolution that has none.")
            convolutions.append(replace(convolutions.pop(), activation=_activation(options)))
        names.append(name)
    ends = (config.get("input_layers"), config.get("output_layers"))
    if ends != ([[names[0], 0, 0]], [[names[-1], 0, 0]]):
        raise ModelError("its input must be the first layer, and its output the last one, and no other.")
    if shape is None or not convolutions:
        raise ModelError("It has no convolution.")
    return Chain(shape, tuple(convolutions))


def _layer(layer: Any, before: Sequence[str]) -> tuple[str, str, dict]:
    """Return class, name and options of a layer that is given what the layer before it returns."""
    if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
        raise ModelError(f"a layer has no 'config': {short(layer)}.")
    kind, name, options = layer.get("class_name"), layer.get("name"), layer["config"]
    if not isinstance(kind, str) or kind not in KNOWN:
        raise ModelError(
            f"layer {short(name)} is of the class {short(kind)}; only {', '.join(KNOWN)} are read. Batch normalisation "
            "must be merged into the convolutions, and padding must be that of a convolution ('same')."
        )
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}", name) or name in before:
        raise ModelError(f"the name of a layer, {short(name)}, is missing, not a plain name, or used twice.")
    if layer.get("inbound_nodes") != ([[[before[-1], 0, 0, {}]]] if before else []):
        raise ModelError(f"layer {short(name)} is not given what the layer before it returns, and only that.")
    return kind, name, options


def _input_shape(options: dict) -> tuple[int, int, int, int]:
    shape = options.get("batch_input_shape")
    sides = shape[1:] if isinstance(shape, list) and len(shape) == 5 and shape[0] in (None, 1) else []
    if not sides or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise ModelError(
            f"the shape of its input, {short(shape)}, must be [null, D, H, W, channels], with sides of 1 to {MAX_SIDE}."
        )
    depth, height, width, channels = sides
    return depth, height, width, channels


def _convolution(name: str, options: dict) -> Convolution:
    for key, allowed in _FIXED.items():
        if options.get(key) not in allowed:
            raise ModelError(
                f"layer {short(name)} has {key} {short(options.get(key))}; {short(allowed[0])} is expected."
            )
    filters = options.get("filters")
    if type(filters) is not int or not 1 <= filters <= MAX_FILTERS:
        raise ModelError(f"layer {short(name)} has filters {short(filters)}; 1 to {MAX_FILTERS} were expected.")
    kernel = _sides(name, options, "kernel_size", MAX_KERNEL)
    if any(side % 2 == 0 for side in kernel):
        raise ModelError(f"layer {short(name)} has kernel_size {short(list(kernel))}; odd numbers were expected.")
    bias = options.get("use_bias", True)
    if not isinstance(bias, bool):
        raise ModelError(f"layer {short(name)} has use_bias {short(bias)}; true or false is expected.")
    dilation = _sides(name, options, "dilation_rate", MAX_DILATION)
    return Convolution(name, filters, kernel, dilation, _activation(options), bias)


def _sides(name: str, options: dict, key: str, largest: int) -> tuple[int, int, int]:
    value = options.get(key)
    if not isinstance(value, list) or len(value) != 3 or not all(type(n) is int and 1 <= n <= largest for n in value):
        raise ModelError(
            f"layer {short(name)} has {key} {short(value)}; three numbers of 1 to {largest} were expected."
        )
    x, y, z = value
    return x, y, z


def _activation(options: dict) -> str:
    value = options.get("activation", "linear")
    if not isinstance(value, str):
        raise ModelError(f"the activation {short(value)} is not a name.")
    return value


def read_arrays(files: Files, chain: Chain, groups: list[dict]) -> dict[str, np.ndarray]:
    """Read the kernels and biases of a chain.

    :param groups: the manifest, as :func:`read_chain` returns it.
    :returns: float32 arrays by name: kernels ``(x, y, z, in, out)``, and biases ``(out,)`` of layers that have one.
    :raises ModelError: if an array is missing, not expected, quantised or of another shape, if the files have more or
        fewer bytes, or if a number is not finite.
    """
    wanted: dict[str, tuple[int, ...]] = {}
    channels = chain.shape[3]
    for layer in chain.convolutions:
        wanted[f"{layer.name}/kernel"] = (*layer.kernel, channels, layer.filters)
        if layer.bias:
            wanted[f"{layer.name}/bias"] = (layer.filters,)
        channels = layer.filters
    total = sum(4 * math.prod(shape) for shape in wanted.values())
    if total > MAX_WEIGHTS:
        raise ModelError(f"{files.where(MODEL)}: its weights would have {total} bytes. At most {MAX_WEIGHTS} are read.")
    found: dict[str, np.ndarray] = {}
    for group in groups:
        with named(files.where(MODEL)):
            paths, names = _group(group, wanted, found)
        numbers = _numbers(files, paths, sum(math.prod(wanted[name]) for name in names))
        start = 0
        for name in names:
            shape = wanted[name]
            found[name] = numbers[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
    missing = next((name for name in wanted if name not in found), None)
    if missing is not None:
        raise ModelError(f"{files.where(MODEL)}: its 'weightsManifest' does not list {missing}.")
    return found


def _group(group: Any, wanted: dict[str, tuple[int, ...]], found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the files of a group, and the names of the arrays in them, which have the shapes that are wanted."""
    paths = group.get("paths") if isinstance(group, dict) else None
    arrays = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(paths, list) or not 1 <= len(paths) <= MAX_FILES or not isinstance(arrays, list):
        raise ModelError("a group of its 'weightsManifest' does not list 'paths' and 'weights'.")
    for path in paths:
        if not is_plain_name(path):
            raise ModelError(
                f"the weights are in {short(path)}; the plain name of a file in the same folder is expected."
            )
    names: list[str] = []
    for array in arrays:
        name = array.get("name") if isinstance(array, dict) else None
        if not isinstance(name, str) or name not in wanted or name in found or name in names:
            raise ModelError(f"its 'weightsManifest' lists {short(name)}, which no layer has, or lists it twice.")
        if array.get("shape") != list(wanted[name]):
            raise ModelError(
                f"{name} has the shape {short(array.get('shape'))}; its layer requires {list(wanted[name])}."
            )
        if array.get("dtype") != "float32" or array.get("quantization") is not None:
            raise ModelError(
                f"{name} is stored as {short(array.get('quantization') or array.get('dtype'))}; only float32 without "
                "quantisation is read. Convert the model without quantisation."
            )
        names.append(name)
    return paths, names


def is_plain_name(path: Any) -> bool:
    """Tell whether a value is the name of a file, without a folder."""
    return isinstance(path, str) and re.fullmatch(r"\w[\w.-]{0,200}", path) is not None


def _numbers(files: Files, paths: list[str], count: int) -> np.ndarray:
    """Return the numbers in files, of which there must be so many."""
    for path in paths:
        if path not in files:
            raise ModelError(
                f"{files.where(path)} is missing: it has the weights. Get it from where model.json is from."
            )
    size = sum(files.size(path) for path in paths)
    if size != 4 * count:
        raise ModelError(
            f"{files.where(paths[0])}: the weights have {size} bytes, but model.json declares {4 * count}."
        )
    content = bytearray()
    for path in paths:
        with files.open(path) as stream:
            content += stream.read(4 * count + 1 - len(content))
    if len(content) != 4 * count:
        raise ModelError(f"{files.where(paths[0])}: the weights changed while they were read.")
    numbers = np.frombuffer(content, "<f4").astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ModelError(f"{files.where(paths[0])} has values that are not finite: it is damaged; get it again.")
    return numbers
