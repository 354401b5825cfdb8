"""Refuse checkpoints that are not of the network to be trained, and say what differs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError, named
from ClassScaleSegLib.models.checkpoint import read_checkpoint

from .preprocessed_folder import decided_for_images, first_difference

CASES = "cases"  # entry of what a trainer was made with
_OF_BATCHES = ("patch_size", "batch_size", "batch_dice")  # entries of a configuration that may change in a training
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
    outputs = [[v for n, v in labels.items() if n != "ignore" and v != 0] for labels in (there, here)]
    if any(isinstance(value, list) for value in outputs[0]) and outputs[0] != outputs[1]:
        raise ModelError(f"{file} was trained with the regions in another order: {', '.join(there)}. {advice}")


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


def check_continued(file: Path, there: Mapping[str, Any], here: Mapping[str, Any], merged: bool) -> list[str]:
    """Check that a training can go on from a checkpoint, by labels, images and network.

    :param there: what the trainer of the checkpoint was made with.
    :param here: what the trainer that goes on was made with.
    :param merged: whether the dataset is one of several.
    :returns: as :func:`check_network`.
    :raises ModelError: as :func:`check_labels`, :func:`check_plans` and :func:`check_network`.
    """
    check_labels(file, there["dataset_json"].get("labels"), here["dataset_json"]["labels"], merged)
    advice = "Start a new training, or plan and preprocess as it was then."
    check_plans(file, there, here["plans"], here["dataset_json"], advice)
    return check_network(file, there, here["plans"], advice)


def check_network(file: Path, there: Mapping[str, Any], plans: dict, advice: str) -> list[str]:
    """Check that plans describe the network of a checkpoint, also where the shapes of its weights do not tell.

    :param there: what its trainer was made with; without plans, nothing is compared.
    :param plans: content of the plans file now.
    :param advice: a sentence that says what to do.
    :returns: a sentence for each entry that differs, and may differ in one training.
    :raises ModelError: if the architecture differs.
    """
    then, configuration = there.get("plans"), there.get("configuration")
    if not isinstance(then, dict):
        return []
    try:
        made, now = (json.loads(json.dumps(_inherited(each, configuration))) for each in (then, plans))
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    if "architecture" in made and made["architecture"] != now.get("architecture"):
        raise ModelError(f"{file} was trained with another architecture than the plans have now. {advice}")
    changed = [key for key in _OF_BATCHES if key in made and made[key] != now.get(key)]
    return [f"The training goes on with {key} {now.get(key)}; until now it was {made[key]}." for key in changed]


def check_fold(
    file: Path, then: Mapping[str, list[str]], training: Sequence[str], validation: Sequence[str]
) -> list[str]:
    """Check that no case of the validation is one that a checkpoint was trained on, as cases divided anew may be.

    :param then: what it says of its cases, by :func:`cases_of_fold`.
    :param training: cases of the fold now.
    :param validation: the same.
    :returns: sentences on training cases that are new, or no longer used.
    :raises ModelError: if there is such a case.
    """
    before, learned, unseen = (set(then[part]) for part in ("train", "learned", "val"))
    digests = {case: _digest(case) for case in (*training, *validation)}
    seen = sorted(case for case in validation if digests[case] in learned - unseen)
    if seen:
        more = f" and {len(seen) - 1} more" if len(seen) > 1 else ""
        raise ModelError(
            f"{file} was trained on {seen[0]}{more}, which splits_final.json has for validation now. The validation "
            "would look better than it is. Bring the old splits_final.json back, or train this fold anew (--overwrite)."
        )
    told, new = [], sorted(case for case in training if digests[case] not in before)
    if new:
        names = f"{new[0]} is" if len(new) == 1 else f"{new[0]} and {len(new) - 1} more are"
        told.append(f"{names} new in the training since {file.name}.")
    gone = len(before.difference(digests[case] for case in training))
    if gone:
        cases = "1 case is" if gone == 1 else f"{gone} cases are"
        told.append(f"{cases} no longer in the training since {file.name}.")
    return told


def cases_of_fold(there: Mapping[str, Any], training: Iterable[str], validation: Iterable[str]) -> dict[str, list[str]]:
    """Return what a checkpoint says of its cases: those of the fold, and all that it has ever been trained on.

    They are digests of names: checkpoints are shared, and the names may be those of patients.

    :param there: what its trainer was made with, or continues from.
    """
    learned = sorted(map(_digest, training))
    earlier = there.get(CASES, {}).get("learned", ())
    return {"train": learned, "val": sorted(map(_digest, validation)), "learned": sorted({*learned, *earlier})}


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _inherited(plans: dict, configuration: Any) -> dict:
    """Return the entries of a configuration, and those that it inherits."""
    entries = plans["configurations"][configuration]
    parent = entries.get("inherits_from")
    return entries if parent is None else {**_inherited(plans, parent), **entries}


def _advice(pretrained: bool) -> str:
    if pretrained:
        return "Plan with the architecture of these weights, or give other ones."
    return "Train under other plans or another trainer, or move the old training away."
