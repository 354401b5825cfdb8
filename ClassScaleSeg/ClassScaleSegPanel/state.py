"""What the panel shows. Signals of widgets change the state, and `Panel.render` shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import qt

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.entries import Entry
    from ClassScaleSegLib.labels.table import LabelTable
    from ClassScaleSegLib.models.summary import ModelSummary
    from ClassScaleSegLib.remote.chosen_server import ChosenServer
    from ClassScaleSegLib.remote.health import Health
    from ClassScaleSegLib.remote.offers import RemoteModel
    from ClassScaleSegLib.remote.servers import KnownServer
    from ClassScaleSegLib.scene.queue import SceneQueue
    from ClassScaleSegLib.scene.run import SceneRun
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

    from .parameters import ClassScaleSegParameterNode


@dataclass(frozen=True)
class PanelModel:
    """A model of the run.

    :ivar id: in the catalogue.
    :ivar entry: ``None`` if it is not in the catalogue.
    :ivar summaries: one per part; empty while it is not downloaded or cannot be read.
    :ivar fault: why it cannot be read, in a sentence.
    """

    id: str
    entry: Entry | None = None
    summaries: tuple[ModelSummary, ...] = ()
    fault: str = ""

    @property
    def name(self) -> str:
        """What users see."""
        return self.entry.name if self.entry is not None else self.id


class Locating(NamedTuple):
    """A model that locates the classes of others.

    :ivar id: in the catalogue.
    :ivar summary: ``None`` if it is not on this computer.
    :ivar of: the models of which the catalogue says so; none if the user has chosen it, for all.
    """

    id: str
    summary: ModelSummary | None
    of: tuple[PanelModel, ...] = ()


@dataclass(frozen=True)
class ServerView:
    """What is known of the server that is the device.

    :ivar device: as the parameter ``device`` calls it, behind ``server:``; its address, or its name.
    :ivar server: what the user's list says of it; ``None`` if it is not in it.
    :ivar health: version, devices and queue; ``None`` until it has answered.
    :ivar models: that it offers, by their ids; ``None`` until it has answered.
    :ivar fault: why it cannot be used, in a sentence; empty if it can, or is being asked.
    :ivar unasked: nothing was sent to it, because others could read the token, and the user has not agreed to that.
    :ivar chosen: for a run, once the models are known.
    """

    device: str
    server: KnownServer | None = None
    health: Health | None = None
    models: Mapping[str, RemoteModel] | None = None
    fault: str = ""
    unasked: bool = False
    chosen: ChosenServer | None = None

    @property
    def name(self) -> str:
        """What users see."""
        return self.device if self.server is None else self.server.name


@dataclass
class PanelState:
    """The parameter node, and what the panel shows that is not saved with the scene."""

    parameters: ClassScaleSegParameterNode | None = None  # None while the module is not open
    input: tuple[vtkMRMLScalarVolumeNode | None, str | None] | None = None  # volume last followed, model if a sample
    models: tuple[PanelModel, ...] = ()  # of the run, in their order
    current: int = 0  # which of them the row "Model" shows
    table: LabelTable | None = None  # the classes of all models; None unless all can be read
    # of each class, if there are several models: the name of its model, and what that one calls it
    owners: dict[int, tuple[str, str]] = field(default_factory=dict)
    fault: str = ""  # why the models do not go together, in a sentence
    locating: tuple[Locating, ...] = ()  # models that locate
    server: ServerView | None = None  # the server that is the device; None: this computer segments
    listed: LabelTable | None = None  # whose classes are listed
    queued: tuple[tuple[str, str], ...] = ()  # key and name of volumes that are segmented one after the other
    run: SceneRun | SceneQueue | None = None  # that is under way
    status: str = ""  # the line below Apply
    log: str = ""  # of the last run
    page: Path | None = None  # of the report, if the last run has written it
    node: vtkMRMLSegmentationNode | None = None  # whose structures are listed
    output: vtkMRMLSegmentationNode | None = None  # the segmentation to fill that was last followed

    @property
    def shown(self) -> PanelModel | None:
        """The model that the row "Model" shows."""
        return self.models[min(self.current, len(self.models) - 1)] if self.models else None

    @property
    def entry(self) -> Entry | None:
        """The entry of the shown model."""
        return self.shown.entry if self.shown is not None else None

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels of the first model; empty unless all models can be read."""
        return self.summaries[0].channel_names if self.summaries else ()

    @property
    def summaries(self) -> tuple[ModelSummary, ...]:
        """Summaries of all parts of all models; empty unless all can be read."""
        return tuple(each for model in self.models for each in model.summaries) if self.table is not None else ()


@contextlib.contextmanager
def silent(widget: qt.QWidget) -> Iterator[None]:
    """Let a widget be written without signals, which would otherwise change the state that is being shown."""
    before = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(before)
