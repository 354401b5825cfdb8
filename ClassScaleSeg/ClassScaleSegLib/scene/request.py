"""What a run in Slicer's scene is asked to do: which volumes, which model, which nodes to fill."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import FIELDS, Options, refuse_unknown
from ..remote.address import check_address, server_of
from ..remote.chosen_server import ChosenServer
from ..remote.credentials import TOKEN
from ..remote.servers import Servers

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode


@dataclass(frozen=True)
class Request:
    """What to segment, with which model, and which nodes to fill.

    :ivar volumes: one volume node per channel of the model.
    :ivar model: path of a model, or its id or name in the catalogue; or several, of which the later one gets a voxel
        that two claim.
    :ivar region: region of interest; only voxels inside it are segmented. ``None``: the whole volume.
    :ivar all_frames: segment every frame of the sequence that the first volume is part of.
    :ivar segmentation: node to fill; ``None``: a new node.
    :ivar replace: remove the segments that ``segmentation`` has; otherwise they are an error.
    :ivar confidence: volume node to fill with the probability of each voxel's class. Not for sequences.
    :ivar statistics: table node to fill with volume, surface, position and intensities of each structure.
    :ivar report: folder of a report, a page of all volumes that were segmented with it; see ``report.md``. Not for
        sequences.
    :ivar report_name: what the report calls this case; ``None``: by the first volume.
    :ivar standard_names: name segments by their terminology codes ("Left kidney") where they have some.
    :ivar options: how to segment; ``keep_empty`` also adds segments for classes that were not found. The device
        ``server:ADDRESS`` is a server, of whose models ``model`` names some; ``server:NAME`` is one of the user's list.
    :ivar server: that server, if it was asked already; by default its token is in the list or the environment.
    :ivar insecure: volumes and the token may be sent to that server even if others could read them on their way.
    """

    volumes: tuple[vtkMRMLScalarVolumeNode, ...]
    model: str | Path | tuple[str | Path, ...]
    region: vtkMRMLMarkupsROINode | None = None
    all_frames: bool = False
    segmentation: vtkMRMLSegmentationNode | None = None
    replace: bool = False
    confidence: vtkMRMLScalarVolumeNode | None = None
    statistics: vtkMRMLTableNode | None = None
    report: str | Path | None = None
    report_name: str | None = None
    standard_names: bool = True
    options: Options = Options()
    server: ChosenServer | None = None
    insecure: bool = False

    @property
    def models(self) -> tuple[str | Path, ...]:
        """The model or models."""
        return self.model if isinstance(self.model, tuple) else (self.model,)

    @property
    def segmented_by(self) -> ChosenServer | None:
        """The server that segments; ``None``: this computer.

        :raises ServerError: if the device is no valid address of one, nor the name of one that the user knows.
        """
        text = server_of(self.options.device)
        if text is None or self.server is not None:
            return None if text is None else self.server
        servers = Servers()
        known = servers.find(text)
        token = os.environ.get(TOKEN) or None
        if known is None:
            return ChosenServer(check_address(text), token, insecure=self.insecure)
        insecure = known.insecure or self.insecure
        return ChosenServer(known.address, servers.token(known) or token, known.ca, insecure=insecure)


def request_for(
    volumes: vtkMRMLScalarVolumeNode | Sequence[vtkMRMLScalarVolumeNode],
    model: str | Path | Sequence[str | Path],
    choices: dict[str, Any],
) -> Request:
    """Make a `Request` from the keyword arguments of a script.

    :param volumes: one volume node, or a list or tuple of them, one per channel of the model.
    :param model: as of `Request`, or a list.
    :param choices: fields of `Request` and of `Options`, by name; but ``memory_limit`` for ``memory_limit_gib``.
    :raises ClassScaleError: if a name in ``choices`` is unknown, or a value is out of range.

    >>> request_for((), "toy-120", {"memory_limit": 4, "replace": True}).options.memory_limit_gib
    4.0
    >>> request_for((), "toy-120", {"colour": "red"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ClassScaleSegLib.errors.ClassScaleError: There is no option colour. The options are all_frames, ...
    """
    own = {field.name for field in fields(Request)} - {"volumes", "model", "options"}
    others = {name.removesuffix("_gib"): name for name in FIELDS if name not in own}
    refuse_unknown(choices, own | others.keys())
    kept = {name: choice for name, choice in choices.items() if name in own}
    options = Options(**{others[name]: choice for name, choice in choices.items() if name in others})
    nodes = tuple(volumes) if isinstance(volumes, (list, tuple)) else (volumes,)
    models = model if isinstance(model, (str, Path)) else tuple(model)
    return Request(nodes, models, **kept, options=options)
