"""Save the listed segmentation, which somebody has corrected, with its volume as a case for training a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..inputs.channels import volumes_of
from ..state import PanelState
from ..translation import translated
from ..widgets.folders import ask_folder
from ..widgets.texts import ask, tell, tell_error
from .section import attempt

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


def save_for_training(node: vtkMRMLSegmentationNode, state: PanelState) -> str:
    """Ask for the folder, and save a segmentation there.

    Questions and faults are message boxes.

    :returns: a sentence on what was saved, and how to go on; empty if nothing was.
    """
    from ClassScaleSegLib.scene.training import next_command, training_case, write_case

    title, failed = _("Save for training"), _("The case was not saved")
    no_memory = _("There is not enough memory to save the segmentation.")
    try:
        volumes = _volumes(node, state, title)
    except ClassScaleError as error:
        tell_error(str(error), failed)
        return ""
    folder = volumes and ask_folder(title, "ClassScaleSeg/TrainingFolder")
    if not folder:
        return ""
    case, fault = attempt(lambda: training_case(node, folder, volumes), no_memory)
    question = _("{folder} has this volume already, as the case {name}. Replace its image and its segmentation?")
    if case is not None and case.replaced and not ask(question.format(folder=folder, name=case.name), title):
        return ""
    count = None
    if case is not None:
        count, fault = attempt(lambda: write_case(case, case.replaced), no_memory)
    if case is None or count is None:
        tell_error(fault, failed)
        return ""
    if case.notices:
        tell(" ".join(map(translated, case.notices)), title)
    said = [_("{name} is saved. Cases in the folder: {count}.").format(name=case.name, count=count)]
    if case.unedited:
        text = _("Nobody has corrected it since {models} found it.")
        said.append(text.format(models=", ".join(case.unedited)))
    said.append(_("To make a dataset of the cases: {command}").format(command=next_command(case)))
    return " ".join(said)


def _volumes(node: vtkMRMLSegmentationNode, state: PanelState, title: str) -> tuple[Any, ...]:
    """Return the volumes of which a segmentation was made, or those that are selected; none if the user declines.

    :raises ClassScaleError: if it is not known which volumes these are, or they are not there.
    """
    from ClassScaleSegLib.scene.segmentation_reader import open_structures
    from ClassScaleSegLib.scene.source_volumes import source_volumes
    from ClassScaleSegLib.scene.volume import is_on_grid

    lost: ClassScaleError | None = None
    try:
        if known := source_volumes(node):
            return known
    except ClassScaleError as error:  # but they may have been loaded again
        lost = error
    chosen = () if state.parameters is None else volumes_of(state.parameters, len(state.channels) or 1)
    opened, fault = attempt(lambda: open_structures(node), _("There is not enough memory to save the segmentation."))
    if opened is None:
        raise ClassScaleError(fault)
    there = tuple(one for one in chosen if one is not None and is_on_grid(one, opened.segmentation.geometry))
    if lost is not None and len(there) < len(chosen):
        raise lost
    if not there or len(there) < len(chosen):
        text = _(
            "It is not known from which volume {name} was made. Select the volume under Inputs; it must have the grid "
            "of the segmentation."
        )
        raise ClassScaleError(text.format(name=node.GetName()))
    question = _("It is not known from which volume {name} was made. Save it with {volumes}, selected under Inputs?")
    names = ", ".join(one.GetName() for one in there)
    return there if ask(question.format(name=node.GetName(), volumes=names), title) else ()
