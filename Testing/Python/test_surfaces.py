"""Surfaces of chosen segments, from the real MRML: closed, outward, in the right place, and of nothing else."""

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
from ClassScaleSegLib.scene.surfaces import SURFACE, show_3d
from ClassScaleSegLib.scene.view import structure_point
from mrml import slicer
from vtk import vtkFeatureEdges
from vtk.util.numpy_support import vtk_to_numpy

DIRECTIONS = {
    "straight": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    "mirrored": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    "oblique": (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, -1.0),
}


@pytest.fixture(params=DIRECTIONS)
def node(request):
    """Two boxes that touch, one apart, and one in a corner of the image."""
    labels = np.zeros((40, 50, 60), np.uint16)
    labels[5:20, 5:20, 5:20] = 1
    labels[5:20, 5:20, 20:35] = 2
    labels[25:35, 25:35, 25:35] = 3
    labels[30:40, 40:50, 0:10] = 300
    table = LabelTable.from_names({0: "background", **{value: f"box {value}" for value in (1, 2, 3, 300)}})
    geometry = Geometry((60, 50, 40), (1.0, 2.0, 0.5), (3.0, 4.0, 5.0), DIRECTIONS[request.param])
    scene = slicer.vtkMRMLScene()
    added = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Boxes")
    added.kept_scene = scene
    fill_segmentation_node(added, Segmentation(labels, table, geometry))
    return added


def surface(node, segment_id):
    return node.GetSegmentation().GetSegment(segment_id).GetRepresentation(SURFACE)


def enclosed(polydata):
    """Signed volume, mm3: negative if faces look inwards."""
    points = vtk_to_numpy(polydata.GetPoints().GetData()).astype(float)
    points -= points.mean(0)
    faces = points[vtk_to_numpy(polydata.GetPolys().GetConnectivityArray()).reshape(-1, 3)]
    return float(np.einsum("ij,ij->i", faces[:, 0], np.cross(faces[:, 1], faces[:, 2])).sum() / 6)


def open_edges(polydata):
    edges = vtkFeatureEdges()
    edges.SetInputData(polydata)
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.Update()
    return edges.GetOutput().GetNumberOfCells()


def test_chosen_segments_get_closed_outward_surfaces_and_others_none(node):
    assert show_3d(node, ["Segment_1", "Segment_2", "Segment_300"]) == 3
    for segment_id, voxels in (("Segment_1", 15**3), ("Segment_2", 15**3), ("Segment_300", 1000)):
        shown = surface(node, segment_id)
        assert open_edges(shown) == 0 and enclosed(shown) == pytest.approx(voxels, rel=0.06)
        centre = np.mean(np.reshape(shown.GetBounds(), (3, 2)), axis=1)
        assert centre == pytest.approx(structure_point(node, segment_id), abs=1.1)
        normals, points = (vtk_to_numpy(a) for a in (shown.GetPointData().GetNormals(), shown.GetPoints().GetData()))
        assert (np.einsum("ij,ij->i", normals, points - points.mean(0)) > 0).mean() > 0.99
    assert surface(node, "Segment_3").GetNumberOfPoints() == 0
    display = node.GetDisplayNode()
    assert display.GetPreferredDisplayRepresentationName2D() == "Binary labelmap"
    assert display.GetSegmentVisibility3D("Segment_1") and not display.GetSegmentVisibility3D("Segment_3")
    assert node.GetSegmentation().ContainsRepresentation(SURFACE)


def test_touching_structures_stay_in_touch(node):
    show_3d(node, ["Segment_1", "Segment_2"])
    first, second = (
        {tuple(p) for p in vtk_to_numpy(surface(node, i).GetPoints().GetData()).round(4).tolist()}
        for i in ("Segment_1", "Segment_2")
    )
    assert len(first & second) == 16 * 16


def test_a_surface_that_is_there_is_kept_and_others_are_added(node):
    show_3d(node, ["Segment_1"])
    before = surface(node, "Segment_1")
    assert show_3d(node, ["Segment_1", "Segment_3"]) == 1
    assert surface(node, "Segment_1") is before and surface(node, "Segment_3").GetNumberOfPolys() > 0
    assert show_3d(node, ["Segment_3"]) == 0
    assert not node.GetDisplayNode().GetSegmentVisibility3D("Segment_1")


def test_a_point_of_a_bent_structure_lies_inside_it():
    labels = np.zeros((3, 30, 30), np.uint16)
    labels[1, 2:28, 2:28] = 7
    labels[1, 5:25, 5:28] = 0  # a "C", whose centre of mass is outside
    geometry = Geometry((30, 30, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    fill_segmentation_node(node, Segmentation(labels, LabelTable.from_names({0: "b", 7: "c"}), geometry))
    x, y, z = structure_point(node, "Segment_7")
    assert labels[round(z), round(-y), round(-x)] == 7
    assert structure_point(node, "Segment_8") is None
