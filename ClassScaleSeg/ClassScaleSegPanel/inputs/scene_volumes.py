"""The images of the scene, and which of them lie in one folder, patient or study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import slicer

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


def images() -> Iterator[vtkMRMLScalarVolumeNode]:
    """Yield the images of the scene."""
    for node in slicer.mrmlScene.GetNodes():
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors():
            yield node


def folders() -> dict[str, list[tuple[str, str]]]:
    """Return ids and names of the images in each folder, patient and study of the scene, by its path."""
    hierarchy = _hierarchy()
    found: dict[str, list[tuple[str, str]]] = {}
    for node in images() if hierarchy is not None else ():
        path = _path(hierarchy, _parent(hierarchy, node))
        for length in range(1, len(path) + 1):
            found.setdefault(" / ".join(path[:length]), []).append((node.GetID(), node.GetName()))
    return found


def cases() -> list[tuple[str, tuple[str, ...]]]:
    """Return path and ids of images of each folder, patient and study that has images of its own."""
    hierarchy = _hierarchy()
    found: dict[int, list[str]] = {}
    for node in images() if hierarchy is not None else ():
        if item := _parent(hierarchy, node):
            found.setdefault(item, []).append(node.GetID())
    return [(" / ".join(_path(hierarchy, item)), tuple(ids)) for item, ids in found.items()]


def beside(volume: vtkMRMLScalarVolumeNode) -> list[vtkMRMLScalarVolumeNode]:
    """Return the images in the same folder, patient or study as a volume; all of the scene if it is in none."""
    hierarchy = _hierarchy()
    item = _parent(hierarchy, volume) if hierarchy is not None else 0
    return [node for node in images() if not item or _parent(hierarchy, node) == item]


def _hierarchy() -> Any:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def _parent(hierarchy: Any, node: vtkMRMLScalarVolumeNode) -> int:
    """Return the item of the folder, patient or study of a volume; 0 if it is in none."""
    own = hierarchy.GetItemByDataNode(node)
    parent = hierarchy.GetItemParent(own) if own else 0
    return 0 if parent == hierarchy.GetSceneItemID() else parent


def _path(hierarchy: Any, item: int) -> list[str]:
    path: list[str] = []
    while item and item != hierarchy.GetSceneItemID():
        path.insert(0, hierarchy.GetItemName(item))
        item = hierarchy.GetItemParent(item)
    return path
