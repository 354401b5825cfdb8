"""All choices of the user as one request, or as an item of the queue."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from ..inputs.channels import volumes_of
from ..inputs.queued_case import is_case, volumes_of_case

if TYPE_CHECKING:
    from pathlib import Path

    from ClassScaleSegLib.models.summary import ModelSummary
    from ClassScaleSegLib.options import Options
    from ClassScaleSegLib.remote.chosen_server import ChosenServer
    from ClassScaleSegLib.scene.queue import QueueItem
    from ClassScaleSegLib.scene.request import Request
    from slicer import vtkMRMLNode

    from ..parameters import ClassScaleSegParameterNode
    from ..state import PanelState


def model_ids(parameters: ClassScaleSegParameterNode) -> tuple[str, ...]:
    """Return the ids of all models of the run, in their order."""
    return (parameters.model, *parameters.moreModels.splitlines())


def queue_item(
    parameters: ClassScaleSegParameterNode, key: str, name: str, server: ChosenServer | None = None
) -> QueueItem:
    """Return an item of the queue, which segments one image with the choices in the parameter node.

    Its results go into new nodes. The choices are those of now, also if they change before it is its turn.

    :param key: id of the volume node; or an image of the file system, or UID of a series of the DICOM database, which
        is loaded when it is its turn; of a case of several volumes, as `case_key` makes it.
    :param name: of the volume or the case, for people.
    :param server: that segments; ``None``: this computer.
    :raises ClassScaleError: if the model does not exist or is not downloaded.
    """
    from ClassScaleSegLib.scene.queue import QueueItem
    from ClassScaleSegLib.scene.volume import check_volume

    chosen = replace(request_of(parameters, False, server), region=None, all_frames=False, segmentation=None)
    chosen = replace(chosen, report_name=name if is_case(key) else None)
    channels = _parts(chosen.models[0], server)[0].channel_names
    wanted = {"confidence": parameters.confidence, "statistics": parameters.statistics}
    nodes: dict[str, vtkMRMLNode] = {}
    loaded: list[vtkMRMLNode] = []

    def request() -> Request:
        volumes = volumes_of_case(key, name, channels, loaded.append)
        for each in volumes:
            check_volume(each)
        volume = volumes[0]
        for kind, like in wanted.items():
            if like is not None:
                title = f"{volume.GetName()} {kind}"
                nodes[kind] = slicer.mrmlScene.AddNewNodeByClass(like.GetClassName(), title)
        return replace(chosen, volumes=volumes, **nodes)

    def discard() -> None:
        while nodes or loaded:
            node = nodes.popitem()[1] if nodes else loaded.pop()
            if slicer.mrmlScene.IsNodePresent(node):  # the user may have removed it
                slicer.mrmlScene.RemoveNode(node)

    return QueueItem(key, name, request, discard=discard)


def _parts(model: str | Path, server: ChosenServer | None) -> tuple[ModelSummary, ...]:
    """Return what the parts of a model are, of this computer or of a server."""
    from ClassScaleSegLib.catalog.chosen import chosen_models
    from ClassScaleSegLib.options import Options

    found = chosen_models([model]) if server is None else server.choose([model], Options()).models
    return found[0].summaries


def request_of(
    parameters: ClassScaleSegParameterNode, replace_segments: bool, server: ChosenServer | None = None
) -> Request:
    """Return the request that the parameter node describes.

    :param replace_segments: the segments that the node has are removed.
    :param server: that segments, and decides about memory and threads itself; ``None``: this computer.
    :raises ClassScaleError: if the model does not exist or is not downloaded.
    """
    from ClassScaleSegLib.scene.request import Request
    from ClassScaleSegLib.scene.sequence import browser_of

    models = model_ids(parameters)
    parts = _parts(models[0], server)
    return Request(
        volumes_of(parameters, parts[0].channels),
        models,
        region=parameters.region,
        all_frames=parameters.allFrames and browser_of(parameters.inputVolume) is not None,
        segmentation=parameters.segmentation,
        replace=replace_segments,
        confidence=parameters.confidence,
        statistics=parameters.statistics,
        report=parameters.report.strip() or None,
        standard_names=parameters.standardNames,
        options=_options_of(parameters, len(models) > 1 or len(parts) > 1, server),
        server=server,
    )


def _options_of(parameters: ClassScaleSegParameterNode, several: bool, server: ChosenServer | None) -> Options:
    """Return the options that the parameter node describes.

    :param several: whether several networks segment. What was chosen for that is neither seen nor said of one.
    :param server: that segments, and decides about memory and threads itself; ``None``: this computer.
    """
    from ClassScaleSegLib.options import Options

    return Options(
        folds=tuple(parameters.folds.replace(",", " ").split()) or None,
        device=parameters.device,
        step=parameters.step or None,
        mirroring=parameters.mirroring,
        bfloat16=parameters.bfloat16,
        classes=parameters.classes.splitlines() or None,
        memory_limit_gib=(parameters.memoryLimit or None) if server is None else None,
        threads=(parameters.threads or None) if server is None else None,
        keep_empty=parameters.keepEmpty,
        smooth=parameters.smooth or None,
        remove_islands=parameters.removeIslands or None,
        locate_with=parameters.locateWith or None,
        overlap=parameters.overlap if several else "later",
        interpolation=parameters.interpolation,
    )


def watching_with(state: PanelState) -> tuple[tuple[str, ...], Options] | str:
    """Return the models and the options with which an archive is watched; or why it cannot be, in a sentence."""
    parameters = state.parameters
    if parameters is None or not state.summaries:
        return _("Choose a model that is on this computer. Download it first if it is not.")
    if state.server is not None:
        return _("An archive is watched with a device of this computer. Choose another device than a server.")
    if len(state.channels) > 1:
        return _("The model needs several volumes at once, and a series is one. Choose another model.")
    options = _options_of(parameters, len(state.summaries) > 1, None)
    if options.overlap != "later":
        return _("Results for an archive have one class in each voxel. Do not keep overlaps.")
    return model_ids(parameters), replace(options, keep_empty=False)
