"""A row of the section "Several volumes": one volume, or a case of several, one per channel of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import slicer
from ClassScaleSegLib.errors import ImageError
from ClassScaleSegLib.images.channel_names import match_channels
from slicer.i18n import tr as _

from .channel_texts import sentence
from .dicom_series import load_series, title_of
from .image_files import is_file, load_file, title_of_file

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

_NODE = "vtkMRML"  # ids of nodes begin so, other members are images of the file system and UIDs of series


def case_key(members: Iterable[str]) -> str:
    """Return the key of a case.

    :param members: ids of volume nodes, keys of images of the file system, or UIDs of series of the DICOM database.
    """
    return "".join(f"{member}\n" for member in members)


def is_case(key: str) -> bool:
    """Return whether a key is that of a case, not of one volume."""
    return "\n" in key


def is_gone(key: str, node_id: str) -> bool:
    """Return whether nothing is left of a row once this node is removed from the scene."""
    others = [member for member in key.split("\n") if member and member != node_id]
    scene = slicer.mrmlScene
    there = [member for member in others if not member.startswith(_NODE) or scene.GetNodeByID(member) is not None]
    return node_id in key.split("\n") and not there


def volumes_of_case(
    key: str,
    name: str,
    channels: Sequence[str],
    on_loaded: Callable[[vtkMRMLScalarVolumeNode], object] = lambda volume: None,
) -> tuple[vtkMRMLScalarVolumeNode, ...]:
    """Return the volume of each channel. A case's are found by their names; files and series are loaded.

    :param key: of one volume, or of a case.
    :param name: for people.
    :param channels: the model's names of its channels.
    :param on_loaded: called with each volume that was loaded from the file system, also if a later one cannot be.
    :raises ImageError: if the volume was removed or cannot be loaded, or it is not certain which volume a channel is.
    """
    if not is_case(key):
        return (_loaded(key, name, on_loaded),)
    members = {member: _name_of(member) for member in key.split("\n") if member}
    there = {member: title for member, title in members.items() if title is not None}
    if not there:
        raise ImageError(_("{name} was removed from the scene.").format(name=name))
    titles = [title for title in there.values() if title is not None]
    matches = match_channels(channels, titles)
    if faults := [sentence(match, titles) for match in matches if match.index is None]:
        raise ImageError(" ".join(faults[:2]))
    keys = list(there)
    found = [match.index for match in matches if match.index is not None]
    return tuple(_loaded(keys[index], titles[index], on_loaded) for index in found)


def _name_of(member: str) -> str | None:
    """Return the name of a volume, file or series; ``None`` for a node that was removed."""
    if is_file(member):
        return title_of_file(member)
    if not member.startswith(_NODE):
        return title_of(member)
    node = slicer.mrmlScene.GetNodeByID(member)
    return None if node is None else node.GetName() or ""


def _loaded(member: str, name: str, on_loaded: Callable[[vtkMRMLScalarVolumeNode], object]) -> vtkMRMLScalarVolumeNode:
    if is_file(member):
        return load_file(member, name, on_loaded)
    volume = slicer.mrmlScene.GetNodeByID(member)
    if volume is None and member.startswith(_NODE):
        raise ImageError(_("{name} was removed from the scene.").format(name=name))
    return load_series(member, name) if volume is None else volume
