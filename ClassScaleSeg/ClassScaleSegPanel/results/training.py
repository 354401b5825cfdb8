"""Save the listed segmentation, which somebody has corrected, with its volume as a case for training a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..inputs.channels import volumes_of
from ..state import PanelState
from ..translation import translated
from ..widgets.folders import TRAINING_FOLDER, ask_folder
from ..widgets.texts import ask, tell, tell_error
from .section import attempt

if TYPE_CHECKING:
    from ClassScaleSegLib.scene.training import TrainingCase
    from ClassScaleSegLib.scene.training_folder import SavedCase
    from slicer import vtkMRMLSegmentationNode

_MOST_NAMES = 3  # cases and structures that a sentence names


def save_for_training(node: vtkMRMLSegmentationNode, state: PanelState) -> str:
    """Ask for the folder, and save a segmentation there.

    Questions and faults are message boxes.

    :returns: a sentence on what was saved, and how to go on; empty if nothing was.
    """
    from ClassScaleSegLib.scene.training import training_case, write_case
    from ClassScaleSegLib.scene.training_folder import saved_cases

    title, failed = _("Save for training"), _("The case was not saved")
    no_memory = _("There is not enough memory to save the segmentation.")
    try:
        volumes = _volumes(node, state, title)
    except ClassScaleError as error:
        tell_error(str(error), failed)
        return ""
    folder = volumes and ask_folder(title, TRAINING_FOLDER)
    if not folder:
        return ""
    found, fault = attempt(
        lambda: (training_case(node, folder, volumes), saved_cases(Path(folder))),
        no_memory,
    )
    case, saved = found or (None, [])
    if case is not None and saved and not ask(_question(case, saved), title, "\n".join(map(_listed, saved))):
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
    if case.notes.unchecked:
        text = _("Nobody has corrected or checked it since {models} found it.")
        said.append(text.format(models=", ".join(case.notes.unchecked)))
    said.append(_("To train a model further on the cases, press Train..."))
    return " ".join(said)


def _question(case: TrainingCase, saved: Sequence[SavedCase]) -> str:
    """Return which cases the folder has, the latest first, and the question whether this one is to be saved there."""
    text = (
        _("{folder} has these cases: {cases}.")
        if len(saved) <= _MOST_NAMES
        else _("{folder} has {count} cases, the latest of which are {cases}.")
    )
    names = "; ".join(map(_listed, saved[:_MOST_NAMES]))
    said = text.format(folder=case.folder, count=len(saved), cases=names)
    if case.replaced:
        question = _("This volume is the case {name} there. Replace its image and its segmentation?")
    else:
        question = _("Save this volume as the new case {name}?")
    return f"{said}\n\n{question.format(name=case.name)}"


def _listed(case: SavedCase) -> str:
    """Return name and time of a case, and which structures were corrected, if that is known."""
    when = case.saved.strftime("%Y-%m-%d %H:%M")
    if not case.corrected:
        return f"{case.name} ({when})"
    names = ", ".join(case.corrected[:_MOST_NAMES]) + ("..." if len(case.corrected) > _MOST_NAMES else "")
    return _("{name} ({when}, corrected: {names})").format(name=case.name, when=when, names=names)


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
