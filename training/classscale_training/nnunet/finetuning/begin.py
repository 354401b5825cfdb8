"""The model with which a fine-tuning begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ClassScaleSegLib.catalog.catalog import resolve_model
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.errors import named as attributed
from ClassScaleSegLib.models.files import open_source
from ClassScaleSegLib.models.model import ModelParts, read_parts
from ClassScaleSegLib.models.networks import is_primus

from ..environment import PLANS


@dataclass(frozen=True)
class Begin:
    """The model to begin with.

    :ivar named: as the user named it.
    :ivar mirrored: it was trained with mirrored images.
    """

    named: str
    path: Path
    channels: tuple[str, ...]
    configuration: str
    mirrored: bool

    @classmethod
    def read(cls, named: str, trainer: type | None) -> Begin:
        """Read a model, its weights too, so that damage is noticed before hours of work.

        :param trainer: that the user has named, if any.
        :raises ModelError: if it cannot be used, was not planned by nnU-Net, or is not what the trainer trains.
        """
        from ..plans_of_model import ModelPlans

        summary = ModelPlans.read(named).summary
        (path,) = resolve_model(named)
        with open_source(path) as files:
            parts = read_parts(files, None, "final", None)
        with attributed(path):
            _refuse_other_network(parts, trainer)
        return cls(named, path, summary.channel_names, summary.configuration_name, bool(parts.mirror_axes))

    def trained(self, trainer: str) -> str:
        """Return the name of nnU-Net's folder of a training."""
        return f"{trainer}__{PLANS}__{self.configuration}"


def _refuse_other_network(parts: ModelParts, trainer: type | None) -> None:
    """Refuse a model whose network is not the one that a trainer trains.

    :raises ModelError: if it is not.
    """
    primus = is_primus(parts.configuration.configuration["architecture"])
    if primus and not getattr(trainer, "trains_primus", False):
        raise ModelError(
            "It is a Primus, which needs another optimiser and a warm-up. Choose another model to begin with, or name "
            "--trainer ClassScaleTrainer_Primus, which trains 1000 epochs."
        )
    if trainer is not None:
        from ClassScaleSegLib.models.network import fit_weights

        from ..pretrained import adopt_model

        build: Any = trainer
        shape = parts.summary.channels, parts.summary.classes
        try:
            network = build.build_network_architecture(parts.plans_manager, parts.configuration, *shape)
            adopt_model(network, fit_weights(parts.network, parts.weights[0][1]))
        except ModelError as error:
            raise ModelError(
                f"It does not have the network that {trainer.__name__} trains. Choose another model to begin with, or "
                "another --trainer."
            ) from error
