"""The volume of each channel, as the parameter node has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..parameters import NODES

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode

    from ..parameters import ClassScaleSegParameterNode

ROWS_IN_UI = 4  # rows for channels in the .ui file
CHANNELS = 100  # rows that there can be: the .ui file leaves as many rows of its grid free


def channel_volume(parameters: ClassScaleSegParameterNode, number: int) -> vtkMRMLScalarVolumeNode | None:
    """Return the selected volume of a channel.

    :param number: of the channel, from 1.
    """
    if number <= ROWS_IN_UI:
        return getattr(parameters, NODES[number - 1])
    node = parameters.parameterNode.GetNodeReference(f"channel{number}")  # type: ignore[attr-defined]  # of the wrapper
    return node if node is not None and node.IsA("vtkMRMLScalarVolumeNode") else None


def set_channel_volume(parameters: ClassScaleSegParameterNode, number: int, volume: vtkMRMLNode | None) -> None:
    """Select a volume for a channel.

    :param number: of the channel, from 1.
    """
    if number <= ROWS_IN_UI:
        setattr(parameters, NODES[number - 1], volume)
    else:
        identifier = volume.GetID() if volume is not None else None
        parameters.parameterNode.SetNodeReferenceID(f"channel{number}", identifier)  # type: ignore[attr-defined]


def forget_volume(parameters: ClassScaleSegParameterNode, node: vtkMRMLNode) -> None:
    """Select nothing for the further channels that have this node, which is removed."""
    for number in range(ROWS_IN_UI + 1, CHANNELS + 1):
        if channel_volume(parameters, number) is node:
            set_channel_volume(parameters, number, None)


def volumes_of(parameters: ClassScaleSegParameterNode, channels: int) -> tuple[vtkMRMLScalarVolumeNode | None, ...]:
    """Return the selected volume of each channel, as far as the panel has rows for them."""
    return tuple(channel_volume(parameters, number) for number in range(1, min(channels, CHANNELS) + 1))
