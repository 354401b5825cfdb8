# ruff: noqa: F811  fixtures
"""One structure corrected in Slicer's Segment Editor, whose own logic paints here: the others stay as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.scene.correction import (
    OTHERS,
    STRUCTURE,
    begin_correction,
    correction_in,
    discard_correction,
    edit,
    finish_correction,
    forget_correction,
)
from ClassScaleSegLib.scene.segment_editor import are_others_locked, editor_node, lock_others
from ClassScaleSegLib.scene.segmentation_reader import open_structures
from ClassScaleSegLib.scene.surfaces import SURFACE, show_3d
from logic_fixtures import add_segment
from painting import EVERYWHERE, paint
from slicer_application import TURNED, add_volume, application, import_scene, saved_scene, slicer, transform
from test_module_compare import SHAPE, labels, scene, segmentation  # noqa: F401

LIVER, SPLEEN, KIDNEY = "Segment_1", "Segment_2", "Segment_3"
STRIP = (slice(4, 8), slice(0, 14), slice(2, 12))  # z, y, x: through all three, and beyond them


@pytest.fixture
def found(scene):
    """A result with three structures."""
    return segmentation(scene, "Result")


def voxels(node) -> np.ndarray:
    """The label map of a node of one layer."""
    opened = open_structures(node)
    assert not opened.segmentation.more_layers
    return opened.segmentation.labels


def correct(node, segment_id, volume=None):
    correction = begin_correction(node, segment_id)
    edit(correction, volume)
    return correction


def test_painting_stops_at_the_borders_of_all_others(scene, found):
    correction = correct(found, LIVER)
    assert correction.GetName() == "liver (Result)"
    names = [correction.GetSegmentation().GetNthSegment(n).GetName() for n in range(2)]
    assert names == ["liver", "Other structures"]
    paint(STRIP)
    assert (voxels(found) == labels()).all(), "it is taken over at the end"
    done = finish_correction(correction)
    wanted = labels()
    wanted[STRIP] = np.where(wanted[STRIP] == 0, 1, wanted[STRIP])
    assert (voxels(found) == wanted).all() and found.GetSegmentation().GetNumberOfLayers() == 1
    before, after = [np.count_nonzero(one == 1) / 1000 for one in (labels(), wanted)]
    assert done[:4] == (found, "liver", pytest.approx(before), pytest.approx(after)) and done.changed
    assert done.others == () and correction_in(scene) is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationDisplayNode") == 1


def test_what_is_erased_is_background(found):
    correction = correct(found, LIVER)
    paint(EVERYWHERE, "Remove")
    paint((slice(0, 1), slice(0, 3), slice(0, 2)))  # where the label map of the segments does not reach
    finish_correction(correction)
    wanted = np.where(labels() == 1, 0, labels())
    wanted[0, :3, :2] = 1
    assert (voxels(found) == wanted).all()


def test_a_structure_can_be_erased_whole(found):
    correction = correct(found, SPLEEN)
    paint(EVERYWHERE, "Remove")
    assert finish_correction(correction).after_ml == 0
    assert (voxels(found) == np.where(labels() == 2, 0, labels())).all()
    assert found.GetSegmentation().GetSegment(SPLEEN) is not None


def test_a_structure_that_was_not_found_can_be_drawn(found):
    found.GetSegmentation().AddEmptySegment("Empty", "gallbladder")
    correction = correct(found, "Empty")
    paint(STRIP)
    done = finish_correction(correction)
    opened = open_structures(found)
    value = opened.segmentation.table.by_name("gallbladder").value
    drawn = np.zeros(SHAPE, bool)
    drawn[STRIP] = labels()[STRIP] == 0
    assert not opened.segmentation.more_layers
    assert (opened.segmentation.labels == np.where(drawn, value, labels())).all()
    assert done.before_ml == 0 and done.after_ml == pytest.approx(drawn.sum() / 1000)


def test_unlocked_it_takes_voxels_from_others_and_gives_them_back_when_undone(found):
    editor = editor_node(slicer.mrmlScene)
    correction = correct(found, LIVER)
    assert are_others_locked(editor)
    lock_others(editor, False)
    assert not are_others_locked(editor)
    paint((slice(6, 7), slice(1, 3), slice(4, 12)))  # a part of the spleen, and background
    lock_others(editor, True)
    paint(STRIP)
    done = finish_correction(correction)
    wanted = labels()
    wanted[6, 1:3, 4:12] = 1
    wanted[STRIP] = np.where(wanted[STRIP] == 0, 1, wanted[STRIP])
    assert (voxels(found) == wanted).all() and done.others == ("spleen",)


def test_nothing_that_happens_to_the_other_segment_changes_a_structure(found):
    correction = correct(found, LIVER)
    paint(EVERYWHERE, "Remove", OTHERS)
    finish_correction(correction)
    assert (voxels(found) == labels()).all()
    correction = correct(found, LIVER)
    correction.GetSegmentation().RemoveSegment(OTHERS)
    editor = editor_node(slicer.mrmlScene)
    editor.SetOverwriteMode(editor.OverwriteNone)
    paint(EVERYWHERE)
    finish_correction(correction)
    assert (voxels(found) == np.where(labels() == 0, 1, labels())).all()
    correction = correct(found, SPLEEN)
    correction.GetSegmentation().RemoveSegment(STRUCTURE)
    before = voxels(found).copy()
    assert not finish_correction(correction).changed and (voxels(found) == before).all()


@pytest.mark.parametrize("rows", [None, TURNED])
def test_segments_that_overlap_keep_their_overlap(scene, rows):
    """In images of their own, whose first voxels lie elsewhere, and under a transform."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    for first, name in (((2, 2, 2), "a"), ((4, 4, 4), "b"), ((14, 2, 2), "c")):
        add_segment(node, np.ones((4, 4, 4), np.uint8), 1, first, name=name)
    if rows is not None:
        transform(node, rows)
    own = {i: masks(node)[i] for i in node.GetSegmentation().GetSegmentIDs()}
    assert (own["Segment_1"] & own["Segment_2"]).sum() == 8
    correction = correct(node, "Segment_1")
    assert correction.GetParentTransformNode() is node.GetParentTransformNode()
    paint(EVERYWHERE)
    finish_correction(correction)
    after = masks(node)
    assert (after["Segment_2"] == own["Segment_2"]).all() and (after["Segment_3"] == own["Segment_3"]).all()
    others = own["Segment_2"] | own["Segment_3"]
    assert (after["Segment_1"] == (~others | own["Segment_1"])).all()
    correction = correct(node, "Segment_1")
    paint(EVERYWHERE, "Remove")
    finish_correction(correction)
    assert not masks(node)["Segment_1"].any()
    correction = correct(node, "Segment_1")
    lock_others(editor_node(scene), False)
    paint(EVERYWHERE)
    assert finish_correction(correction).others == ("b", "c")
    last = masks(node)
    assert last["Segment_1"].all() and not last["Segment_2"].any() and not last["Segment_3"].any()


@pytest.mark.parametrize("locked", [True, False])
def test_a_structure_grows_within_one_that_contains_it(scene, locked):
    """The liver in the body, beside the spleen."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    for first, size, name in (((0, 0, 0), 20, "body"), ((2, 2, 2), 4, "liver"), ((10, 2, 2), 4, "spleen")):
        add_segment(node, np.ones((size,) * 3, np.uint8), 1, first, name=name)
    body, liver, spleen = node.GetSegmentation().GetSegmentIDs()
    before = masks(node)
    assert before[body].all() and before[liver].sum() == before[spleen].sum() == 64
    correction = correct(node, liver)
    lock_others(editor_node(scene), locked)
    paint((slice(2, 6), slice(2, 6), slice(2, 12)))  # through half of the spleen
    done, after = finish_correction(correction), masks(node)
    wanted = before[liver].copy()
    wanted[2:6, 2:6, 2:12] = True
    taken = wanted & before[spleen]
    assert (after[body] == before[body]).all() and taken.sum() == 32
    assert (after[liver] == (wanted & ~before[spleen] if locked else wanted)).all()
    assert (after[spleen] == (before[spleen] if locked else before[spleen] & ~taken)).all()
    assert done.others == (() if locked else ("spleen",)) and not done.spared


def masks(node) -> dict[str, np.ndarray]:
    opened = open_structures(node)
    return {
        identifier: np.any([layer == value for layer in opened.segmentation.layers], axis=0)
        for value, identifier in opened.ids.items()
    }


def test_segments_that_the_user_adds_are_kept(found):
    correction = correct(found, LIVER)
    correction.GetSegmentation().AddEmptySegment("Segment_2", "cyst")
    lock_others(editor_node(slicer.mrmlScene), False)
    paint((slice(2, 3), slice(3, 5), slice(3, 5)), segment="Segment_2")
    finish_correction(correction)
    names = [row.name for row in open_structures(found).statistics if row.voxels]
    assert names == ["liver", "spleen", "kidney_left", "cyst"]
    assert (masks(found)[LIVER] == ((labels() == 1) & ~masks(found)["Segment_2_1"])).all()
    inside = found.GetSegmentation()
    assert inside.GetNumberOfSegments() == 4 and inside.GetNthSegment(3).GetName() == "cyst"


@pytest.mark.parametrize("unlocked", [False, True])
def test_segments_that_the_user_adds_take_voxels_from_others_if_these_are_unlocked(found, unlocked):
    show_3d(found, [SPLEEN, KIDNEY])
    correction = correct(found, LIVER)
    correction.GetSegmentation().AddEmptySegment("new", "cyst")
    lock_others(editor_node(slicer.mrmlScene), not unlocked)
    box = (slice(6, 7), slice(0, 4), slice(3, 9))  # a part of the spleen, and background
    paint(box, segment="new")
    done = finish_correction(correction)
    wanted = labels()
    wanted[box] = 4 if unlocked else np.where(labels()[box] == 0, 4, labels()[box])
    assert (voxels(found) == wanted).all()
    assert done.others == (("spleen",) if unlocked else ()) and not done.changed
    polygons = [found.GetSegmentation().GetSegment(i).GetRepresentation(SURFACE) for i in (SPLEEN, KIDNEY)]
    assert all(surface.GetNumberOfPolys() for surface in polygons)


def test_only_the_structure_is_filled_meanwhile(scene, found):
    display = found.GetDisplayNode()
    display.SetVisibility2DOutline(False)
    for end in (finish_correction, discard_correction):
        correction = correct(found, LIVER)
        shown = correction.GetDisplayNode()
        assert shown.GetSegmentVisibility(STRUCTURE) and not shown.GetSegmentVisibility(OTHERS)
        assert not display.GetVisibility2DFill() and display.GetVisibility2DOutline()
        assert not display.GetSegmentVisibility(LIVER) and display.GetSegmentVisibility(SPLEEN)
        end(correction)
        assert display.GetVisibility2DFill() and not display.GetVisibility2DOutline()
        assert display.GetSegmentVisibility(LIVER)
    correction = correct(found, LIVER)
    forget_correction(correction)  # as the panel does when the user removes it
    scene.RemoveNode(correction)
    assert display.GetVisibility2DFill() and display.GetSegmentVisibility(LIVER)
    forget_correction(found)


def test_the_segment_editor_edits_the_structure_on_its_volume_and_is_as_before_afterwards(scene, found):
    volume, editor = add_volume(np.zeros(SHAPE, np.int16), "CT"), editor_node(scene)
    editor.SetMaskMode(found.EditAllowedInsideAllSegments)
    editor.SetOverwriteMode(editor.OverwriteVisibleSegments)
    correction = correct(found, KIDNEY, volume)
    edit(correction, volume)
    assert editor is editor_node(scene) and editor.GetSegmentationNode() is correction
    assert editor.GetSourceVolumeNode() is volume and editor.GetSelectedSegmentID() == STRUCTURE
    assert editor.GetMaskMode() == found.EditAllowedOutsideAllSegments
    assert editor.GetOverwriteMode() == editor.OverwriteNone
    discard_correction(correction)
    assert editor.GetSegmentationNode() is None
    assert editor.GetMaskMode() == found.EditAllowedInsideAllSegments
    assert editor.GetOverwriteMode() == editor.OverwriteVisibleSegments
    assert (voxels(found) == labels()).all()


def test_surfaces_follow_the_voxels(found):
    show_3d(found, [LIVER, SPLEEN])
    surface = {i: found.GetSegmentation().GetSegment(i).GetRepresentation(SURFACE) for i in (LIVER, SPLEEN, KIDNEY)}
    assert [surface[i].GetNumberOfPolys() > 0 for i in surface] == [True, True, False]
    correction = correct(found, LIVER)
    lock_others(editor_node(slicer.mrmlScene), False)
    paint((slice(0, 8), slice(1, 4), slice(2, 8)))
    finish_correction(correction)
    segments = {i: found.GetSegmentation().GetSegment(i).GetRepresentation(SURFACE) for i in surface}
    reached = [segments[LIVER].GetBounds()[4], surface[LIVER].GetBounds()[4]]
    assert reached[0] < reached[1] - 0.5 and segments[SPLEEN] is not surface[SPLEEN]
    assert segments[SPLEEN].GetNumberOfPolys() and not segments[KIDNEY].GetNumberOfPolys()
    correction = correct(found, KIDNEY)
    paint(STRIP)
    finish_correction(correction)
    assert found.GetSegmentation().GetSegment(KIDNEY).GetRepresentation(SURFACE).GetNumberOfPolys() == 0
    assert found.GetSegmentation().GetSegment(LIVER).GetRepresentation(SURFACE) is segments[LIVER]


def test_a_correction_that_was_saved_with_the_scene_goes_on(scene, found, tmp_path):
    correction = correct(found, LIVER)
    paint(STRIP)
    held = {node.GetName(): node.GetSegmentation() for node in (found, correction)}
    text = saved_scene()
    scene.Clear()
    import_scene(text)
    application.processEvents()
    for name, inside in held.items():  # the files are not part of the text
        scene.GetFirstNodeByName(name).SetAndObserveSegmentation(inside)
    again = scene.GetFirstNodeByName("Result")
    done = finish_correction(correction_in(scene))
    assert done.node is again and (voxels(again)[STRIP] > 0).all()
    assert again.GetDisplayNode().GetVisibility2DFill() and again.GetDisplayNode().GetSegmentVisibility(LIVER)


@pytest.mark.parametrize("how", ["structure gone", "renamed", "segmentation gone", "notes"])
def test_what_was_painted_is_not_lost_if_the_structure_is_gone(scene, found, how):
    correction = correct(found, LIVER)
    paint(STRIP)
    if how == "structure gone":
        found.GetSegmentation().RemoveSegment(LIVER)
    elif how == "renamed":
        found.GetSegmentation().GetSegment(LIVER).SetName("heart")
    elif how == "segmentation gone":
        scene.RemoveNode(found)
    else:
        correction.SetAttribute("ClassScaleSeg.Correcting", "[[")
    with pytest.raises(ImageError, match=r"any more. What you have painted is the segmentation liver \(Result\)."):
        finish_correction(correction)
    assert correction_in(scene) is None and scene.IsNodePresent(correction)
    assert correction.GetSegmentation().GetSegmentIDs() == (STRUCTURE,)
    if how in ("structure gone", "renamed"):
        assert found.GetDisplayNode().GetVisibility2DFill()


@pytest.mark.parametrize("how", ["Copy", "CopyContent"])
def test_a_clone_of_a_correction_is_an_ordinary_segmentation(scene, found, how):
    correction = correct(found, LIVER)
    paint(STRIP)
    clones = [slicer.vtkMRMLSegmentationNode() for _ in range(2)]
    for clone in clones:
        getattr(clone, how)(correction)
        scene.AddNode(clone)
    forget_correction(clones[0])
    scene.RemoveNode(clones[0])
    assert correction_in(scene) is correction and not found.GetDisplayNode().GetVisibility2DFill()
    assert finish_correction(correction).changed and correction_in(scene) is None
    assert scene.IsNodePresent(clones[1]) and clones[1].GetSegmentation().GetNumberOfSegments() == 2
    correct(found, SPLEEN)


def test_numbers_in_a_scene_from_elsewhere_are_not_trusted(found):
    correction = correct(found, LIVER)
    notes = json.loads(correction.GetAttribute("ClassScaleSeg.Correcting"))
    correction.SetAttribute("ClassScaleSeg.Correcting", json.dumps(notes | {"mask": 10**30, "overwrite": -(10**30)}))
    paint(STRIP)
    assert finish_correction(correction).changed
    assert correction_in(slicer.mrmlScene) is None and found.GetDisplayNode().GetVisibility2DFill()


def test_a_segmentation_that_has_become_surfaces_meanwhile_stays_as_it_is(scene, found):
    """Slicer's logic would empty the structure, and add nothing."""
    show_3d(found, [LIVER, SPLEEN, KIDNEY])
    correction = correct(found, LIVER)
    paint(STRIP)
    found.GetSegmentation().SetSourceRepresentationName(SURFACE)
    surface = found.GetSegmentation().GetSegment(LIVER).GetRepresentation(SURFACE)
    with pytest.raises(ImageError, match=r"Result does not consist of label maps.* the segmentation liver \(Result\)."):
        finish_correction(correction)
    assert found.GetSegmentation().GetSegment(LIVER).GetRepresentation(SURFACE) is surface
    assert surface.GetNumberOfPolys() and scene.IsNodePresent(correction)
    assert masks(correction)[STRUCTURE].any() and correction_in(scene) is None


def test_what_cannot_be_corrected_is_said_before_anything_changes(scene, found):
    before = scene.GetNumberOfNodes()
    with pytest.raises(ImageError, match="Result has no segment Segment_9"):
        begin_correction(found, "Segment_9")
    empty = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty")
    empty.GetSegmentation().AddEmptySegment("One", "one")
    with pytest.raises(ImageError, match="There is no structure in Empty"):
        begin_correction(empty, "One")
    correct(found, LIVER)
    with pytest.raises(ImageError, match=r"liver \(Result\) is still being corrected"):
        begin_correction(found, SPLEEN)
    discard_correction(correction_in(scene))
    scene.RemoveNode(empty)
    show_3d(found, [LIVER])
    found.GetSegmentation().SetSourceRepresentationName(SURFACE)
    with pytest.raises(ImageError, match="Result does not consist of label maps"):
        begin_correction(found, LIVER)
    assert scene.GetNumberOfNodes() == before + 1, "the settings of the Segment Editor"
