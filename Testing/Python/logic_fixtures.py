"""The module's logic in the stand-in application, and nodes for it."""

import tempfile

import numpy as np
import pytest
from slicer_application import module, slicer


@pytest.fixture
def scene(monkeypatch, tmp_path):
    """An empty scene, and a temporary folder that must be empty again at the end."""
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    assert list((tmp_path / "temporary").iterdir()) == []
    assert slicer.modules.ClassScaleSegInstance.running == []


@pytest.fixture
def logic():
    return module.ClassScaleSegLogic()


def add_roi(centre, size, name="Region"):
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    roi.SetCenter(*centre)
    roi.SetSize(*size)
    return roi


def measured(table):
    """The rows of a table node by structure, each a dict of texts."""
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    rows = [
        {name: table.GetCellText(row, column) for column, name in enumerate(names)}
        for row in range(table.GetNumberOfRows())
    ]
    return {row["Structure"]: row for row in rows}


def add_segment(node, array, value, first=(0, 0, 0), spacing=1.0, name=None) -> None:
    """Add a segment with an image of its own, as Slicer's Segment Editor may: an array (z, y, x) at a voxel index."""
    from vtk.util.numpy_support import numpy_to_vtk

    image = slicer.vtkOrientedImageData()
    extent = [(start, start + size - 1) for start, size in zip(first, array.shape[::-1], strict=True)]
    image.SetExtent(*np.ravel(extent).tolist())
    image.SetSpacing(spacing, spacing, spacing)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetLabelValue(value)
    segment.AddRepresentation("Binary labelmap", image)
    node.GetSegmentation().AddSegment(segment, f"Segment_{node.GetSegmentation().GetNumberOfSegments() + 1}")
