"""The section "Result": the table of structures, the ticked ones in 3D, and saving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from .search_table import Row, SearchTable
from .state import PanelState, silent

if TYPE_CHECKING:
    from ClassScaleSegLib.images.counts import LabelVolume
    from ClassScaleSegLib.labels.label import Label
    from ClassScaleSegLib.scene.results import Counted
    from slicer import vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic


class ResultPanel:
    """Controls the widgets of the section "Result" in the .ui file.

    :ivar table: the table of structures with their volumes. Keys of its rows are segment ids.
    """

    def __init__(self, ui: Any, state: PanelState, logic: ClassScaleSegLogic) -> None:
        self._ui, self._state, self._logic = ui, state, logic
        self._turning_on = False  # while the button "Show 3D" is held down to turn 3D on
        self.table = SearchTable(
            [_("Structure"), _("Volume (mL)")], _("Search structures"), on_ticked=self._ticked, on_chosen=self._go_to
        )
        self._summary = qt.QLabel()
        self._summary.wordWrap = True
        self.table.layout.addWidget(self._summary)
        ui.resultCollapsibleButton.layout().addWidget(self.table.widget)
        # Slicer's button makes missing surfaces when it is toggled. Ours are made before that, while it is held down.
        ui.show3DButton.connect("pressed()", self._before_3d)
        ui.show3DButton.connect("clicked(bool)", self._after_3d)
        ui.saveButton.connect("clicked(bool)", self._save)
        self.show(None, None)

    def show(self, node: vtkMRMLSegmentationNode | None, result: Counted | None) -> None:
        """List the structures of a node that have voxels.

        :param result: what the node holds; ``None`` empties the table.
        """
        self._state.node = node
        rows, text = [], _("No structures to show.")
        if result is not None:
            segmentation, statistics = result
            rows = [_row(segmentation.table[row.value], row) for row in statistics if row.voxels]
            text = _("{count} structures found. Click one to centre the views on it. Tick some to show them in 3D.")
        self.table.set_rows(rows, ticked=False)
        self.table.set_width(1, "00,000.000")
        self._summary.text = text.format(count=len(rows))
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

    @property
    def _node(self) -> vtkMRMLSegmentationNode | None:
        """The node whose structures are listed, unless it was removed from the scene."""
        node = self._state.node
        return node if node is not None and node.GetScene() is not None else None

    def _go_to(self, segment_id: str) -> None:
        if self._node is not None:
            self._logic.centerViews(self._node, segment_id)

    def _ticked(self) -> None:
        if self._node is not None and self._ui.show3DButton.checked:
            self._show_3d(self._node)

    def _before_3d(self) -> None:
        button, node = self._ui.show3DButton, self._node
        self._turning_on = node is not None and not button.checked
        if node is not None and self._turning_on:
            self._show_3d(node)
            # The new surfaces have checked the button. Its release would uncheck it and so remove them.
            with silent(button):
                button.checked = False

    def _after_3d(self, checked: bool) -> None:
        turned_on, self._turning_on = self._turning_on, False
        if not turned_on or self._node is None:
            return
        if not self.table.ticked():
            self._ui.show3DButton.checked = False  # also removes the empty surfaces
            slicer.util.infoDisplay(_("To show structures in 3D, tick them in the table below."))
        elif not checked:  # the node checked the button once more while it was held down
            self._show_3d(self._node)

    def _show_3d(self, node: vtkMRMLSegmentationNode) -> None:
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self._logic.show3D(node, self.table.ticked())
        finally:
            slicer.app.restoreOverrideCursor()

    def _save(self) -> None:
        node = self._node
        if node is None:
            return
        title, kinds = _("Save segmentation"), _("Segmentation") + " (*.seg.nrrd)"
        proposed = f"{node.GetName()}.seg.nrrd"
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, proposed, kinds)
        if path:
            path = path if path.lower().endswith(".seg.nrrd") else f"{path}.seg.nrrd"
            with slicer.util.tryWithErrorDisplay(_("The segmentation was not saved."), waitCursor=True):
                self._logic.saveSegmentation(node, path)


def _row(label: Label, volume: LabelVolume) -> Row:
    searched = " ".join((volume.name, label.group or "", *(c.meaning for c in label.codes.values() if c)))
    amount = f"{volume.volume_ml:,.3f}" if volume.volume_ml < 10 else f"{volume.volume_ml:,.1f}"
    order = (volume.name.casefold(), volume.volume_ml)
    return Row(label.id, label.color, (volume.name, amount), order, searched)
