"""The section "Result": the table of structures, 3D for the ticked ones, and saving."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from .search_table import Row, SearchTable

if TYPE_CHECKING:
    from ClassScaleSegLib.images.segmentation import Segmentation


class ResultTable:
    """:ivar widget: to be put into the panel. Keys are segment ids.

    :param on_chosen: called with the segment id of a row that is clicked.
    :param on_ticked: called without arguments.
    """

    def __init__(self, on_chosen: Callable[[str], None], on_ticked: Callable[[], None]) -> None:
        self.table = SearchTable(
            [_("Structure"), _("Volume (mL)")], _("Search structures"), on_ticked=on_ticked, on_chosen=on_chosen
        )
        self.widget = self.table.widget
        self.summary = qt.QLabel(_("Nothing segmented yet."))
        self.summary.wordWrap = True
        self.table.layout.addWidget(self.summary)

    def show(self, result: Segmentation | None) -> None:
        """List what was found; ``None`` empties the table."""
        found = [row for row in result.statistics() if row.voxels] if result is not None else []
        rows = []
        for row in found:
            label = result.table[row.value]
            searched = " ".join((row.name, label.group or "", *(c.meaning for c in label.codes.values() if c)))
            amount = f"{row.volume_ml:,.3f}" if row.volume_ml < 10 else f"{row.volume_ml:,.1f}"
            rows.append(Row(label.id, label.color, (row.name, amount), (row.name.casefold(), row.volume_ml), searched))
        self.table.set_rows(rows, ticked=False)
        self.table.set_width(1, "00,000.000")
        if result is None:
            self.summary.text = _("Nothing segmented yet.")
        else:
            text = _("{count} structures found. Click one to go there, tick some to show them in 3D.")
            self.summary.text = text.format(count=len(found))

    def ticked(self) -> list[str]:
        """Segment ids to be shown in 3D."""
        return self.table.ticked()


class ResultPanel:
    """Drives the widgets of the section in the .ui file.
    :ivar node: the segmentation node on show, if any."""

    def __init__(self, ui: Any, logic: Any) -> None:
        self._ui, self._logic, self.node = ui, logic, None
        self._turning_on = False  # from the press of the button of the 3D view to its release
        self.table = ResultTable(self._go_to, self._ticked)
        ui.resultCollapsibleButton.layout().addWidget(self.table.widget)
        # Slicer's button makes the surfaces that are missing when it is toggled; ours are made before, while it is down
        ui.show3DButton.connect("pressed()", self._before_3d)
        ui.show3DButton.connect("clicked(bool)", self._after_3d)
        ui.saveButton.connect("clicked(bool)", self._save)
        self.show(None, [])

    def show(self, node: Any, results: list[Segmentation]) -> None:
        """List the structures of the first frame; without a node the section is empty."""
        self.node = node
        self.table.show(results[0] if results else None)
        self._ui.show3DButton.setSegmentationNode(node)
        self._ui.saveButton.enabled = node is not None

    def show_node(self, node: Any) -> None:
        """List the structures that a segmentation node has, if its segments share one image as those of a run do."""
        from ClassScaleSegLib.errors import ClassScaleError
        from ClassScaleSegLib.scene.results import segmentation_of

        try:
            result = segmentation_of(node)
        except ClassScaleError:  # somebody else's segments, with ids or values that we do not write
            result = None
        self.show(node, [] if result is None else [result])

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
            # the new surfaces have checked it, and its release would uncheck it and so remove them
            blocked = button.blockSignals(True)
            button.checked = False
            button.blockSignals(blocked)

    def _after_3d(self, checked: bool) -> None:
        turned_on, self._turning_on = self._turning_on, False
        if not turned_on or not self._is_there():
            return
        if not self.table.ticked():
            self._ui.show3DButton.checked = False  # removes the empty surfaces
            slicer.util.infoDisplay(_("Tick structures in the table below; these are shown in 3D."))
        elif not checked:  # the node has checked it once more while it was down
            self._show_3d()

    def _show_3d(self) -> None:
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self._logic.show3D(self.node, self.table.ticked())
        finally:
            slicer.app.restoreOverrideCursor()

    def _save(self) -> None:
        if not self._is_there():
            return
        title, kinds = _("Save segmentation"), _("Segmentation") + " (*.seg.nrrd)"
        proposed = f"{self.node.GetName()}.seg.nrrd"
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, proposed, kinds)
        if path:
            path = path if path.lower().endswith(".seg.nrrd") else f"{path}.seg.nrrd"
            with slicer.util.tryWithErrorDisplay(_("The segmentation was not saved."), waitCursor=True):
                self._logic.saveSegmentation(self.node, path)
