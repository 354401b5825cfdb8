"""Segmentation nodes of the real MRML, filled from a label map."""

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, LabelTable, OutputExistsError, Segmentation
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
from mrml import index_to_lps, label_map, read_segmentation, segments, slicer, terminology

OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, -1.0)


def segmentation(classes=12, shape=(14, 20, 16), direction=OBLIQUE, names=None):
    labels = np.zeros(shape, np.uint16)
    inside = labels[2:-3, 4:-5, 1:-6]
    inside[...] = np.arange(inside.size).reshape(inside.shape) % (classes + 1)
    labels[labels == 5] = 0  # class 5 is absent
    geometry = Geometry(shape[::-1], (0.7, 0.8, 2.5), (-30.0, 12.5, 7.0), direction)
    table = names or {0: "background", **{value: f"structure {value}" for value in range(1, classes + 1)}}
    return Segmentation(labels, LabelTable.from_names(table), geometry)


@pytest.fixture
def node():
    scene = slicer.vtkMRMLScene()
    added = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    added.kept_scene = scene
    return added


@pytest.mark.parametrize("classes", [12, 300])
def test_segments_share_one_cropped_image_and_keep_every_voxel(node, classes):
    result = segmentation(classes, (20, 40, 36))
    fill_segmentation_node(node, result)
    filled = segments(node)
    assert len(filled) == classes - 1 and "Segment_5" not in filled
    images = {segment.GetRepresentation("Binary labelmap") for segment in filled.values()}
    assert len(images) == 1 and node.GetSegmentation().GetNumberOfLayers() == 1
    segment = filled["Segment_7"]
    assert np.array_equal(label_map(segment, result.geometry.size), result.labels)
    assert segment.GetLabelValue() == 7 and segment.GetName() == "structure 7"
    assert [round(255 * c) for c in segment.GetColor()] == list(result.table[7].color)
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = result.geometry.axes, result.geometry.origin
    np.testing.assert_allclose(index_to_lps(segment), expected, atol=1e-9)


def test_segments_of_each_layer_share_an_image_and_are_read_again(node):
    from dataclasses import replace

    from ClassScaleSegLib.scene.segmentation_reader import segmentation_of

    one = segmentation(300, (20, 40, 36))
    moved = np.roll(one.labels, 3, 2)
    two = np.where(moved % 2, moved, 0)
    result = replace(one, labels=np.where(one.labels % 2, 0, one.labels), more_layers=(two,), counts=None)
    fill_segmentation_node(node, result)
    images = {}
    for segment in segments(node).values():
        images.setdefault(segment.GetRepresentation("Binary labelmap"), set()).add(segment.GetLabelValue() % 2)
    assert list(images.values()) == [{1}, {0}] and node.GetSegmentation().GetNumberOfLayers() == 2
    for value in (7, 8, 299, 300):
        found = label_map(segments(node)[f"Segment_{value}"], result.geometry.size) == value
        assert np.array_equal(found, result.layers[value % 2] == value)
    read, rows = segmentation_of(node)
    assert [(row.value, row.voxels) for row in rows] == [
        (row.value, row.voxels) for row in result.statistics() if row.voxels
    ]
    assert read.geometry.size == result.geometry.size and read.geometry.distance(result.geometry) < 1e-6
    assert {layer.tobytes() for layer in read.layers} == {layer.tobytes() for layer in result.layers}
    fill_segmentation_node(node, read, replace=True)  # onto the same segments
    assert node.GetSegmentation().GetNumberOfLayers() == 2 and len(segments(node)) == len(rows)


def test_codes_become_terminology(node):
    fill_segmentation_node(node, segmentation(2, names={0: "background", 1: "liver", 2: "kidney_left"}))
    filled = segments(node)
    assert terminology(filled["Segment_1"])["type"] == ("SCT", "10200004", "Liver")
    assert terminology(filled["Segment_2"])["type_modifier"][2] == "Left"


def test_what_the_node_has_is_replaced_only_when_asked(node):
    fill_segmentation_node(node, segmentation(12))
    with pytest.raises(OutputExistsError, match="Result already has segments"):
        fill_segmentation_node(node, segmentation(3))
    assert len(segments(node)) == 11
    fill_segmentation_node(node, segmentation(3), replace=True)
    assert list(segments(node)) == ["Segment_1", "Segment_2", "Segment_3"]


def test_absent_classes_are_added_empty_on_request(node):
    fill_segmentation_node(node, segmentation(12), keep_empty=True)
    assert len(segments(node)) == 12 and segments(node)["Segment_5"].GetName() == "structure 5"


def test_a_segmentation_without_foreground_gives_a_node_without_segments(node):
    empty = segmentation(12)
    empty.labels[...] = 0
    fill_segmentation_node(node, empty)
    assert segments(node) == {}


def test_the_reference_geometry_is_the_images(node, tmp_path):
    from vtk import vtkMatrix4x4

    result = segmentation()
    fill_segmentation_node(node, result)
    converter = slicer.vtkSegmentationConverter
    text = node.GetSegmentation().GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    reference = slicer.vtkOrientedImageData()
    assert converter.DeserializeImageGeometry(text, reference, False)
    assert reference.GetExtent() == (0, 15, 0, 19, 0, 13)
    result.write(tmp_path / "same.seg.nrrd")  # our file says the same
    read = read_segmentation(tmp_path / "same.seg.nrrd")
    other = slicer.vtkOrientedImageData()
    text = read.GetSegmentation().GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    assert converter.DeserializeImageGeometry(text, other, False)
    ours, theirs = vtkMatrix4x4(), vtkMatrix4x4()
    reference.GetImageToWorldMatrix(ours)
    other.GetImageToWorldMatrix(theirs)
    for row in range(4):
        for column in range(4):
            assert ours.GetElement(row, column) == pytest.approx(theirs.GetElement(row, column), abs=1e-6)


def test_a_volume_node_becomes_the_reference(node):
    volume = node.kept_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(16, 20, 14)
    image.AllocateScalars(4, 1)
    volume.SetAndObserveImageData(image)
    fill_segmentation_node(node, segmentation(), volume=volume)
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    assert node.GetDisplayNode() is not None
