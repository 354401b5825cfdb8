# ruff: noqa: F811  fixtures
"""Segmentations that are hidden while their differences are shown, and what they get back: on the real MRML."""

from __future__ import annotations

import pytest
from ClassScaleSegLib.scene.dicom import remember_origin
from ClassScaleSegLib.scene.hiding import is_shown_instead, stand_ins
from ClassScaleSegLib.scene.results import show_result
from ClassScaleSegLib.scene.segmentation_reader import open_segmentation
from panel_scene import add_view
from slicer_application import add_volume, application, import_scene, module, saved_scene, slicer
from test_module_compare import compared, labels, panel, scene, segmentation, select  # noqa: F401


def visibility(*nodes) -> list[tuple[int, int, int]]:
    """In all views, in 2D and in 3D, of every display node."""
    displays = [node.GetNthDisplayNode(number) for node in nodes for number in range(node.GetNumberOfDisplayNodes())]
    return [(one.GetVisibility(), one.GetVisibility2D(), one.GetVisibility3D()) for one in displays]


def set_visibility(node, everywhere, in_2d, in_3d):
    display = node.GetDisplayNode()
    display.SetVisibility2D(in_2d)
    display.SetVisibility3D(in_3d)
    display.SetVisibility(everywhere)


@pytest.fixture
def pair(scene, panel):
    """Two segmentations that are compared and look different, and a function that shows their differences."""
    reference, other = compared(scene, panel)
    set_visibility(reference, True, True, False)
    set_visibility(other, True, False, True)
    second = scene.AddNewNodeByClass("vtkMRMLSegmentationDisplayNode", "Second")
    other.AddAndObserveDisplayNodeID(second.GetID())
    panel.comparing.compare()

    def show():
        panel.ui.differencesButton.click()
        [node] = [node for node in slicer.mrmlScene.GetNodes() if node.GetName() == "Reference differences"]
        return node

    return reference, other, show


SEEN = [(1, 1, 0), (1, 0, 1), (1, 1, 1)]
UNSEEN = [(0, 1, 0), (0, 0, 1), (0, 1, 1)]


def press_hide(panel, node):
    panel.ui.hideDifferencesButton.click()


def remove_elsewhere(panel, node):
    application.leave()
    slicer.mrmlScene.RemoveNode(node)
    application.enter()


ENDINGS = {
    "the button": press_hide,
    "the eye": lambda panel, node: node.SetDisplayVisibility(False),
    "2D and 3D": lambda panel, node: set_visibility(node, True, False, False),
    "removed": lambda panel, node: slicer.mrmlScene.RemoveNode(node),
    "removed in another module": remove_elsewhere,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_both_are_hidden_while_the_differences_are_shown_and_then_as_they_were(panel, pair, ending):
    reference, other, show = pair
    assert not panel.ui.hideDifferencesButton.enabled and visibility(reference, other) == SEEN
    node = show()
    assert visibility(reference, other) == UNSEEN and visibility(node) == [(1, 1, 1)]
    assert panel.ui.hideDifferencesButton.enabled
    assert panel.comparing.text.endswith("Until you press Hide differences, both segmentations are hidden.")
    show()
    assert visibility(reference, other) == UNSEEN, "shown once more"
    rows = panel.comparing.rows
    ENDINGS[ending](panel, node)
    assert visibility(reference, other) == SEEN
    assert not panel.ui.hideDifferencesButton.enabled and panel.comparing.rows is rows


def test_the_eye_of_the_differences_switches_to_and_fro(panel, pair):
    reference, other, show = pair
    node = show()
    for _twice in range(2):
        node.SetDisplayVisibility(False)
        assert visibility(reference, other) == SEEN and not panel.ui.hideDifferencesButton.enabled
        node.SetDisplayVisibility(True)
        assert visibility(reference, other) == UNSEEN and panel.ui.hideDifferencesButton.enabled
    node.SetDisplayVisibility(False)
    reference.SetDisplayVisibility(False)
    node.SetDisplayVisibility(True)
    node.SetDisplayVisibility(False)
    assert visibility(reference, other) == [UNSEEN[0], *SEEN[1:]], "the user has hidden it while both were shown"
    show()
    assert visibility(node) == [(1, 1, 1)], "the button shows what the eye has hidden"


def test_what_the_user_has_hidden_before_stays_hidden(panel, pair):
    reference, other, show = pair
    set_visibility(reference, False, True, True)
    show()
    press_hide(panel, None)
    assert visibility(reference, other) == [(0, 1, 1), *SEEN[1:]]


def test_what_the_user_shows_meanwhile_is_left_alone(panel, pair):
    reference, other, show = pair
    node = show()
    reference.SetDisplayVisibility(True)
    assert visibility(reference, other) == [SEEN[0], *UNSEEN[1:]]
    reference.SetDisplayVisibility(False)  # and hides it again
    press_hide(panel, None)
    assert visibility(reference, other) == [UNSEEN[0], *SEEN[1:]]
    other.GetDisplayNode().SetVisibility2D(True)
    node.SetDisplayVisibility(True)
    other.GetDisplayNode().SetVisibility3D(False)
    press_hide(panel, None)
    assert visibility(reference, other) == [UNSEEN[0], (1, 1, 0), SEEN[2]], "2D and 3D are the user's"


def test_a_segmentation_in_two_comparisons_comes_back_after_the_last_of_them(scene, panel, pair):
    reference, other, show = pair
    first, third = show(), segmentation(scene, "Third", labels(2))
    select(panel.ui.resultSelector, other)
    select(panel.ui.compareSelector, third)
    panel.ui.compareButton.click()
    panel.ui.differencesButton.click()
    assert visibility(reference, other, third) == [*UNSEEN, (0, 1, 1)]
    first.SetDisplayVisibility(False)
    assert visibility(reference, other, third) == [SEEN[0], *UNSEEN[1:], (0, 1, 1)]
    first.SetDisplayVisibility(True)
    assert visibility(reference, other, third) == [*UNSEEN, (0, 1, 1)]
    press_hide(panel, None)
    assert visibility(reference, other, third) == [*SEEN, (1, 1, 1)]


def test_another_segmentation_with_the_same_reference_takes_the_place(scene, panel, pair):
    reference, other, show = pair
    node, third = show(), segmentation(scene, "Third", labels(2))
    select(panel.ui.compareSelector, third)
    panel.ui.compareButton.click()
    assert show() is node
    assert visibility(reference, other, third) == [UNSEEN[0], *SEEN[1:], (0, 1, 1)]


def test_differences_that_are_compared_themselves_are_hidden_like_others(scene, panel, pair):
    reference, other, show = pair
    node = show()
    select(panel.ui.compareSelector, node)
    panel.ui.compareButton.click()
    panel.ui.differencesButton.click()
    [second] = filter(is_shown_instead, stand_ins(scene))
    assert second is not node and visibility(reference, other) == [UNSEEN[0], *SEEN[1:]]
    assert visibility(node) == [(0, 1, 1)]
    press_hide(panel, None)
    assert visibility(node) == [(1, 1, 1)] and visibility(reference, other) == UNSEEN, "as before the second comparison"


def test_a_compared_segmentation_may_be_removed(scene, panel, pair):
    reference, other, show = pair
    node = show()
    display = reference.GetDisplayNode()
    scene.RemoveNode(reference)
    scene.RemoveNode(display)
    assert visibility(other) == UNSEEN[1:] and panel.ui.hideDifferencesButton.enabled
    scene.RemoveNode(node)
    assert visibility(other) == SEEN[1:] and not panel.ui.hideDifferencesButton.enabled


def test_a_closed_scene_leaves_nothing_to_hide(scene, panel, pair):
    _reference, _other, show = pair
    show()
    scene.Clear()
    assert not panel.ui.hideDifferencesButton.enabled and application.vtk_messages == []
    reference, other = compared(scene, panel)
    panel.ui.differencesButton.click()
    press_hide(panel, None)
    assert visibility(reference, other) == [(1, 1, 1)] * 2


@pytest.mark.parametrize("close", [True, False])
def test_a_scene_that_was_saved_meanwhile_gives_them_back_when_it_is_loaded(scene, panel, pair, close):
    _reference, _other, show = pair
    show()
    text = saved_scene()
    if close:
        scene.Clear()
    before = set(scene.GetNodes())
    import_scene(text)
    loaded = [node for node in scene.GetNodes() if node not in before and node.IsA("vtkMRMLSegmentationNode")]
    named = {node.GetName(): node for node in loaded}
    assert visibility(named["Reference"], named["Other"]) == UNSEEN and panel.ui.hideDifferencesButton.enabled
    named["Reference"].SetDisplayVisibility(True)
    named["Reference differences"].SetDisplayVisibility(False)
    assert visibility(named["Reference"], named["Other"]) == SEEN
    assert panel.ui.hideDifferencesButton.enabled != close, "the other one is still there"


def test_a_view_of_the_scene_is_restored_with_what_it_hides(scene, panel, pair):
    reference, other, show = pair
    node = show()
    view = scene.AddNewNodeByClass("vtkMRMLSceneViewNode", "View")
    view.StoreScene()
    press_hide(panel, None)
    assert visibility(reference, other) == SEEN
    view.RestoreScene()
    assert visibility(node, reference, other) == [(1, 1, 1), *UNSEEN] and panel.ui.hideDifferencesButton.enabled
    press_hide(panel, None)
    assert visibility(reference, other) == SEEN


def test_a_view_without_differences_is_restored_as_it_was(scene, panel, pair):
    reference, other, show = pair
    node = show()
    press_hide(panel, None)
    reference.SetDisplayVisibility(False)
    view = scene.AddNewNodeByClass("vtkMRMLSceneViewNode", "View")
    view.StoreScene()
    reference.SetDisplayVisibility(True)
    node.SetDisplayVisibility(True)
    assert visibility(reference, other) == UNSEEN
    view.RestoreScene()
    assert not is_shown_instead(node) and not panel.ui.hideDifferencesButton.enabled
    assert visibility(reference, other) == [UNSEEN[0], *SEEN[1:]], "the view has the reference hidden"


def test_undoing_the_step_gives_them_back(scene, panel, pair):
    reference, other, show = pair
    for node in (reference, other):
        node.SetUndoEnabled(True)
    scene.SetUndoOn()
    try:
        scene.SaveStateForUndo()
        show().SetUndoEnabled(True)
        scene.SaveStateForUndo()
        press_hide(panel, None)
        scene.Undo()
        scene.Undo()
        assert scene.GetFirstNodeByName("Reference differences") is None
        assert visibility(reference, other) == SEEN
    finally:
        scene.ClearUndoStack()
        scene.ClearRedoStack()
        scene.SetUndoOff()


def test_surfaces_that_are_asked_for_are_shown(panel, pair):
    reference, other, show = pair
    show()
    panel.results.table.tick(["Segment_1"])
    panel.ui.show3DButton.click()
    assert visibility(reference, other) == [(1, 1, 1), *UNSEEN[1:]]
    press_hide(panel, None)
    assert visibility(reference, other) == [(1, 1, 1), *SEEN[1:]]


def test_a_result_that_replaces_a_compared_one_is_shown(scene, panel, pair):
    reference, other, show = pair
    show()
    volume = add_volume(labels().astype("int16"))
    show_result(reference, open_segmentation(reference)[:2], volume, False, True)
    assert visibility(reference, other) == [SEEN[0], *UNSEEN[1:]]
    other.SetDisplayVisibility(False)
    set_visibility(reference, False, True, True)
    show_result(reference, open_segmentation(reference)[:2], volume, False, True)
    assert visibility(reference) == [(0, 1, 1)], "the user has hidden it"


def test_a_result_that_takes_the_place_of_the_differences_hides_nothing(scene, panel, pair):
    reference, other, show = pair
    node = show()
    volume = add_volume(labels().astype("int16"))
    show_result(node, open_segmentation(reference)[:2], volume, False, True)
    remember_origin(node, [], [])
    panel.comparing.render()
    assert visibility(reference, other) == SEEN and not panel.ui.hideDifferencesButton.enabled
    panel.ui.differencesButton.click()
    [second] = filter(is_shown_instead, stand_ins(scene))
    assert second is not node and node.GetSegmentation().GetNumberOfSegments() == 3 and visibility(node)[0][0] == 1


def test_the_console_hides_and_gives_back_without_a_panel(scene):
    view = add_view()
    reference, other = segmentation(scene, "Reference"), segmentation(scene, "Other", labels(1))
    node = module.ClassScaleSegLogic().showDifferences(reference, other)
    assert visibility(reference, other) == [(0, 1, 1)] * 2
    scene.RemoveNode(node)
    assert visibility(reference, other) == [(1, 1, 1)] * 2
    scene.RemoveNode(view)
