"""Open Slicer's Segment Editor to correct one structure, and take over what was painted there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from ..state import PanelState
from ..translation import translated
from ..widgets.texts import ask, tell_error
from ..widgets.watching import Watching
from .correction_bar import CorrectionBar
from .section import amount, attempt

if TYPE_CHECKING:
    from ClassScaleSegLib.scene.correction import Corrected
    from slicer import vtkMRMLNode, vtkMRMLSegmentationNode, vtkMRMLTableNode

    from ClassScaleSeg import ClassScaleSegLogic

_EDITOR, _OWN = "SegmentEditor", "ClassScaleSeg"  # names of modules
_MOST_NAMES = 3  # structures that a sentence names


class Correcting:
    """Goes to the Segment Editor and back. What is corrected is in the scene.

    :ivar bar: at the top of the Segment Editor; ``None`` until a structure is corrected for the first time.
    :param on_next: called when the user wants to correct the next structure.
    """

    def __init__(self, state: PanelState, logic: ClassScaleSegLogic, on_next: Callable[[], None]) -> None:
        self._state, self._logic, self._on_next = state, logic, on_next
        self.bar: CorrectionBar | None = None
        self._watching = Watching(lambda node, event: self.render())
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.connect("timeout()", self._go_on)

    def begin(self, node: vtkMRMLSegmentationNode, segment_id: str) -> str:
        """Open the Segment Editor for a structure.

        :returns: why that is not possible, a sentence; empty if it is.
        """
        from ClassScaleSegLib.scene.correction import OTHERS
        from ClassScaleSegLib.scene.source_volumes import first_volume

        if not hasattr(slicer.modules, _EDITOR.lower()):
            return _("This Slicer has no module Segment Editor, so structures cannot be corrected here.")
        volume = first_volume(node)
        if volume is None and self._state.parameters is not None:
            volume = self._state.parameters.inputVolume
        no_memory = _("There is not enough memory to correct the structure.")
        correction, fault = attempt(lambda: self._logic.correct(node, segment_id, volume), no_memory)
        if correction is None:
            return fault
        others = correction.GetSegmentation().GetSegment(OTHERS)
        others.SetName(translated(others.GetName()))
        self._show_bar()
        slicer.util.selectModule(_EDITOR)
        return ""

    def go_on_soon(self) -> None:
        """Go on with a correction that came with a scene, once all that follows the scene has seen it."""
        self._soon.start()

    def go_back(self) -> None:
        """Open the module, which takes over what was painted."""
        slicer.util.selectModule(_OWN)

    def take_over(self) -> str:
        """Take over what was painted, if a structure is being corrected.

        Faults are message boxes.

        :returns: a sentence on what has changed; empty if no structure was corrected.
        """
        no_memory = _("There is not enough memory to take the correction over.")
        done, fault = attempt(lambda: self._logic.finishCorrection(), no_memory)
        self.render()
        if fault:
            tell_error(fault, _("The correction was not taken over"))
        return "" if done is None else self._told(done)

    def forget(self, node: vtkMRMLNode | None) -> None:
        """Show the segmentation as before if the user removes its correction; ``None``: the scene is closed."""
        from ClassScaleSegLib.scene.correction import forget_correction

        if node is not None:
            forget_correction(node)
        else:
            self._watching.stop()
        self.render()

    def render(self) -> None:
        """Show in the Segment Editor which structure it corrects, if it does."""
        from ClassScaleSegLib.scene.correction import STRUCTURE, correction_in
        from ClassScaleSegLib.scene.results import owner_of
        from ClassScaleSegLib.scene.segment_editor import are_others_locked, editor_node

        if self.bar is None:
            return
        node = None if slicer.mrmlScene.IsClosing() else correction_in(slicer.mrmlScene)
        editor = None if node is None else editor_node(slicer.mrmlScene)
        if node is None or editor is None or editor.GetSegmentationNode() is not node:
            self.bar.hide()
            return
        owner, segment = owner_of(node), node.GetSegmentation().GetSegment(STRUCTURE)
        text = _("You are correcting {structure} in {segmentation}.")
        if owner is None:
            text = _("You are correcting {structure} of a segmentation that was removed. What you paint can be kept.")
        text = text.format(
            structure=segment.GetName() if segment is not None else "", segmentation=owner.GetName() if owner else ""
        )
        self.bar.show(text, are_others_locked(editor))

    def close(self) -> None:
        """Leave the Segment Editor as it was."""
        self._soon.stop()
        self._watching.stop()
        if self.bar is not None:
            self.bar.remove()
            self.bar = None

    def _go_on(self) -> None:
        """Show the bar if there is a correction; if the module is open, open the Segment Editor."""
        from ClassScaleSegLib.scene.correction import correction_in, edit
        from ClassScaleSegLib.scene.segment_editor import editor_node

        correction = correction_in(slicer.mrmlScene)
        if correction is None or not hasattr(slicer.modules, _EDITOR.lower()):
            return
        if editor_node(slicer.mrmlScene).GetSegmentationNode() is not correction:
            edit(correction, correction.GetNodeReference(correction.GetReferenceImageGeometryReferenceRole()))
        self._show_bar()
        if self._state.parameters is not None:
            slicer.util.selectModule(_EDITOR)

    def _show_bar(self) -> None:
        from ClassScaleSegLib.scene.segment_editor import editor_node

        if self.bar is None:
            layout = slicer.modules.segmenteditor.widgetRepresentation().self().layout
            self.bar = CorrectionBar(layout, self._lock, self.go_back, self._on_next, self._discard)
        self._watching.watch((editor_node(slicer.mrmlScene),), vtk.vtkCommand.ModifiedEvent)
        self.render()

    def _lock(self, on: bool) -> None:
        from ClassScaleSegLib.scene.segment_editor import editor_node, lock_others

        lock_others(editor_node(slicer.mrmlScene), on)

    def _discard(self) -> None:
        question = _("Discard what you have painted? The structure stays as it was.")
        if ask(question, _("Discard the correction")):
            self._logic.finishCorrection(discard=True)
            self.go_back()

    def _told(self, done: Corrected) -> str:
        """Return sentences on what a correction has changed."""
        said = []
        if done.former_name:
            said.append(_("{name} is called {new} now.").format(name=done.former_name, new=done.name))
        elif done.relabelled:
            said.append(_("{name} has the colour and the codes that you have chosen.").format(name=done.name))
        if done.changed:
            text = _("{name} is corrected: {after} mL, before {before} mL.")
            said.append(text.format(name=done.name, after=amount(done.after_ml), before=amount(done.before_ml)))
        elif not (done.relabelled or done.new):
            said.append(_("{name} has not changed.").format(name=done.name))
        if done.new:
            said.append(_("Added: {names}.").format(names=_listed(done.new)))
        if done.others:
            said.append(_("Voxels were taken from {names}.").format(names=_listed(done.others)))
        if done.spared:
            said.append(_("Other structures have changed meanwhile, and keep what they have now."))
        table = self._old_table(done.node) if done.changed or done.relabelled or done.new or done.others else None
        if table is not None:
            text = _("The statistics in the table {name} are from before the correction.")
            said.append(text.format(name=table.GetName()))
        return " ".join(said)

    def _old_table(self, node: vtkMRMLSegmentationNode) -> vtkMRMLTableNode | None:
        """Return the table with statistics of a segmentation, of this section or of the run that has made it."""
        from ClassScaleSegLib.scene.table_nodes import statistics_table

        parameters, table = self._state.parameters, statistics_table(node)
        if table is None and parameters is not None and parameters.segmentation is node:
            table = parameters.statistics
        return table


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + ("..." if len(names) > _MOST_NAMES else "")
