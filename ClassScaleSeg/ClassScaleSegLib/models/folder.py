"""Read the files of an nnU-Net v2 model folder, without building the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..labels.table import LabelTable
from .dataset_json import identify
from .files import Files, check_configuration, read_json
from .plans import Plans, check_plans

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelParts:
    """The files of a model, read and checked; other fields as in `Model`.

    :ivar plans: the checked plans.
    :ivar raw_plans: content of ``plans.json``, unchanged.
    :ivar folds: names of the folds, such as ``("0", "1")``.
    :ivar weights: for each fold the file, for messages, and its tensors by nnU-Net's names.
    :ivar where: the model, for messages.
    """

    plans: Plans
    raw_plans: dict
    folds: tuple[str, ...]
    weights: tuple[tuple[str, dict[str, torch.Tensor]], ...]
    mirror_axes: tuple[int, ...]
    table: LabelTable
    name: str
    where: str
    orientation: str | None = None
    modality: str | None = None
    licence: str | None = None
    notice: str | None = None


def read_model_folder(
    files: Files,
    folds: tuple[int | str, ...] | None = None,
    checkpoint: str = "final",
    configuration: str | None = None,
) -> ModelParts:
    """Read ``plans.json``, ``dataset.json`` and ``fold_K/checkpoint_<checkpoint>.pth``.

    :param files: files of the model folder.
    :param folds: the folds to read. If not given, all numbered folds with this checkpoint, or else ``fold_all``.
    :param checkpoint: ``final`` or ``best``.
    :param configuration: the configuration that the caller expects.
    :raises ModelError: if the model cannot be used; the message names the file and the fault.
    """
    from .checkpoint import read_checkpoint

    raw_plans, dataset = read_json(files, "plans.json"), read_json(files, "dataset.json")
    names = fold_names(files, folds, f"checkpoint_{checkpoint}.pth")
    contents = []
    for name in names:
        file = f"fold_{name}/checkpoint_{checkpoint}.pth"
        with files.open(file) as stream:
            contents.append((files.where(file), read_checkpoint(stream, files.where(file))))
    trained = {content.configuration for _, content in contents}
    if len(trained) > 1:
        raise ModelError(f"{files.where()}: the folds have different configurations: {', '.join(map(str, trained))}.")
    # checkpoints of some trainers do not name it; the folder name is Trainer__Plans__configuration
    found = trained.pop() or files.name.rpartition("__")[2]
    check_configuration(files, found, configuration)
    plans = check_plans(raw_plans, dataset, found, files.where())
    axes = contents[0][1].mirror_axes  # the first fold decides, as in nnU-Net (predict_from_raw_data.py)
    identity = identify(raw_plans, dataset, files.name, files.where("dataset.json"))
    return ModelParts(
        plans=plans,
        raw_plans=raw_plans,
        folds=names,
        weights=tuple((f"{file}{content.origin}", content.weights) for file, content in contents),
        mirror_axes=check_mirror_axes(axes, plans, files.where()),
        table=LabelTable.from_names(plans.names),
        name=identity.name,
        where=files.where(),
        orientation=identity.orientation,
        modality=identity.modality,
        notice=identity.notice,
    )


def check_mirror_axes(axes: tuple, plans: Plans, where: str) -> tuple[int, ...]:
    """Check that the mirroring axes are axes of the patch.

    :param axes: spatial axes that may be mirrored, as the model's files give them.
    :param plans: plans of the model.
    :param where: the file, for messages.
    :returns: the axes, sorted.
    :raises ModelError: if one is not an axis of the patch or is repeated.
    """
    dimension = len(plans.configuration.patch_size)
    if not all(type(axis) is int and 0 <= axis < dimension for axis in axes) or len(set(axes)) != len(axes):
        raise ModelError(f"{where}: mirroring axes {axes} are not axes of a patch with {dimension} dimensions.")
    return tuple(sorted(axes))


def fold_names(files: Files, folds: tuple[int | str, ...] | None, file: str) -> tuple[str, ...]:
    """Return the names of the folds to read.

    :param files: files of the model folder.
    :param folds: the requested folds. If not given, all numbered folds with this checkpoint, or else ``all``.
    :param file: name of the checkpoint file.
    :raises ModelError: if a fold has no such checkpoint; the message lists the checkpoints found.
    """
    found = files.folds()
    usable = [fold for fold, names in found.items() if file in names]
    if folds is None:
        chosen = [fold for fold in usable if fold != "all"] or usable
    else:
        chosen = list(dict.fromkeys(str(fold) for fold in folds))
    missing = [f"fold_{fold}/{file}" for fold in chosen if fold not in usable]
    if chosen and not missing:
        return tuple(chosen)
    present = "; ".join(f"fold_{fold} has {', '.join(names)}" for fold, names in found.items()) or "there are no folds"
    raise ModelError(f"{files.where()}: {missing[0] if missing else file} was not found ({present[:300]}).")
