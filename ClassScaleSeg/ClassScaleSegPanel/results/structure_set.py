"""Ask for an RT Structure Set, the contours of a planning system, and load it as a segmentation to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.packages import ensure_comparing
from ..translation import translated
from ..widgets.texts import tell, tell_error
from .section import attempt

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic


def ask_structure_set(logic: ClassScaleSegLogic, like: vtkMRMLSegmentationNode) -> vtkMRMLSegmentationNode | None:
    """Let the user choose a file, and return what it holds as a new node; ``None`` if there is none.

    What the user should know about the contours, and why they cannot be loaded, is told in a message box.

    :param like: the segmentation to compare with, on whose grid, or that of its volume, contours are filled.
    """
    title, folder = _("Choose an RT structure set"), slicer.mrmlScene.GetRootDirectory()
    kinds = ";;".join((_("RT structure set") + " (*.dcm)", _("All files") + " (*)"))
    path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, folder, kinds)
    if not path:
        return None
    try:
        ensure_comparing()
    except ClassScaleError as error:
        tell_error(str(error), _("The structure set was not loaded"))
        return None
    told: list[str] = []
    no_memory = _("There is not enough memory to load the structure set.")
    node, fault = attempt(lambda: logic.loadStructureSet(path, like, told.append), no_memory)
    if fault:
        tell_error(fault, _("The structure set was not loaded"))
    elif told:
        tell(" ".join(map(translated, told)), title)
    return node
