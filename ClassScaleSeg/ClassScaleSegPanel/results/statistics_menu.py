"""The menu of the button "Statistics": measures the listed structures, for a table of the scene or for a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..state import PanelState
from ..widgets.texts import tell_error
from .section import attempt
from .table_file import ask_table_file

if TYPE_CHECKING:
    from ClassScaleSegLib.scene.segmentation_reader import Opened
    from slicer import vtkMRMLScalarVolumeNode


class StatisticsMenu:
    """Measures the segmentation that is listed, with the intensities of a volume on the same grid.

    :ivar menu: the menu.
    :param say: shows a sentence on what was done.
    """

    def __init__(self, button: qt.QPushButton, state: PanelState, say: Callable[[str], None]) -> None:
        self._state, self._say = state, say
        self.menu = qt.QMenu(button)
        self.menu.addAction(_("To table")).connect("triggered(bool)", lambda: self._to_table())
        self.menu.addAction(_("Save...")).connect("triggered(bool)", lambda: self._save())
        button.setMenu(self.menu)

    def _to_table(self) -> None:
        from ClassScaleSegLib.scene.table_nodes import measure_node

        def fill(node: Any, opened: Opened, volume: vtkMRMLScalarVolumeNode | None) -> str:
            table, inside = measure_node(node, opened, volume)
            return _("The statistics are in the table {name}.").format(name=table.GetName()) + _whose(volume, inside)

        text, fault = self._measure(self._state.node, fill)
        self._say(text or fault)

    def _save(self) -> None:
        from ClassScaleSegLib.scene.table_nodes import write_measures

        def write(node: Any, opened: Opened, volume: vtkMRMLScalarVolumeNode | None) -> str:
            inside = write_measures(path, opened, volume)
            text = _("The statistics are in the file {name}.").format(name=Path(path).name)
            return text + _whose(volume, inside)

        # while the dialogue is open, a run may end, and its result be listed instead
        node, text, fault = self._state.node, None, ""
        try:
            path = ask_table_file(_("Save statistics"), f"{node.GetName()} statistics") if node is not None else ""
            if path:
                text, fault = self._measure(node, write)
        except ClassScaleError as error:
            fault = str(error)
        if text:
            self._say(text)
        if fault:
            tell_error(fault, _("The statistics were not saved"))

    def _measure(
        self, node: Any, use: Callable[[Any, Opened, vtkMRMLScalarVolumeNode | None], str]
    ) -> tuple[str | None, str]:
        """Call a function with a node, what it holds, and the volume whose intensities may be measured.

        :returns: what it says, and why it failed, as `attempt` does.
        """
        from ClassScaleSegLib.scene.segmentation_reader import open_structures

        parameters = self._state.parameters
        if node is None:
            return None, ""
        volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        if volume is None and parameters is not None:
            volume = parameters.inputVolume
        no_memory = _("There is not enough memory for the statistics.")
        return attempt(lambda: use(node, open_structures(node), volume), no_memory)


def _whose(volume: vtkMRMLScalarVolumeNode | None, inside: bool) -> str:
    """Return a sentence on the intensities, if there are any."""
    if volume is None or not inside:
        return ""
    return " " + _("Intensities are those of {name}.").format(name=volume.GetName())
