# ruff: noqa: F811  fixtures
"""Corrections of segmentations that change meanwhile, lie on several grids, or are frames of a sequence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, ImageError, Segmentation
from ClassScaleSegLib.scene import correction as correction_module
from ClassScaleSegLib.scene.corrected import corrected_structures
from ClassScaleSegLib.scene.correction import (
    STRUCTURE,
    begin_correction,
    correction_in,
    discard_correction,
    finish_correction,
)
from ClassScaleSegLib.scene.correction_voxels import fingerprint
from ClassScaleSegLib.scene.results import show_result
from ClassScaleSegLib.scene.segment_editor import Change, change_segment, editor_node, lock_others
from ClassScaleSegLib.scene.segmentation_node import shared_image
from ClassScaleSegLib.scene.segmentation_reader import LABELMAP, open_structures
from ClassScaleSegLib.scene.sequence import add_segmentations
from ClassScaleSegLib.scene.source_volumes import first_volume, remember_volumes
from ClassScaleSegLib.scene.surfaces import SURFACE, show_3d
from logic_fixtures import add_segment
from painting import EVERYWHERE, paint
from slicer_application import TURNED, add_volume, slicer, transform, vtk_to_numpy
from test_correction import KIDNEY, LIVER, SPLEEN, STRIP, correct, found, masks, voxels  # noqa: F401
from test_module_compare import SHAPE, labels, scene, segmentation  # noqa: F401

ENTRY = "A~SCT^123037004^Anatomical Structure~SCT^80891009^Heart~^^~B~^^~^^"


# --- the segmentation changes


@pytest.mark.parametrize("unlocked", [False, True])
def test_structures_that_a_run_has_changed_meanwhile_lose_nothing(found, unlocked):
    correction = correct(found, LIVER)
    lock_others(editor_node(slicer.mrmlScene), not unlocked)
    paint(STRIP)
    larger = labels()
    larger[5:9, 1:7, 4:9] = 2  # the spleen has grown into what is painted
    change_segment(found, SPLEEN, shared_image((larger == 2).astype(np.uint8), grid_of(found)), Change.ADD)
    done = finish_correction(correction)
    wanted = larger.copy()
    wanted[STRIP] = np.where(larger[STRIP] == 0, 1, larger[STRIP])
    assert (voxels(found) == wanted).all()
    assert done.spared and done.others == ()


def test_a_run_that_replaces_the_result_meanwhile_keeps_what_it_gives_to_others(scene, found):
    volume = add_volume(np.zeros(SHAPE, np.int16), "CT")
    correction = correct(found, LIVER)
    paint(STRIP)
    anew = np.roll(labels(), 2, axis=1)
    opened = open_structures(found)
    table, geometry = opened.segmentation.table, opened.segmentation.geometry
    result = Segmentation(anew, table, geometry)
    show_result(found, (result, result.statistics()), volume, False, True)
    done = finish_correction(correction)
    painted = labels() == 1
    painted[STRIP] |= labels()[STRIP] == 0
    others = anew > 1
    assert (voxels(found) == np.where(others, anew, painted)).all()
    assert done.spared and (painted & others).any() and done.before_ml == np.count_nonzero(anew == 1) / 1000


def test_a_border_between_others_that_has_moved_meanwhile_is_a_change(found):
    correction = correct(found, LIVER)
    lock_others(editor_node(slicer.mrmlScene), False)
    paint(STRIP)
    moved = labels()
    moved[7, 1:6, 4:8] = 3  # a part of the spleen
    change_segment(found, KIDNEY, shared_image((moved == 3).astype(np.uint8), grid_of(found)), Change.ADD_AND_TAKE)
    done = finish_correction(correction)
    wanted = moved.copy()
    wanted[STRIP] = np.where(moved[STRIP] == 0, 1, moved[STRIP])
    assert (voxels(found) == wanted).all() and done.spared and done.others == ()


def test_a_mask_is_known_again_on_another_part_of_its_lattice(found):
    mask, whole = labels() > 1, grid_of(found)
    part = replace(whole, size=(12, 13, 11), origin=tuple(whole.origin + whole.axes @ (3, 1, 1) + 1e-5))
    assert fingerprint(mask[1:, 1:, 3:15], part) == fingerprint(mask, whole)
    for axis in range(3):
        assert fingerprint(np.roll(mask, 1, axis), whole) != fingerprint(mask, whole)


def grid_of(node):
    return open_structures(node).segmentation.geometry


def test_a_change_of_the_structure_itself_gives_way_to_what_is_painted(found):
    correction = correct(found, LIVER)
    lock_others(editor_node(slicer.mrmlScene), False)
    paint(STRIP)
    corner = np.zeros(SHAPE, np.uint8)
    corner[:, -1] = 1
    change_segment(found, LIVER, shared_image(corner, grid_of(found)), Change.ADD)
    done = finish_correction(correction)
    wanted = labels()
    wanted[STRIP] = 1
    assert (voxels(found) == wanted).all() and not done.spared and done.others == ("spleen", "kidney_left")


@pytest.mark.parametrize("how", ["hardened", "run", "taken off", "moved"])
@pytest.mark.parametrize("alone", [False, True])
def test_nothing_is_moved_if_the_transform_changes_meanwhile(scene, found, how, alone):
    """Hardened, and filled by a run, the same voxels have other coordinates; only moved, they have not."""
    volume = add_volume(np.zeros(SHAPE, np.int16), "CT")
    if alone:
        for identifier in (SPLEEN, KIDNEY):
            found.GetSegmentation().RemoveSegment(identifier)
    moved = transform(found, ((1, 0, 0, 5), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)))
    opened = open_structures(found)
    correction = correct(found, LIVER)
    paint(STRIP)
    if how == "hardened":
        found.HardenTransform()
    elif how == "run":
        show_result(found, opened[:2], volume, False, True)
    elif how == "taken off":
        found.SetAndObserveTransformNodeID(None)
    else:
        transform(found, TURNED)
    if how in ("hardened", "run"):
        with pytest.raises(ImageError, match=r"lost its transform meanwhile.* is the segmentation liver \(Result\)."):
            finish_correction(correction)
        assert open_structures(found).statistics == opened.statistics and correction_in(scene) is None
        assert correction.GetParentTransformNode() is moved and masks(correction)[STRUCTURE][STRIP].any()
    else:
        before = labels() if not alone else np.where(labels() == 1, 1, 0)
        wanted = before.copy()
        wanted[STRIP] = np.where(before[STRIP] == 0, 1, before[STRIP])
        assert finish_correction(correction).changed and (voxels(found) == wanted).all()


@pytest.mark.parametrize("spacing", [1.0, 0.5])
def test_what_is_painted_outside_of_the_segmentation_is_taken_over(found, spacing):
    """As after Specify geometry in the Segment Editor."""
    correction = correct(found, LIVER)
    size = round(24 / spacing)
    image, step = np.zeros((size,) * 3, np.uint8), round(1 / spacing)
    image[-3 * step : -step, 2 * step : 4 * step, :step] = 1
    away = -4.5 + spacing / 2  # of the first voxel, so that the image begins four voxels of 1 mm earlier
    geometry = Geometry((size,) * 3, (spacing,) * 3, (-away, -away, away), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    image |= np.pad(labels() == 1, [(4, 24 - 4 - n) for n in SHAPE]).repeat(step, 0).repeat(step, 1).repeat(step, 2)
    correction.GetSegmentation().GetSegment(STRUCTURE).AddRepresentation(LABELMAP, shared_image(image, geometry))
    done = finish_correction(correction)
    now = open_structures(found).segmentation
    assert done.changed and done.after_ml == pytest.approx(np.count_nonzero(labels() == 1) / 1000 + 4 / 1000)
    assert now.geometry.size == (20, 16, 19) and now.geometry.origin == (4, 2, 0)
    wanted = np.zeros((19, 16, 20), np.uint16)
    wanted[:12, 2:, 4:], wanted[17:19, :2, :1] = labels(), 1
    assert (now.labels == wanted).all()


def test_what_is_painted_is_taken_over_where_the_grid_of_the_segmentation_has_become_smaller(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    for first, name in (((4, 4, 4), "one"), ((0, 0, 0), "two"), ((12, 12, 12), "three")):
        add_segment(node, np.ones((2, 2, 2), np.uint8), 1, first, name=name)
    correction = correct(node, "Segment_1")
    paint(EVERYWHERE)
    for identifier in ("Segment_2", "Segment_3"):
        node.GetSegmentation().RemoveSegment(identifier)
    assert finish_correction(correction).after_ml == pytest.approx((14**3 - 16) / 1000)
    assert [row.voxels for row in open_structures(node).statistics] == [14**3 - 16]


# --- name, colour and codes


def test_name_colour_and_codes_that_the_user_gives_are_taken_over(found):
    before = found.GetSegmentation().GetSegment(LIVER)
    color, entry, value = before.GetColor(), before.GetTerminology(), before.GetLabelValue()
    correction = correct(found, LIVER)
    correction.GetSegmentation().GetSegment(STRUCTURE).SetName("heart")
    done = finish_correction(correction)
    segment = found.GetSegmentation().GetSegment(LIVER)
    assert (segment.GetName(), segment.GetColor(), segment.GetTerminology()) == ("heart", color, entry)
    assert segment.GetLabelValue() == value and (voxels(found) == labels()).all()
    assert (done.name, done.former_name, done.relabelled, done.changed) == ("heart", "liver", True, False)
    correction = correct(found, LIVER)
    painted = correction.GetSegmentation().GetSegment(STRUCTURE)
    painted.SetColor(0.2, 0.4, 0.6)
    painted.SetTerminology(ENTRY)
    done = finish_correction(correction)
    label = open_structures(found).segmentation.table[1]
    assert (label.name, label.color, label.type.value) == ("heart", (51, 102, 153), "80891009")
    assert done.relabelled and done.former_name == ""


def test_what_the_user_does_not_rename_keeps_what_it_has_now(found):
    correction = correct(found, LIVER)
    found.GetSegmentation().GetSegment(LIVER).SetColor(0.2, 0.4, 0.6)
    correction.GetSegmentation().GetSegment(STRUCTURE).SetName(" ")
    paint(STRIP)
    assert not finish_correction(correction).relabelled
    segment = found.GetSegmentation().GetSegment(LIVER)
    assert segment.GetName() == "liver" and segment.GetColor() == (0.2, 0.4, 0.6)


# --- several grids


def on_two_grids(scene, fine_first: bool):
    """Segments "coarse" and "neighbour" of 1 mm, and "fine" of 0.5 mm; they touch, and none overlaps another."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    parts = [(np.ones((8, 8, 8), np.uint8), (8, 8, 8), 0.5, "fine")]
    for first, name in (((8, 4, 4), "coarse"), ((4, 8, 4), "neighbour")):
        parts.append((np.ones((4, 4, 4), np.uint8), first, 1.0, name))
    for array, first, spacing, name in parts if fine_first else parts[::-1]:
        add_segment(node, array, 1, first, spacing, name)
    inside = node.GetSegmentation()
    return node, {inside.GetSegment(identifier).GetName(): identifier for identifier in inside.GetSegmentIDs()}


def spacings_and_volumes(node) -> dict[str, tuple[float, float]]:
    """The voxel size of each segment in mm, and its volume in mm^3, each on its own grid."""
    found = {}
    for identifier in node.GetSegmentation().GetSegmentIDs():
        segment = node.GetSegmentation().GetSegment(identifier)
        image = segment.GetRepresentation(LABELMAP)
        count = np.count_nonzero(vtk_to_numpy(image.GetPointData().GetScalars()) == segment.GetLabelValue())
        found[segment.GetName()] = (image.GetSpacing()[0], count * image.GetSpacing()[0] ** 3)
    return found


@pytest.mark.parametrize("fine_first", [True, False])
@pytest.mark.parametrize("name", ["fine", "coarse"])
def test_each_structure_keeps_its_own_grid(scene, name, fine_first):
    node, ids = on_two_grids(scene, fine_first)
    before = spacings_and_volumes(node)
    correction = correct(node, ids[name])
    spacing = before[name][0]
    assert open_structures(correction).segmentation.geometry.spacing == (spacing,) * 3
    paint(EVERYWHERE)
    done = finish_correction(correction)
    after = spacings_and_volumes(node)
    assert {other: after[other] for other in after if other != name} == {
        other: before[other] for other in before if other != name
    }
    assert after[name] == (spacing, pytest.approx(1000 * done.after_ml)) and done.after_ml > done.before_ml


@pytest.mark.parametrize("fine_first", [True, False])
@pytest.mark.parametrize("name", ["fine", "coarse"])
def test_voxels_are_taken_from_others_on_their_own_grids(scene, name, fine_first):
    node, ids = on_two_grids(scene, fine_first)
    before = spacings_and_volumes(node)
    correction = correct(node, ids[name])
    lock_others(editor_node(scene), False)
    for plane in (0, 1):
        paint((slice(None), slice(None), slice(plane, None, 4)))  # two of four planes along x
    done = finish_correction(correction)
    after = spacings_and_volumes(node)
    assert {other: size for other, (size, _volume) in after.items()} == {
        other: size for other, (size, _volume) in before.items()
    }
    losing = [other for other in before if after[other][1] < before[other][1]]
    assert sorted(done.others) == sorted(losing) and set(losing) == set(before) - {name}
    assert all(after[other][1] > 0.3 * before[other][1] for other in losing)


# --- frames of a sequence


@pytest.fixture
def frames(scene):
    """A sequence of three results, its browser and its volume."""
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "CT frames")
    for frame in range(3):
        volume = add_volume(np.full(SHAPE, frame, np.int16), "CT")
        sequence.SetDataNodeAtValue(volume, f"{frame / 2}")
        scene.RemoveNode(volume)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    go_to(browser, 0)
    volume = browser.GetProxyNode(sequence)
    nodes = [segmentation(scene, "Result") for _ in range(3)]
    node = add_segmentations(volume, nodes, "Result")
    for each in nodes:
        scene.RemoveNode(each)
    remember_volumes(node, [volume])
    return node, browser, volume


def go_to(browser, frame: int) -> None:
    browser.SetSelectedItemNumber(frame)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


def in_frames(node, browser) -> list[np.ndarray]:
    """The label maps that the sequence holds."""
    sequence = browser.GetSequenceNode(node)
    return [voxels(sequence.GetNthDataNode(number)) for number in range(sequence.GetNumberOfDataNodes())]


@pytest.mark.parametrize("keeps_changes", [False, True])
@pytest.mark.parametrize("stays", [True, False])
def test_the_frame_that_was_shown_is_corrected_and_no_other(frames, stays, keeps_changes):
    node, browser, volume = frames
    browser.SetSaveChanges(browser.GetSequenceNode(node), keeps_changes)
    go_to(browser, 1)
    correction = correct(node, LIVER, first_volume(node))
    assert editor_node(slicer.mrmlScene).GetSourceVolumeNode() is volume
    paint(STRIP)
    correction.GetSegmentation().GetSegment(STRUCTURE).SetName("heart")
    if not stays:
        go_to(browser, 2)
    done = finish_correction(correction)
    wanted = labels()
    wanted[STRIP] = np.where(wanted[STRIP] == 0, 1, wanted[STRIP])
    first, second, third = in_frames(node, browser)
    assert (first == labels()).all() and (second == wanted).all() and (third == labels()).all()
    assert browser.GetSelectedItemNumber() == 1 and (voxels(node) == wanted).all() and done.node is node
    assert node.GetDisplayNode().GetVisibility2DFill() and node.GetDisplayNode().GetSegmentVisibility(LIVER)
    names = []
    for frame in (0, 2, 1):
        go_to(browser, frame)
        names.append(node.GetSegmentation().GetSegment(LIVER).GetName())
        assert corrected_structures(node) == (("heart",) if frame == 1 else ())
    assert names == ["liver", "liver", "heart"] and (voxels(node) == wanted).all()
    again = correct(node, LIVER)
    assert not finish_correction(again).changed


def test_surfaces_of_a_frame_follow_its_voxels(frames):
    node, browser, _volume = frames
    go_to(browser, 1)
    show_3d(node, [LIVER, SPLEEN])
    before = node.GetSegmentation().GetSegment(LIVER).GetRepresentation(SURFACE).GetBounds()[4:]
    correction = correct(node, LIVER)
    paint((slice(0, 1), slice(4, 8), slice(4, 8)))
    finish_correction(correction)
    segments = [node.GetSegmentation().GetSegment(identifier) for identifier in (LIVER, SPLEEN, KIDNEY)]
    counts = [segment.GetRepresentation(SURFACE).GetNumberOfPolys() for segment in segments]
    assert counts[0] and counts[1] and not counts[2]
    assert segments[0].GetRepresentation(SURFACE).GetBounds()[4] < before[0] - 0.5
    go_to(browser, 0)
    assert not node.GetSegmentation().ContainsRepresentation(SURFACE)


@pytest.mark.parametrize("missing", [False, True])
def test_a_frame_can_be_left_as_it_is(frames, missing):
    node, browser, _volume = frames
    sequence = browser.GetSequenceNode(node)
    if missing:
        sequence.GetNthDataNode(2).GetSegmentation().RemoveSegment(LIVER)
    before = in_frames(node, browser)
    correction = correct(node, LIVER)
    paint(STRIP)
    go_to(browser, 2)
    discard_correction(correction)
    assert all((one == other).all() for one, other in zip(in_frames(node, browser), before, strict=True))
    go_to(browser, 0)
    assert node.GetDisplayNode().GetVisibility2DFill() and node.GetDisplayNode().GetSegmentVisibility(LIVER)


@pytest.mark.parametrize("how", ["browser", "frame", "structure"])
def test_what_was_painted_is_not_lost_if_the_frame_is_gone(scene, frames, how):
    node, browser, _volume = frames
    sequence = browser.GetSequenceNode(node)
    correction = correct(node, LIVER)
    paint(STRIP)
    go_to(browser, 2)
    if how == "browser":
        scene.RemoveNode(browser)
    elif how == "frame":
        sequence.RemoveDataNodeAtValue("0.0")
    else:
        sequence.GetDataNodeAtValue("0.0").GetSegmentation().RemoveSegment(LIVER)
    before = [sequence.GetNthDataNode(n).GetSegmentation().GetMTime() for n in range(sequence.GetNumberOfDataNodes())]
    with pytest.raises(ImageError, match=r"any more.* What you have painted is the segmentation liver \(Result\)"):
        finish_correction(correction)
    after = [sequence.GetNthDataNode(n).GetSegmentation().GetMTime() for n in range(sequence.GetNumberOfDataNodes())]
    assert before == after and correction_in(scene) is None and masks(correction)[STRUCTURE].any()


def test_a_sequence_without_a_frame_here_is_refused(frames):
    node, browser, _volume = frames
    browser.GetSequenceNode(node).RemoveDataNodeAtValue("0.0")
    with pytest.raises(ImageError, match=r"Result has no frame at 0.0. Select another frame."):
        begin_correction(node, LIVER)
    assert correction_in(slicer.mrmlScene) is None


@pytest.mark.parametrize("function", ["change_segment", "take_voxels", "give_surfaces", "_add_segments"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_nothing_has_changed_if_memory_runs_out_midway(scene, found, monkeypatch, function, call):
    show_3d(found, [LIVER, SPLEEN, KIDNEY])
    inside = found.GetSegmentation()
    polygons = [inside.GetNthSegment(n).GetRepresentation(SURFACE).GetNumberOfPolys() for n in range(3)]
    painting = correct(found, LIVER)
    lock_others(editor_node(scene), False)
    paint(STRIP)
    paint((slice(4, 5), slice(2, 5), slice(3, 5)), "Remove")
    painting.GetSegmentation().AddEmptySegment("new", "cyst")
    paint((slice(6, 7), slice(0, 4), slice(3, 9)), segment="new")
    before, calls, usual = voxels(found).copy(), [], getattr(correction_module, function)

    def failing(*given):
        calls.append(given)
        if len(calls) == call:
            raise MemoryError
        return usual(*given)

    with monkeypatch.context() as full:
        full.setattr(correction_module, function, failing)
        try:
            finish_correction(painting)
        except MemoryError:
            assert (voxels(found) == before).all() and correction_in(scene) is painting
            assert inside.GetSegmentIDs() == (LIVER, SPLEEN, KIDNEY)
            shown = [inside.GetNthSegment(n).GetRepresentation(SURFACE).GetNumberOfPolys() for n in range(3)]
            assert shown == polygons
        else:
            assert len(calls) < call
            return
    done = finish_correction(painting)
    assert done.changed and done.new == ("cyst",) and set(done.others) == {"spleen", "kidney_left"}
    assert (voxels(found) != before).any() and inside.GetNumberOfSegments() == 4
