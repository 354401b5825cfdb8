"""The inputs of the panel: a row for each channel of the model, and all choices as one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

if TYPE_CHECKING:
    from ClassScaleSegLib.scene.run import Request

CHANNELS = 4  # rows that the .ui file has


def show_channels(ui: Any, names: Sequence[str]) -> None:
    """A row for each channel, called as the model calls it; a single one is just the volume."""
    ui.inputLabel.text = _("Volume:") if len(names) < 2 else _("{channel}:").format(channel=names[0])
    for number in range(2, CHANNELS + 1):
        label, selector = (getattr(ui, f"channel{kind}{number}") for kind in ("Label", "Selector"))
        label.visible = selector.visible = number <= len(names)
        if number <= len(names):
            label.text = _("{channel}:").format(channel=names[number - 1])


def request_of(logic: Any, parameters: Any, replace: bool) -> Request:
    """What the parameter node holds, as the arguments that a script would give to ``ClassScaleSegLogic().segment``.

    :param logic: the module's.
    :param parameters: its parameter node.
    :param replace: segments that are there.
    :raises ClassScaleError: a sentence, if the model is not there.
    """
    from ClassScaleSegLib.catalog.catalog import resolve_model
    from ClassScaleSegLib.models.summary import summarize
    from ClassScaleSegLib.scene.sequence import browser_of

    channels = summarize(resolve_model(parameters.model)[0]).channels
    volumes = (parameters.inputVolume, parameters.channel2, parameters.channel3, parameters.channel4)[:channels]
    return logic.request(
        volumes,
        parameters.model,
        region=parameters.region,
        all_frames=parameters.allFrames and browser_of(parameters.inputVolume) is not None,
        segmentation=parameters.segmentation,
        replace=replace,
        confidence=parameters.confidence,
        statistics=parameters.statistics,
        standard_names=parameters.standardNames,
        keep_empty=parameters.keepEmpty,
        classes=parameters.classes.splitlines() or None,
        device=parameters.device,
        memory_limit=parameters.memoryLimit or None,
        step=parameters.step,
        mirroring=parameters.mirroring,
        folds=parameters.folds.replace(",", " ").split() or None,
        threads=parameters.threads or None,
    )
