"""Put the result of a run into 3D Slicer's scene, and read and save segmentation nodes that share one label map."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, OutputError, reason
from ..images.geometry import Geometry
from ..images.segmentation import Segmentation
from ..labels.label import Label
from ..labels.standard_names import with_standard_names
from ..labels.table import LabelTable
from .segmentation_node import fill_segmentation_node
from .volume import Region, fill_volume_node, grid, image_to_world, uncrop

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLDisplayableNode,
        vtkMRMLScalarVolumeNode,
        vtkMRMLScene,
        vtkMRMLSegmentationNode,
        vtkMRMLTableNode,
        vtkOrientedImageData,
        vtkSegment,
        vtkSegmentation,
    )
    from vtk import vtkAbstractArray


def read_result(path: Path, confidence: str | Path | None, region: Region | None, geometry: Geometry) -> Segmentation:
    """Read what the child process wrote, and put it on the grid of the whole volume.

    :param path: the ``.seg.nrrd`` with the label map.
    :param confidence: the file with the confidence map, if one was requested.
    :param region: the part of the volume that was segmented, or ``None`` for all of it.
    :param geometry: the grid of the whole volume.
    :raises ImageError: if a file is missing, cannot be read, or does not have the expected size.
    """
    result = Segmentation.from_image(path)
    if confidence is not None:
        import SimpleITK as sitk

        try:
            probabilities = sitk.GetArrayFromImage(sitk.ReadImage(str(confidence)))
        except RuntimeError as error:
            raise ImageError(f"{confidence} cannot be read ({reason(error, -1)}).") from error
        result = replace(result, confidence=probabilities)
    return result if region is None else uncrop(result, region, geometry)


def show_result(
    node: vtkMRMLSegmentationNode,
    result: Segmentation,
    volume: vtkMRMLScalarVolumeNode,
    standard_names: bool,
    keep_empty: bool,
    replace_segments: bool,
) -> Segmentation:
    """Fill a segmentation node with a result, and move it next to the volume in the subject hierarchy.

    The node loses its transform, because the result is in world coordinates.

    :param volume: the volume that was segmented.
    :param standard_names: name segments by their terminology codes where they have some.
    :param keep_empty: also add classes without a voxel.
    :param replace_segments: remove the segments that the node has; otherwise they are an error.
    :returns: the segmentation with the names of the segments.
    :raises OutputExistsError: if the node has segments and ``replace_segments`` is not set.
    """
    shown = replace(result, table=with_standard_names(result.table)) if standard_names else result
    modifying = node.StartModify()
    node.SetAndObserveTransformNodeID(None)
    fill_segmentation_node(node, shown, keep_empty, replace_segments, volume)
    prepare_surfaces(node)
    node.EndModify(modifying)
    place_beside(node, volume)
    return shown


@contextlib.contextmanager
def removed_on_failure(scene: vtkMRMLScene) -> Iterator[None]:
    """Remove all nodes that the ``with`` block has added to ``scene`` if it raises."""
    before = {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}
    try:
        yield
    except BaseException:
        nodes = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        for node in nodes:
            if node.GetID() not in before and scene.IsNodePresent(node):
                scene.RemoveNode(node)
        raise


def fill_confidence_node(node: vtkMRMLScalarVolumeNode, confidence: np.ndarray, geometry: Geometry) -> None:
    """Put a confidence map into a scalar volume node.

    A node without display properties gets the window 0 to 1; those of other nodes stay as they are.

    :param confidence: probabilities, 0..1, float32 ``(z, y, x)``.
    """
    fill_volume_node(node, confidence, geometry)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0, 1)


def prepare_surfaces(node: vtkMRMLSegmentationNode) -> None:
    """Make Slicer's own "Show 3D" use surface nets, the faster of its two methods."""
    import slicer

    rule = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule
    if hasattr(rule, "GetConversionMethodParameterName"):  # Slicer 5.8 has no such parameter
        node.GetSegmentation().SetConversionParameter(rule.GetConversionMethodParameterName(), "1")


def place_beside(node: vtkMRMLDisplayableNode, volume: vtkMRMLScalarVolumeNode) -> None:
    """Move ``node`` into the folder or study of the subject hierarchy that ``volume`` is in."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    if hierarchy is not None:
        beside = hierarchy.GetItemByDataNode(volume)
        if beside:
            hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), hierarchy.GetItemParent(beside))


def fill_table_node(node: vtkMRMLTableNode, results: Sequence[Segmentation]) -> None:
    """Fill a table node with a row for each class that was found: name, label value, voxels, volume in mL.

    :param results: one segmentation per frame; with more than one, the first column is the frame number from 0.
    """
    import vtk

    columns: list[vtkAbstractArray] = [
        vtk.vtkStringArray(),
        vtk.vtkIntArray(),
        vtk.vtkLongLongArray(),
        vtk.vtkDoubleArray(),
    ]
    names = ["Structure", "Label value", "Voxels", "Volume (mL)"]
    if len(results) > 1:
        columns, names = [vtk.vtkIntArray(), *columns], ["Frame", *names]
    for frame, result in enumerate(results):
        for row in result.statistics():
            if row.voxels:
                cells = [row.name, row.value, row.voxels, row.volume_ml]
                for column, cell in zip(columns, [frame, *cells] if len(results) > 1 else cells, strict=True):
                    column.InsertNextValue(cell)
    modifying = node.StartModify()
    node.RemoveAllColumns()
    for column, name in zip(columns, names, strict=True):
        column.SetName(name)
        node.AddColumn(column)
    node.EndModify(modifying)


def segmentation_of(node: vtkMRMLSegmentationNode) -> Segmentation | None:
    """Return the label map of a segmentation node, with the current names, colours, codes and ids of its segments.

    :returns: ``None`` if the segments do not share one image, or the node is under a transform. Segments added by
        `fill_segmentation_node` share one, and still do after edits that let none overlap.
    :raises ClassScaleError: if segments have ids or label values that a label table cannot hold.
    """
    from vtk.util.numpy_support import vtk_to_numpy

    segmentation = node.GetSegmentation()
    segments = {i: segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()}
    images = {segment.GetRepresentation("Binary labelmap") for segment in segments.values()}
    values = {segment.GetLabelValue() for segment in segments.values()}
    image = next(iter(images), None)
    if len(images) != 1 or image is None or len(values) != len(segments) or node.GetParentTransformNode() is not None:
        return None
    if image.GetPointData().GetScalars() is None or not image.GetNumberOfPoints():
        return None  # segments added without any voxels yet
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    cropped = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
    if cropped.dtype.kind not in "iu" or not set(np.unique(cropped).tolist()) <= values | {0}:
        return None
    extent = _reference_extent(segmentation, image) or image.GetExtent()
    first, last = np.minimum(extent[::2], (x0, y0, z0)), np.maximum(extent[1::2], (x1, y1, z1))
    size = (last - first + 1).tolist()
    labels = np.zeros(size[::-1], np.uint16)
    x, y, z = (np.array((x0, y0, z0)) - first).tolist()
    labels[z : z + cropped.shape[0], y : y + cropped.shape[1], x : x + cropped.shape[2]] = cropped
    table = LabelTable(tuple(_label(identifier, segment) for identifier, segment in segments.items()))
    matrix = image_to_world(image)
    matrix[:3, 3] += matrix[:3, :3] @ first
    return Segmentation(labels, table, grid(matrix, tuple(size)))


def save_segmentation(node: vtkMRMLSegmentationNode, path: str | Path) -> bool:
    """Save a segmentation node to a file, and replace the file if there is one.

    A ``.seg.nrrd`` of segments that share one image is written by the library's writer, in about a second for hundreds
    of segments. Anything else is left to Slicer's writer.

    :returns: ``True`` if the library's writer was used.
    :raises OutputError: if the file cannot be written.
    """
    import slicer

    result = segmentation_of(node)
    if result is not None and str(path).lower().endswith(".seg.nrrd"):
        result.write(path, overwrite=True, keep_empty=True)
        _mark_saved(node, os.path.abspath(path))
        return True
    if not slicer.util.saveNode(node, str(path)):
        raise OutputError(f"{path} could not be written. The reason is in Slicer's error log (View > Error Log).")
    return False


def _mark_saved(node: vtkMRMLSegmentationNode, path: str) -> None:
    """Mark the node as saved to ``path``, so that Slicer does not ask to save it again.

    Only a write through the storage node sets the time that Slicer compares. Therefore the storage node writes a
    segmentation of one voxel to a temporary file.
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


def _label(identifier: str, segment: vtkSegment) -> Label:
    from ..images.seg_nrrd import parse_codes

    colour = tuple(round(255 * part) for part in segment.GetColor())
    entry = segment.GetTerminology() if hasattr(segment, "GetTerminology") else ""  # Slicer older than 5.10 has none
    codes: dict[str, Any] = parse_codes(f"TerminologyEntry:{entry}|")
    return Label(segment.GetLabelValue(), identifier, segment.GetName(), colour, **codes)


def _reference_extent(segmentation: vtkSegmentation, image: vtkOrientedImageData) -> tuple[int, ...] | None:
    """Return the extent of the reference geometry, or ``None`` if it is not on the grid of ``image``."""
    import slicer

    converter = slicer.vtkSegmentationConverter
    text = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    reference = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, reference, False):
        return None
    same = np.allclose(image_to_world(reference), image_to_world(image), atol=1e-4)
    return reference.GetExtent() if same else None
