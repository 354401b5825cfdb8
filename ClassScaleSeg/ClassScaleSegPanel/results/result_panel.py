"""The table of structures that a segmentation holds, with their volumes, and what can be done with them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..archives.sending import SendDialog
from ..install.packages import ensure_dicom
from ..state import PanelState, silent
from ..widgets.keyboard import focused
from ..widgets.saving import ask_file
from ..widgets.search_table import Row
from ..widgets.texts import tell, tell_error, tip
from ..widgets.watching import Watching
from .contents import changes, contents
from .correcting import Correcting
from .review import MARK, Review
from .section import StructureSection, amount, attempt, searched
from .segment_colors import SegmentColors
from .statistics_menu import StatisticsMenu
from .training import save_for_training

if TYPE_CHECKING:
    from ClassScaleSegLib.images.counts import LabelVolume
    from ClassScaleSegLib.labels.label import Label
    from ClassScaleSegLib.scene.segmentation_reader import Counted
    from slicer import vtkMRMLNode, vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic

DICOM_SUFFIX = ".seg.dcm"
SETTLE_MILLISECONDS = 300  # after the last event of a node, until its structures are listed anew


class ResultPanel(StructureSection):
    """Controls the widgets of the section "Result" in the .ui file.

    Slicer's own button "Show 3D" makes surfaces of all segments, so this section has a button of its own.

    Keys of the rows of the table are segment ids.

    :param on_shown: called without arguments when other structures are listed.
    :param on_back: called with the segmentation in whose place an earlier one is listed again.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        logic: ClassScaleSegLogic,
        on_shown: Callable[[], None],
        on_back: Callable[[vtkMRMLSegmentationNode], None],
    ) -> None:
        titles = [_("Structure"), _("mL"), _("Confidence"), MARK]
        StructureSection.__init__(self, ui.resultCollapsibleButton, titles, self._go_to, self._ticked)
        self._ui, self._state, self._logic, self._on_shown, self._on_back = ui, state, logic, on_shown, on_back
        self._replaced: tuple[Any, Any] | None = None  # a segmentation, and the one in whose place it was listed
        self._listed: object = None  # what the node held when its structures were listed
        self._watching = Watching(lambda node, event: self._soon.start())
        # one update for all events of a change, such as a thousand new segments, and for all frames that are played
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(SETTLE_MILLISECONDS)
        self._soon.connect("timeout()", self.follow)
        ui.show3DButton.connect("clicked(bool)", self._show_or_hide)
        ui.saveButton.connect("clicked(bool)", lambda: self._save())
        ui.backButton.connect("clicked(bool)", lambda: self._go_back())
        ui.trainingButton.connect("clicked(bool)", lambda: self._save_for_training())
        ui.correctButton.connect("clicked(bool)", lambda: self._correct())
        ui.resultSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose)
        self.correcting = Correcting(state, logic, self._correct_next)
        self.colors, self._own_colors = SegmentColors(ui, state, self.render), dict[str, tuple[int, int, int]]()
        self.review = Review(ui, state, logic, self.table, self.say)
        self.statistics = StatisticsMenu(ui.tableButton, state, self.say)
        # shown instead, if the volume comes from DICOM
        self.save_menu = qt.QMenu(ui.saveButton)
        for suffix, kind in _kinds().items():
            action = self.save_menu.addAction(kind + f" (*{suffix})...")
            action.connect("triggered(bool)", lambda on, suffix=suffix: self._save(suffix))
        self.save_menu.addSeparator()
        self.save_menu.addAction(_("Send to an archive...")).connect("triggered(bool)", lambda on: self._send())
        self.sending = SendDialog()
        self.show(None, None)

    def show(
        self, node: vtkMRMLSegmentationNode | None, result: Counted | None, ids: Mapping[int, str] | None = None
    ) -> None:
        """List the structures of a node that have voxels. If the node is listed already, ticks and place are kept.

        :param result: what the node holds; ``None`` empties the table.
        :param ids: the segment of each label value; ``None``: those of the labels.
        """
        again = node is not None and node is self._state.node
        ticked = self.table.ticked() if again else []
        self._state.node, self._listed = node, contents(node)
        rows, text = [], _("No structures to show.")
        if result is not None:
            segmentation, statistics = result
            found = [(segmentation.table[row.value], row) for row in statistics if row.voxels]
            if ids is not None:  # in the order of the segments, whatever values they have got
                places = {value: place for place, value in enumerate(ids)}
                found.sort(key=lambda one: places[one[0].value])
            rows = [_row(node, label, row, label.id if ids is None else ids[label.value]) for label, row in found]
            text = _("{count} structures found. Click one to centre the views on it. Tick some to show them in 3D.")
        with self.table.place_kept() if again else contextlib.nullcontext():
            self.table.set_rows(rows, ticked=False)
        self._own_colors = {row.key: row.color for row in rows}
        self.table.tick(ticked)
        self.table.set_width(1, "00,000.000")
        confidence = max((row.cells[2] for row in rows), default="")  # hidden if none has one
        self.table.set_width(2, confidence, arrow=False)  # names need the room
        self.say(text.format(count=len(rows)))
        shown = (
            slicer.vtkSegmentation.ContainedRepresentationNamesModified,
            slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent,
        )
        self._watching.watch((node,), *changes(), *shown)
        self.render()
        self._on_shown()

    def show_node(self, node: vtkMRMLSegmentationNode) -> None:
        """List the structures of any segmentation node, whoever made it."""
        from ClassScaleSegLib.scene.segmentation_reader import open_segmentation

        opened, fault = attempt(
            lambda: open_segmentation(node), _("There is not enough memory to list the structures.")
        )
        self.show(node, None if opened is None else opened[:2], {} if opened is None else opened.ids)
        if fault:
            self.say(fault)

    def show_instead(self, node: vtkMRMLSegmentationNode) -> None:
        """List the structures of a node as `show_node`, and offer to bring back the one that is listed now."""
        before = self._state.node
        self.show_node(node)
        self._replaced = (node, before)
        self.render()

    def take_over(self) -> None:
        """List the structures again if they were edited elsewhere, above all if one was corrected."""
        text = self.correcting.take_over()
        self.follow()
        if text:
            self.say(text)

    def forget(self, node: vtkMRMLNode | None) -> None:
        """Do not bring back a node that is removed, or correct it; ``None``: any."""
        self.correcting.forget(node)
        self.sending.forget(node)
        if node is None or (self._replaced is not None and any(node is one for one in self._replaced)):
            self._replaced = None
            self.render()

    def follow(self) -> None:
        """List the structures again if the segments were edited elsewhere, once the module is open."""
        node = self._state.node
        if self._state.parameters is None:
            return
        if node is not None and self._listed != contents(node):
            self.show_node(node)
        self.render()

    def render(self) -> None:
        """Show whether there are surfaces, in which colours, and what can be done."""
        from ClassScaleSegLib.scene.dicom import is_from_dicom
        from ClassScaleSegLib.scene.surfaces import has_surfaces

        button, node = self._ui.show3DButton, self._state.node
        with silent(button):
            button.checked = node is not None and has_surfaces(node)
        button.enabled = self._ui.tableButton.enabled = self._ui.correctButton.enabled = bool(self.table.keys())
        with silent(self._ui.resultSelector):
            if self._ui.resultSelector.currentNode() is not node:
                self._ui.resultSelector.setCurrentNode(node)
        back = self._replaced[1] if self._replaced is not None and self._replaced[0] is node else None
        if back is not None:
            text = _("List {name} again, which was here before, and compare it with this one.")
            self._ui.backButton.toolTip = tip(text.format(name=back.GetName()))
        elif self._ui.backButton.focus:
            focused(self._ui.resultSelector).setFocus()
        self._ui.backButton.visible = back is not None
        self.colors.render()
        self.table.recolor(self.colors.shown(self._own_colors))
        self.review.render()
        self._ui.saveButton.enabled = self._ui.trainingButton.enabled = node is not None
        self._ui.saveButton.setMenu(self.save_menu if is_from_dicom(node) else None)

    def close(self) -> None:
        """Stop following the node."""
        self._soon.stop()
        self._watching.stop()
        self.correcting.close()
        self.sending.end()

    def _choose(self, node: vtkMRMLSegmentationNode | None) -> None:
        if node is None:
            self.show(None, None)
        elif node is not self._state.node:
            self.show_node(node)

    def _go_back(self) -> None:
        if self._replaced is not None:
            node, before = self._replaced
            self.show_node(before)
            self._on_back(node)

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
        title, told = _("Save segmentation"), list[str]()
        path = ask_file(title, node.GetName(), {suffix: _kinds()[suffix]})
        if not path:
            return
        try:
            if suffix == DICOM_SUFFIX:
                ensure_dicom()
        except ClassScaleError as error:
            fault = str(error)
        else:
            no_memory = _("There is not enough memory to save the segmentation.")
            _saved, fault = attempt(lambda: self._logic.saveSegmentation(node, path, told.append), no_memory)
        if fault:
            tell_error(fault, _("The segmentation was not saved"))
        elif told:
            tell(" ".join(told), title)

    def _send(self) -> None:
        if self._state.node is not None:
            self.sending.open(self._state.node)

    def _correct(self) -> None:
        node, segment_id = self._state.node, self.table.current()
        if node is None:
            return
        if not segment_id:
            tell(_("To correct a structure, click it in the table below."), _("Correct"))
        elif fault := self.correcting.begin(node, segment_id):
            tell_error(fault, _("The structure cannot be corrected"))

    def _correct_next(self) -> None:
        """Take a correction over, mark its structure as checked, and correct the next one that is not."""
        from ClassScaleSegLib.scene.checked import mark_checked
        from ClassScaleSegLib.scene.correction import correction_in

        node, segment_id = self._state.node, self.table.current()
        text = self.correcting.take_over()
        if correction_in(slicer.mrmlScene) is not None:  # why it was not taken over has been told
            return
        if node is not None:
            mark_checked(node, segment_id)
        following = self.review.go_on()
        fault = self.correcting.begin(node, following) if node is not None and following else ""
        if fault:
            tell_error(fault, _("The structure cannot be corrected"))
        if fault or not following:
            said = f"{text} {self.text}".strip()
            self.correcting.go_back()  # which lists the structures anew
            self.say(said)

    def _save_for_training(self) -> None:
        node = self._state.node
        if node is not None and (text := save_for_training(node, self._state)):
            self.say(text)


def _kinds() -> dict[str, str]:
    """Return what can be saved of a segmentation whose volume comes from DICOM, by the suffix of the file."""
    return {
        ".seg.nrrd": _("Segmentation"),
        DICOM_SUFFIX: _("DICOM segmentation"),
        ".rtstruct.dcm": _("RT structure set"),
    }


def _row(node: vtkMRMLSegmentationNode | None, label: Label, volume: LabelVolume, segment_id: str) -> Row:
    from ClassScaleSegLib.scene.confidence import confidence_of

    segment = None if node is None else node.GetSegmentation().GetSegment(segment_id)
    sure = None if segment is None else confidence_of(segment)
    cells = (volume.name, amount(volume.volume_ml), "" if sure is None else f"{sure:.2f}", "")
    order = (volume.name.casefold(), volume.volume_ml, 2.0 if sure is None else sure, "")  # what is unknown comes last
    return Row(segment_id, label.color, cells, order, searched(volume.name, label))
