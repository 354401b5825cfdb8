"""Put the result of a run into 3D Slicer's scene, and read and save segmentation nodes that share one label map."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, OutputError, reason
from ..files import replacing
from ..images.comparison import Comparison, compare
from ..images.geometry import Geometry
from ..images.label_image import read_layers
from ..images.measures import LabelMeasures
from ..images.seg_nrrd import CONFIDENCE_TAG, STATUS_TAG, index_to_ras, stored_type, write_seg_nrrd
from ..images.segmentation import Segmentation, class_volumes
from ..images.suffixes import DICOM_SUFFIX, RTSTRUCT_SUFFIX
from ..labels.label import one_line
from ..labels.standard_names import with_standard_names
from ..labels.table import LabelTable
from .corrected import forget_corrected
from .dicom import save_dicom
from .hiding import bring_back, stand_in_no_longer
from .saved_notes import notes_of
from .segmentation_node import fill_segmentation_node
from .segmentation_reader import Counted, Opened, labels_of, open_segmentation, segmentation_of
from .volume import Region, grid, uncrop

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLNode,
        vtkMRMLScalarVolumeNode,
        vtkMRMLScene,
        vtkMRMLSegmentationNode,
        vtkMRMLTableNode,
    )

KEPT_TAGS = (CONFIDENCE_TAG, STATUS_TAG)  # what Slicer's writer keeps of a segment besides its codes
_OWNER = "ClassScaleSeg.Owner"  # role of the node to which one belongs that was noted on it


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
    layers, table, own_geometry, counts, *_said = read_layers(path)
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
    put_beside(node, volume)
    forget_corrected(node)
    stand_in_no_longer(node)
    bring_back(node)  # if it was compared, and is hidden because the differences are shown


def put_beside(node: vtkMRMLSegmentationNode, other: vtkMRMLNode) -> None:
    """Move a node next to another one in the subject hierarchy, if both are in it."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(other.GetScene())
    beside = hierarchy.GetItemByDataNode(other) if hierarchy is not None else 0
    item = hierarchy.GetItemByDataNode(node) if beside else 0
    if item:  # a node of a sequence has none
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))


def noted(node: vtkMRMLNode, role: str, kind: str) -> vtkMRMLNode | None:
    """Return the node that :func:`note` has noted on a node; ``None`` if there is none.

    A copy of ``node`` has the same reference, but what it leads to belongs to the original.

    :param kind: its class.

    >>> import slicer
    >>> scene = slicer.vtkMRMLScene()
    >>> drawn = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    >>> note(drawn, "Statistics", scene.AddNewNodeByClass("vtkMRMLTableNode", "Drawn statistics"))
    >>> copy = slicer.vtkMRMLSegmentationNode()
    >>> copy.Copy(drawn)
    >>> found = [noted(node, "Statistics", "vtkMRMLTableNode") for node in (drawn, scene.AddNode(copy))]
    >>> found[0].GetName(), found[1]
    ('Drawn statistics', None)
    """
    found = node.GetNodeReference(role)
    return found if found is not None and found.IsA(kind) and found.GetNodeReference(_OWNER) is node else None


def note(node: vtkMRMLNode, role: str, other: vtkMRMLNode) -> None:
    """Note a node on another one, to which it belongs.

    :param role: of the reference.
    """
    node.SetNodeReferenceID(role, other.GetID())
    other.SetNodeReferenceID(_OWNER, node.GetID())


def owner_of(node: vtkMRMLNode) -> vtkMRMLNode | None:
    """Return the node to which one belongs, such as differences to a segmentation; ``None`` if it belongs to none."""
    return node.GetNodeReference(_OWNER)


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
        show_confidence_window(node)


def show_confidence_window(node: vtkMRMLScalarVolumeNode) -> None:
    """Show a confidence map from black for 0 to white for 1."""
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0, 1)


def compare_nodes(first: Opened, second: Opened) -> Comparison:
    """Compare what two segmentation nodes hold, in world coordinates; the first is the reference."""
    return compare(first.segmentation, second.segmentation, (first.statistics, second.statistics))


def save_segmentation(
    node: vtkMRMLSegmentationNode,
    path: str | Path,
    tell: Callable[[str], object] = logging.info,
    readers: tuple[str, ...] = (),
    empty_grid: Geometry | None = None,
) -> bool:
    """Save a segmentation node to a file, and replace the file if there is one.

    :param path: ``.seg.nrrd``, what else Slicer can write, or ``.seg.dcm`` and ``.rtstruct.dcm``, as
        :func:`~.dicom.save_dicom` does.
    :param tell: called with each sentence on a DICOM file that the user should see.
    :param readers: who has saved the file; the header of a ``.seg.nrrd`` notes it, and what :func:`.notes_of` says.
    :param empty_grid: the grid of a ``.seg.nrrd`` of segments without a voxel; ``None``: Slicer's writer chooses one.
    :returns: ``True`` if the library's writer was used, which takes about a second for hundreds of segments: for a
        ``.seg.nrrd`` of segments with label maps on one grid, and for DICOM. Anything else is left to Slicer's writer.
    :raises OutputError: if the file cannot be written.
    :raises ImageError: if the series of a DICOM segmentation cannot be read.
    """
    import slicer

    result = segmentation_of(node)
    if result is None and empty_grid is not None and open_segmentation(node) is None:
        nothing = np.zeros(empty_grid.size[::-1], np.uint16)
        result = Segmentation(nothing, labels_of(node), empty_grid), []
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
        found, tags = result[0], _tags(node, result[0].table)
        with replacing(Path(path), overwrite=True) as partial:
            noted = notes_of(node, result[1], readers).fields()
            write_seg_nrrd(
                partial, found.layers, found.table, found.geometry, stored_type(found.table), True, noted, tags
            )
        _mark_saved(node, os.path.abspath(path))
        return True
    if not slicer.util.saveNode(node, str(path)):
        raise OutputError(f"{path} could not be written. The reason is in Slicer's error log (View > Error Log).")
    return False


def _tags(node: vtkMRMLSegmentationNode, table: LabelTable) -> dict[int, dict[str, str]]:
    """Return the tags of segments that a file keeps, by the label values of the table."""
    import vtk

    found: dict[int, dict[str, str]] = {}
    for label in table.foreground:
        segment = node.GetSegmentation().GetSegment(label.id)
        for name in KEPT_TAGS:
            text = vtk.reference("")
            if segment is not None and segment.GetTag(name, text):
                found.setdefault(label.value, {})[name] = one_line(str(text)).replace("|", " ")
    return found


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
