"""Models of other programs than nnU-Net, described as if nnU-Net had planned them.

Each program has a reader: it says what a model is without torch, and reads its weights with it. What it returns are
plans and a dataset like nnU-Net's. All that follows is then the same for every model: checks, bundles, lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..labels.table import LabelTable
from .files import Files

if TYPE_CHECKING:
    import torch

CONFIGURATION, FOLD = "published", "0"  # such a model has one configuration and one network


class Foreign(NamedTuple):
    """A model of another program, without its weights.

    :ivar plans: as in ``plans.json``, not checked yet.
    :ivar dataset: as in ``dataset.json``, not checked yet.
    :ivar table: names, colours and codes of its classes.
    :ivar file: what describes it, for messages.
    """

    plans: dict
    dataset: dict
    table: LabelTable
    file: str


class Reader(Protocol):
    """A module that reads the models of one program."""

    def members(self, files: Files) -> list[str]:
        """Return the names of the files from which a model is opened."""

    def describe(self, files: Files) -> Foreign:
        """Describe a model without torch.

        :raises ModelError: if it cannot be used.
        """

    def read_weights(self, files: Files) -> tuple[str, dict[str, torch.Tensor]]:
        """Return the file with the weights, for messages, and its tensors by their names.

        :raises ModelError: if they cannot be read.
        """
