"""What the parameter node holds, as the arguments that a script would give to ``ClassScaleSegLogic().segment``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ClassScaleSegLib.scene_run import Request


def request_of(logic: Any, parameters: Any, replace: bool) -> Request:
    """:param logic: the module's. :param parameters: its parameter node. :param replace: segments that are there.

    :raises ClassScaleError: a sentence, if the model is not there.
    """
    from ClassScaleSegLib.catalog import resolve_model
    from ClassScaleSegLib.scene_sequence import browser_of
    from ClassScaleSegLib.summary import summarize

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
