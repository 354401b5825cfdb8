"""Correct one structure of a segmentation in Slicer's Segment Editor, and leave the others as they are.

    node = begin_correction(segmentation, "Segment_17")
    edit(node, volume)  # now the user paints
    finish_correction(node)

The Segment Editor gets a node of two segments: the structure, and all others together. It could lock the others in the
segmentation itself, but would look at each of them after each stroke: with 311 of them and 128^3 voxels that takes
6.1 s, with two 0.1 s (Slicer's own code, one thread of an Intel Xeon). What is painted is taken over at the end, into
this one structure; another one changes only where the user has taken voxels from "Other structures".
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ImageError
from ..images.comparison import onto_grid
from ..images.segmentation import Segmentation
from ..labels.label import Label
from ..labels.table import LabelTable
from .results import note, noted, owner_of, put_beside, removed_on_failure
from .segment_editor import Change, change_segment, editor_node, lock_others, select_segment
from .segmentation_node import fill_segmentation_node, shared_image
from .segmentation_reader import LABELMAP, open_segmentation, open_structures
from .sequence import browser_of
from .surfaces import give_surfaces, take_surfaces

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLNode,
        vtkMRMLScalarVolumeNode,
        vtkMRMLScene,
        vtkMRMLSegmentationDisplayNode,
        vtkMRMLSegmentationNode,
    )

    from ..images.geometry import Geometry
    from .segmentation_reader import Opened

STRUCTURE, OTHERS = "structure", "others"  # ids of the two segments
_NODE = "ClassScaleSeg.Correction"  # role of the node, in the segmentation
_NOTES = "ClassScaleSeg.Correcting"  # attribute of the node: what is corrected, and how things were before
_GREY = (128, 128, 128)


class Corrected(NamedTuple):
    """What a correction has changed.

    :ivar node: the segmentation.
    :ivar name: of the structure.
    :ivar before_ml: volume of the structure before the correction, in mL.
    :ivar after_ml: and afterwards.
    :ivar others: names of the structures that have lost voxels to it.
    :ivar changed: whether any voxel has changed.
    """

    node: vtkMRMLSegmentationNode
    name: str
    before_ml: float
    after_ml: float
    others: tuple[str, ...]
    changed: bool


def begin_correction(node: vtkMRMLSegmentationNode, segment_id: str) -> vtkMRMLSegmentationNode:
    """Return a new node of two segments, ``STRUCTURE`` and ``OTHERS``, on the whole grid of a segmentation.

    Until the end, the segmentation is shown in outlines, without the structure.

    :param segment_id: of the structure, which may be empty.
    :raises ImageError: if another structure of the scene is being corrected, there is no such segment, the segmentation
        does not consist of label maps or is part of a sequence, or the memory is not enough. The scene is not changed.
    """
    scene, name = node.GetScene(), node.GetName() or "Segmentation"
    current = correction_in(scene)
    if current is not None:
        raise ImageError(f"{current.GetName()} is still being corrected. Finish that first, or discard it.")
    if node.GetSegmentation().GetSegment(segment_id) is None:
        raise ImageError(f"{name} has no segment {segment_id}. Choose one of its segments.")
    if browser_of(node) is not None:
        raise ImageError(
            f"{name} is part of a sequence, which does not keep what is changed in a frame. Clone the frame in the "
            "module Data, and correct the clone."
        )
    _refuse_surfaces(node)
    opened = open_structures(node, local=True)
    value = _value(opened, segment_id)
    own, others = _divided(opened, value)
    whole = opened.segmentation
    structure = replace(whole.table[value], value=1, id=STRUCTURE)
    table = LabelTable((structure, Label(2, OTHERS, "Other structures", _GREY)))
    # where the structure overlaps others, it can be erased
    divided = Segmentation(np.where(own, 1, others * np.uint16(2)).astype(np.uint16), table, whole.geometry)
    with removed_on_failure(scene):
        correction = scene.AddNewNodeByClass(
            "vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{structure.name} ({name})")
        )
        put_beside(correction, node)
        fill_segmentation_node(correction, divided, keep_empty=True)
        correction.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    correction.GetDisplayNode().SetSegmentVisibility(OTHERS, False)
    note(node, _NODE, correction)
    notes = {"segment": segment_id, "name": node.GetSegmentation().GetSegment(segment_id).GetName()}
    correction.SetAttribute(_NOTES, json.dumps(notes | _show_outlines(node, segment_id)))
    return correction


def correction_in(scene: vtkMRMLScene) -> vtkMRMLSegmentationNode | None:
    """Return the node of the correction that was begun in a scene; ``None`` if there is none. A clone of it is none."""
    found = _with_notes(scene)
    return next((node for node in found if _is_noted(node)), found[0] if found else None)


def finish_correction(correction: vtkMRMLSegmentationNode) -> Corrected:
    """Take over what the user has painted into the structure of the segmentation, and remove the correction.

    A voxel of another structure counts only if the user has taken it away from ``OTHERS``; so nothing that happened to
    other segments of the correction changes them. Segments that the user has added are added to the segmentation.

    :raises ImageError: if the segmentation or the structure is not there any more, or the segmentation has become
        surfaces. What the user has painted stays as a segmentation of its own, which is no correction any longer.
    """
    try:
        node, segment_id = _corrected_by(correction)
        _refuse_surfaces(node)
        opened = open_structures(node, local=True)
        value = _value(opened, segment_id)
    except ImageError as error:
        _end(correction)
        correction.GetSegmentation().RemoveSegment(OTHERS)
        raise ImageError(f"{error} What you have painted is the segmentation {correction.GetName()}.") from error
    geometry, name = opened.segmentation.geometry, opened.segmentation.table[value].name
    own, others = _divided(opened, value)
    painted, left = _painted(correction, geometry)
    if left is None:  # the user has removed the segment, which says nothing of the structures
        left = others
    new = own if painted is None else painted & (~others | own | ~left)
    removed, added = own & ~new, new & ~own
    taken = added & others
    losing = [row for row in np.unique([layer[taken] for layer in opened.segmentation.layers]).tolist() if row]
    ids = [opened.ids[each] for each in losing if each != value]
    shown = take_surfaces(node, [segment_id, *ids])
    for mask, change in ((removed, Change.REMOVE), (added & ~taken, Change.ADD), (taken, Change.ADD_AND_TAKE)):
        if mask.any():
            change_segment(node, segment_id, shared_image(mask.astype(np.uint8), geometry), change)
    give_surfaces(node, shown)
    _add_segments(correction, node)
    _end(correction)
    _remove(correction)
    before_ml, after_ml = (float(np.count_nonzero(mask)) * _voxel_ml(node, geometry) for mask in (own, new))
    names = tuple(opened.segmentation.table[each].name for each in losing if each != value)
    return Corrected(node, name, before_ml, after_ml, names, bool(removed.any() or added.any()))


def edit(correction: vtkMRMLSegmentationNode, volume: vtkMRMLScalarVolumeNode | None) -> None:
    """Let the module Segment Editor edit the structure of a correction, with all others locked.

    :param volume: that is shown, and whose intensities the tools use.
    """
    editor, notes = editor_node(correction.GetScene()), _notes(correction)
    if "mask" not in notes:
        notes |= {"mask": editor.GetMaskMode(), "overwrite": editor.GetOverwriteMode()}
        correction.SetAttribute(_NOTES, json.dumps(notes))
    role = correction.GetReferenceImageGeometryReferenceRole()
    correction.SetNodeReferenceID(role, None if volume is None else volume.GetID())
    select_segment(editor, correction, volume, STRUCTURE)
    lock_others(editor, True)


def discard_correction(correction: vtkMRMLSegmentationNode) -> None:
    """Remove a correction, and leave the segmentation as it was."""
    _end(correction)
    _remove(correction)


def forget_correction(node: vtkMRMLNode) -> None:
    """Show a segmentation as before if ``node``, which is about to be removed from the scene, is its correction."""
    if node.GetAttribute(_NOTES) is not None and correction_in(node.GetScene()) is node:
        _end(node)


# --- voxels


def _refuse_surfaces(node: vtkMRMLSegmentationNode) -> None:
    """:raises ImageError: if a segmentation does not consist of label maps: Slicer would change it without success."""
    name = node.GetName() or "Segmentation"
    if node.GetSegmentation().GetSourceRepresentationName() != LABELMAP:
        raise ImageError(
            f"{name} does not consist of label maps, which alone can be painted. In the module Segmentations, make "
            f"{LABELMAP} its source representation."
        )


def _value(opened: Opened, segment_id: str) -> int:
    """Return the label value of a segment.

    :raises ImageError: if there is none of that id.
    """
    for value, identifier in opened.ids.items():
        if identifier == segment_id:
            return value
    raise ImageError(f"There is no segment {segment_id} any more.")


def _divided(opened: Opened, value: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which voxels a structure has, and which all others have; bool ``(z, y, x)``."""
    own = np.zeros(opened.segmentation.labels.shape, bool)
    others = own.copy()
    for layer in opened.segmentation.layers:
        own |= layer == value
        others |= (layer > 0) & (layer != value)
    return own, others


def _painted(correction: vtkMRMLSegmentationNode, geometry: Geometry) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the voxels of the two segments on a grid, bool ``(z, y, x)``; ``None`` for one that was removed."""
    there = {identifier for identifier in (STRUCTURE, OTHERS) if correction.GetSegmentation().GetSegment(identifier)}
    opened = open_segmentation(correction, local=True)
    masks: list[np.ndarray | None] = []
    for identifier in (STRUCTURE, OTHERS):
        if identifier not in there:
            masks.append(None)
        elif opened is None:  # not one voxel is left
            masks.append(np.zeros(geometry.size[::-1], bool))
        else:
            mask = _divided(opened, _value(opened, identifier))[0]
            place = onto_grid(opened.segmentation.geometry, geometry)
            masks.append(mask if place is None else place(mask.astype(np.uint16)).astype(bool))
    return masks[0], masks[1]


def _voxel_ml(node: vtkMRMLSegmentationNode, geometry: Geometry) -> float:
    """Return the volume of a voxel in the world, in mL."""
    import slicer

    transform, scale = node.GetParentTransformNode(), 1.0
    if transform is not None and transform.IsTransformToWorldLinear():
        scale = abs(float(np.linalg.det(slicer.util.arrayFromTransformMatrix(transform, toWorld=True)[:3, :3])))
    return geometry.voxel_volume * scale / 1000


def _add_segments(correction: vtkMRMLSegmentationNode, node: vtkMRMLSegmentationNode) -> None:
    """Copy to a segmentation the segments that the user has added to its correction."""
    import slicer

    source, target = correction.GetSegmentation(), node.GetSegmentation()
    for identifier in source.GetSegmentIDs():
        if identifier not in (STRUCTURE, OTHERS):
            segment = slicer.vtkSegment()
            segment.DeepCopy(source.GetSegment(identifier))
            target.AddSegment(segment, target.GenerateUniqueSegmentID(identifier))


# --- what is shown, and what was before


def _with_notes(scene: vtkMRMLScene) -> list[vtkMRMLSegmentationNode]:
    """Return the nodes with notes of a correction: it, and its clones."""
    kind = "vtkMRMLSegmentationNode"
    nodes = (scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind)))
    return [node for node in nodes if node.GetAttribute(_NOTES) is not None]


def _is_noted(correction: vtkMRMLNode) -> bool:
    """Return whether a segmentation refers to a node as its correction. It does not refer to clones."""
    node = owner_of(correction)
    return node is not None and noted(node, _NODE, "vtkMRMLSegmentationNode") is correction


def _corrected_by(correction: vtkMRMLSegmentationNode) -> tuple[vtkMRMLSegmentationNode, str]:
    """Return the segmentation of a correction, and the segment.

    :raises ImageError: if it is not there any more, or is another structure.
    """
    node, notes = owner_of(correction), _notes(correction)
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        raise ImageError("The segmentation that was corrected is not in the scene any more.")
    segment = node.GetSegmentation().GetSegment(notes["segment"])
    if segment is None or (segment.GetName() or "") != notes["name"]:
        raise ImageError(f"There is no structure {notes['name']} in {node.GetName()} any more.")
    return node, notes["segment"]


def _notes(correction: vtkMRMLNode) -> dict[str, Any]:
    """Return what was noted on a correction. A scene from elsewhere is not trusted."""
    try:
        notes = json.loads(correction.GetAttribute(_NOTES) or "{}")
    except (ValueError, RecursionError):
        notes = {}
    notes = notes if isinstance(notes, dict) else {}
    numbers = {key: value for key, value in notes.items() if isinstance(value, int) and 0 <= value < 256}
    return numbers | {key: str(notes.get(key) or "") for key in ("segment", "name")}


def _show_outlines(node: vtkMRMLSegmentationNode, segment_id: str) -> dict[str, bool]:
    """Show a segmentation in outlines, without one segment, and return how it was shown."""
    display: vtkMRMLSegmentationDisplayNode | None = node.GetDisplayNode()
    if display is None:
        return {}
    before = {
        "fill": bool(display.GetVisibility2DFill()),
        "outline": bool(display.GetVisibility2DOutline()),
        "visible": bool(display.GetSegmentVisibility(segment_id)),
    }
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(True)
    display.SetSegmentVisibility(segment_id, False)
    return before


def _end(correction: vtkMRMLNode) -> None:
    """Show the segmentation and set the Segment Editor as they were before. The node is no correction any longer."""
    node, notes = owner_of(correction), _notes(correction)
    correction.RemoveAttribute(_NOTES)
    for clone in _with_notes(correction.GetScene()):
        if not _is_noted(clone):
            clone.RemoveAttribute(_NOTES)
    if "mask" in notes:
        editor = editor_node(correction.GetScene())
        if editor.GetSegmentationNode() is correction:
            editor.SetAndObserveSegmentationNode(None)
        editor.SetMaskMode(notes["mask"])
        editor.SetOverwriteMode(notes.get("overwrite", editor.OverwriteAllSegments))
    display = None if node is None else node.GetDisplayNode()
    if node is not None and display is not None and "fill" in notes:
        display.SetVisibility2DFill(bool(notes["fill"]))
        display.SetVisibility2DOutline(bool(notes.get("outline", True)))
        if node.GetSegmentation().GetSegment(notes["segment"]) is not None:
            display.SetSegmentVisibility(notes["segment"], bool(notes.get("visible", True)))
    if node is not None:
        node.RemoveNodeReferenceIDs(_NODE)


def _remove(correction: vtkMRMLSegmentationNode) -> None:
    """Remove a correction from the scene, with what belongs to it."""
    scene = correction.GetScene()
    belonging = [correction.GetNthDisplayNode(n) for n in range(correction.GetNumberOfDisplayNodes())]
    for node in (*belonging, correction.GetStorageNode(), correction):
        if node is not None:
            scene.RemoveNode(node)
