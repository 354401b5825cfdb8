"""What the panel shows. Signals of widgets change the state, and `ClassScaleSegWidget.render` shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import qt

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.entries import Entry
    from ClassScaleSegLib.labels.table import LabelTable
    from ClassScaleSegLib.models.summary import ModelSummary
    from ClassScaleSegLib.scene.run import SceneRun
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegParameterNode


@dataclass
class PanelState:
    """The parameter node, and what the panel shows that is not saved with the scene."""

    parameters: ClassScaleSegParameterNode | None = None  # None while the module is not open
    input: tuple[vtkMRMLScalarVolumeNode | None, str | None] | None = None  # volume last followed, model if a sample
    model: str | None = None  # id of the model that the next four describe
    entry: Entry | None = None  # None if it is not in the catalogue
    summaries: tuple[ModelSummary, ...] = ()  # one per part; empty while it is not downloaded or cannot be read
    table: LabelTable | None = None  # None while summaries is empty
    fault: str = ""  # why it cannot be read, in a sentence
    locating: tuple[str, ModelSummary | None] | None = None  # model that locates, by id; no summary: it is not there
    listed: LabelTable | None = None  # whose classes are listed
    run: SceneRun | None = None  # that is under way
    status: str = ""  # the line below Apply
    log: str = ""  # of the last run
    node: vtkMRMLSegmentationNode | None = None  # whose structures are listed


@contextlib.contextmanager
def silent(widget: qt.QWidget) -> Iterator[None]:
    """Let a widget be written without signals, which would otherwise change the state that is being shown."""
    before = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(before)
