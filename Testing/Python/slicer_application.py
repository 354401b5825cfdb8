"""The stand-in application, and scenes for the tests of the module: see Testing/Slicer/standins."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6.QtUiTools", reason="PySide6 is not installed")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "Slicer"))

import slicer  # noqa: E402
import standins  # noqa: E402
from standins import qt  # noqa: E402, F401
from vtk import vtkMatrix4x4  # noqa: E402
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

application = standins.start()
module = application.load_module(ROOT / "ClassScaleSeg" / "ClassScaleSeg.py")
SAMPLE = ROOT / "Resources" / "SampleData" / "toy-120.nrrd"
TURNED = ((0.8, -0.6, 0.0, 40.0), (0.6, 0.8, 0.0, -25.0), (0.0, 0.0, 1.0, 12.5), (0.0, 0.0, 0.0, 1.0))


def load_sample(name: str = "CT") -> Any:
    """The generated sample volume as a scalar volume node."""
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(SAMPLE))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    assert storage.ReadData(node)
    return node


def add_volume(array: np.ndarray, name: str = "Small") -> Any:
    """A scalar volume node of ``array`` (z, y, x), voxels of 1 mm."""
    from vtk.util.numpy_support import numpy_to_vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    node.SetAndObserveImageData(image)
    return node


def saved_scene() -> str:
    """The scene as text."""
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    slicer.mrmlScene.SetSaveToXMLString(0)
    return slicer.mrmlScene.GetSceneXMLString()


def import_scene(text: str) -> None:
    """Add what ``saved_scene`` returned to the scene, which reads from files again afterwards."""
    slicer.mrmlScene.SetLoadFromXMLString(1)
    slicer.mrmlScene.SetSceneXMLString(text)
    slicer.mrmlScene.Import()
    slicer.mrmlScene.SetLoadFromXMLString(0)


def vtk_matrix(rows: Any) -> Any:
    matrix = vtkMatrix4x4()
    matrix.DeepCopy(np.ravel(rows).tolist())
    return matrix


def transform(node: Any, rows: Any) -> Any:
    """Put a node under a linear transform."""
    added = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Turn")
    added.SetMatrixTransformToParent(vtk_matrix(rows))
    node.SetAndObserveTransformNodeID(added.GetID())
    return added


def shared_labels(node: Any) -> tuple[np.ndarray, np.ndarray]:
    """Label map of a segmentation node on its own extent, ``(z, y, x)``, and ``(4, 4)`` from index 0 of it to RAS."""
    segmentation = node.GetSegmentation()
    image = segmentation.GetNthSegment(0).GetRepresentation("Binary labelmap")
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    world = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    world[:3, 3] += world[:3, :3] @ (x0, y0, z0)
    return labels, world


def centre_of(node: Any, segment_id: str) -> np.ndarray:
    """Centre of mass of a segment, mm, right-anterior-superior."""
    labels, world = shared_labels(node)
    value = node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
    z, y, x = np.argwhere(labels == value).mean(0)
    return (world @ (x, y, z, 1))[:3]


def wait_until(condition, seconds=60):
    """Let the application live, as its event loop does, until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        application.processEvents()
        time.sleep(0.01)
