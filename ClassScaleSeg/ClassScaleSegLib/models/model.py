"""Open a model folder, an exported zip or a bundle as backbones (R channels) and projection (C x R).

This file combines its neighbours: :mod:`.files` finds the files, :mod:`.summary` says what they are, :mod:`.folder` and
:mod:`.bundle` read the weights of the two layouts, :mod:`.plans` and :mod:`.checkpoint` check the contents, and
:mod:`.network` builds and splits the network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, named
from .bundle import is_bundle, read_manifest, read_weights
from .families import foreign_reader
from .files import Files, open_source
from .folder import fold_names, read_checkpoints, read_plans
from .foreign import FOLD
from .plans import check_plans
from .side_swap import SideSwap, side_swap
from .summary import ModelFacts, ModelSummary, describe_bundle, describe_folder, describe_foreign

if TYPE_CHECKING:
    import torch

    from .bundle import Weights
    from .projection import Projection

__all__ = ["Model", "ModelError", "open_model"]


@dataclass(frozen=True)
class Model(ModelFacts):
    """A model ready for inference; further fields as in `ModelFacts`.

    :ivar backbones: one network for each fold, in evaluation mode, on the CPU, float32: ``(1, channels, *patch)`` ->
        ``(1, r, *patch)``.
    :ivar average_folds: if true, the outputs are logits (``r`` = classes) and the basis is their mean over the folds;
        otherwise the basis is their concatenation (``r`` = R). See :func:`~ClassScaleSegLib.models.network.split`.
    :ivar projection: ``(classes, rank)``; its ``values`` are the label values of its rows.
    :ivar plans_manager: nnU-Net's ``PlansManager`` of the checked plans.
    :ivar configuration: nnU-Net's ``ConfigurationManager`` of the checked plans.
    :ivar mirror_axes: axes of the patch that may be mirrored.
    :ivar side_swap: how it is mirrored with left and right exchanged; ``None`` unless ``swap_sides``.

    >>> from ClassScaleSegLib.resources import resource
    >>> model = open_model(resource("Models", "toy-120.zip"))
    >>> model
    <Model Toy atlas, 120 classes: 120 classes, 1 fold, patch 64 x 64 x 64 (z, y, x)>
    >>> model.projection.weight.shape
    torch.Size([121, 16])
    >>> model.table[120].name
    'cell 120'
    """

    backbones: tuple[torch.nn.Module, ...]
    average_folds: bool
    projection: Projection
    plans_manager: Any
    configuration: Any
    mirror_axes: tuple[int, ...]
    side_swap: SideSwap | None

    def __repr__(self) -> str:
        """Return name, classes, folds and patch: the networks would fill pages."""
        classes, folds = len(self.table.foreground), len(self.backbones)
        patch = " x ".join(map(str, self.patch))
        return f"<Model {self.name}: {classes} classes, {folds} fold{'s' * (folds != 1)}, patch {patch} (z, y, x)>"

    @property
    def patch(self) -> tuple[int, ...]:
        """Size of the patch in voxels, in the order of the network's axes."""
        return tuple(self.configuration.patch_size)

    @property
    def rank(self) -> int:
        """Number of channels of the basis, all folds together."""
        return self.projection.rank


def open_model(
    source: str | Path,
    folds: tuple[int | str, ...] | None = None,
    checkpoint: str = "final",
    configuration: str | None = None,
) -> Model:
    """Open a model from any source. Its files are not trusted, and no code in them runs.

    :param source: an nnU-Net v2 model folder (``Trainer__Plans__configuration``) or a folder that contains one; a zip
        made by ``nnUNetv2_export_model_to_zip``; a bundle made by :func:`.packing.pack`, zipped or not; or a model of
        MONAI's Auto3DSeg as SlicerMONAIAuto3DSeg distributes it, a zip or folder.
    :param folds: such as ``(0, 1)`` or ``("all",)``. If not given, all numbered folds, or else ``fold_all``.
    :param checkpoint: ``final`` or ``best``; ignored for a bundle, which has only one.
    :param configuration: selects one of several models in ``source``: its configuration or its path.
    :raises ModelError: if the model cannot be used; the message names the file and the fault.

    >>> from ClassScaleSegLib.resources import resource
    >>> model = open_model(resource("Models", "toy-120.zip"))
    >>> model.classes, model.rank, model.patch
    (121, 16, (64, 64, 64))
    """
    from .network import adopt_weights, fit_weights, split

    with open_source(source, configuration) as files:
        parts = read_parts(files, folds, checkpoint, configuration)
        with named(files.where()):
            swap = parts.side_swap() if parts.summary.swap_sides else None
    networks, summary = [], parts.summary
    for where, weights in parts.weights:
        network = copy.deepcopy(parts.network)
        with named(where):
            adopt_weights(network, fit_weights(network, weights))
        networks.append(network)
    projection, average_folds = split(networks, summary.values, summary.regions)
    return Model(
        **{field.name: getattr(summary, field.name) for field in fields(ModelFacts)},
        backbones=tuple(networks),
        average_folds=average_folds,
        projection=projection,
        plans_manager=parts.plans_manager,
        configuration=parts.configuration,
        mirror_axes=parts.mirror_axes,
        side_swap=swap,
    )


@dataclass(frozen=True)
class ModelParts:
    """The files of a model, read and checked; further fields as in `Model`.

    :ivar network: the network of one fold, without weights.
    :ivar weights: for each fold the file, for messages, and its tensors by nnU-Net's names.
    """

    summary: ModelSummary
    plans_manager: Any
    configuration: Any
    network: torch.nn.Module
    weights: Weights
    mirror_axes: tuple[int, ...]

    def side_swap(self) -> SideSwap:
        """Return how the sides are exchanged.

        :raises ModelError: if they cannot be.
        """
        summary, forward = self.summary, self.plans_manager.transpose_forward
        patch = self.configuration.patch_size
        return side_swap(summary.table, summary.values, summary.orientation, forward, patch, self.mirror_axes)


def read_parts(
    files: Files, folds: tuple[int | str, ...] | None, checkpoint: str, configuration: str | None
) -> ModelParts:
    """Read and check the files of a model; the parameters are those of :func:`open_model`.

    :raises ModelError: if the model cannot be used; the message names the file and the fault.
    """
    from .network import build_network

    weights: Weights
    described = "plans.json"
    if is_bundle(files):
        manifest = read_manifest(files)
        summary = describe_bundle(files, manifest, configuration, folds)
        weights = read_weights(files, manifest, summary.folds)
        axes, where = tuple(manifest["mirror_axes"]), files.where("manifest.json")
    elif (reader := foreign_reader(files)) is not None:
        if folds is not None and tuple(map(str, folds)) != (FOLD,):
            raise ModelError(f"{files.where()} has no folds: it is a single network.")
        foreign = reader.describe(files)
        summary = describe_foreign(files, foreign, configuration)
        weights, axes, where = (reader.read_weights(files),), (), files.where()
        described = foreign.file
    else:
        plans, dataset = read_plans(files)
        file = f"checkpoint_{checkpoint}.pth"
        names = fold_names(files, folds, file)
        contents = read_checkpoints(files, names, file)
        first = contents[0][1]  # the first fold decides on the axes, as in nnU-Net (predict_from_raw_data.py)
        summary = describe_folder(files, plans, dataset, names, configuration, first.configuration, first.trainer)
        weights = tuple((f"{where}{content.origin}", content.weights) for where, content in contents)
        axes, where = first.mirror_axes, files.where()
    with named(files.where(described)):
        manager, planned = check_plans(summary)
        network = build_network(planned, summary.channels, summary.classes)
    dimension = len(summary.patch)
    if not all(type(axis) is int and 0 <= axis < dimension for axis in axes) or len(set(axes)) != len(axes):
        raise ModelError(f"{where}: mirroring axes {axes} are not axes of a patch with {dimension} dimensions.")
    return ModelParts(summary, manager, planned, network, weights, tuple(sorted(axes)))
