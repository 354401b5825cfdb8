"""Fill segmentation nodes of 3D Slicer with hundreds of segments that share one label map.

Slicer's import of a label map node first makes a separate image for every class: 21.7 s for 1000 classes at 256^3, on
two threads of an AMD EPYC (`Testing/Benchmarks/segmentation_node.py`). Here all segments refer to one image, cropped to
the foreground, and each has its own label value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import OutputExistsError
from ..images.counts import LabelVolume
from ..images.geometry import Geometry
from ..images.layers import layer_counts, layer_of_values
from ..images.occupied import occupied_box
from ..images.seg_nrrd import index_to_ras, terminology_entry
from ..images.segmentation import Segmentation
from .confidence import note_confidence
from .confidence_colors import follow_confidence
from .quick_removal import free_when_destroyed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slicer import (
        vtkMRMLScalarVolumeNode,
        vtkMRMLSegmentationNode,
        vtkOrientedImageData,
        vtkSegment,
        vtkSegmentation,
    )

    from ..labels.label import Label


def fill_segmentation_node(
    node: vtkMRMLSegmentationNode,
    segmentation: Segmentation,
    keep_empty: bool = False,
    replace: bool = False,
    volume: vtkMRMLScalarVolumeNode | None = None,
    statistics: Sequence[LabelVolume] | None = None,
) -> None:
    """Add the classes of a segmentation to a segmentation node, as segments with names, colours and codes.

    Segments of one layer share an image. If the confidence was computed, its mean is noted on each segment; if the node
    is coloured by it, so it is afterwards.

    :param keep_empty: also add classes without a voxel.
    :param replace: remove the segments that the node has; otherwise they are an error.
    :param volume: the volume that was segmented. It becomes the reference geometry, which DICOM export needs; without
        it the grid of the segmentation does.
    :param statistics: those of ``segmentation``, if its voxels have been counted already.
    :raises OutputExistsError: if the node has segments and ``replace`` is not set; the node is not changed.

    >>> import slicer
    >>> from ClassScaleSegLib import LabelTable
    >>> scene = slicer.vtkMRMLScene()
    >>> node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    >>> table = LabelTable.from_names({0: "background", 1: "liver", 2: "spleen"})
    >>> geometry = Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> fill_segmentation_node(node, Segmentation(np.ones((4, 4, 4), np.uint16), table, geometry))
    >>> [node.GetSegmentation().GetSegment(i).GetName() for i in node.GetSegmentation().GetSegmentIDs()]
    ['liver']
    """
    import slicer

    vtk_segmentation = node.GetSegmentation()
    if vtk_segmentation.GetNumberOfSegments() and not replace:
        raise OutputExistsError(
            f"{node.GetName()} already has segments. Select another segmentation, or replace them (replace=True)."
        )
    rows = segmentation.statistics() if statistics is None else statistics
    listed = {row.value for row in rows if row.voxels or keep_empty}
    labels = [label for label in segmentation.table.foreground if label.value in listed]
    images = _images(segmentation)
    converter = slicer.vtkSegmentationConverter
    representation = converter.GetSegmentationBinaryLabelmapRepresentationName()
    with slicer.util.NodeModify(node):
        kept = _remove_segments(vtk_segmentation, {label.id: label.name for label in labels})
        vtk_segmentation.SetSourceRepresentationName(representation)
        if volume is not None:
            node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        else:
            # the whole grid, which export and editing then use instead of the cropped one
            whole = _empty_image(segmentation.geometry, [slice(0, size) for size in segmentation.labels.shape])
            text = converter.SerializeImageGeometry(whole)
            vtk_segmentation.SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), text)
        following = ""  # the segment that the next one is inserted before
        sure = segmentation.mean_confidences(rows)
        segments = {label.id: _segment(label, sure.get(label.value)) for label in labels}
        for identifier, segment in kept.items():
            segment.DeepCopyMetadata(segments[identifier])
            segment.AddRepresentation(representation, images[segment.GetLabelValue()])
        # only now, because a segment that is added loses what those in the segmentation do not have
        for identifier, segment in reversed(segments.items()):
            if identifier not in kept:
                segment.AddRepresentation(representation, images[segment.GetLabelValue()])
                vtk_segmentation.AddSegment(segment, identifier, following)
            following = identifier
        follow_confidence(node)
        vtk_segmentation.InvokeEvent(vtk_segmentation.ContainedRepresentationNamesModified)  # for buttons "Show 3D"
    free_when_destroyed(node)
    if node.GetScene() is not None and node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()


def _remove_segments(segmentation: vtkSegmentation, names: dict[str, str]) -> dict[str, vtkSegment]:
    """Remove all segments but those with one of these names, by id, and return these without voxels and surfaces.

    They keep how the user shows them: hidden, or with another opacity. Voxels go first, because a segment that is
    removed gets a copy of its own from the image that it shares.
    """
    kept = {}
    for identifier in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(identifier)
        if segment.GetName() == names.get(identifier):
            kept[identifier] = segment
        segment.RemoveAllRepresentations()
    for identifier in set(segmentation.GetSegmentIDs()) - kept.keys():
        segmentation.RemoveSegment(identifier)
    return kept


def _segment(label: Label, confidence: float | None) -> vtkSegment:
    """Return a segment with the name, colour, label value and codes of a label, and the mean confidence in it."""
    import slicer

    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor(*(part / 255 for part in label.color))
    segment.SetColorAutoGenerated(False)
    segment.SetLabelValue(label.value)
    if confidence is not None:
        note_confidence(segment, confidence)
    if label.category is not None:
        entry = terminology_entry(label)
        if hasattr(segment, "SetTerminology"):
            segment.SetTerminology(entry)
        else:  # Slicer older than 5.10
            segment.SetTag(segment.GetTerminologyEntryTagName(), entry)
    return segment


def _images(segmentation: Segmentation) -> dict[int, vtkOrientedImageData]:
    """Return for each label value in the table the image that its segment shares with those of its layer."""
    images = [shared_image(layer, segmentation.geometry) for layer in segmentation.layers]
    if len(images) == 1:
        return {label.value: images[0] for label in segmentation.table}
    of_layer = layer_of_values(layer_counts(segmentation.layers))
    return {label.value: images[of_layer[label.value]] for label in segmentation.table}


def shared_image(labels: np.ndarray, geometry: Geometry) -> vtkOrientedImageData:
    """Return a label map cropped to its foreground, as uint8 if all values fit, else as uint16."""
    from vtk.util.numpy_support import numpy_to_vtk

    box = occupied_box(labels) or [slice(0, 1)] * 3
    cropped = labels[tuple(box)]
    dtype = np.uint8 if cropped.max(initial=0) < 256 else np.uint16
    image = _empty_image(geometry, box)
    scalars = numpy_to_vtk(np.ascontiguousarray(cropped, dtype).ravel(), deep=True)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    return image


def _empty_image(geometry: Geometry, box: Sequence[slice]) -> vtkOrientedImageData:
    """Return an image without voxels for a box, slices along z, y, x, of the grid ``geometry``."""
    import slicer

    image = slicer.vtkOrientedImageData()
    image.SetExtent(*(bound for part in reversed(box) for bound in (part.start, part.stop - 1)))
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(index_to_ras(geometry)))
    return image
