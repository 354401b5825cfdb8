"""Start a training from a self-supervised encoder, or from a model that the engine opens.

``classscaleseg-train pretrain`` and nnssl (the OpenMind models, for example) write checkpoints of encoders: they hold
``network_weights`` and an ``nnssl_adaptation_plan``, which names the prefixes of encoder and stem. nnU-Net's
``-pretrained_weights`` expects a whole network. So this module writes a checkpoint of a whole network, in which encoder
and stem are pretrained and everything else has its initial weights. Of a model everything is taken; of its last layer,
which nnU-Net leaves out, the rows of the classes that the network has too (:mod:`.known_classes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError, named
from ClassScaleSegLib.models.checkpoint import Checkpoint, check_container, read_checkpoint
from ClassScaleSegLib.models.files import open_source
from ClassScaleSegLib.models.model import read_parts
from ClassScaleSegLib.models.network import fit_weights

from ..network.low_rank_head import decoder_of, has_head
from .checkpoint_check import check_weights
from .known_classes import LastLayer, Rows, adopt_rows, same_classes, told
from .plans_of_model import one_network

# entries of what is written here
_HEAD, _TOLD, _NEW = "classscale_head", "classscale_told", "classscale_new"
_MIRRORED = "classscale_mirrored"


@contextmanager
def whole_network(file: Path, build: Callable[[], torch.nn.Module], here: Rows | None = None) -> Iterator[Path]:
    """Provide a checkpoint that nnU-Net's ``-pretrained_weights`` accepts, for the duration of a ``with`` block.

    nnU-Net does not take the last layer from it; :func:`adopt_head` does.

    :param file: a checkpoint of nnU-Net or nnssl (``.pth``), a bundle, a model folder, or a model of the catalogue by
        name; of several folds, the first one counts.
    :param build: returns the network to be trained.
    :param here: what the rows of its last layer stand for; if None, all of them begin with random weights.
    :returns: a temporary checkpoint.
    :raises ModelError: if the file is missing, its weights or encoder do not fit the network, or a model of the
        catalogue consists of several networks.
    """
    content: dict[str, Any] = {}
    if file.suffix == ".pth" or (file.is_file() and file.suffix.lower() != ".zip"):
        encoder = _self_supervised(file)
        network = build()
        if encoder is None:
            check_weights(file, network, pretrained=True)
            with open(file, "rb") as stream, named(file):
                found = read_checkpoint(stream)
                adopt_model(network, found.weights)
                there = _rows_of_checkpoint(found)
                content = _known_head(network, found.weights, there, here)
                if there is not None:  # else it may not be nnU-Net's, which notes how it mirrors
                    content[_MIRRORED] = bool(found.mirror_axes)
        else:
            with named(file):
                adopt_encoder(network, encoder)
    else:
        weights, there, mirrored = _model(file)
        network = build()
        with named(file):
            adopt_model(network, weights)
            content = {**_known_head(network, weights, there, here), _MIRRORED: mirrored}
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "checkpoint_pretrained.pth"
        torch.save({"network_weights": network.state_dict(), **content}, whole)
        yield whole


def adopt_head(network: Any, file: Path) -> tuple[str, list[int]] | None:
    """Load what :func:`whole_network` has found for the last layer, which nnU-Net does not load.

    :param network: to be trained, also compiled or under DDP.
    :param file: the checkpoint.
    :returns: a sentence for the log, and the rows of new classes, as :func:`.begin_new_classes` takes them; None if
        nothing was found.
    """
    content = torch.load(file, map_location="cpu", weights_only=True)
    if _HEAD not in content:
        return None
    for wrapper in ("module", "_orig_mod"):
        network = getattr(network, wrapper, network)
    decoder_of(network).seg_layers.load_state_dict(content[_HEAD])
    return content[_TOLD], content[_NEW]


def is_unmirrored(file: Path) -> bool:
    """Return whether :func:`whole_network` knows that the model has never seen mirrored images."""
    return not torch.load(file, map_location="cpu", weights_only=True).get(_MIRRORED, True)


def _known_head(
    network: torch.nn.Module, weights: dict[str, torch.Tensor], there: Rows | None, here: Rows | None
) -> dict[str, Any]:
    """Set the head of a network to the rows that a model has for the same classes.

    :returns: entries for the checkpoint; empty if no class is known.
    """
    last = LastLayer.of(weights)
    if there is None or here is None or last is None or not has_head(network):
        return {}
    rows = same_classes(there, here)
    known = any(here.values[row] for row in rows)
    if not known or not adopt_rows(network, last, rows):
        return {}
    new = [row for row, _ in enumerate(here.values) if row not in rows]
    if len(set(rows.values())) < len(there.values):  # the background contains what only the model knows
        new.insert(0, 0)
    return {_HEAD: decoder_of(network).seg_layers.state_dict(), _TOLD: told(there, here, rows), _NEW: new}


def _rows_of_checkpoint(checkpoint: Checkpoint) -> Rows | None:
    """Return the rows of a checkpoint; None if it does not say what they stand for."""
    dataset = checkpoint.arguments.get("dataset_json")
    try:
        return Rows.of_dataset(dataset) if isinstance(dataset, dict) else None
    except ModelError:
        return None


def _self_supervised(file: Path) -> dict | None:
    """Return the content of a checkpoint of nnssl, and None for any other checkpoint, which nnU-Net will read."""
    if not file.is_file():
        raise ModelError(f"{file} does not exist: name the checkpoint with the pretrained weights.")
    with open(file, "rb") as stream, named(file):
        check_container(stream)
        try:
            content = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception:  # nnU-Net's own checkpoints hold NumPy numbers, which weights_only refuses
            return None
    return content if isinstance(content, dict) and "nnssl_adaptation_plan" in content else None


def _model(source: Path) -> tuple[dict[str, torch.Tensor], Rows, bool]:
    """Return the weights of a model, what its rows stand for, and whether it was trained with mirroring."""
    path = one_network(str(source))
    with open_source(path, None) as files:
        parts = read_parts(files, None, "final", None)
    summary = parts.summary
    rows = Rows(summary.table, summary.values, summary.regions)
    return fit_weights(parts.network, parts.weights[0][1]), rows, bool(parts.mirror_axes)


def adopt_model(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load the weights of a model into a network, except those of the last layers.

    :param weights: by nnU-Net's names, each tensor by one of its names or by several.
    :raises ModelError: naming the first tensor that is missing or has another shape.
    """
    names: dict[int, list[str]] = {}
    tensors = network.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        if ".seg_layers." not in name:
            names.setdefault(id(tensor), []).append(name)
    found = {}
    for aliases in names.values():
        value = next((weights[name] for name in aliases if name in weights), None)
        wanted = tuple(tensors[aliases[0]].shape)
        if value is None or tuple(value.shape) != wanted:
            fault = "is missing" if value is None else f"has shape {tuple(value.shape)}, the network has {wanted}"
            raise ModelError(
                f"the model does not fit the plans: {aliases[0]} {fault}. Plan with the architecture of this model, or "
                "give another one."
            )
        found[aliases[0]] = value
    network.load_state_dict(found, strict=False)


def adopt_encoder(network: Any, content: dict) -> None:
    """Load the weights of a pretrained encoder and stem into a network, and leave its other weights unchanged.

    If the network has more input channels than the encoder, the first weights of the encoder are repeated for each
    channel and divided by the number of channels, as in nnssl's version of nnU-Net.

    :param network: a PlainConvUNet or ResidualEncoderUNet.
    :param content: content of a checkpoint of nnssl.
    :raises ModelError: naming the first tensor that is missing or has another shape.
    """
    plan, given = content["nnssl_adaptation_plan"], content.get("network_weights")
    if not (isinstance(plan, dict) and isinstance(given, dict)):
        raise ModelError("it has no plan and weights as nnssl writes them: get the file again.")
    given = {name: tensor for name, tensor in given.items() if isinstance(tensor, torch.Tensor)}
    # Older files have these entries under names that begin with state_dict_.
    prefixes = [
        (own + ".", str(plan.get(key, plan.get(f"state_dict_{key}"))) + ".")
        for own, key in ((network.key_to_stem, "key_to_stem"), (network.key_to_encoder, "key_to_encoder"))
    ]
    first = tuple(f"{name}.weight" for name in network.keys_to_in_proj)
    weights = {}
    for name, tensor in network.state_dict().items():
        source = next((theirs + name[len(own) :] for own, theirs in prefixes if name.startswith(own)), None)
        if source is None:
            continue
        value = given.get(source)
        if value is not None and name in first and value.ndim == tensor.ndim and value.shape[1] == 1 < tensor.shape[1]:
            channels = tensor.shape[1]
            value = value.repeat(1, channels, *[1] * (value.ndim - 2)) / channels
        if value is None or value.shape != tensor.shape:
            fault = "is missing"
            if value is not None:
                fault = f"has shape {tuple(value.shape)}, the network has {tuple(tensor.shape)}"
            raise ModelError(
                f"the encoder does not fit the plans: {source} {fault}. Plan with the architecture "
                "that was pretrained (for the OpenMind models, nnU-Net's ResEncL)."
            )
        weights[name] = value
    network.load_state_dict(weights, strict=False)
