"""Compare the segmentation under "Result" with another one: Dice and both volumes of each structure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..state import PanelState, silent
from ..translation import translated
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import Wrapping, ask, tell_error
from ..widgets.watching import Watching
from .contents import contents
from .file_names import file_name, with_suffix

if TYPE_CHECKING:
    from ClassScaleSegLib.images.comparison import ClassComparison
    from ClassScaleSegLib.labels.table import LabelTable
    from ClassScaleSegLib.scene.segmentation_reader import Opened
    from slicer import vtkMRMLNode, vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic

_LONGEST_NAME = 16  # characters that are always shown
_GREY = (128, 128, 128)  # of a structure that the reference does not have


class ComparePanel:
    """Controls the widgets of the section "Compare" in the .ui file.

    :ivar table: the structures of both segmentations. Keys of its rows are their numbers, as text.
    :ivar rows: what is listed.
    """

    def __init__(self, ui: Any, state: PanelState, logic: ClassScaleSegLogic) -> None:
        self._ui, self._state, self._logic = ui, state, logic
        self._other: vtkMRMLSegmentationNode | None = None
        self.rows: list[ClassComparison] = []
        self._compared: tuple[Any, Any, object] | None = None  # both nodes, and what they held
        self._ids: list[tuple[Any, str]] = []  # of each row: node and segment, to centre the views on
        self._watching = Watching(lambda node, event: self.follow())
        headers = [_("Structure"), _("Dice"), _("mL"), _("Other mL"), _("Difference")]
        self.table = SearchTable(headers, _("Search structures"), on_ticked=None, on_chosen=self._go_to)
        self._summary = qt.QLabel()
        self._summary.textFormat = qt.Qt.PlainText  # it shows names of nodes
        self._wrapping = Wrapping(self._summary)
        self.table.layout.addWidget(self._summary)
        ui.compareCollapsibleButton.layout().addWidget(self.table.widget)
        ui.compareSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose)
        ui.compareButton.connect("clicked(bool)", lambda: self.compare())
        ui.compareTableButton.connect("clicked(bool)", lambda: self._to_table())
        ui.compareSaveButton.connect("clicked(bool)", lambda: self._save())
        self.clear()

    def clear(self, text: str = "") -> None:
        """Empty the table, and show a text below it."""
        self.rows, self._ids, self._compared = [], [], None
        self._watching.stop()
        self.table.set_rows([])
        self._set_widths("")
        self._summary.text = text or _("Choose a segmentation to compare with the one under Result.")
        self.render()

    def forget(self, node: vtkMRMLNode) -> None:
        """Drop a node that is removed from the scene, and a comparison with it."""
        if node is self._other:
            self._other = None
        if self._compared is not None and any(node is one for one in self._compared[:2]):
            self.clear(_("A segmentation was removed, so its comparison is gone."))
        self.render()

    def reset(self) -> None:
        """Forget everything, because the scene is closed."""
        self._other = None
        self.clear()

    def follow(self) -> None:
        """Drop a comparison that is not true any more: a segmentation was changed, or another one is listed."""
        if self._compared is not None:
            first, second, held = self._compared
            if first is not self._state.node or second is not self._other or held != _held(first, second):
                self.clear(_("The segmentations have changed. Press Compare again."))
        self.render()

    def render(self) -> None:
        """Show what can be done."""
        ui, node = self._ui, self._state.node
        with silent(ui.compareSelector):
            if ui.compareSelector.currentNode() is not self._other:
                ui.compareSelector.setCurrentNode(self._other)
        ui.compareButton.enabled = node is not None and self._other is not None and node is not self._other
        ui.compareTableButton.enabled = ui.compareSaveButton.enabled = bool(self.rows)

    def close(self) -> None:
        """Stop following the nodes."""
        self._watching.stop()

    def compare(self) -> None:
        """Compare both segmentations, and list their structures. Errors are shown below the table."""
        from ClassScaleSegLib.scene.results import compare_nodes
        from ClassScaleSegLib.scene.segmentation_reader import open_segmentation

        first, second = self._state.node, self._other
        if first is None or second is None or first is second:
            return
        self.clear()
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            held = _held(first, second)
            one, two = open_segmentation(first), open_segmentation(second)
            if one is None or two is None:
                name = (first if one is None else second).GetName()
                self.clear(_("There is no structure in {name}.").format(name=name))
                return
            found = compare_nodes(one, two)
        except ClassScaleError as error:
            self.clear(translated(str(error)))
            return
        except MemoryError:
            self.clear(_("There is not enough memory to compare these segmentations."))
            return
        finally:
            slicer.app.restoreOverrideCursor()
        self.rows, self._compared = found.rows, (first, second, held)
        self._ids = [_segment_of(row, (first, one), (second, two)) for row in found.rows]
        tables = one.segmentation.table, two.segmentation.table
        self.table.set_rows(_row(str(number), row, *tables) for number, row in enumerate(found.rows))
        self._set_widths(max((row.name for row in found.rows), key=len, default=""))
        self._summary.text = _text(found.rows, first.GetName(), second.GetName(), found.resampled)
        kinds = slicer.vtkSegmentation
        self._watching.watch(
            (first, second),
            vtk.vtkCommand.ModifiedEvent,
            slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
            kinds.SegmentAdded,
            kinds.SegmentRemoved,
            kinds.SegmentModified,
            kinds.SourceRepresentationModified,
        )
        self.render()

    def _set_widths(self, name: str) -> None:
        """Make room for the names; a panel that is too narrow for all numbers then scrolls sideways."""
        self.table.set_width(0, name[:_LONGEST_NAME] or "MMMM")
        for column, longest in enumerate(("0.000", "0,000.0", "0,000.0", "-0,000.0"), start=1):
            self.table.set_width(column, longest)

    def _choose(self, node: vtkMRMLSegmentationNode | None) -> None:
        self._other = node
        self.follow()

    def _go_to(self, key: str) -> None:
        node, segment_id = self._ids[int(key)]
        self._logic.centerViews(node, segment_id)

    def _to_table(self) -> None:
        from ClassScaleSegLib.scene.results import fill_comparison

        node = self._state.node
        if node is not None and self.rows:
            table = fill_comparison(node, self.rows)
            self._summary.text = _("The comparison is in the table {name}.").format(name=table.GetName())

    def _save(self) -> None:
        from ClassScaleSegLib.images.comparison import write_comparison

        node, title = self._state.node, _("Save comparison")
        if node is None or not self.rows:
            return
        proposed = Path(slicer.mrmlScene.GetRootDirectory() or "", file_name(node.GetName()) + " comparison.csv")
        kinds = _("Table") + " (*.csv)"
        chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, str(proposed), kinds)
        path = with_suffix(chosen, ".csv")
        question = _("{path} already exists. Replace it?").format(path=path)
        # the dialog has asked about the name as it was typed, not about the one with a suffix
        if not path or (path != chosen and Path(path).exists() and not ask(question, title)):
            return
        try:
            write_comparison(path, self.rows, overwrite=True)
        except ClassScaleError as error:
            tell_error(str(error), _("The comparison was not saved"))


def _held(*nodes: vtkMRMLSegmentationNode) -> object:
    return [contents(node) for node in nodes]


def _segment_of(row: ClassComparison, first: tuple[Any, Opened], second: tuple[Any, Opened]) -> tuple[Any, str]:
    """Return the node and the id of the segment that shows a row."""
    (node, opened), value = (second, row.other_value) if not row.volume_ml else (first, row.value)
    return node, opened.ids[value or 0]


def _row(key: str, row: ClassComparison, first: LabelTable, second: LabelTable) -> Row:
    label = first[row.value] if row.value is not None else second[row.other_value or 0]
    numbers = (row.volume_ml, row.other_volume_ml, row.difference_ml)
    cells = ["–" if row.dice is None else f"{row.dice:.3f}", *("–" if n is None else _amount(n) for n in numbers)]
    order = [-math.inf if number is None else float(number) for number in (row.dice, *numbers)]
    searched = " ".join((row.name, *(code.meaning for code in label.codes.values() if code)))
    color = label.color if row.value is not None else _GREY
    return Row(key, color, (row.name, *cells), (row.name.casefold(), *order), searched)


def _amount(millilitres: float) -> str:
    return f"{millilitres:,.3f}" if abs(millilitres) < 10 else f"{millilitres:,.1f}"


def _text(rows: list[ClassComparison], first: str, second: str, resampled: bool) -> str:
    both = [row.dice for row in rows if row.dice is not None]
    parts = [_("{count} structures in both").format(count=len(both))]
    if both:
        parts[0] += ", " + _("mean Dice {dice}").format(dice=f"{sum(both) / len(both):.3f}")
    for name, missing in ((first, "other_value"), (second, "value")):
        alone = sum(getattr(row, missing) is None for row in rows)
        if alone:
            parts.append(_("{count} only in {name}").format(count=alone, name=name))
    text = "; ".join(parts) + "."
    if resampled:
        text += " " + _("{name} is on another grid, and its nearest voxels were compared.").format(name=second)
    return text
