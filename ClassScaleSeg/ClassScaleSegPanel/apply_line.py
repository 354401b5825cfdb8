"""The line above Apply: how much memory the run will take and any warnings, or what is missing before it can start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from .inputs import CHANNELS, volumes_of
from .locate_list import locating_fault

if TYPE_CHECKING:
    from ClassScaleSeg import ClassScaleSegParameterNode

    from .state import PanelState


def need_text(state: PanelState, parameters: ClassScaleSegParameterNode, ticked: list[str]) -> tuple[str, bool]:
    """Return the line above Apply, and whether Apply can be pressed.

    :param ticked: keys of the ticked classes.
    """
    from ClassScaleSegLib.errors import ClassScaleError
    from ClassScaleSegLib.scene.volume import check_volume, refuse_overwriting

    if state.fault:
        return state.fault, False
    if state.entry is None and parameters.model:
        text = _(
            "The scene uses the model {model}, which is not in the catalogue. Select another model, or add this one."
        )
        return text.format(model=parameters.model), False
    if state.entry is None:
        return _("No model is selected. Select one, or add your own."), False
    if not state.summaries:
        return _('{name} is not downloaded. Press "Download...".').format(name=state.entry.name), False
    channels = state.summaries[0].channels
    if channels > CHANNELS:
        text = _("This model needs {count} volumes, but the panel has room for only four. Use the Python console.")
        return text.format(count=channels), False
    if not ticked:
        return _("No class is ticked. Tick at least one class."), False
    if fault := locating_fault(state, ticked):
        return fault, False
    try:
        volumes = volumes_of(parameters, channels)
        for volume in volumes:
            check_volume(volume)
        refuse_overwriting(volumes, parameters.confidence)
        twice = [_("One volume is selected for several channels.")] if len(set(volumes)) < channels else []
        return " ".join((*_estimate(state, parameters), *twice)), True
    except ClassScaleError as error:
        return str(error), False


def _estimate(state: PanelState, parameters: ClassScaleSegParameterNode) -> list[str]:
    from ClassScaleSegLib.inference.memory_estimate import describe_need, estimate, largest
    from ClassScaleSegLib.models.advice import advise
    from ClassScaleSegLib.scene.volume import box_of, crop, geometry_of, modality_of

    volume = parameters.inputVolume
    geometry = geometry_of(volume)
    if parameters.region is not None:
        geometry = crop(geometry, box_of(volume, parameters.region))
    shape, spacing = geometry.size[::-1], geometry.spacing[::-1]
    confidence = parameters.confidence is not None
    size = volume.GetImageData().GetScalarSize()
    choices = (shape, spacing, parameters.step or None, confidence, size, parameters.mirroring)
    needs = [estimate(summary, *choices) for summary in state.summaries]
    need = describe_need(largest(needs), parameters.device)
    return [
        _("This run will take {need}.").format(need=need),
        *advise(state.summaries[0], spacing, modality_of(volume)),
    ]
