"""A model folder, an exported zip or a bundle -> backbone (R channels) and projection (C x R), ready for inference.

This file only assembles: :mod:`.files` finds and guards the files, :mod:`.folder` and :mod:`bundle` read the two
layouts, :mod:`plans` and :mod:`checkpoint` check what is in them, :mod:`network` builds and splits the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..labels.table import LabelTable
from .bundle import is_bundle, read_bundle
from .files import open_source
from .folder import ModelParts, read_model_folder

if TYPE_CHECKING:
    import torch

    from .projection import Projection

__all__ = ["Model", "ModelError", "open_model"]


@dataclass(frozen=True)
class Model:
    """What inference needs, and what people need to know.

    :ivar backbones: one network for each fold, in evaluation mode, on the CPU, float32: ``(1, channels, *patch)`` ->
        ``(1, r, *patch)``.
    :ivar average_folds: the basis is the mean of the backbones' outputs (they are logits, ``r`` = classes), otherwise
        their concatenation (``r`` = R): see :func:`~ClassScaleSegLib.models.network.split`.
    :ivar projection: ``(classes, rank)``; its ``values`` are the label values of its rows.
    :ivar plans_manager: nnU-Net's, of checked plans, as is ``configuration``.
    :ivar dataset: ``dataset.json``.
    :ivar mirror_axes: axes of the patch that may be mirrored.
    :ivar table: name, colour and codes of every label value, background included.
    :ivar folds: ``("0", "1")`` or ``("all",)``.
    :ivar orientation: anatomical orientation, such as ``RAS``, that an image must be brought to before the network sees
        it; ``None``: as stored.
    :ivar modality: ``CT``, ``MR`` or unknown.
    :ivar licence: of the weights, if known.
    :ivar notice: to be shown to users.
    """

    backbones: tuple[torch.nn.Module, ...]
    average_folds: bool
    projection: Projection
    plans_manager: Any
    configuration: Any
    dataset: dict
    mirror_axes: tuple[int, ...]
    table: LabelTable
    name: str
    configuration_name: str
    folds: tuple[str, ...]
    orientation: str | None = None
    modality: str | None = None
    licence: str | None = None
    notice: str | None = None

    @property
    def patch(self) -> tuple[int, ...]:
        return tuple(self.configuration.patch_size)

    @property
    def channels(self) -> int:
        """Input channels."""
        return len(self.configuration.normalization_schemes)

    @property
    def classes(self) -> int:
        """Rows of the projection: classes with the background, or regions."""
        return self.projection.classes

    @property
    def rank(self) -> int:
        """Channels of the basis, all folds together."""
        return self.projection.rank


def open_model(
    source: str | Path,
    folds: tuple[int | str, ...] | None = None,
    checkpoint: str = "final",
    configuration: str | None = None,
) -> Model:
    """Open a model from anywhere; nothing in it is trusted, and no code in it runs.

    :param source: an nnU-Net v2 model folder (``Trainer__Plans__configuration``) or a folder above exactly one; a zip
        made by ``nnUNetv2_export_model_to_zip``; a bundle of :func:`.packing.pack`, zipped or not.
    :param folds: ``(0, 1)`` or ``("all",)``; all numbered folds if not given, ``fold_all`` if there is no other.
    :param checkpoint: ``final`` or ``best``; a bundle holds only one.
    :param configuration: chooses among several models, by configuration or by path.
    :raises ModelError: one sentence naming the file and the fault.

    >>> model = open_model("Dataset297_X/nnUNetTrainer__nnUNetPlans__3d_fullres")  # doctest: +SKIP
    >>> model.classes, model.rank, model.patch  # doctest: +SKIP
    (118, 32, (128, 128, 128))
    """
    with open_source(source, configuration) as files:
        if is_bundle(files):
            parts = read_bundle(files, folds, configuration)
        else:
            parts = read_model_folder(files, folds, checkpoint, configuration)
    return _assemble(parts)


def _assemble(parts: ModelParts) -> Model:
    from .network import adopt_weights, build_network, fit_weights, split

    networks = []
    for where, weights in parts.weights:
        network = build_network(parts.plans, parts.where)
        adopt_weights(network, fit_weights(network, weights, where))
        networks.append(network)
    projection, average_folds = split(networks, parts.plans)
    return Model(
        backbones=tuple(networks),
        average_folds=average_folds,
        projection=projection,
        plans_manager=parts.plans.manager,
        configuration=parts.plans.configuration,
        dataset=parts.plans.dataset,
        mirror_axes=parts.mirror_axes,
        table=parts.table,
        name=parts.name,
        configuration_name=parts.plans.configuration_name,
        folds=parts.folds,
        orientation=parts.orientation,
        modality=parts.modality,
        licence=parts.licence,
        notice=parts.notice,
    )
