"""The line above Apply: what the run takes, here or on a server, and any warnings; or what is missing before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from ..inputs.channels import CHANNELS, volumes_of
from ..inputs.queued_case import is_case
from ..models.locate_list import locating_fault
from ..servers.texts import server_fault, server_need
from ..translation import translated
from ..widgets.texts import shortened
from .report_folder import folder_text

if TYPE_CHECKING:
    from ..parameters import ClassScaleSegParameterNode
    from ..state import PanelModel, PanelState


def need_text(state: PanelState, parameters: ClassScaleSegParameterNode, ticked: list[str]) -> tuple[str, bool]:
    """Return the line above Apply, and whether Apply can be pressed.

    :param ticked: keys of the ticked classes.
    """
    from ClassScaleSegLib.errors import ClassScaleError
    from ClassScaleSegLib.scene.report import refuse_frames
    from ClassScaleSegLib.scene.sequence import browser_of
    from ClassScaleSegLib.scene.volume import check_volume, refuse_overwriting

    if state.server is not None and (fault := server_fault(state.server, state.models)):
        return fault, False
    for model in state.models:
        if fault := _fault_of(model):
            return fault, False
    if state.fault:
        return translated(state.fault), False
    ids = [model.id for model in state.models]
    if twice := next((model.name for model in state.models if ids.count(model.id) > 1), None):
        return _("{name} is in the list twice. Remove it once.").format(name=twice), False
    channels = state.summaries[0].channels
    for model in state.models:
        if model.summaries[0].channels != channels:
            text = _("{second} needs {count} volumes, and {first} needs {channels}. Remove one of these models.")
            first, count = state.models[0].name, model.summaries[0].channels
            return text.format(second=model.name, count=count, first=first, channels=channels), False
        if fault := _other_order(state.models[0], model):
            return fault, False
    if parameters.overlap == "keep" and parameters.confidence is not None and len(state.summaries) > 1:
        text = _("The confidence is of one class in each voxel. Select no confidence volume, or do not keep overlaps.")
        return text, False
    if channels > CHANNELS:
        text = _("This model needs {count} volumes, and the panel has rows for {rows}. Use the Python console.")
        return text.format(count=channels, rows=CHANNELS), False
    if not ticked:
        return _("No class is ticked. Tick at least one class."), False
    if fault := locating_fault(state, ticked):
        return fault, False
    report, writable = folder_text(parameters.report.strip())
    if not writable:
        return report, False
    if state.queued:
        text, ready = _queue_text(state, parameters, channels)
        where = server_need(state.server) if state.server is not None else []
        return " ".join((text, *((*where, *_idle(state, ticked), report) if ready else ()))).strip(), ready
    try:
        volumes = volumes_of(parameters, channels)
        for name, volume in zip(state.channels, volumes, strict=False):
            if volume is None and parameters.inputVolume is not None:
                return _("Select the volume of the channel {channel}.").format(channel=shortened(name, 40)), False
            check_volume(volume)
        refuse_overwriting(volumes, parameters.confidence)
        refuse_frames(bool(report) and parameters.allFrames and browser_of(parameters.inputVolume) is not None)
        doubt = [_("One volume is selected for several channels.")] if len(set(volumes)) < channels else []
        return " ".join((*_estimate(state, parameters), *doubt, *_idle(state, ticked), report)).strip(), True
    except ClassScaleError as error:
        return translated(str(error)), False


def _queue_text(state: PanelState, parameters: ClassScaleSegParameterNode, channels: int) -> tuple[str, bool]:
    """Return the line above Apply if several volumes are ticked, and whether Apply can be pressed."""
    wrong = next((name for key, name in state.queued if is_case(key) != (channels > 1)), None)
    if wrong is not None and channels > 1:
        text = _("The model needs {count} volumes, and {name} is one. Untick it, and add the folder with all of them.")
        return text.format(count=channels, name=shortened(wrong, 60)), False
    if wrong is not None:
        text = _("{name} has several volumes, and the model needs one. Untick it, and add the volumes themselves.")
        return text.format(name=shortened(wrong, 60)), False
    if parameters.region is not None:
        return _("A region is of one volume. Select none to segment several volumes, or untick these."), False
    count = len(state.queued)
    if count == 1:
        text = _("{name} is segmented, as ticked in the list of volumes. The result gets a segmentation of its own.")
        return text.format(name=state.queued[0][1]), True
    text = _("{count} volumes are segmented one after the other ({names}). Each result gets a segmentation of its own.")
    if channels > 1:
        text = _("{count} cases are segmented one after the other ({names}). Their volumes are found by their names.")
    listed = [name for _key, name in state.queued[:3]] + ["..."] * (count > 3)
    return text.format(count=count, names=", ".join(listed)), True


def _idle(state: PanelState, ticked: list[str]) -> list[str]:
    """Return a sentence for each model of which no class is ticked, as when a model is added to a choice of classes."""
    used = {state.owners[int(key)][0] for key in ticked if int(key) in state.owners}
    idle = dict.fromkeys(name for name, _own in state.owners.values() if name not in used)
    text = _("No class of {model} is ticked, so this model does not run.")
    return [text.format(model=shortened(name, 60)) for name in idle]


def _other_order(first: PanelModel, second: PanelModel) -> str:
    """Return that two models need the same volumes in another order; empty if not."""
    from ClassScaleSegLib.images.channel_names import match_channels

    names = first.summaries[0].channel_names, second.summaries[0].channel_names
    moved = [match for n, match in enumerate(match_channels(*names)) if match.index not in (n, None)]
    if not moved:
        return ""
    text = _("{first} and {second} need the channel {channel} at different places. Remove one of these models.")
    return text.format(first=first.name, second=second.name, channel=shortened(moved[0].channel, 40))


def _fault_of(model: PanelModel) -> str:
    """Return why a model cannot be used; empty if it can."""
    if model.fault:
        return translated(model.fault)
    if model.entry is None and model.id:
        text = _(
            "The scene uses the model {model}, which is not in the catalogue. Select another model, or add this one."
        )
        return text.format(model=model.id)
    if model.entry is None:
        return _("No model is selected. Select one, or add your own.")
    if not model.summaries:
        return _('{name} is not downloaded. Press "Download...".').format(name=model.entry.name)
    return ""


def _estimate(state: PanelState, parameters: ClassScaleSegParameterNode) -> list[str]:
    from ClassScaleSegLib.inference.memory_estimate import describe_need, estimate, largest
    from ClassScaleSegLib.models.advice import advise_on_run
    from ClassScaleSegLib.remote.fit import describe_fit
    from ClassScaleSegLib.scene.volume import box_of, crop, geometry_of, modality_of

    volume = parameters.inputVolume
    geometry = geometry_of(volume)
    if parameters.region is not None:
        geometry = crop(geometry, box_of(volume, parameters.region))
    shape, spacing = geometry.size[::-1], geometry.spacing[::-1]
    confidence = parameters.confidence is not None
    size = volume.GetImageData().GetScalarSize()
    choices = (shape, spacing, parameters.step or None, confidence, size, parameters.mirroring)
    memory = largest([estimate(summary, *choices) for summary in state.summaries])
    server = state.server
    if server is None:
        device = parameters.device
    else:
        device = server.health.device if server.health is not None else "auto"
    need = [_("This run will take {need}.").format(need=translated(describe_need(memory, device)))]
    if server is not None:
        fit = describe_fit(memory, server.health) if server.health is not None else ""
        need = [*server_need(server), *need, *([translated(fit)] if fit else [])]
    models = [(model.name, model.summaries[0]) for model in state.models]
    return [*need, *map(translated, advise_on_run(models, (), spacing, modality_of(volume)))]
