"""Statistics and comparisons of segmentation nodes: as table nodes of 3D Slicer's scene, and as files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..images.comparison import ClassComparison
from ..images.counts import LabelVolume
from ..images.measures import LabelMeasures
from ..images.statistics import has_confidence, measure_columns, write_statistics
from .results import note, noted
from .segmentation_reader import Opened
from .volume import is_on_grid

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode, vtkMRMLTableNode
    from vtk import vtkAbstractArray

_STATISTICS, _COMPARISON = "ClassScaleSeg.Statistics", "ClassScaleSeg.Comparison"  # roles of tables of a segmentation

_CASES = "ClassScaleSeg.ComparedCases"  # attribute of the table of many cases


def fill_table_node(
    node: vtkMRMLTableNode,
    frames: Sequence[Sequence[LabelVolume]],
    measures: Sequence[Mapping[int, LabelMeasures]],
) -> None:
    """Fill a table node with a row for each class that was found: name, label value, size, position and so on.

    :param frames: statistics of each frame; with more than one, the first column is the frame number from 0.
    :param measures: of each frame, as from :func:`measure_result`; columns of what was not measured are left out.
    """
    import slicer
    import vtk

    inside = any(found.intensities is not None for frame in measures for found in frame.values())
    sure = any(has_confidence(frame.values()) for frame in measures)
    measured_columns = measure_columns(inside, sure)
    arrays = {float: vtk.vtkDoubleArray, int: vtk.vtkIntArray, bool: vtk.vtkStringArray}
    columns: dict[str, vtkAbstractArray] = {
        "Frame": vtk.vtkIntArray(),
        "Structure": vtk.vtkStringArray(),
        "Label value": vtk.vtkIntArray(),
        "Voxels": vtk.vtkLongLongArray(),
        "Volume (mL)": vtk.vtkDoubleArray(),
        **{column.title: arrays[column.kind]() for column in measured_columns},
    }
    for frame, (rows, measured) in enumerate(zip(frames, measures, strict=True)):
        for row in rows:
            if row.voxels:
                found = [column.cell(measured[row.value]) for column in measured_columns]
                cells = (frame, row.name, row.value, row.voxels, row.volume_ml, *found)
                for column, cell in zip(columns.values(), cells, strict=True):
                    column.InsertNextValue(str(cell).lower() if isinstance(cell, bool) else cell)
    with slicer.util.NodeModify(node):
        node.RemoveAllColumns()
        for name, column in columns.items():
            if name != "Frame" or len(frames) > 1:
                column.SetName(name)
                node.AddColumn(column)


def measure_node(
    node: vtkMRMLSegmentationNode, opened: Opened, volume: vtkMRMLScalarVolumeNode | None
) -> tuple[vtkMRMLTableNode, bool]:
    """Measure the structures of any segmentation node, and put them into a table node.

    The table of an earlier call is filled again. It is noted on the segmentation.

    :param opened: what the node holds.
    :param volume: whose intensities are measured, if it is on the grid of the segmentation.
    :returns: the table, and whether it has intensities.
    :raises ImageError: if the volume has voxels that are not finite.
    """
    measures, inside = _measured(opened, volume)
    table = _noted_table(node, _STATISTICS, "statistics")
    fill_table_node(table, [opened.statistics], [measures])
    return table, inside


def statistics_table(node: vtkMRMLSegmentationNode) -> vtkMRMLTableNode | None:
    """Return the table that `measure_node` has filled for a segmentation; ``None`` if there is none."""
    return noted(node, _STATISTICS, "vtkMRMLTableNode")


def write_measures(path: str | Path, opened: Opened, volume: vtkMRMLScalarVolumeNode | None) -> bool:
    """Measure the structures of any segmentation node, and write them to a file, which is replaced if there is one.

    :param path: ``.csv`` or ``.xlsx``.
    :param opened: what the node holds.
    :param volume: as of :func:`measure_node`.
    :returns: whether the file has intensities.
    :raises ImageError: if the volume has voxels that are not finite.
    :raises OutputError: if the file cannot be written.
    """
    measures, inside = _measured(opened, volume)
    table = opened.segmentation.table
    write_statistics(Path(path), opened.statistics, measures, table, overwrite=True, intensities=inside)
    return inside


def _measured(opened: Opened, volume: vtkMRMLScalarVolumeNode | None) -> tuple[dict[int, LabelMeasures], bool]:
    """Return the measures, and whether they have intensities: whether the volume is on the grid of the segmentation."""
    import slicer

    result = opened.segmentation
    inside = volume is not None and is_on_grid(volume, result.geometry)
    return result.measures(slicer.util.arrayFromVolume(volume) if inside else None), inside


def fill_comparison(node: vtkMRMLSegmentationNode, rows: Sequence[ClassComparison]) -> vtkMRMLTableNode:
    """Put a comparison into a table node, that of an earlier call if the segmentation ``node`` has one.

    Cells of a class that only one segmentation knows are NaN; the label value is 0 then.
    """
    table = _noted_table(node, _COMPARISON, "comparison")
    _fill_rows(table, [((), row) for row in rows])
    return table


def fill_case_comparison(
    scene: vtkMRMLScene, cases: Mapping[str, Sequence[ClassComparison]], name: str
) -> vtkMRMLTableNode:
    """Put the comparisons of many cases into one table node, the case in the first column.

    The table of an earlier call is filled again.

    :param cases: the rows of each case, by its name.
    :param name: of a new table.
    """
    tables = (node for node in scene.GetNodes() if node.GetClassName() == "vtkMRMLTableNode")
    table = next((node for node in tables if node.GetAttribute(_CASES)), None)
    if table is None:
        table = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GenerateUniqueName(name))
        table.SetAttribute(_CASES, "1")
    _fill_rows(table, [((case,), row) for case, rows in cases.items() for row in rows], "Case")
    return table


def _fill_rows(table: vtkMRMLTableNode, rows: Sequence[tuple[tuple[str, ...], ClassComparison]], *titles: str) -> None:
    """Fill a table node with rows of a comparison.

    :param rows: each with the texts of columns before it.
    :param titles: of these columns.
    """
    import slicer
    import vtk

    columns: dict[str, vtkAbstractArray] = {
        **{title: vtk.vtkStringArray() for title in titles},
        "Structure": vtk.vtkStringArray(),
        "Label value": vtk.vtkIntArray(),
        "Other label value": vtk.vtkIntArray(),
        "Dice": vtk.vtkDoubleArray(),
        "Volume (mL)": vtk.vtkDoubleArray(),
        "Other volume (mL)": vtk.vtkDoubleArray(),
        "Difference (mL)": vtk.vtkDoubleArray(),
    }
    for before, row in rows:
        numbers = (row.dice, row.volume_ml, row.other_volume_ml, row.difference_ml)
        texts, values = (*before, row.name), (row.value or 0, row.other_value or 0)
        cells = (*texts, *values, *(math.nan if n is None else n for n in numbers))
        for column, cell in zip(columns.values(), cells, strict=True):
            column.InsertNextValue(cell)
    with slicer.util.NodeModify(table):
        table.RemoveAllColumns()
        for name, column in columns.items():
            column.SetName(name)
            table.AddColumn(column)


def _noted_table(node: vtkMRMLSegmentationNode, role: str, what: str) -> vtkMRMLTableNode:
    table = noted(node, role, "vtkMRMLTableNode")
    if table is None:
        scene = node.GetScene()
        name = scene.GenerateUniqueName(f"{node.GetName() or 'Segmentation'} {what}")
        table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        note(node, role, table)
    return table
