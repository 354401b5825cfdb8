"""The model with which a fine-tuning begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ClassScaleSegLib.catalog.catalog import resolve_model
from ClassScaleSegLib.models.files import open_source
from ClassScaleSegLib.models.model import read_parts

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
    def read(cls, named: str) -> Begin:
        """Read a model, its weights too, so that damage is noticed before hours of work.

        :raises ModelError: if it cannot be used, or was not planned by nnU-Net.
        """
        from ..plans_of_model import ModelPlans

        summary = ModelPlans.read(named).summary
        (path,) = resolve_model(named)
        with open_source(path) as files:
            mirrored = bool(read_parts(files, None, "final", None).mirror_axes)
        return cls(named, path, summary.channel_names, summary.configuration_name, mirrored)

    def trained(self, trainer: str) -> str:
        """Return the name of nnU-Net's folder of a training."""
        return f"{trainer}__{PLANS}__{self.configuration}"
