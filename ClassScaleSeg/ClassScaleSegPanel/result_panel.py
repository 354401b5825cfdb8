"""The section "Result": the table of structures, the ticked ones in 3D, and saving."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from .search_table import Row, SearchTable

if TYPE_CHECKING:
    from ClassScaleSegLib.images.counts import LabelVolume
    from ClassScaleSegLib.labels.label import Label
    from ClassScaleSegLib.scene.results import Counted
    from slicer import vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic


class ResultTable:
    """The table of structures with their volumes. Keys of its rows are segment ids.

    :ivar widget: the widget to add to the section.
    :param on_chosen: called with the segment id of the row that the user has clicked.
    :param on_ticked: called without arguments when the user has ticked or unticked a row.
    """

    def __init__(self, on_chosen: Callable[[str], None], on_ticked: Callable[[], None]) -> None:
        self.table = SearchTable(
            [_("Structure"), _("Volume (mL)")], _("Search structures"), on_ticked=on_ticked, on_chosen=on_chosen
        )
        self.widget = self.table.widget
        self.summary = qt.QLabel()
        self.summary.wordWrap = True
        self.table.layout.addWidget(self.summary)

    def show(self, result: Counted | None) -> None:
        """List the structures that have voxels; ``None`` empties the table."""
        rows, text = [], _("No structures to show.")
        if result is not None:
            segmentation, statistics = result
            rows = [_row(segmentation.table[row.value], row) for row in statistics if row.voxels]
            text = _("{count} structures found. Click one to centre the views on it. Tick some to show them in 3D.")
        self.table.set_rows(rows, ticked=False)
        self.table.set_width(1, "00,000.000")
        self.summary.text = text.format(count=len(rows))

    def ticked(self) -> list[str]:
        """Return the ids of the ticked segments, which are those to show in 3D."""
        return self.table.ticked()


def _row(label: Label, volume: LabelVolume) -> Row:
    searched = " ".join((volume.name, label.group or "", *(c.meaning for c in label.codes.values() if c)))
    amount = f"{volume.volume_ml:,.3f}" if volume.volume_ml < 10 else f"{volume.volume_ml:,.1f}"
    order = (volume.name.casefold(), volume.volume_ml)
    return Row(label.id, label.color, (volume.name, amount), order, searched)


class ResultPanel:
    """Controls the widgets of the section "Result" in the .ui file.

    :ivar node: the segmentation node whose structures are listed, or ``None``.
    :param ui: the widgets of the panel, by name.
    """

    def __init__(self, ui: Any, logic: ClassScaleSegLogic) -> None:
        self._ui, self._logic = ui, logic
        self.node: vtkMRMLSegmentationNode | None = None
        self._turning_on = False  # while the button "Show 3D" is held down to turn 3D on
        self.table = ResultTable(self._go_to, self._ticked)
        ui.resultCollapsibleButton.layout().addWidget(self.table.widget)
        # Slicer's button makes missing surfaces when it is toggled. Ours are made before that, while it is held down.
        ui.show3DButton.connect("pressed()", self._before_3d)
        ui.show3DButton.connect("clicked(bool)", self._after_3d)
        ui.saveButton.connect("clicked(bool)", self._save)
        self.show(None, None)

    def show(self, node: vtkMRMLSegmentationNode | None, result: Counted | None) -> None:
        """List the structures of a result; ``None`` empties the table."""
        self.node = node
        self.table.show(result)
        self._ui.show3DButton.setSegmentationNode(node)
        self._ui.saveButton.enabled = node is not None

    def show_node(self, node: vtkMRMLSegmentationNode) -> None:
        """List the structures of a segmentation node, if its segments share one image as those of a run do."""
        from ClassScaleSegLib.errors import ClassScaleError
        from ClassScaleSegLib.scene.results import segmentation_of

        try:
            result = segmentation_of(node)
        except ClassScaleError:  # segments made elsewhere, with ids or label values that this module does not write
            result = None
        self.show(node, result)

    def _is_there(self) -> bool:
        return self.node is not None and self.node.GetScene() is not None

    def _go_to(self, segment_id: str) -> None:
        if self._is_there():
            self._logic.centerViews(self.node, segment_id)

    def _ticked(self) -> None:
        if self._is_there() and self._ui.show3DButton.checked:
            self._show_3d()

    def _before_3d(self) -> None:
        button = self._ui.show3DButton
        self._turning_on = self._is_there() and not button.checked
        if self._turning_on:
            self._show_3d()
            # The new surfaces have checked the button. Its release would uncheck it and so remove them.
            blocked = button.blockSignals(True)
            button.checked = False
            button.blockSignals(blocked)

    def _after_3d(self, checked: bool) -> None:
        turned_on, self._turning_on = self._turning_on, False
        if not turned_on or not self._is_there():
            return
        if not self.table.ticked():
            self._ui.show3DButton.checked = False  # also removes the empty surfaces
            slicer.util.infoDisplay(_("To show structures in 3D, tick them in the table below."))
        elif not checked:  # the node checked the button once more while it was held down
            self._show_3d()

    def _show_3d(self) -> None:
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self._logic.show3D(self.node, self.table.ticked())
        finally:
            slicer.app.restoreOverrideCursor()

    def _save(self) -> None:
        if self.node is None or not self._is_there():
            return
        title, kinds = _("Save segmentation"), _("Segmentation") + " (*.seg.nrrd)"
        proposed = f"{self.node.GetName()}.seg.nrrd"
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, proposed, kinds)
        if path:
            path = path if path.lower().endswith(".seg.nrrd") else f"{path}.seg.nrrd"
            with slicer.util.tryWithErrorDisplay(_("The segmentation was not saved."), waitCursor=True):
                self._logic.saveSegmentation(self.node, path)
