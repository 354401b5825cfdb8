"""Put the result of a run into 3D Slicer's scene, and read and save segmentation nodes that share one label map."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, OutputError, reason
from ..images.comparison import ClassComparison, Comparison, compare
from ..images.counts import LabelVolume
from ..images.dicom_rtstruct import RTSTRUCT_SUFFIX
from ..images.dicom_seg import DICOM_SUFFIX
from ..images.geometry import Geometry
from ..images.measures import COLUMNS, INTENSITY_COLUMNS, LabelMeasures
from ..images.seg_nrrd import index_to_ras
from ..images.segmentation import Segmentation, class_volumes, read_layers
from ..labels.standard_names import with_standard_names
from ..labels.table import LabelTable
from .dicom import save_dicom
from .segmentation_node import fill_segmentation_node
from .segmentation_reader import Counted, Opened, segmentation_of
from .volume import Region, check_volume, geometry_of, grid, uncrop

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLScalarVolumeNode,
        vtkMRMLScene,
        vtkMRMLSegmentationNode,
        vtkMRMLTableNode,
    )
    from vtk import vtkAbstractArray


def _counted(
    counts: np.ndarray,
    layers: Sequence[np.ndarray],
    table: LabelTable,
    geometry: Geometry,
    confidence: np.ndarray | None = None,
) -> Counted:
    labels, *more = layers
    result = Segmentation(labels, table, geometry, confidence, counts, more_layers=tuple(more))
    return result, class_volumes(counts, table, geometry)


_STATISTICS, _COMPARISON = "ClassScaleSeg.Statistics", "ClassScaleSeg.Comparison"  # roles of tables of a segmentation


def read_result(
    path: Path, confidence: str | Path | None, region: Region | None, geometry: Geometry, known: LabelTable | None
) -> Counted:
    """Read what the child process wrote, and put it on the grid of the whole volume.

    :param path: the ``.seg.nrrd`` with the label map; ``confidence`` is the file with the confidence map, if any.
    :param region: the part of the volume that was segmented, or ``None`` for all of it.
    :param geometry: the grid of the whole volume.
    :param known: all classes of the models, by which those of the result get standard names; ``None``: they do not.
    :raises ImageError: if a file is missing, cannot be read, or does not have the expected size.
    """
    layers, table, own_geometry, counts = read_layers(path)
    probabilities = None if confidence is None else _read_voxels(confidence)
    if region is None:
        geometry = own_geometry
    else:
        layers = tuple(uncrop(layer, region, geometry.size[::-1]) for layer in layers)
        probabilities = None if probabilities is None else uncrop(probabilities, region, geometry.size[::-1])
    named = table if known is None else with_standard_names(table, known)
    return _counted(counts, layers, named, geometry, probabilities)


def measure_result(result: Segmentation, path: Path, region: Region | None) -> dict[int, LabelMeasures]:
    """Measure the classes of a result, with the intensities of the image that the child process was given.

    :param path: the file of the image; the user may have changed or removed the volume itself meanwhile.
    :param region: as of :func:`read_result`; the file then holds the voxels in its box alone.
    :raises ImageError: if the file cannot be read.
    """
    voxels = _read_voxels(path)
    return result.measures(voxels if region is None else uncrop(voxels, region, result.labels.shape))


def _read_voxels(path: str | Path) -> np.ndarray:
    import SimpleITK as sitk

    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise ImageError(f"{path} cannot be read ({reason(error, -1)}).") from error


def show_result(
    node: vtkMRMLSegmentationNode,
    result: Counted,
    volume: vtkMRMLScalarVolumeNode,
    keep_empty: bool,
    replace_segments: bool,
) -> None:
    """Fill a segmentation node as `fill_segmentation_node` does, and move it next to ``volume`` in the hierarchy.

    The node loses its transform, because the result is in world coordinates.
    """
    import slicer

    segmentation, statistics = result
    with slicer.util.NodeModify(node):
        node.SetAndObserveTransformNodeID(None)
        fill_segmentation_node(node, segmentation, keep_empty, replace_segments, volume, statistics)
        rule = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule
        if hasattr(rule, "GetConversionMethodParameterName"):  # Slicer 5.8 has no such parameter
            # Slicer's own "Show 3D" then uses surface nets, the faster of its two methods
            node.GetSegmentation().SetConversionParameter(rule.GetConversionMethodParameterName(), "1")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    beside = hierarchy.GetItemByDataNode(volume) if hierarchy is not None else 0
    item = hierarchy.GetItemByDataNode(node) if beside else 0
    if item:  # a node of a sequence has none
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))


@contextlib.contextmanager
def removed_on_failure(scene: vtkMRMLScene) -> Iterator[None]:
    """Remove all nodes that the ``with`` block has added to ``scene`` if it raises."""
    before = {node.GetID() for node in scene.GetNodes()}
    try:
        yield
    except BaseException:
        for node in list(scene.GetNodes()):
            if node.GetID() not in before and scene.IsNodePresent(node):
                scene.RemoveNode(node)
        raise


def has_contents(node: vtkMRMLSegmentationNode | vtkMRMLScalarVolumeNode | vtkMRMLTableNode | None) -> bool:
    """Return whether a node for a result holds something already, which a run would replace."""
    if node is None:
        return False
    if node.IsA("vtkMRMLSegmentationNode"):
        return node.GetSegmentation().GetNumberOfSegments() > 0
    return node.GetNumberOfColumns() > 0 if node.IsA("vtkMRMLTableNode") else node.GetImageData() is not None


def fill_confidence_node(node: vtkMRMLScalarVolumeNode, confidence: np.ndarray, geometry: Geometry) -> None:
    """Put a confidence map, 0..1, float32 ``(z, y, x)``, into a volume node, and remove the node's transform.

    A node without display properties gets the window 0 to 1; those of other nodes stay as they are.
    """
    import slicer

    with slicer.util.NodeModify(node):
        node.SetAndObserveTransformNodeID(None)
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(index_to_ras(geometry)))
        slicer.util.updateVolumeFromArray(node, confidence)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0, 1)


def fill_table_node(
    node: vtkMRMLTableNode,
    frames: Sequence[Sequence[LabelVolume]],
    measures: Sequence[Mapping[int, LabelMeasures]],
) -> None:
    """Fill a table node with a row for each class that was found: name, label value, size, position, intensities.

    :param frames: statistics of each frame; with more than one, the first column is the frame number from 0.
    :param measures: of each frame, as from :func:`measure_result`; without intensities their columns are left out.
    """
    import slicer
    import vtk

    inside = any(found.intensities is not None for frame in measures for found in frame.values())
    titles = (*COLUMNS.values(), *(INTENSITY_COLUMNS.values() if inside else ()))

    columns: dict[str, vtkAbstractArray] = {
        "Frame": vtk.vtkIntArray(),
        "Structure": vtk.vtkStringArray(),
        "Label value": vtk.vtkIntArray(),
        "Voxels": vtk.vtkLongLongArray(),
        "Volume (mL)": vtk.vtkDoubleArray(),
    }
    for title in titles:
        whole, text = title.startswith(("First", "Last")), title == COLUMNS["TouchesEdge"]
        columns[title] = vtk.vtkIntArray() if whole else vtk.vtkStringArray() if text else vtk.vtkDoubleArray()
    for frame, (rows, measured) in enumerate(zip(frames, measures, strict=True)):
        for row in rows:
            if row.voxels:
                cells = (frame, row.name, row.value, row.voxels, row.volume_ml, *measured[row.value].cells())
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
    import slicer

    result = opened.segmentation
    inside = volume is not None and _is_on_grid(volume, result.geometry)
    measures = result.measures(slicer.util.arrayFromVolume(volume) if inside else None)
    table = _noted_table(node, _STATISTICS, "statistics")
    fill_table_node(table, [opened.statistics], [measures])
    return table, inside


def compare_nodes(first: Opened, second: Opened) -> Comparison:
    """Compare what two segmentation nodes hold, in world coordinates; the first is the reference."""
    return compare(first.segmentation, second.segmentation, (first.statistics, second.statistics))


def fill_comparison(node: vtkMRMLSegmentationNode, rows: Sequence[ClassComparison]) -> vtkMRMLTableNode:
    """Put a comparison into a table node, that of an earlier call if the segmentation ``node`` has one.

    Cells of a class that only one segmentation knows are NaN; the label value is 0 then.
    """
    import slicer
    import vtk

    table = _noted_table(node, _COMPARISON, "comparison")
    columns: dict[str, vtkAbstractArray] = {
        "Structure": vtk.vtkStringArray(),
        "Label value": vtk.vtkIntArray(),
        "Other label value": vtk.vtkIntArray(),
        "Dice": vtk.vtkDoubleArray(),
        "Volume (mL)": vtk.vtkDoubleArray(),
        "Other volume (mL)": vtk.vtkDoubleArray(),
        "Difference (mL)": vtk.vtkDoubleArray(),
    }
    for row in rows:
        numbers = (row.dice, row.volume_ml, row.other_volume_ml, row.difference_ml)
        cells = (row.name, row.value or 0, row.other_value or 0, *(math.nan if n is None else n for n in numbers))
        for column, cell in zip(columns.values(), cells, strict=True):
            column.InsertNextValue(cell)
    with slicer.util.NodeModify(table):
        table.RemoveAllColumns()
        for name, column in columns.items():
            column.SetName(name)
            table.AddColumn(column)
    return table


def _noted_table(node: vtkMRMLSegmentationNode, role: str, what: str) -> vtkMRMLTableNode:
    table = node.GetNodeReference(role)
    if table is None or not table.IsA("vtkMRMLTableNode"):
        scene = node.GetScene()
        name = scene.GenerateUniqueName(f"{node.GetName() or 'Segmentation'} {what}")
        table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        node.SetNodeReferenceID(role, table.GetID())
    return table


def _is_on_grid(volume: vtkMRMLScalarVolumeNode, geometry: Geometry) -> bool:
    try:
        check_volume(volume)
        own = geometry_of(volume)
    except ImageError:
        return False
    return own.size == geometry.size and own.distance(geometry) < min(geometry.spacing) / 2


def save_segmentation(
    node: vtkMRMLSegmentationNode, path: str | Path, tell: Callable[[str], object] = logging.info
) -> bool:
    """Save a segmentation node to a file, and replace the file if there is one.

    :param path: ``.seg.nrrd``, what else Slicer can write, or ``.seg.dcm`` and ``.rtstruct.dcm``, as
        :func:`~.dicom.save_dicom` does.
    :param tell: called with each sentence on a DICOM file that the user should see.
    :returns: ``True`` if the library's writer was used, which takes about a second for hundreds of segments: for a
        ``.seg.nrrd`` of segments with label maps on one grid, and for DICOM. Anything else is left to Slicer's writer.
    :raises OutputError: if the file cannot be written.
    :raises ImageError: if the series of a DICOM segmentation cannot be read.
    """
    import slicer

    result = segmentation_of(node)
    if str(path).lower().endswith((DICOM_SUFFIX, RTSTRUCT_SUFFIX)):
        if not node.GetSegmentation().GetNumberOfSegments():
            raise OutputError(f"{node.GetName()} has no structure, so there is nothing to save.")
        if result is None:
            raise OutputError(
                f"{node.GetName()} is under a transform, or its segments have no label maps on one grid, and this "
                "module cannot save that as DICOM. In the module Data, right-click it and choose Export to DICOM."
            )
        save_dicom(node, *result, path, tell)
        return True
    if result is not None and str(path).lower().endswith(".seg.nrrd"):
        result[0].write(path, overwrite=True, keep_empty=True)
        _mark_saved(node, os.path.abspath(path))
        return True
    if not slicer.util.saveNode(node, str(path)):
        raise OutputError(f"{path} could not be written. The reason is in Slicer's error log (View > Error Log).")
    return False


def _mark_saved(node: vtkMRMLSegmentationNode, path: str) -> None:
    """Mark the node as saved to ``path``, so that Slicer does not ask to save it again.

    Only a write through the storage node sets the time that Slicer compares, so it writes one voxel to another file.
    """
    import slicer

    if node.GetScene() is None:
        return
    if node.GetStorageNode() is None:
        node.AddDefaultStorageNode(path)
    storage = node.GetStorageNode()
    table = LabelTable.from_names({0: "background", 1: "voxel"})
    voxel = slicer.vtkMRMLSegmentationNode()
    voxel.SetName("voxel")
    fill_segmentation_node(voxel, Segmentation(np.ones((1, 1, 1), np.uint16), table, grid(np.eye(4), (1, 1, 1))))
    # without room for that file Slicer merely asks again; the segmentation itself is saved
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory() as folder:
        storage.SetFileName(str(Path(folder) / "voxel.seg.nrrd"))
        storage.WriteData(voxel)
    storage.SetFileName(path)
