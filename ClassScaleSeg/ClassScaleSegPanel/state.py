"""What the panel shows. Signals of widgets change the state, and `ClassScaleSegWidget.render` shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import qt
import slicer

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.entries import Entry
    from ClassScaleSegLib.labels.table import LabelTable
    from ClassScaleSegLib.models.summary import ModelSummary
    from ClassScaleSegLib.scene.run import SceneRun
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegParameterNode


@dataclass
class PanelState:
    """The parameter node, and what the panel shows that is not saved with the scene.

    :ivar parameters: the parameter node; ``None`` while the module is not open.
    :ivar input: the selected volume, and the model that belongs to it if it is a sample, when that was last selected.
    :ivar model: id of the model that ``entry``, ``summaries``, ``table`` and ``fault`` describe.
    :ivar entry: the model in the catalogue; ``None`` if it is not there.
    :ivar summaries: one per part of the model; empty while it is not downloaded or cannot be read.
    :ivar table: its classes, or ``None`` while ``summaries`` is empty.
    :ivar listed: the table whose classes are listed.
    :ivar fault: why the model cannot be read, in a sentence; empty if it can.
    :ivar run: the run that is under way, or ``None``.
    :ivar status: the line below Apply.
    :ivar log: what the last run has printed.
    :ivar node: the segmentation node whose structures are listed, or ``None``.
    """

    parameters: ClassScaleSegParameterNode | None = None
    input: tuple[vtkMRMLScalarVolumeNode | None, str | None] | None = None
    model: str | None = None
    entry: Entry | None = None
    summaries: tuple[ModelSummary, ...] = ()
    table: LabelTable | None = None
    listed: LabelTable | None = None
    fault: str = ""
    run: SceneRun | None = None
    status: str = ""
    log: str = ""
    node: vtkMRMLSegmentationNode | None = None


@contextlib.contextmanager
def silent(widget: qt.QWidget) -> Iterator[None]:
    """Let a widget be written without signals, which would otherwise change the state that is being shown."""
    before = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(before)


def ask_text(title: str, label: str) -> str:
    """Ask the user for a line of text, and return it without spaces around it; empty if the user cancels."""
    answer = qt.QInputDialog.getText(slicer.util.mainWindow(), title, label)
    return (answer[0] if isinstance(answer, tuple) else answer).strip()
