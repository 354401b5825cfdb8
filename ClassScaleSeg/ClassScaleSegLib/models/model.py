"""Open a model folder, an exported zip or a bundle as backbones (R channels) and projection (C x R).

This file combines its neighbours: :mod:`.files` finds the files, :mod:`.folder` and :mod:`.bundle` read the two
layouts, :mod:`.plans` and :mod:`.checkpoint` check the contents, and :mod:`.network` builds and splits the network.
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
    """A model ready for inference, and the facts that users need to know about it.

    :ivar backbones: one network for each fold, in evaluation mode, on the CPU, float32: ``(1, channels, *patch)`` ->
        ``(1, r, *patch)``.
    :ivar average_folds: if true, the outputs are logits (``r`` = classes) and the basis is their mean over the folds;
        otherwise the basis is their concatenation (``r`` = R). See :func:`~ClassScaleSegLib.models.network.split`.
    :ivar projection: ``(classes, rank)``; its ``values`` are the label values of its rows.
    :ivar plans_manager: nnU-Net's ``PlansManager`` of the checked plans.
    :ivar configuration: nnU-Net's ``ConfigurationManager`` of the checked plans.
    :ivar dataset: content of ``dataset.json``.
    :ivar mirror_axes: axes of the patch that may be mirrored.
    :ivar table: name, colour and codes of every label value, including the background.
    :ivar name: name shown to users.
    :ivar configuration_name: name of the configuration, such as ``3d_fullres``.
    :ivar folds: names of the folds, such as ``("0", "1")`` or ``("all",)``.
    :ivar orientation: anatomical orientation, such as ``RAS``, to which images are turned before the network sees them;
        ``None`` for images as stored.
    :ivar modality: ``CT`` or ``MR``; ``None`` if unknown.
    :ivar licence: licence of the weights; ``None`` if unknown.
    :ivar notice: text that users must see; ``None`` if there is none.

    >>> from ClassScaleSegLib.resources import resource
    >>> model = open_model(resource("Models", "toy-120.zip"))
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
        """Size of the patch in voxels, in the order of the network's axes."""
        return tuple(self.configuration.patch_size)

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return len(self.configuration.normalization_schemes)

    @property
    def classes(self) -> int:
        """Number of rows of the projection: classes including the background, or regions."""
        return self.projection.classes

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
        made by ``nnUNetv2_export_model_to_zip``; or a bundle made by :func:`.packing.pack`, zipped or not.
    :param folds: such as ``(0, 1)`` or ``("all",)``. If not given, all numbered folds, or else ``fold_all``.
    :param checkpoint: ``final`` or ``best``; ignored for a bundle, which has only one.
    :param configuration: selects one of several models in ``source``: its configuration or its path.
    :raises ModelError: if the model cannot be used; the message names the file and the fault.

    >>> from ClassScaleSegLib.resources import resource
    >>> model = open_model(resource("Models", "toy-120.zip"))
    >>> model.classes, model.rank, model.patch
    (121, 16, (64, 64, 64))
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
