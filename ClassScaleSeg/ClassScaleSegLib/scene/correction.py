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

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ImageError
from ..images.segmentation import Segmentation
from ..labels.label import Label
from ..labels.table import LabelTable
from .corrected import note_corrected
from .correction_notes import (
    OTHERS,
    STRUCTURE,
    add_notes,
    begin_notes,
    correction_in,
    end_notes,
    is_correction,
    notes_of,
    owner_in,
    take_look,
)
from .correction_voxels import (
    containing,
    divided,
    fingerprint,
    painted,
    print_of_others,
    take_from_other_grids,
    take_voxels,
    value_of,
    with_room,
)
from .results import put_beside, removed_on_failure
from .segment_editor import Change, change_segment, editor_node, lock_others, select_segment
from .segmentation_node import fill_segmentation_node, shared_image
from .segmentation_reader import LABELMAP, open_segmentation, open_structures
from .sequence import item_to_change, shown_item
from .surfaces import give_surfaces, take_surfaces
from .undone_on_failure import undone_on_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

    from ..images.geometry import Geometry

__all__ = [
    "OTHERS",
    "STRUCTURE",
    "Corrected",
    "begin_correction",
    "correction_in",
    "discard_correction",
    "edit",
    "finish_correction",
    "forget_correction",
]
_GREY = (128, 128, 128)


class Corrected(NamedTuple):
    """What a correction has changed.

    :ivar node: the segmentation.
    :ivar name: of the structure.
    :ivar before_ml: volume of the structure before the correction, in mL.
    :ivar after_ml: and afterwards.
    :ivar others: names of the structures that have lost voxels to it, or to segments that the user has added.
    :ivar changed: whether any voxel has changed.
    :ivar former_name: of the structure, if the user has given it another one; else empty.
    :ivar relabelled: whether the user has given it another name or colour, or other codes.
    :ivar new: names of the segments that the user has added.
    :ivar spared: whether painted voxels were left to other structures that have changed meanwhile.
    """

    node: vtkMRMLSegmentationNode
    name: str
    before_ml: float
    after_ml: float
    others: tuple[str, ...]
    changed: bool
    former_name: str
    relabelled: bool
    new: tuple[str, ...]
    spared: bool


def begin_correction(node: vtkMRMLSegmentationNode, segment_id: str) -> vtkMRMLSegmentationNode:
    """Return a new node of two segments, ``STRUCTURE`` and ``OTHERS``, on the whole grid of a segmentation.

    If segments have several grids, it is that of the structure. Until the end, the segmentation is shown in outlines,
    without the structure. Of a sequence, the frame that is shown is corrected.

    :param segment_id: of the structure, which may be empty.
    :raises ImageError: if another structure of the scene is being corrected, there is no such segment, the segmentation
        does not consist of label maps, its sequence has no frame here, or the memory is not enough. The scene is not
        changed.
    """
    scene, name = node.GetScene(), node.GetName() or "Segmentation"
    current = correction_in(scene)
    if current is not None:
        raise ImageError(f"{current.GetName()} is still being corrected. Finish that first, or discard it.")
    if node.GetSegmentation().GetSegment(segment_id) is None:
        raise ImageError(f"{name} has no segment {segment_id}. Choose one of its segments.")
    item = shown_item(node)
    _refuse_surfaces(node)
    opened = open_structures(node, local=True, grid_of=segment_id)
    value = value_of(opened, segment_id)
    own, others = divided(opened, value)
    whole = opened.segmentation
    structure = replace(whole.table[value], value=1, id=STRUCTURE)
    table = LabelTable((structure, Label(2, OTHERS, "Other structures", _GREY)))
    # where the structure overlaps others, it can be erased
    both = Segmentation(np.where(own, 1, others * np.uint16(2)).astype(np.uint16), table, whole.geometry)
    with removed_on_failure(scene):
        correction = scene.AddNewNodeByClass(
            "vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{structure.name} ({name})")
        )
        put_beside(correction, node)
        fill_segmentation_node(correction, both, keep_empty=True)
        correction.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    correction.GetDisplayNode().SetSegmentVisibility(OTHERS, False)
    voxels = fingerprint(own | others, whole.geometry)
    begin_notes(node, correction, segment_id, item, print_of_others(opened, others, value), voxels)
    return correction


def finish_correction(correction: vtkMRMLSegmentationNode) -> Corrected:
    """Take over what the user has painted into the structure of the segmentation, and remove the correction.

    A voxel of another structure counts only if the user has taken it away from ``OTHERS``; so nothing that happened to
    other segments of the correction changes them. If others have changed in the segmentation meanwhile, such as by a
    run, none of them loses a voxel. Segments that the user has added are added to the segmentation. The structure gets
    the name, colour and codes that the user has given it; its id and its label value stay.

    :raises ImageError: if the segmentation or the structure is not there any more, or the segmentation has become
        surfaces, or lost its transform and was filled anew, so that its coordinates are others. What the user has
        painted stays as a segmentation of its own, which is no correction any longer.
    :raises MemoryError: if the memory is not enough. Nothing has changed, and the correction goes on.
    """
    try:
        node = owner_in(correction)
        with item_to_change(node, notes_of(correction)["item"]) as held:
            done = _take_over(correction, held, node.GetParentTransformNode() is correction.GetParentTransformNode())
    except ImageError as error:
        end_notes(correction)
        correction.GetSegmentation().RemoveSegment(OTHERS)
        raise ImageError(f"{error} What you have painted is the segmentation {correction.GetName()}.") from error
    end_notes(correction)
    _remove(correction)
    return done._replace(node=node)


def _take_over(correction: vtkMRMLSegmentationNode, node: vtkMRMLSegmentationNode, in_place: bool) -> Corrected:
    """Take over what the user has painted into a segmentation, or a copy of a frame of it.

    :param in_place: whether the segmentation is under the same transform as the correction.
    :raises ImageError: as :func:`finish_correction`. The segmentation is not changed.
    """
    notes, segment_id = notes_of(correction), notes_of(correction)["segment"]
    target = node.GetSegmentation().GetSegment(segment_id)
    if target is None or (target.GetName() or "") != notes["name"]:
        raise ImageError(f"There is no structure {notes['name']} in {node.GetName()} any more.")
    _refuse_surfaces(node)
    seen = open_segmentation(correction, local=True, grid_of=STRUCTURE)
    opened = with_room(open_structures(node, local=True, grid_of=segment_id), seen, STRUCTURE)
    value, (geometry, table) = value_of(opened, segment_id), (opened.segmentation.geometry, opened.segmentation.table)
    own, others = divided(opened, value)
    # one that is only moved has its voxels where they were; after hardening a transform they have other coordinates
    if not in_place and fingerprint(own | others, geometry) != notes["voxels"]:
        raise ImageError(f"{node.GetName()} has lost its transform meanwhile, or has got another one.")
    more = [each for each in correction.GetSegmentation().GetSegmentIDs() if each not in (STRUCTURE, OTHERS)]
    drawn, left, *masks = painted(correction, seen, (STRUCTURE, OTHERS, *more), geometry)
    unchanged = print_of_others(opened, others, value) == notes["others"]
    if left is None or not unchanged:  # what is left says nothing of the structures
        left = others
    new = own if drawn is None else drawn & (~others | own | ~left)
    removed, added = own & ~new, new & ~own
    taken = added & others
    replaced = np.any([others & ~left & ~taken & mask for mask in masks], axis=0)  # by segments that the user has added
    away = taken | replaced
    around = containing(opened, own, value)
    losing = np.unique([layer[away] for layer in opened.segmentation.layers]).tolist()
    names = {opened.ids[each]: table[each].name for each in losing if each not in (0, value, *around)}
    with undone_on_failure(node, [segment_id, *names]):
        shown = take_surfaces(node, [segment_id, *names])
        # Slicer's own logic would take the voxels from the structures around it too
        lost = (take_voxels if around else take_from_other_grids)(node, names, taken, geometry)
        take = Change.ADD if lost or around else Change.ADD_AND_TAKE
        for mask, change in ((removed, Change.REMOVE), (added & ~taken, Change.ADD), (taken, take)):
            if mask.any():
                change_segment(node, segment_id, shared_image(mask.astype(np.uint8), geometry), change)
        lost_more = take_voxels(node, names, replaced, geometry) if replaced.any() else {}
        give_surfaces(node, shown)
        _add_segments(correction, node, more)
    relabelled, changed = take_look(correction, target), bool(removed.any() or added.any())
    if changed:
        note_corrected(node, segment_id)
    before_ml, after_ml = (float(np.count_nonzero(mask)) * _voxel_ml(correction, geometry) for mask in (own, new))
    name = target.GetName() or ""
    return Corrected(
        node,
        name,
        before_ml,
        after_ml,
        tuple(names[each] for each in names if lost.get(each, True) or lost_more.get(each, False)),
        changed=changed,
        former_name=notes["name"] if name != notes["name"] else "",
        relabelled=relabelled,
        new=tuple(correction.GetSegmentation().GetSegment(each).GetName() or each for each in more),
        spared=bool(not unchanged and drawn is not None and (drawn & others & ~own).any()),
    )


def edit(correction: vtkMRMLSegmentationNode, volume: vtkMRMLScalarVolumeNode | None) -> None:
    """Let the module Segment Editor edit the structure of a correction, with all others locked.

    :param volume: that is shown, and whose intensities the tools use.
    """
    editor = editor_node(correction.GetScene())
    add_notes(correction, mask=editor.GetMaskMode(), overwrite=editor.GetOverwriteMode())
    role = correction.GetReferenceImageGeometryReferenceRole()
    correction.SetNodeReferenceID(role, None if volume is None else volume.GetID())
    select_segment(editor, correction, volume, STRUCTURE)
    lock_others(editor, True)


def discard_correction(correction: vtkMRMLSegmentationNode) -> None:
    """Remove a correction, and leave the segmentation as it was."""
    end_notes(correction)
    _remove(correction)


def forget_correction(node: vtkMRMLNode) -> None:
    """Show a segmentation as before if ``node``, which is about to be removed from the scene, is its correction."""
    if is_correction(node):
        end_notes(node)


# --- the parts of it


def _refuse_surfaces(node: vtkMRMLSegmentationNode) -> None:
    """:raises ImageError: if a segmentation does not consist of label maps: Slicer would change it without success."""
    name = node.GetName() or "Segmentation"
    if node.GetSegmentation().GetSourceRepresentationName() != LABELMAP:
        raise ImageError(
            f"{name} does not consist of label maps, which alone can be painted. In the module Segmentations, make "
            f"{LABELMAP} its source representation."
        )


def _voxel_ml(node: vtkMRMLSegmentationNode, geometry: Geometry) -> float:
    """Return the volume of a voxel in the world, in mL."""
    import slicer

    transform, scale = node.GetParentTransformNode(), 1.0
    if transform is not None and transform.IsTransformToWorldLinear():
        scale = abs(float(np.linalg.det(slicer.util.arrayFromTransformMatrix(transform, toWorld=True)[:3, :3])))
    return geometry.voxel_volume * scale / 1000


def _add_segments(
    correction: vtkMRMLSegmentationNode, node: vtkMRMLSegmentationNode, segment_ids: Sequence[str]
) -> None:
    """Copy to a segmentation the segments that the user has added to its correction."""
    import slicer

    source, target = correction.GetSegmentation(), node.GetSegmentation()
    for identifier in segment_ids:
        segment = slicer.vtkSegment()
        segment.DeepCopy(source.GetSegment(identifier))
        target.AddSegment(segment, target.GenerateUniqueSegmentID(identifier))


def _remove(correction: vtkMRMLSegmentationNode) -> None:
    """Remove a correction from the scene, with what belongs to it."""
    scene = correction.GetScene()
    belonging = [correction.GetNthDisplayNode(n) for n in range(correction.GetNumberOfDisplayNodes())]
    for node in (*belonging, correction.GetStorageNode(), correction):
        if node is not None:
            scene.RemoveNode(node)
