"""The table of structures that a segmentation holds, with their volumes, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.packages import ensure_dicom
from ..state import PanelState, silent
from ..translation import translated
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import Wrapping, ask, tell, tell_error
from ..widgets.watching import Watching
from .contents import contents
from .file_names import file_name, with_suffix

if TYPE_CHECKING:
    from ClassScaleSegLib.images.counts import LabelVolume
    from ClassScaleSegLib.labels.label import Label
    from ClassScaleSegLib.scene.results import Counted
    from slicer import vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic

DICOM_SUFFIX = ".seg.dcm"
SETTLE_MILLISECONDS = 300  # after the last event of a node, until its structures are listed anew


class ResultPanel:
    """Controls the widgets of the section "Result" in the .ui file.

    Slicer's own button "Show 3D" makes surfaces of all segments, so this section has a button of its own.

    :ivar table: the table of structures with their volumes. Keys of its rows are segment ids.
    :param on_shown: called without arguments when other structures are listed.
    """

    def __init__(
        self, ui: Any, state: PanelState, logic: ClassScaleSegLogic, on_shown: Callable[[], None] = lambda: None
    ) -> None:
        self._ui, self._state, self._logic, self._on_shown = ui, state, logic, on_shown
        self._listed: object = None  # what the node held when its structures were listed
        self._watching = Watching(lambda node, event: self._soon.start())
        # one update for all events of a change, such as a thousand new segments, and for all frames that are played
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(SETTLE_MILLISECONDS)
        self._soon.connect("timeout()", self.follow)
        self.table = SearchTable(
            [_("Structure"), _("Volume (mL)")], _("Search structures"), on_ticked=self._ticked, on_chosen=self._go_to
        )
        self._summary = qt.QLabel()
        self._summary.textFormat = qt.Qt.PlainText  # it shows names of nodes
        self._wrapping = Wrapping(self._summary)
        self.table.layout.addWidget(self._summary)
        ui.resultCollapsibleButton.layout().addWidget(self.table.widget)
        ui.show3DButton.connect("clicked(bool)", self._show_or_hide)
        ui.saveButton.connect("clicked(bool)", lambda: self._save())
        ui.tableButton.connect("clicked(bool)", lambda: self._measure())
        ui.resultSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose)
        # shown instead, if the volume comes from DICOM
        self.save_menu = qt.QMenu(ui.saveButton)
        for suffix, kind in _kinds().items():
            action = self.save_menu.addAction(kind + f" (*{suffix})...")
            action.connect("triggered(bool)", lambda on, suffix=suffix: self._save(suffix))
        self.show(None, None)

    def show(
        self, node: vtkMRMLSegmentationNode | None, result: Counted | None, ids: Mapping[int, str] | None = None
    ) -> None:
        """List the structures of a node that have voxels. If the node is listed already, its ticks are kept.

        :param result: what the node holds; ``None`` empties the table.
        :param ids: the segment of each label value; ``None``: those of the labels.
        """
        ticked = self.table.ticked() if node is not None and node is self._state.node else []
        self._state.node, self._listed = node, contents(node)
        rows, text = [], _("No structures to show.")
        if result is not None:
            segmentation, statistics = result
            found = [(segmentation.table[row.value], row) for row in statistics if row.voxels]
            if ids is not None:  # in the order of the segments, whatever values they have got
                places = {value: place for place, value in enumerate(ids)}
                found.sort(key=lambda one: places[one[0].value])
            rows = [_row(label, row, label.id if ids is None else ids[label.value]) for label, row in found]
            text = _("{count} structures found. Click one to centre the views on it. Tick some to show them in 3D.")
        self.table.set_rows(rows, ticked=False)
        self.table.tick(ticked)
        self.table.set_width(1, "00,000.000")
        self._summary.text = text.format(count=len(rows))
        kinds = slicer.vtkSegmentation
        self._watching.watch(
            (node,),
            vtk.vtkCommand.ModifiedEvent,
            kinds.SegmentAdded,
            kinds.SegmentRemoved,
            kinds.SegmentModified,
            kinds.SourceRepresentationModified,
            kinds.ContainedRepresentationNamesModified,
        )
        self.render()
        self._on_shown()

    def show_node(self, node: vtkMRMLSegmentationNode) -> None:
        """List the structures of any segmentation node, whoever made it."""
        from ClassScaleSegLib.scene.segmentation_reader import open_segmentation

        opened, fault = None, ""
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            opened = open_segmentation(node)
        except ClassScaleError as error:
            fault = translated(str(error))
        except MemoryError:
            fault = _("There is not enough memory to list the structures.")
        finally:
            slicer.app.restoreOverrideCursor()
        self.show(node, None if opened is None else opened[:2], {} if opened is None else opened.ids)
        if fault:
            self._summary.text = fault

    def follow(self) -> None:
        """List the structures again if the segments were edited elsewhere, once the module is open."""
        node = self._state.node
        if self._state.parameters is None:
            return
        if node is not None and self._listed != contents(node):
            self.show_node(node)
        self.render()

    def render(self) -> None:
        """Show whether there are surfaces, and what can be done."""
        from ClassScaleSegLib.scene.dicom import is_from_dicom
        from ClassScaleSegLib.scene.surfaces import has_surfaces

        button, node = self._ui.show3DButton, self._state.node
        with silent(button):
            button.checked = node is not None and has_surfaces(node)
        button.enabled = self._ui.tableButton.enabled = bool(self.table.keys())
        with silent(self._ui.resultSelector):
            if self._ui.resultSelector.currentNode() is not node:
                self._ui.resultSelector.setCurrentNode(node)
        self._ui.saveButton.enabled = node is not None
        self._ui.saveButton.setMenu(self.save_menu if is_from_dicom(node) else None)

    def close(self) -> None:
        """Stop following the node."""
        self._soon.stop()
        self._watching.stop()

    def _choose(self, node: vtkMRMLSegmentationNode | None) -> None:
        if node is None:
            self.show(None, None)
        elif node is not self._state.node:
            self.show_node(node)

    def _measure(self) -> None:
        """Put the statistics into a table node, with the intensities of a volume on the same grid."""
        from ClassScaleSegLib.scene.results import measure_node
        from ClassScaleSegLib.scene.segmentation_reader import open_segmentation

        node, parameters = self._state.node, self._state.parameters
        if node is None:
            return
        volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        if volume is None and parameters is not None:
            volume = parameters.inputVolume
        text = ""
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            opened = open_segmentation(node)
            if opened is not None:
                table, inside = measure_node(node, opened, volume)
                text = _("The statistics are in the table {name}.").format(name=table.GetName())
                if inside:
                    text += " " + _("Intensities are those of {name}.").format(name=volume.GetName())
        except ClassScaleError as error:
            text = translated(str(error))
        except MemoryError:
            text = _("There is not enough memory for the statistics.")
        finally:
            slicer.app.restoreOverrideCursor()
        self._summary.text = text or self._summary.text

    def _go_to(self, segment_id: str) -> None:
        if self._state.node is not None:
            self._logic.centerViews(self._state.node, segment_id)

    def _ticked(self) -> None:
        if self._state.node is not None and self._ui.show3DButton.checked:
            self._show_3d(self._state.node)

    def _show_or_hide(self, on: bool) -> None:
        from ClassScaleSegLib.scene.surfaces import hide_3d

        node = self._state.node
        if node is not None and not on:
            hide_3d(node)
        elif node is not None and self.table.ticked():
            self._show_3d(node)
        elif node is not None:
            tell(_("To show structures in 3D, tick them in the table below."), _("Show 3D"))
        self.render()

    def _show_3d(self, node: vtkMRMLSegmentationNode) -> None:
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self._logic.show3D(node, self.table.ticked())
        finally:
            slicer.app.restoreOverrideCursor()

    def _save(self, suffix: str = ".seg.nrrd") -> None:
        node = self._state.node
        if node is None:
            return
        title, kinds = _("Save segmentation"), _kinds()[suffix] + f" (*{suffix})"
        proposed = Path(slicer.mrmlScene.GetRootDirectory() or "", file_name(node.GetName()) + suffix)
        chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, str(proposed), kinds)
        path = with_suffix(chosen, suffix)
        # the dialog has asked about the name as it was typed, not about the one with a suffix
        if not path or (path != chosen and Path(path).exists() and not ask(_replace(path), title)):
            return
        told: list[str] = []
        fault = ""
        try:
            if suffix == DICOM_SUFFIX:
                ensure_dicom()
            slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
            try:
                self._logic.saveSegmentation(node, path, told.append)
            finally:
                slicer.app.restoreOverrideCursor()
        except ClassScaleError as error:
            fault = str(error)
        if fault:
            tell_error(fault, _("The segmentation was not saved"))
        elif told:
            tell(" ".join(told), title)


def _kinds() -> dict[str, str]:
    """Return what can be saved of a segmentation whose volume comes from DICOM, by the suffix of the file."""
    return {
        ".seg.nrrd": _("Segmentation"),
        DICOM_SUFFIX: _("DICOM segmentation"),
        ".rtstruct.dcm": _("RT structure set"),
    }


def _replace(path: str) -> str:
    return _("{path} already exists. Replace it?").format(path=path)


def _row(label: Label, volume: LabelVolume, segment_id: str) -> Row:
    searched = " ".join((volume.name, label.group or "", *(c.meaning for c in label.codes.values() if c)))
    amount = f"{volume.volume_ml:,.3f}" if volume.volume_ml < 10 else f"{volume.volume_ml:,.1f}"
    order = (volume.name.casefold(), volume.volume_ml)
    return Row(segment_id, label.color, (volume.name, amount), order, searched)
