"""Files opened by 3D Slicer's own MRML code (slicer-core), so that tests see what users will see there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")


def read_segmentation(file: Path, color_table: Any = None) -> Any:
    """The ``vtkMRMLSegmentationNode`` of a file; ``color_table`` names the values of a plain label image."""
    scene = color_table.kept_scene if color_table else slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    if color_table:
        node.SetLabelmapConversionColorTableNodeID(color_table.GetID())
    return _read(file, scene, node, "vtkMRMLSegmentationStorageNode")


def read_color_table(file: Path) -> Any:
    """The ``vtkMRMLColorTableNode`` of a colour table."""
    scene = slicer.vtkMRMLScene()
    return _read(file, scene, scene.AddNewNodeByClass("vtkMRMLColorTableNode"), "vtkMRMLColorTableStorageNode")


def segments(node: Any) -> dict[str, Any]:
    """Segments of a segmentation node by id, in its order."""
    segmentation = node.GetSegmentation()
    count = segmentation.GetNumberOfSegments()
    return {segmentation.GetNthSegmentID(index): segmentation.GetNthSegment(index) for index in range(count)}


def label_map(segment: Any, size: tuple[int, int, int]) -> np.ndarray:
    """Voxels ``(z, y, x)`` of the label map that a segment shares, put back on the grid of ``size`` (x, y, z)."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = segment.GetRepresentation("Binary labelmap")
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    values = vtk_to_numpy(image.GetPointData().GetScalars())
    whole = np.zeros(size[::-1], values.dtype)
    whole[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = values.reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
    return whole


def index_to_lps(segment: Any) -> np.ndarray:
    """``(4, 4)``: voxel index to millimetres, left-posterior-superior."""
    from vtk import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    segment.GetRepresentation("Binary labelmap").GetImageToWorldMatrix(matrix)
    ras = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ ras


def terminology(segment: Any) -> dict[str, tuple[str, str, str]]:
    """What Slicer's terminology logic parses from a segment: scheme, value, meaning of each part that is there."""
    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(segment.GetTerminology(), entry)
    parts = {
        "category": entry.GetCategoryObject(),
        "type": entry.GetTypeObject(),
        "type_modifier": entry.GetTypeModifierObject(),
        "region": entry.GetRegionObject(),
        "region_modifier": entry.GetRegionModifierObject(),
    }
    return {name: _triplet(part) for name, part in parts.items() if part.GetCodeValue()}


def color_terminology(table: Any, value: int) -> dict[str, tuple[str, str, str]]:
    """The same of a row of a colour table."""
    parts = {
        "category": table.GetTerminologyCategory(value),
        "type": table.GetTerminologyType(value),
        "type_modifier": table.GetTerminologyTypeModifier(value),
        "region": table.GetTerminologyRegion(value),
        "region_modifier": table.GetTerminologyRegionModifier(value),
    }
    return {name: _triplet(part) for name, part in parts.items() if part is not None and part.GetCodeValue()}


def _triplet(entry: Any) -> tuple[str, str, str]:
    return entry.GetCodingSchemeDesignator(), entry.GetCodeValue(), entry.GetCodeMeaning()


def _read(file: Path, scene: Any, node: Any, storage_class: str) -> Any:
    storage = scene.AddNewNodeByClass(storage_class)
    node.kept_scene = scene  # a scene without a reference takes its nodes along
    storage.SetFileName(str(file))
    node.SetAndObserveStorageNodeID(storage.GetID())
    assert storage.ReadData(node), f"{file}: {storage.GetUserMessages().GetAllMessagesAsString()}"
    return node
