"""Measure the seconds from a label array to a complete segmentation node in Slicer's scene, beside Slicer's own ways.

    python Testing/Benchmarks/segmentation_node.py [--quick]

The benchmark needs slicer-core. There are 100 to 1000 segments at 256^3, each with name, colour and terminology.
Slicer's own ways are ``ImportLabelmapToSegmentationNode`` from a label map node and from a ``vtkOrientedImageData``;
they set names and colours but no codes. The segments, names, codes and voxel counts of our node are compared with the
input.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from ClassScaleSegLib.images.counts import voxel_counts
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.segmentation import Segmentation
from ClassScaleSegLib.labels.label import Code, Label, segment_color, segment_id
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
from measure import HERE, Bar, parse, report
from seg_nrrd import frayed_cells, seconds

sys.path.append(str(HERE.parent / "Python"))  # the helpers that read Slicer's MRML nodes


def coded_table(classes: int) -> LabelTable:
    category = Code("SCT", "123037004", "Anatomical Structure")
    labels = [Label(0, segment_id(0), "background", (0, 0, 0))]
    for value in range(1, classes + 1):
        kind = Code("99CSS", str(value), f"Structure {value}")
        labels.append(Label(value, segment_id(value), f"structure {value}", segment_color(value), category, kind))
    return LabelTable(tuple(labels))


def measure(cells: np.ndarray, classes: int, label_map_node_too: bool) -> dict[str, Any]:
    import mrml
    import slicer
    from vtk.util.numpy_support import numpy_to_vtk

    labels = np.where(cells > 0, (cells - 1) % classes + 1, 0).astype(np.uint16)
    geometry = Geometry(cells.shape[::-1], (0.8, 0.8, 1.0), (-100.0, -90.0, 20.0))
    segmentation = Segmentation(labels, coded_table(classes), geometry)
    scene = slicer.vtkMRMLScene()

    def new_node() -> Any:
        return scene.AddNewNodeByClass("vtkMRMLSegmentationNode")

    ours = new_node()
    row = {"segments": classes, "ours (s)": seconds(lambda: fill_segmentation_node(ours, segmentation))}
    found = mrml.segments(ours)
    shown = mrml.label_map(next(iter(found.values())), geometry.size)
    names = [segment.GetName() for segment in found.values()]
    row["names right"] = names == [label.name for label in segmentation.table.foreground]
    row["codes right"] = all(mrml.terminology(s)["type"][1] == str(v) for v, s in enumerate(found.values(), 1))
    row["counts right"] = bool(np.array_equal(voxel_counts(shown.astype(np.uint16)), voxel_counts(labels)))

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*geometry.size)
    image.GetPointData().SetScalars(numpy_to_vtk(labels.ravel()))
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    row["Slicer, oriented image (s)"] = seconds(lambda: logic.ImportLabelmapToSegmentationNode(image, new_node()))
    if label_map_node_too:
        volume = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        volume.SetAndObserveImageData(image)
        row["Slicer, label map node (s)"] = seconds(lambda: logic.ImportLabelmapToSegmentationNode(volume, new_node()))
    return row


def main() -> int:
    options = parse(__doc__, "segmentation_node")
    size, counts = (48, (10, 100)) if options.quick else (256, (100, 300, 1000))
    cells = frayed_cells(size)
    rows = [measure(cells, classes, True) for classes in counts]
    right = all(row["names right"] and row["codes right"] and row["counts right"] for row in rows)
    bars = [
        Bar(f"seconds from label array to node, {counts[-1]} segments at {size}^3", rows[-1]["ours (s)"], 0.5),
        Bar("names, codes and voxel counts right", int(right), 1, at_least=True),
    ]
    return report(options, "segmentation_node", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
