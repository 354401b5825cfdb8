"""A server that somebody has chosen as the device: its models, chosen as those of this computer are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..addresses import refuse_unencrypted
from ..catalog.chosen import Choice, ChosenModel, different_names
from ..options import Options
from .address import check_address
from .decided import refuse_decided
from .faults import Unencrypted
from .offers import RemoteModel, chosen, located_by
from .segmenter import RemoteSegmenter


@dataclass(frozen=True)
class ChosenServer:
    """A server that segments instead of this computer.

    :ivar address: such as ``https://lab-gpu:8471``.
    :ivar token: for a server that asks for one.
    :ivar ca: file with its certificate, if the system does not trust it.
    :ivar models: those that it offers, by their ids; ``None``: it is asked for them.
    :ivar insecure: images and the token may be sent to it even if others could read them on their way.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    ca: str | None = None
    models: Mapping[str, RemoteModel] | None = None
    insecure: bool = False

    def choose(self, models: Sequence[str | Path], options: Options) -> Choice:
        """Find the models of one segmentation on the server. If its models are not known, this waits for its answer.

        :param options: of the segmentation; ``device`` is not looked at.
        :returns: the choice, whose options leave to the server what it decides.
        :raises ModelError: if the server has no such model, or one is given twice.
        :raises Unencrypted: if others could read the image on its way, and that is not allowed.
        :raises ServerError: if it cannot be reached, or an option is one that the server decides.
        """
        address = check_address(self.address)
        refuse_unencrypted(address, "the image", self.insecure, Unencrypted)
        given = replace(options, device=Options.device)
        refuse_decided(given.changed)
        offered = {model.id: model for model in self.offered()}

        def find(wanted: Sequence[str]) -> list[RemoteModel]:
            return chosen(offered, wanted, address)

        found = find(list(map(str, models)))
        coarse = located_by(given, found[0].channels, find)
        names = different_names([model.name for model in found])
        parts = zip(names, found, strict=True)
        return Choice(
            tuple(_as_chosen(name, model) for name, model in parts),
            tuple(summary for model in coarse for summary in model.summaries),
            given,
            (tuple(model.id for model in found), given),
            elsewhere=True,
        )

    def offered(self) -> tuple[RemoteModel, ...]:
        """Return the models of the server. If they are not known, this waits for its answer.

        :raises ServerError: if it cannot be reached, or its answer is none.
        """
        if self.models is not None:
            return tuple(self.models.values())
        with RemoteSegmenter(self.address, self.token, self.ca, insecure=self.insecure) as segmenter:
            return segmenter.models()


def _as_chosen(name: str, model: RemoteModel) -> ChosenModel:
    paths = tuple(summary.path for summary in model.summaries)
    return ChosenModel(name, paths, (None,) * len(paths), model.summaries)
