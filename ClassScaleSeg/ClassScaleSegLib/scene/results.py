"""What a finished run leaves in 3D Slicer's scene, and how a segmentation node is saved again in a second."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError, OutputError
from ..images.geometry import Geometry
from ..images.segmentation import Segmentation
from ..labels.label import Label
from ..labels.standard_names import with_standard_names
from ..labels.table import LabelTable
from .segmentation_node import fill_segmentation_node
from .volume import Region, fill_volume_node, grid, image_to_world, uncrop


def read_result(path: Path, confidence: Path | None, region: Region | None, geometry: Geometry) -> Segmentation:
    """The label map that the child process wrote, with its confidence, on the grid of the whole volume.

    :raises ImageError: if a file is missing or is not what was asked for.
    """
    result = Segmentation.from_image(path)
    if confidence is not None:
        import SimpleITK as sitk

        try:
            probabilities = sitk.GetArrayFromImage(sitk.ReadImage(str(confidence)))
        except RuntimeError as error:
            raise ImageError(f"{confidence} cannot be read ({str(error).splitlines()[-1]}).") from error
        result = replace(result, confidence=probabilities)
    return result if region is None else uncrop(result, region, geometry)


def show_result(
    node: Any, result: Segmentation, volume: Any, standard_names: bool, keep_empty: bool, replace_segments: bool
) -> Segmentation:
    """Fill a segmentation node of the scene, in the world, beside the volume in the subject hierarchy.

    :returns: the segmentation as shown, with the names that the segments have.
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
def removed_on_failure(scene: Any) -> Iterator[None]:
    """If the block raises, remove every node that it has added to ``scene``."""
    before = {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}
    try:
        yield
    except BaseException:
        nodes = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        for node in nodes:
            if node.GetID() not in before and scene.IsNodePresent(node):
                scene.RemoveNode(node)
        raise


def fill_confidence_node(node: Any, confidence: np.ndarray, geometry: Geometry) -> None:
    """Put probabilities ``(z, y, x)`` into a scalar volume node; it is shown from 0 to 1 unless it was shown before."""
    fill_volume_node(node, confidence, geometry)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0, 1)


def prepare_surfaces(node: Any) -> None:
    """Let Slicer's own "Show 3D" use surface nets, its faster way."""
    import slicer

    rule = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule
    if hasattr(rule, "GetConversionMethodParameterName"):  # Slicer 5.8 has none
        node.GetSegmentation().SetConversionParameter(rule.GetConversionMethodParameterName(), "1")


def place_beside(node: Any, volume: Any) -> None:
    """Move ``node`` into the folder or study of the subject hierarchy that holds ``volume``."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    if hierarchy is not None:
        beside = hierarchy.GetItemByDataNode(volume)
        if beside:
            hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), hierarchy.GetItemParent(beside))


def fill_table_node(node: Any, results: Sequence[Segmentation]) -> None:
    """A row for every class that was found: name, label value, voxels, mL; with several frames also the frame."""
    import vtk

    columns: list[Any] = [vtk.vtkStringArray(), vtk.vtkIntArray(), vtk.vtkLongLongArray(), vtk.vtkDoubleArray()]
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


def segmentation_of(node: Any) -> Segmentation | None:
    """The label map and table of a segmentation node, if all its segments share one image; else ``None``.

    Segments filled by `fill_segmentation_node` do, also after edits without overlap. Names, colours, codes and ids are
    those of the segments now.
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
        return None  # of segments that were only just added
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


def save_segmentation(node: Any, path: str | Path) -> bool:
    """Save a segmentation node; by our own writer where that can, which returns ``True``, else by Slicer's.

    :raises OutputError: if the file cannot be written.
    """
    import slicer

    result = segmentation_of(node)
    if result is not None and str(path).lower().endswith(".seg.nrrd"):
        result.write(path, overwrite=True, keep_empty=True)
        _mark_saved(node, os.path.abspath(path))
        return True
    if not slicer.util.saveNode(node, str(path)):
        raise OutputError(f"{path} could not be written. See the application's log.")
    return False


def _mark_saved(node: Any, path: str) -> None:
    """Let Slicer know that ``path`` holds the segmentation node as it is, so that it does not ask to save it again.

    Only a write through the storage node sets the time that Slicer compares. So a segmentation of one voxel is written,
    to a temporary file.
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
    # no room there: it is saved all the same, and Slicer will just ask
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory() as folder:
        storage.SetFileName(str(Path(folder) / "voxel.seg.nrrd"))
        storage.WriteData(voxel)
    storage.SetFileName(path)


def _label(identifier: str, segment: Any) -> Label:
    from ..images.seg_nrrd import parse_codes

    colour = tuple(round(255 * part) for part in segment.GetColor())
    codes = parse_codes(f"TerminologyEntry:{segment.GetTerminology()}|") if hasattr(segment, "GetTerminology") else {}
    return Label(segment.GetLabelValue(), identifier, segment.GetName(), colour, **codes)


def _reference_extent(segmentation: Any, image: Any) -> tuple[int, ...] | None:
    """Extent of the reference geometry if it is the grid of ``image``."""
    import slicer

    converter = slicer.vtkSegmentationConverter
    text = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    reference = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, reference, False):
        return None
    same = np.allclose(image_to_world(reference), image_to_world(image), atol=1e-4)
    return reference.GetExtent() if same else None
