"""A node with many segments goes at once, and nothing is lost of what somebody still holds."""

import time

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from ClassScaleSegLib import LabelTable, Segmentation  # noqa: E402
from ClassScaleSegLib.images.geometry import Geometry  # noqa: E402
from ClassScaleSegLib.scene import quick_removal  # noqa: E402
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node  # noqa: E402

SIZE, CLASSES = 96, 300


def filled(scene):
    labels = (np.arange(SIZE**3) % (CLASSES + 1)).astype(np.uint16).reshape(SIZE, SIZE, SIZE)
    table = LabelTable.from_names({value: f"cell {value}" for value in range(1, CLASSES + 1)})
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    fill_segmentation_node(node, Segmentation(labels, table, Geometry((SIZE,) * 3, (1.0,) * 3, (0.0,) * 3)))
    return node


def test_removal_copies_no_image_for_each_segment(monkeypatch):
    scene = slicer.vtkMRMLScene()
    node = filled(scene)
    scene.RemoveNode(node)
    assert node.GetSegmentation().GetNumberOfSegments() == CLASSES  # removed from the scene, but held here
    assert node.GetSegmentation().GetNthSegment(5).GetRepresentation("Binary labelmap") is not None
    begin = time.process_time()
    del node
    freed = time.process_time() - begin
    monkeypatch.setattr(quick_removal, "_VTK_REFERENCES", 0)  # so that nothing is freed
    node = filled(scene)
    scene.RemoveNode(node)
    begin = time.process_time()
    del node
    assert time.process_time() - begin > 5 * freed


def test_a_segmentation_that_is_held_elsewhere_keeps_its_images():
    scene = slicer.vtkMRMLScene()
    node = filled(scene)
    held = node.GetSegmentation()
    other = slicer.vtkMRMLSegmentationNode()
    other.SetAndObserveSegmentation(node.GetSegmentation())
    del node
    scene.Clear()
    images = {held.GetNthSegment(i).GetRepresentation("Binary labelmap") for i in range(CLASSES)}
    assert None not in images
    del held, images
    assert other.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap") is not None


def test_a_node_is_observed_once_and_forgotten():
    scene = slicer.vtkMRMLScene()
    before = set(quick_removal._observed)
    node = filled(scene)
    quick_removal.free_when_destroyed(node)
    assert len(quick_removal._observed - before) == 1
    del node
    scene.Clear()
    assert quick_removal._observed == before
