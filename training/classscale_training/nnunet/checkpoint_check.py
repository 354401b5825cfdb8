"""Refuse checkpoints that are not of the network to be trained, and say what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError, named
from ClassScaleSegLib.models.checkpoint import read_checkpoint

from .preprocessed_folder import decided_for_images, first_difference

_HEAD = ".seg_layers."  # which nnU-Net does not take from pretrained weights


def check_weights(file: Path, network: torch.nn.Module, pretrained: bool = False) -> None:
    """Check that the weights in a checkpoint fit a network.

    :param network: the one to be trained, also compiled or under DDP.
    :param pretrained: they are what a training starts from, so the last layers may be others, and so may be the author:
        a file that could run code is refused. A user's own training may hold anything; what cannot be read safely is
        left to nnU-Net then.
    :raises ModelError: naming the first weights that are missing or have another shape.
    """
    try:
        with open(file, "rb") as stream, named(file):
            found = read_checkpoint(stream).weights
    except ModelError:
        if pretrained:
            raise
        return
    prefix = re.compile(r"^((_orig_mod|module)\.)+")
    wanted = {prefix.sub("", name): tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name, shape in wanted.items():
        if pretrained and _HEAD in name:
            continue
        if name not in found or tuple(found[name].shape) != shape:
            there = f"has the shape {tuple(found[name].shape)}" if name in found else "is missing"
            raise ModelError(
                f"{file} holds the weights of another network: {name} {there}; the network of these plans has "
                f"{shape}. {_advice(pretrained)}"
            )
    more = [name for name in found if name not in wanted]
    if more and not pretrained:
        raise ModelError(
            f"{file} holds the weights of another network: it has {more[0]}, which the network of these plans does not "
            f"have. {_advice(False)}"
        )


def check_labels(
    file: Path,
    there: object,
    here: Mapping[str, object],
    exactly: bool = False,
    advice: str = "Continue with the old dataset.json, or start a new training.",
) -> None:
    """Check that a label has the same value in a checkpoint and in the dataset.

    :param there: "labels" of the ``dataset.json`` that the checkpoint was trained with; anything else is not compared.
    :param here: those of the dataset.
    :param exactly: refuse other names too; otherwise a label may have been renamed.
    :param advice: a sentence that says what to do.
    :raises ModelError: naming the first label that has another value.
    """
    if not isinstance(there, Mapping):
        return
    for name, value in there.items():
        if here.get(name, None if exactly else value) != value:
            now = f"and {here[name]} in the dataset now" if name in here else "and not in the dataset now"
            raise ModelError(f"{file} was trained with other labels: {name} is {value} there, {now}. {advice}")


def check_plans(file: Path, there: Mapping[str, Any], plans: dict, dataset: dict, advice: str) -> None:
    """Check that images were prepared for the network of a checkpoint as they are now.

    :param there: what its trainer was made with; without plans and ``dataset.json``, nothing is compared.
    :param plans: content of the plans file now.
    :param dataset: content of ``dataset.json`` now.
    :param advice: a sentence that says what to do.
    :raises ModelError: naming the first entry that differs.
    """
    then, old, configuration = (there.get(key) for key in ("plans", "dataset_json", "configuration"))
    if not (isinstance(then, dict) and isinstance(old, dict)):
        return
    try:
        made, now = (
            decided_for_images(_inherited(each, configuration), each, labels)
            for each, labels in ((then, old), (plans, dataset))
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return  # these are no plans, of which their reader will tell
    differs = first_difference(now, made)
    if differs is not None:
        raise ModelError(f"{file} was trained with another {differs} than the plans have now. {advice}")


def _inherited(plans: dict, configuration: Any) -> dict:
    """Return the entries of a configuration, and those that it inherits."""
    entries = plans["configurations"][configuration]
    parent = entries.get("inherits_from")
    return entries if parent is None else {**_inherited(plans, parent), **entries}


def _advice(pretrained: bool) -> str:
    if pretrained:
        return "Plan with the architecture of these weights, or give other ones."
    return "Train under other plans or another trainer, or move the old training away."
