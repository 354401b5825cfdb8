"""Compare the segmentation under "Result" with another one: Dice and both volumes of each structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.scene.hiding import follow, hide_stand_ins, is_shown_instead, stand_ins
from slicer.i18n import tr as _

from ..install.packages import ensure_comparing
from ..state import PanelState, silent
from ..widgets.search_table import Row
from ..widgets.texts import tell_error
from ..widgets.watching import Watching
from .contents import changes, contents
from .section import StructureSection, amount, attempt, searched
from .structure_set import ask_structure_set
from .table_file import ask_table_file

if TYPE_CHECKING:
    from ClassScaleSegLib.images.comparison import ClassComparison, Comparison
    from ClassScaleSegLib.labels.table import LabelTable
    from ClassScaleSegLib.scene.differences import Differences
    from ClassScaleSegLib.scene.segmentation_reader import Opened
    from slicer import vtkMRMLNode, vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic

_LONGEST_NAME = 16  # characters that are always shown
_GREY = (128, 128, 128)  # of a structure that the reference does not have


class ComparePanel(StructureSection):
    """Controls the widgets of the section "Compare" in the .ui file.

    Keys of the rows of the table are their numbers, as text.

    :param list_instead: lists a segmentation under "Result", from where the user can go back.
    :ivar rows: what is listed: the structures of both segmentations.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        logic: ClassScaleSegLogic,
        list_instead: Callable[[vtkMRMLSegmentationNode], None],
    ) -> None:
        titles = [_("Structure"), _("Dice"), _("mL"), _("Other mL"), _("Difference")]
        StructureSection.__init__(self, ui.compareCollapsibleButton, titles, self._go_to, on_ticked=lambda: None)
        self._ui, self._state, self._logic, self._list_instead = ui, state, logic, list_instead
        self._other: vtkMRMLSegmentationNode | None = None
        self.rows: list[ClassComparison] = []
        self._compared: tuple[Any, Any, object] | None = None  # both nodes, and what they held
        self._ids: list[tuple[Any, str]] = []  # of each row: node and segment, to centre the views on
        self._watching = Watching(lambda node, event: self.follow())
        ui.compareSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose)
        ui.compareButton.connect("clicked(bool)", lambda: self.compare())
        ui.compareTableButton.connect("clicked(bool)", lambda: self._to_table())
        ui.compareSaveButton.connect("clicked(bool)", lambda: self._save())
        ui.structureSetButton.connect("clicked(bool)", lambda: self._compare_with_structure_set())
        ui.differencesButton.connect("clicked(bool)", lambda: self._show_differences())
        ui.hideDifferencesButton.connect("clicked(bool)", lambda: hide_stand_ins(slicer.mrmlScene))
        follow(slicer.mrmlScene)
        self._watching_shown = Watching(lambda node, event: self.render())
        self.clear()

    def clear(self, text: str = "") -> None:
        """Empty the table, and show a text below it."""
        self.rows, self._ids, self._compared = [], [], None
        self._watching.stop()
        self.table.set_rows([])
        self._set_widths("")
        self.say(text or _("Choose a segmentation to compare with the one under Result."))
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

    def compare_with(self, node: vtkMRMLSegmentationNode) -> None:
        """Choose the segmentation to compare with."""
        self._other = node
        self.follow()

    def render(self) -> None:
        """Show what can be done."""
        ui, node = self._ui, self._state.node
        with silent(ui.compareSelector):
            if ui.compareSelector.currentNode() is not self._other:
                ui.compareSelector.setCurrentNode(self._other)
        ui.compareButton.enabled = node is not None and self._other is not None and node is not self._other
        ui.structureSetButton.enabled = node is not None
        for button in (ui.compareTableButton, ui.compareSaveButton, ui.differencesButton):
            button.enabled = bool(self.rows)
        nodes = stand_ins(slicer.mrmlScene)
        shown = any(map(is_shown_instead, nodes))
        if not shown and ui.hideDifferencesButton.focus and ui.differencesButton.enabled:
            ui.differencesButton.setFocus()
        ui.hideDifferencesButton.enabled = shown
        self._watching_shown.watch(nodes, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent)

    def close(self) -> None:
        """Stop following the nodes."""
        self._watching.stop()
        self._watching_shown.stop()

    def compare(self) -> None:
        """Compare both segmentations, and list their structures. Errors are shown below the table."""
        first, second = self._state.node, self._other
        if first is None or second is None or first is second:
            return
        self.clear()
        try:
            ensure_comparing()
        except ClassScaleError as error:
            self.clear(str(error))
            return
        held = _held(first, second)
        found, fault = attempt(
            lambda: _compare(first, second), _("There is not enough memory to compare these segmentations.")
        )
        if found is None:
            self.clear(fault)
            return
        one, two, comparison = found
        self.rows, self._compared = comparison.rows, (first, second, held)
        self._ids = [_segment_of(row, (first, one), (second, two)) for row in self.rows]
        tables = one.segmentation.table, two.segmentation.table
        self.table.set_rows(_row(str(number), row, *tables) for number, row in enumerate(self.rows))
        self._set_widths(max((row.name for row in self.rows), key=len, default=""))
        self.say(_text(self.rows, *_names(first, second), comparison.resampled))
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        self._watching.watch((first, second), *changes(), moved)
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

    def _compare_with_structure_set(self) -> None:
        """Load a structure set, and compare the listed segmentation with it as the reference."""
        result = self._state.node
        if result is not None and (drawn := ask_structure_set(self._logic, result)) is not None:
            self._list_instead(drawn)
            self._other = result
            self.compare()

    def _to_table(self) -> None:
        from ClassScaleSegLib.scene.table_nodes import fill_comparison

        node = self._state.node
        if node is not None and self.rows:
            table = fill_comparison(node, self.rows)
            self.say(_("The comparison is in the table {name}.").format(name=table.GetName()))

    def _save(self) -> None:
        from ClassScaleSegLib.images.comparison import write_comparison

        # while the dialogue is open, a run may end, and the table be emptied because its result is listed
        node, rows = self._state.node, self.rows
        if node is None or not rows:
            return
        try:
            if path := ask_table_file(_("Save comparison"), f"{node.GetName()} comparison"):
                write_comparison(path, rows, overwrite=True)
                self.say(_("The comparison is in the file {name}.").format(name=Path(path).name))
        except ClassScaleError as error:
            tell_error(str(error), _("The comparison was not saved"))

    def _show_differences(self) -> None:
        """Show in the views where the ticked structures differ; all, if none is ticked."""
        if self._compared is None:
            return
        first, second, _held = self._compared
        rows = [self.rows[int(key)] for key in self.table.ticked()] or self.rows
        no_memory = _("There is not enough memory to show the differences.")
        found, fault = attempt(lambda: _differences(first, second, rows), no_memory)
        if found is None:
            tell_error(fault, _("The differences are not shown"))
            return
        both, alone, other = (amount(volume.volume_ml) for volume in found.volumes)
        text = _(
            "The differences are in the segmentation {name}: {both} mL in both, {alone} mL only in {first}, {other} mL "
            "only in {second}. Until you press Hide differences, both segmentations are hidden."
        )
        names = dict(zip(("first", "second"), _names(first, second), strict=True))
        self.say(text.format(name=found.node.GetName(), both=both, alone=alone, other=other, **names))
        self.render()


def _names(first: vtkMRMLSegmentationNode, second: vtkMRMLSegmentationNode) -> tuple[str, str]:
    """Return the names of both nodes, so that they can be told apart: Slicer's nodes may have the same."""
    one, two = first.GetName(), second.GetName()
    if one != two:
        return one, two
    return _("{name} (reference)").format(name=one), _("{name} (other)").format(name=two)


def _differences(
    first: vtkMRMLSegmentationNode, second: vtkMRMLSegmentationNode, rows: list[ClassComparison]
) -> Differences:
    from ClassScaleSegLib.scene.differences import show_differences
    from ClassScaleSegLib.scene.segmentation_reader import open_structures

    return show_differences(first, second, (open_structures(first), open_structures(second)), rows)


def _compare(first: vtkMRMLSegmentationNode, second: vtkMRMLSegmentationNode) -> tuple[Opened, Opened, Comparison]:
    """Return what two nodes hold, and how that differs.

    :raises ClassScaleError: if one of them has no structure, or cannot be read.
    """
    from ClassScaleSegLib.scene.results import compare_nodes
    from ClassScaleSegLib.scene.segmentation_reader import open_structures

    one, two = open_structures(first), open_structures(second)
    return one, two, compare_nodes(one, two)


def _held(*nodes: vtkMRMLSegmentationNode) -> object:
    return [contents(node) for node in nodes]


def _segment_of(row: ClassComparison, first: tuple[Any, Opened], second: tuple[Any, Opened]) -> tuple[Any, str]:
    """Return the node and the id of the segment that shows a row."""
    (node, opened), value = (second, row.other_value) if not row.volume_ml else (first, row.value)
    return node, opened.ids[value or 0]


def _row(key: str, row: ClassComparison, first: LabelTable, second: LabelTable) -> Row:
    label = first[row.value] if row.value is not None else second[row.other_value or 0]
    numbers = (row.volume_ml, row.other_volume_ml, row.difference_ml)
    cells = (row.name, "–" if row.dice is None else f"{row.dice:.3f}", *map(amount, numbers))
    order = [-math.inf if number is None else float(number) for number in (row.dice, *numbers)]
    color = label.color if row.value is not None else _GREY
    return Row(key, color, cells, (row.name.casefold(), *order), searched(row.name, label))


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
