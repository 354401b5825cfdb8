"""Start a training of the bare loop with the weights of an earlier one, from a bundle or a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from ClassScaleSegLib.errors import ModelError, named, reason

_HEADS = "decoder.seg_layers."


def start_from(network: torch.nn.Module, source: Path) -> None:
    """Load weights into ``network``, in place. Heads of coarser scales that the file lacks keep their weights.

    :param source: a bundle (``.zip``), of which the first fold is used, or a ``checkpoint_*.pth``.
    :raises ModelError: if the file cannot be read, or belongs to another network or another number of classes.
    """
    weights = _of_bundle(source) if source.suffix.lower() == ".zip" else _of_checkpoint(source)
    own = network.state_dict()
    finest = max((name for name in own if name.startswith(_HEADS)), default="").rpartition(".")[0]
    # a bundle holds only the finest head, because inference uses no other
    optional = [name for name in own if _is_copy(name) or (name.startswith(_HEADS) and not name.startswith(finest))]
    missing = [name for name in own if name not in weights and name not in optional]
    foreign = [name for name in weights if name not in own]
    shapes = [name for name in weights if name in own and weights[name].shape != own[name].shape]
    for fault, names in (("lacks", missing), ("also has", foreign), ("has another shape of", shapes)):
        if names:
            raise ModelError(
                f"{source} belongs to another network: it {fault} {names[0]}. Use the options it was trained with."
            )
    network.load_state_dict(weights, strict=False)


def _is_copy(name: str) -> bool:
    """Return whether this is a second name of a tensor, as nnU-Net's networks have them."""
    return "all_modules" in name or name.startswith("decoder.encoder.")


def _of_bundle(source: Path) -> dict[str, torch.Tensor]:
    from ClassScaleSegLib.models.bundle import is_bundle, read_manifest, read_member, read_tensors
    from ClassScaleSegLib.models.files import open_source

    with open_source(source) as files:
        if not is_bundle(files):
            raise ModelError(
                f"{source} is not a ClassScaleSeg bundle: give a bundle, or a checkpoint_*.pth of a model folder."
            )
        manifest = read_manifest(files)
        name = f"fold_{manifest['folds'][0]}.safetensors"
        content = read_member(files, name, manifest["members"][name])
        with named(files.where(name)):
            return read_tensors(content)


def _of_checkpoint(source: Path) -> dict[str, torch.Tensor]:
    from ClassScaleSegLib.models.checkpoint import read_checkpoint

    with named(str(source)):
        try:
            with open(source, "rb") as stream:
                return read_checkpoint(stream).weights
        except OSError as error:
            raise ModelError(f"It cannot be read ({reason(error)}).") from error
