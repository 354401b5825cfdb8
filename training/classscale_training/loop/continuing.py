"""Whether a run of the bare loop goes on with what it was trained with until now: options, network and data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ClassScaleSegLib.errors import ModelError, OutputExistsError

from .options import BRAIN, TOY, LoopOptions

if TYPE_CHECKING:
    from .data import LoopData

_KINDS = {TOY: "toy data", BRAIN: "heads"}


def decided_by(options: LoopOptions, data: LoopData) -> dict[str, Any]:
    """Return what decides the steps of a run, as plain values, for a checkpoint.

    "options" must be the same when the run is continued, and so must "data", unless ``--changed-data`` is given.
    "changeable" may be others.
    """
    return {"options": options.fixed(), "changeable": options.changeable(), "data": dict(data.made_from)}


def check_continued(file: Path, content: Mapping[str, Any], options: LoopOptions, data: LoopData) -> None:
    """Check that a run can go on from a checkpoint, and warn of options that have changed and may have.

    What an older checkpoint does not say is not compared.

    :param file: the checkpoint.
    :param content: what it holds.
    :raises ModelError: if it is not one of the bare loop, or options or data are others.
    """
    state = content.get("loop")
    if not isinstance(state, Mapping):
        raise ModelError(f"{file} is not a checkpoint of this loop. Choose another folder.")
    before = state["options"]
    kind, now = _KINDS[TOY if "classes" in before else BRAIN], _KINDS[TOY if options.data == TOY else BRAIN]
    if kind != now:
        raise ModelError(f"{file} was trained on {kind}, not on {now}: use the same --data, or another folder.")
    for name, value in options.fixed().items():
        known = before.get(name, getattr(LoopOptions, name))  # an older run had no such option
        if known != value:
            raise ModelError(
                f"{file} was trained with {name} {known}, not {value}: use the same value, or another folder."
            )
    _check_data(file, state.get("data", {}), options, data)
    changeable = state.get("changeable", {})
    changed = {name: value for name, value in options.changeable().items() if changeable.get(name, value) != value}
    if changed:
        listed = ", ".join(f"{name} {value} (until now {changeable[name]})" for name, value in changed.items())
        warnings.warn(f"The training goes on from {file} with {listed}.", stacklevel=2)


def _check_data(file: Path, before: Mapping[str, str], options: LoopOptions, data: LoopData) -> None:
    others = [name for name, digest in data.made_from.items() if before.get(name, digest) != digest]
    if not others:
        return
    what = f"{' and '.join(others)} than those of now ({options.data.removeprefix(BRAIN)})"
    if options.changed_data:
        warnings.warn(f"The training goes on from {file}, which was trained with other {what}.", stacklevel=3)
        return
    raise ModelError(
        f"{file} was trained with other {what}. Bring those back, or choose another folder for a new training. "
        "To go on with those of now, add --changed-data."
    )


def check_network(file: Path, there: Mapping[str, torch.Tensor], network: torch.nn.Module) -> None:
    """Check that a checkpoint has the weights of this network.

    :raises ModelError: naming the first that is missing, or has another shape.
    """
    for name, tensor in network.state_dict().items():
        if name not in there or there[name].shape != tensor.shape:
            found = f"the shape {tuple(there[name].shape)}" if name in there else "nothing"
            raise ModelError(
                f"{file} has {found} for the weights {name} of another network; this one has {tuple(tensor.shape)}. "
                "Choose another folder."
            )


def refuse_others(folder: Path) -> None:
    """Refuse to begin a run in a folder that holds a model already.

    :param folder: the model folder, in which there is no checkpoint to continue from.
    :raises OutputExistsError: naming a checkpoint in it.
    """
    found = next(iter(sorted(folder.glob("fold_*/checkpoint_*.pth"))), None)
    if found is not None:
        raise OutputExistsError(
            f"{found} exists, but nothing from which the run could go on. Move the model away, or choose another "
            "folder."
        )
