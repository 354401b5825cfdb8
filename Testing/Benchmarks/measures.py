"""Measure all statistics of 10 to 1000 classes at 256^3, intensities included, beside SimpleITK: seconds, memory, same.

    python Testing/Benchmarks/measures.py [--quick]

SimpleITK's filters give less: LabelStatisticsImageFilter (mean, deviation, minimum, maximum) and
LabelShapeStatisticsImageFilter (volume, centroid, box, surface), on one thread as ours. Both take the same label map
and the same image of int16, and what both measure is compared, but for the surface. Smooth classes are cells with
straight borders; those of frayed cells change at every fourth voxel of a row.
"""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import numpy as np
import SimpleITK as sitk
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.measures import LabelMeasures, measure
from measure import Bar, parse, report
from seg_nrrd import frayed_cells, seconds

REPEATS = 5


def smooth_cells(size: int, cells: int = 1000, seed: int = 0) -> np.ndarray:
    """Return cells 1..``cells`` around random points, and a tenth background, uint16 ``(size, size, size)``."""
    from scipy.spatial import cKDTree

    tree = cKDTree(np.random.default_rng(seed).random((cells, 3)) * size)
    plane = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1).reshape(-1, 2)
    found = [tree.query(np.column_stack([np.full(len(plane), z), plane])) for z in range(size)]
    distance, nearest = (np.stack(part).reshape((size,) * 3) for part in zip(*found, strict=True))
    return np.where(distance > np.quantile(distance, 0.9), 0, nearest + 1).astype(np.uint16)


def same(ours: dict[int, LabelMeasures], shapes: Any, statistics: Any) -> bool:
    """Compare what SimpleITK measures too."""
    for value, found in ours.items():
        x, y, z = shapes.GetCentroid(value)
        box = shapes.GetBoundingBox(value)
        sums = (statistics.GetMean(value), statistics.GetSigma(value))
        ends = (statistics.GetMinimum(value), statistics.GetMaximum(value))
        if not (
            found.voxels == shapes.GetNumberOfPixels(value)
            and np.allclose(found.centroid, (-x, -y, z))
            and (found.first, found.last) == (box[:3], tuple(np.add(box[:3], box[3:]) - 1))
            and np.allclose(found.intensities[:2], sums)
            and (found.intensities.minimum, found.intensities.maximum) == ends
        ):
            return False
    return list(ours) == list(shapes.GetLabels())


def compare(kind: str, cells: np.ndarray, classes: int) -> dict[str, Any]:
    labels = np.where(cells > 0, (cells - 1) % classes + 1, 0).astype(np.uint16)
    image = (np.random.default_rng(1).normal(0, 50, labels.shape) + labels).astype(np.int16)
    geometry = Geometry(labels.shape[::-1], (0.8, 0.8, 1.0), (-100.0, -90.0, 20.0))
    row: dict[str, Any] = {"classes": classes, "borders": kind}
    row["without intensities (s)"] = seconds(lambda: measure(labels, geometry), REPEATS)
    row["all (s)"] = seconds(lambda: measure(labels, geometry, image), REPEATS)
    tracemalloc.start()
    found = measure(labels, geometry, image)
    row["peak beyond input (bytes/voxel)"] = tracemalloc.get_traced_memory()[1] / labels.size
    tracemalloc.stop()

    label_image, intensities = sitk.GetImageFromArray(labels), sitk.GetImageFromArray(image)
    geometry.apply(label_image)
    geometry.apply(intensities)
    shapes, statistics = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelStatisticsImageFilter()
    for each in (shapes, statistics):
        each.SetNumberOfThreads(1)
    row["SimpleITK, shape (s)"] = seconds(lambda: shapes.Execute(label_image), REPEATS)
    row["SimpleITK, intensities (s)"] = seconds(lambda: statistics.Execute(intensities, label_image), REPEATS)
    row["SimpleITK / ours"] = (row["SimpleITK, shape (s)"] + row["SimpleITK, intensities (s)"]) / row["all (s)"]
    row["same"] = same(found, shapes, statistics)
    return row


def main() -> int:
    options = parse(__doc__, "measures")
    size, counts = (48, (10, 1000)) if options.quick else (256, (10, 100, 1000))
    sides = {"smooth": smooth_cells(size), "frayed": frayed_cells(size)}
    rows = [compare(kind, cells, classes) for kind, cells in sides.items() for classes in counts]
    slowest = max(row["all (s)"] for row in rows if row["classes"] == counts[-1])
    bars = [
        Bar(f"seconds of {counts[-1]} classes at {size}^3 on one core, intensities included", slowest, 1.0),
        Bar("the same as SimpleITK, where both measure", int(all(row["same"] for row in rows)), 1, at_least=True),
    ]
    return report(options, "measures", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
