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
from typing import Any, NamedTuple

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


class Group(NamedTuple):
    """Arrays whose numbers are in the same files, one after another.

    :ivar paths: names of the files, which are beside ``model.json``.
    :ivar arrays: shapes of the arrays by name, in their order.
    """

    paths: tuple[str, ...]
    arrays: dict[str, tuple[int, ...]]

    @property
    def numbers(self) -> int:
        """How many numbers they have together."""
        return sum(math.prod(shape) for shape in self.arrays.values())


def read_chain(files: Files) -> tuple[Chain, tuple[Group, ...]]:
    """Read ``model.json``, and compare it with the sizes of the files with weights.

    :returns: the layers, and where their arrays are.
    :raises ModelError: if it is no such chain, or if an array is missing, not expected, quantised or of another shape,
        or if files have more or fewer bytes; the message names the layer, the array or the file at fault.
    """
    content = read_json(files, MODEL)
    with named(files.where(MODEL)):
        topology, manifest = content.get("modelTopology"), content.get("weightsManifest")
        if not isinstance(topology, dict) or not isinstance(manifest, list):
            raise ModelError(
                "It has no 'modelTopology' and 'weightsManifest': it is not a model in TensorFlow.js's format for "
                "layers (layers-model)."
            )
        chain = _chain(topology.get("model_config", topology))
        groups = _groups(manifest, _shapes(chain))
    for group in groups:
        _check_sizes(files, group)
    return chain, groups


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


def _shapes(chain: Chain) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of a chain by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = chain.shape[3]
    for layer in chain.convolutions:
        shapes[f"{layer.name}/kernel"] = (*layer.kernel, channels, layer.filters)
        if layer.bias:
            shapes[f"{layer.name}/bias"] = (layer.filters,)
        channels = layer.filters
    return shapes


def _groups(manifest: list[Any], shapes: dict[str, tuple[int, ...]]) -> tuple[Group, ...]:
    """Return the groups of a manifest, which together have exactly the arrays with these shapes."""
    total = sum(4 * math.prod(shape) for shape in shapes.values())
    if total > MAX_WEIGHTS:
        raise ModelError(f"its weights would have {total} bytes. At most {MAX_WEIGHTS} are read.")
    groups: list[Group] = []
    found: set[str] = set()
    for entry in manifest:
        paths, arrays = (entry.get(key) if isinstance(entry, dict) else None for key in ("paths", "weights"))
        if not isinstance(paths, list) or not 1 <= len(paths) <= MAX_FILES or not isinstance(arrays, list):
            raise ModelError("a group of its 'weightsManifest' does not list 'paths' and 'weights'.")
        for path in paths:
            if not isinstance(path, str) or not re.fullmatch(r"\w[\w.-]{0,200}", path):
                raise ModelError(f"the weights are in {short(path)}; the plain name of a file beside it is expected.")
        names = [_array(array, shapes, found) for array in arrays]
        groups.append(Group(tuple(paths), {name: shapes[name] for name in names}))
    missing = next((name for name in shapes if name not in found), None)
    if missing is not None:
        raise ModelError(f"its 'weightsManifest' does not list {missing}.")
    return tuple(groups)


def _array(array: Any, shapes: dict[str, tuple[int, ...]], found: set[str]) -> str:
    """Return the name of an array in the manifest, and add it to those found."""
    name = array.get("name") if isinstance(array, dict) else None
    if not isinstance(name, str) or name not in shapes or name in found:
        raise ModelError(f"its 'weightsManifest' lists {short(name)}, which no layer has, or lists it twice.")
    shape, stored = array.get("shape"), array.get("quantization") or array.get("dtype")
    if shape != list(shapes[name]):
        raise ModelError(f"{name} has the shape {short(shape)}; its layer requires {list(shapes[name])}.")
    if stored != "float32":
        raise ModelError(f"{name} is stored as {short(stored)}; only float32 is read. Convert it without quantisation.")
    found.add(name)
    return name


def _check_sizes(files: Files, group: Group) -> None:
    """Check that the files of a group are there, and have as many bytes as its arrays."""
    for path in group.paths:
        if path not in files:
            raise ModelError(f"{files.where(path)} is missing: it has weights. Get it from where {MODEL} is from.")
    size = sum(files.size(path) for path in group.paths)
    if size != 4 * group.numbers:
        where = files.where(group.paths[0])
        raise ModelError(f"{where}: the weights have {size} bytes, but {MODEL} declares {4 * group.numbers}.")


def read_arrays(files: Files, groups: tuple[Group, ...]) -> dict[str, np.ndarray]:
    """Read the kernels and biases of a chain.

    :param groups: as :func:`read_chain` returns them.
    :returns: float32 arrays by name: kernels ``(x, y, z, in, out)``, and biases ``(out,)`` of layers that have one.
    :raises ModelError: if a number is not finite.
    """
    found: dict[str, np.ndarray] = {}
    for group in groups:
        content = bytearray()
        for path in group.paths:
            with files.open(path) as stream:
                content += stream.read(4 * group.numbers + 1 - len(content))
        with named(files.where(group.paths[0])):
            if len(content) != 4 * group.numbers:
                raise ModelError("It changed while it was read.")
            numbers = np.frombuffer(content, "<f4").astype(np.float32)
            if not np.isfinite(numbers).all():
                raise ModelError("It has values that are not finite: it is damaged; get it again.")
        start = 0
        for name, shape in group.arrays.items():
            found[name] = numbers[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
    return found
