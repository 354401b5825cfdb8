"""The inputs of the panel: one row per channel of the model, and the user's choices as one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from .keyboard import name_from_label
from .texts import shortened, tip

if TYPE_CHECKING:
    from ClassScaleSegLib.scene.queue import QueueItem
    from ClassScaleSegLib.scene.run import Request
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode

    from ClassScaleSeg import ClassScaleSegParameterNode

CHANNELS = 4  # rows for channels in the .ui file
# the parameters that are nodes
NODES = ("inputVolume", "channel2", "channel3", "channel4", "region", "segmentation", "confidence", "statistics")


def show_channels(ui: Any, names: Sequence[str]) -> None:
    """Show one row per channel, labelled with the model's name of the channel; a single one is labelled "Volume"."""
    ui.inputLabel.text, ui.inputLabel.toolTip = _("V&olume:"), ""
    rows = [(ui.inputLabel, ui.inputSelector)]
    rows += [(getattr(ui, f"channelLabel{n}"), getattr(ui, f"channelSelector{n}")) for n in range(2, CHANNELS + 1)]
    for row, (label, selector) in enumerate(rows):
        label.visible = selector.visible = row in (0, *range(len(names)))
        if row < len(names) > 1:
            label.text = _("{channel}:").format(channel=shortened(names[row], 12).replace("&", "&&"))
            label.toolTip = tip(names[row])
        name_from_label(label)


def volumes_of(parameters: ClassScaleSegParameterNode, channels: int) -> tuple[vtkMRMLScalarVolumeNode | None, ...]:
    """Return the selected volume of each channel, as far as the panel has rows for them."""
    return (parameters.inputVolume, parameters.channel2, parameters.channel3, parameters.channel4)[:channels]


def model_ids(parameters: ClassScaleSegParameterNode) -> tuple[str, ...]:
    """Return the ids of all models of the run, in their order."""
    return (parameters.model, *parameters.moreModels.splitlines())


def queue_item(parameters: ClassScaleSegParameterNode, key: str, name: str) -> QueueItem:
    """Return an item of the queue, which segments one volume with the choices in the parameter node.

    Its results go into new nodes. The choices are those of now, also if they change before it is its turn.

    :param key: id of the volume node, or UID of a series of the DICOM database, which is loaded when it is its turn.
    :raises ClassScaleError: if the model does not exist or is not downloaded.
    """
    from ClassScaleSegLib.errors import ImageError
    from ClassScaleSegLib.scene.queue import QueueItem
    from ClassScaleSegLib.scene.volume import check_volume

    from .dicom_series import load_series

    chosen = replace(request_of(parameters, False), region=None, all_frames=False, segmentation=None)
    wanted = {"confidence": parameters.confidence, "statistics": parameters.statistics}
    nodes: dict[str, vtkMRMLNode] = {}

    def request() -> Request:
        volume = slicer.mrmlScene.GetNodeByID(key)
        if volume is None and key.startswith("vtkMRML"):
            raise ImageError(_("{name} was removed from the scene.").format(name=name))
        volume = load_series(key, name) if volume is None else volume
        check_volume(volume)
        for kind, like in wanted.items():
            if like is not None:
                title = f"{volume.GetName()} {kind}"
                nodes[kind] = slicer.mrmlScene.AddNewNodeByClass(like.GetClassName(), title)
        return replace(chosen, volumes=(volume,), **nodes)

    def discard() -> None:
        for node in nodes.values():
            slicer.mrmlScene.RemoveNode(node)

    return QueueItem(key, name, request, discard=discard)


def request_of(parameters: ClassScaleSegParameterNode, replace_segments: bool) -> Request:
    """Return the request that the parameter node describes.

    :param replace_segments: the segments that the node has are removed.

    :raises ClassScaleError: if the model does not exist or is not downloaded.
    """
    from ClassScaleSegLib.catalog.chosen import chosen_models
    from ClassScaleSegLib.options import Options
    from ClassScaleSegLib.scene.run import Request
    from ClassScaleSegLib.scene.sequence import browser_of

    models = model_ids(parameters)
    first = chosen_models(models[:1])[0].summaries[0]
    return Request(
        volumes_of(parameters, first.channels),
        models,
        region=parameters.region,
        all_frames=parameters.allFrames and browser_of(parameters.inputVolume) is not None,
        segmentation=parameters.segmentation,
        replace=replace_segments,
        confidence=parameters.confidence,
        statistics=parameters.statistics,
        standard_names=parameters.standardNames,
        options=Options(
            folds=tuple(parameters.folds.replace(",", " ").split()) or None,
            device=parameters.device,
            step=parameters.step or None,
            mirroring=parameters.mirroring,
            classes=parameters.classes.splitlines() or None,
            memory_limit_gib=parameters.memoryLimit or None,
            threads=parameters.threads or None,
            keep_empty=parameters.keepEmpty,
            smooth=parameters.smooth or None,
            remove_islands=parameters.removeIslands or None,
            locate_with=parameters.locateWith or None,
            overlap=parameters.overlap,
            interpolation=parameters.interpolation,
        ),
    )
