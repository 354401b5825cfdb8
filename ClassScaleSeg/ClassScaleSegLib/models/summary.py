"""Summarize a model without torch and nnunetv2, for lists, choosers and downloads before these are installed.

Only the JSON files, the label table and, in a bundle, the header of the weights are read. Weights and pickles are not
read, so a model with a summary may still fail to open: only :func:`~ClassScaleSegLib.models.model.open_model` checks
the whole model.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..labels.table import LabelTable
from .architecture import MAX_FEATURES
from .bundle import TEXTS, check_size, is_bundle, read_manifest, read_member, read_table
from .dataset_json import channel_names, identify, label_rows
from .files import MAX_JSON, Files, check_configuration, open_source, parse_json, read_json
from .folder import fold_names
from .json_checks import short
from .plans import check_geometry

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
STATISTICS = ("running_mean", "running_var")  # of batch normalization: stored with the weights, but not parameters


@dataclass(frozen=True)
class ModelSummary:
    """The facts about a `Model` that need no network.

    :ivar path: the model folder, zip or bundle.
    :ivar name: name shown to users.
    :ivar table: name, colour and codes of every label value, including the background.
    :ivar classes: number of rows of the last layer: classes including the background, or regions.
    :ivar channels: number of input channels.
    :ivar channel_names: such as ``("CT",)``.
    :ivar modality: ``CT`` or ``MR``; ``None`` if unknown.
    :ivar licence: licence of the weights; ``None`` if unknown.
    :ivar notice: text that users must see; ``None`` if there is none.
    :ivar spacing: mm along z, y, x (y, x for a 2D network).
    :ivar patch: voxels, in the same order.
    :ivar features: channels of the network's first stage, which are also the channels of the basis.
    :ivar parameters: parameters of one fold's network; ``None`` if unknown because the weights are a pickle.
    :ivar folds: names of the folds, such as ``("0", "1")``.
    :ivar card: the model card, Markdown; ``None`` if there is none.
    """

    path: Path
    name: str
    table: LabelTable
    classes: int
    channels: int
    channel_names: tuple[str, ...]
    modality: str | None
    licence: str | None
    notice: str | None
    spacing: tuple[float, ...]
    patch: tuple[int, ...]
    features: int
    parameters: int | None
    folds: tuple[str, ...]
    card: str | None


def summarize(path: str | Path, configuration: str | None = None) -> ModelSummary:
    """Summarize a model folder, an exported zip or a bundle.

    :param path: the model, as :func:`~ClassScaleSegLib.models.model.open_model` accepts it.
    :param configuration: selects one of several models in ``path``: its configuration or its path.
    :raises ModelError: if the model cannot be used; the message names the file and the fault.

    >>> from ClassScaleSegLib.resources import resource
    >>> summary = summarize(resource("Models", "toy-120.zip"))
    >>> summary.name, summary.classes, summary.spacing
    ('Toy atlas, 120 classes', 121, (2.0, 2.0, 2.0))
    """
    with open_source(path, configuration) as files:
        facts = _bundle(files, configuration) if is_bundle(files) else _model_folder(files, configuration)
    return ModelSummary(path=Path(path), **facts)


def _bundle(files: Files, configuration: str | None) -> dict[str, Any]:
    manifest = read_manifest(files)
    members = manifest["members"]
    check_configuration(files, manifest["configuration"], configuration)
    for name, declared in members.items():
        check_size(files, name, declared)
    texts = {name: read_member(files, name, members[name]) for name in TEXTS}
    plans, dataset = (parse_json(texts[name], files.where(name)) for name in ("plans.json", "dataset.json"))
    values, _, _ = label_rows(dataset, files.where("dataset.json"))
    return {
        **_shape(plans, dataset, manifest["configuration"], files),
        "name": manifest["name"],
        "table": read_table(texts["labels.csv"], values, files.where("labels.csv")),
        "classes": len(values),
        "modality": manifest.get("modality"),
        "licence": manifest.get("licence"),
        "notice": manifest.get("notice"),
        "parameters": _parameters(files, f"fold_{manifest['folds'][0]}.safetensors"),
        "folds": tuple(manifest["folds"]),
        "card": texts["README.md"].decode(errors="replace"),
    }


def _model_folder(files: Files, configuration: str | None) -> dict[str, Any]:
    plans, dataset = read_json(files, "plans.json"), read_json(files, "dataset.json")
    present = {name for names in files.folds().values() for name in names}
    folds = fold_names(files, None, next((name for name in CHECKPOINTS if name in present), CHECKPOINTS[0]))
    found = files.name.rpartition("__")[2]  # the folder name is Trainer__Plans__configuration
    planned = plans.get("configurations")
    if isinstance(planned, dict) and found not in planned and len(planned) == 1:
        found = next(iter(planned))
    check_configuration(files, found, configuration)
    identity = identify(plans, dataset, files.name, files.where("dataset.json"))
    values, names, _ = label_rows(dataset, files.where("dataset.json"))
    return {
        **_shape(plans, dataset, found, files),
        "name": identity.name,
        "table": LabelTable.from_names(names),
        "classes": len(values),
        "modality": identity.modality,
        "licence": None,
        "notice": identity.notice,
        "parameters": None,
        "folds": folds,
        "card": None,
    }


def _shape(plans: dict, dataset: dict, configuration: str, files: Files) -> dict[str, Any]:
    """Return channels, spacing, patch and features of a configuration, by the fields of `ModelSummary`."""
    where = files.where("plans.json")
    entries = _configuration(plans, configuration, where)
    check_geometry(plans, entries, where)
    channels = channel_names(dataset, files.where("dataset.json"))
    backward = plans["transpose_backward"] if len(entries["patch_size"]) == 3 else (0, 1)
    return {
        "channels": len(channels),
        "channel_names": channels,
        "spacing": tuple(float(entries["spacing"][axis]) for axis in backward),
        "patch": tuple(int(entries["patch_size"][axis]) for axis in backward),
        "features": _features(entries, where),
    }


def _configuration(plans: dict, name: str, where: str) -> dict:
    """Return the entries of a configuration, including inherited ones."""
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict) or not all(isinstance(c, dict) for c in configurations.values()):
        raise ModelError(f"{where} has no object 'configurations': these are not plans of nnU-Net v2.")
    entries: dict = {}
    heirs: list[str] = []
    while name is not None:
        if not isinstance(name, str) or name not in configurations:
            raise ModelError(f"{where} has no configuration {name!r}, only {', '.join(configurations)[:200]}.")
        if name in heirs:
            raise ModelError(f"{where}: configuration {name} inherits from itself.")
        heirs.append(name)
        entries = {**configurations[name], **entries}
        name = configurations[name].get("inherits_from")
    return entries


def _features(entries: dict, where: str) -> int:
    """Return the channels of the first stage; plans from before nnU-Net 2.5 have another name for them."""
    architecture = entries.get("architecture")
    if architecture is None:
        given = [entries.get("UNet_base_num_features"), entries.get("unet_max_num_features", MAX_FEATURES)]
    else:
        options = architecture.get("arch_kwargs") if isinstance(architecture, dict) else None
        features = options.get("features_per_stage") if isinstance(options, dict) else None
        given = features[:1] if isinstance(features, list) else [features]
    if not given or not all(type(count) is int and 1 <= count <= MAX_FEATURES for count in given):
        raise ModelError(
            f"{where}: the channels of the first stage are {short(given)}; 1 to {MAX_FEATURES} were expected."
        )
    return min(given)


def _parameters(files: Files, name: str) -> int:
    """Count the parameters in a safetensors file from its header, without the statistics of batch normalization."""
    where = files.where(name)
    length = files.start(name, 8)
    size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
    if not 0 < size <= MAX_JSON:
        raise ModelError(f"{where} is not a safetensors file (its header would have {size} bytes).")
    header = parse_json(files.start(name, 8 + size)[8:], where)
    count = 0
    for tensor, entry in header.items():
        if tensor == "__metadata__" or tensor.endswith(STATISTICS):
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
            raise ModelError(f"{where} is not a safetensors file ({tensor[:80]!r} has no shape).")
        count += math.prod(shape)
    return count
