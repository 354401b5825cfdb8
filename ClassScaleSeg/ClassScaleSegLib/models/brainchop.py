"""Read an untrusted model of Brainchop, which is a MeshNet, as plans, dataset, label table and weights.

Brainchop (https://github.com/neuroneural/brainchop) publishes a model as a folder with ``model.json`` and weights in
TensorFlow.js's format, and with names and colours in ``colormap.json``. These files do not say which normalisation
belongs to it, and where the head is cropped. Brainchop's list of models does, from which the facts in ``SETTINGS`` are.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError, named
from ..labels.label import segment_color, unique_names
from ..labels.table import LabelTable
from .files import Files, read_json
from .foreign import CONFIGURATION, Foreign
from .json_checks import short
from .meshnet import KERNEL, check_meshnet
from .preprocessing import ENTRY
from .tfjs import MODEL, Chain, Group, read_arrays, read_chain

if TYPE_CHECKING:
    import torch

NETWORK = "ClassScaleSegLib.models.meshnet_network.MeshNet"
COLOURS = "colormap.json"
SIDE = 256  # voxels of 1 mm, to which Brainchop conforms every image
# Of how an image becomes what the network sees: see `inference/conform.py`.
USUAL: dict[str, Any] = {
    "kind": "conform",
    "orientation": "LIA",
    "normalization": "range",
    "threshold": 0.0,
    "margin": 0,
}
# What Brainchop's list (brainchop-parameters.js at 4c87885) says otherwise, by SHA-256 of the weights. Of models that
# it lists several times, the entry without another model for cropping counts.
SETTINGS: dict[str, dict[str, Any]] = {
    # model5_gw_ae
    "ca0d1b8ff72f8719d9525acaf9a1f1cb66dbb173b4ee1d7540f99e022cf4bfd8": {"margin": 18},
    # model18cls
    "725096439f64ece1ca45ec3c5115c9fa6004f6538cac3032b85966d3772b605e": {"threshold": 0.2},
    # model30chan18cls
    "7039651d91c4cee0b7b1ddfe93fe2f5cb9b71d99f5a126fdef407e2a36bb52d4": {"threshold": 0.2},
    # model20chan3cls
    "aecc03e3db596bfffab0ea1143f0848dbf4da4e317e04ef202986c6888cd467f": {
        "normalization": "quantiles",
        "threshold": 0.2,
    },
    # model30chan50cls
    "a7e597568dc7750c64cce8c64c4ca3ec7215716949efd741f19904da1baffa81": {"normalization": "quantiles"},
}


def members(files: Files) -> list[str]:
    """Return the names of the files of a model; see :class:`.foreign.Reader`."""
    chain, groups = read_chain(files)
    weights = [path for group in groups for path in group.paths]
    colours = _colours(files, chain.convolutions[-1].filters)
    return [MODEL, *weights, *([] if colours is None else [colours])]


def describe(files: Files) -> Foreign:
    """Describe a model; see :class:`.foreign.Reader`."""
    chain, groups = read_chain(files)
    with named(files.where(MODEL)):
        arguments = _arguments(chain)
        if chain.shape != (SIDE, SIDE, SIDE, 1):
            raise ModelError(
                f"its input has the shape {list(chain.shape)}; models of Brainchop take {[SIDE, SIDE, SIDE, 1]}, one "
                "channel of the whole head."
            )
    table = _table(files, chain.convolutions[-1].filters)
    names = {**unique_names(table), 0: "background"}
    labels = {f"{name} ({value})" if name == "ignore" else name: value for value, name in names.items()}
    dataset = {"channel_names": {"0": "T1"}, "labels": labels}
    settings = {**USUAL, **SETTINGS.get(_checksum(files, groups), {})}
    plans = {
        "dataset_name": files.name,
        "plans_name": "Brainchop",
        "image_reader_writer": "NibabelIO",
        "transpose_forward": [2, 1, 0],  # the arrays begin with x, which points to the left, before y, down
        "transpose_backward": [2, 1, 0],
        "configurations": {
            CONFIGURATION: {
                "patch_size": [SIDE] * 3,
                "spacing": [1.0] * 3,
                "architecture": {"network_class_name": NETWORK, "arch_kwargs": arguments, "_kw_requires_import": []},
                ENTRY: settings,
            }
        },
    }
    return Foreign(plans, dataset, table, MODEL)


def read_weights(files: Files) -> tuple[str, dict[str, torch.Tensor]]:
    """Read the weights; see :class:`.foreign.Reader`."""
    import torch

    chain, groups = read_chain(files)
    arrays = read_arrays(files, groups)
    tensors = {}
    for number, layer in enumerate(chain.convolutions):
        last = number == len(chain.convolutions) - 1
        path = "seg_layers.0" if last else f"layers.{2 * number}"  # an activation follows each convolution
        kernel = torch.from_numpy(arrays[f"{layer.name}/kernel"])
        tensors[f"{path}.weight"] = kernel.permute(4, 3, 0, 1, 2).contiguous()
        bias = arrays.get(f"{layer.name}/bias", np.zeros(layer.filters, np.float32))
        tensors[f"{path}.bias"] = torch.from_numpy(bias)
    return files.where(MODEL), tensors


def _arguments(chain: Chain) -> dict:
    """Return the arguments of a MeshNet that is this chain."""
    *layers, head = chain.convolutions
    if not layers or head.kernel != (1, 1, 1) or head.activation != "linear":
        raise ModelError("its last layer must be a convolution with a kernel of 1 and no activation, after others.")
    for layer in layers:
        if layer.name.endswith("_gn"):  # a sign for inference-logic.js, which TensorFlow.js does not know
            raise ModelError(
                f"layer {short(layer.name)}: after a layer whose name ends so, Brainchop's own code normalises the "
                "channels. Such models are not supported."
            )
        if layer.kernel != (KERNEL,) * 3 or len(set(layer.dilation)) > 1:
            raise ModelError(
                f"layer {short(layer.name)} must have a kernel of 3 x 3 x 3 and one dilation for all axes."
            )
        if (layer.filters, layer.activation) != (layers[0].filters, layers[0].activation):
            raise ModelError(
                f"layer {short(layer.name)} has {layer.filters} filters and the activation {short(layer.activation)}; "
                f"the first layer has {layers[0].filters} and {short(layers[0].activation)}. They must be the same."
            )
    dilations = [layer.dilation[0] for layer in layers]
    given = {"features": layers[0].filters, "dilations": dilations, "activation": layers[0].activation}
    return check_meshnet("MeshNet", given, [SIDE] * 3)


def _table(files: Files, classes: int) -> LabelTable:
    """Return the label table of ``colormap.json``, or of ``colormap3.json`` if there is one for as many classes.

    Without these files, the classes have numbers for names.

    :param classes: including the background.
    """
    names: list[Any] = [f"class {value}" for value in range(classes)]
    colours: list[Any] = [segment_color(value) for value in range(classes)]
    if (file := _colours(files, classes)) is not None:
        content = read_json(files, file)
        with named(files.where(file)):
            names, *channels = (_column(content, key, classes) for key in ("labels", "R", "G", "B"))
            colours = list(zip(*channels, strict=True))
            for value, (name, colour) in enumerate(zip(names, colours, strict=True)):
                if not isinstance(name, str) or not all(type(part) is int and 0 <= part <= 255 for part in colour):
                    raise ModelError(f"class {value} has no name, or a colour that is not three numbers of 0 to 255.")
    names[0] = "background"
    known = LabelTable.from_names({value: name.rstrip("*") for value, name in enumerate(names)})
    pairs = zip(known, colours, strict=True)
    return LabelTable(tuple(replace(label, color=tuple(colour)) for label, colour in pairs))


def _colours(files: Files, classes: int) -> str | None:
    return next((name for name in (COLOURS.replace(".", f"{classes}."), COLOURS) if name in files), None)


def _column(content: dict, key: str, classes: int) -> list[Any]:
    column = content.get(key)
    if not isinstance(column, list) or len(column) != classes:
        count = len(column) if isinstance(column, list) else "no"
        raise ModelError(f"It has {count} entries in {key!r}; the network has {classes} classes.")
    return column


def _checksum(files: Files, groups: tuple[Group, ...]) -> str:
    """Return the SHA-256 of the weights, file after file."""
    digest = hashlib.sha256()
    for group in groups:
        for path in group.paths:
            with files.open(path) as stream:
                digest.update(stream.read())
    return digest.hexdigest()
