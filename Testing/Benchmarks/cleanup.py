"""Measure removing islands and smoothing of 10 to 1000 classes at 256^3, beside loops over classes: seconds, memory.

    python Testing/Benchmarks/cleanup.py [--quick]

The loops do each class in the whole volume with SimpleITK's filters, on one thread as ours: ConnectedComponent and
RelabelComponent, or DiscreteGaussian and the largest value so far. Ten classes of each loop are timed, and the ratio is
that of the seconds per class. The islands of these ten are compared; with ten classes in all, the smoothing is compared
with SciPy's Gaussian of every class. The frayed cells are full of islands.

Memory is that beyond the input, the result included: of the smoothing as tracemalloc counts it, and of the islands,
which C++ finds, as Linux does.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk
from ClassScaleSegLib.images.cleanup import clean
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.labels.table import LabelTable
from measure import Bar, parse, peak_bytes, report, reset_peak, resident_bytes
from measures import smooth_cells
from seg_nrrd import frayed_cells, seconds

REPEATS, LOOP, SMALLEST = 3, 10, 50
SIGMAS = (1, 3)  # voxels


def resident_peak(work: Callable[[], object]) -> int:
    """Return the bytes that ``work`` holds at most besides those held before it."""
    reset_peak()
    before = resident_bytes()
    work()
    return peak_bytes() - before


def traced_peak(work: Callable[[], object]) -> int:
    """Return the bytes of arrays and objects that ``work`` holds at most."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def islands_by_class(image: Any, values: list[int]) -> tuple[np.ndarray, float]:
    """Return the large parts of some classes, uint16 ``(z, y, x)``, and the seconds that they took."""
    begin = time.perf_counter()
    kept = image * 0
    for value in values:
        parts = sitk.ConnectedComponent(sitk.BinaryThreshold(image, value, value, 1, 0), False)
        large = sitk.RelabelComponent(parts, SMALLEST, False)
        kept += sitk.Cast(sitk.BinaryThreshold(large, 1, 2**31, 1, 0), sitk.sitkUInt16) * value
    return sitk.GetArrayFromImage(kept), time.perf_counter() - begin


def smoothing_by_class(image: Any, values: list[int], sigma: float) -> float:
    """Return the seconds of the vote of some classes."""
    begin = time.perf_counter()
    most, winner = sitk.Cast(image * 0, sitk.sitkFloat32), image * 0
    for value in values:
        indicator = sitk.Cast(sitk.BinaryThreshold(image, value, value, 1, 0), sitk.sitkFloat32)
        weight = sitk.DiscreteGaussian(indicator, float(sigma**2), 2 * int(3 * sigma + 0.5) + 1, 0.001, False)
        wins = sitk.Cast(sitk.Greater(weight, most), sitk.sitkUInt16)
        winner = winner * (1 - wins) + wins * value
        most = sitk.Maximum(weight, most)
    return time.perf_counter() - begin


def differ(labels: np.ndarray, smoothed: np.ndarray, sigma: float) -> int:
    """Count the voxels whose class is not that with most weight in SciPy's Gaussians, but for ties of 0.002 %."""
    from scipy.ndimage import gaussian_filter

    most, own = np.zeros(labels.shape, np.float32), np.zeros(labels.shape, np.float32)
    for value in np.unique(labels).tolist():
        weight = gaussian_filter((labels == value).astype(np.float32), sigma, mode="constant", truncate=3)
        np.maximum(most, weight, out=most)
        np.copyto(own, weight, where=smoothed == value)
    return int(np.count_nonzero(own < most - 2e-5))


def compare(kind: str, cells: np.ndarray, classes: int) -> dict[str, Any]:
    labels = np.where(cells > 0, (cells - 1) % classes + 1, 0).astype(np.uint16)
    geometry = Geometry(labels.shape[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    table = LabelTable.from_names({value: f"class {value}" for value in range(1, classes + 1)})
    image, some = sitk.GetImageFromArray(labels), list(range(1, LOOP + 1))
    row: dict[str, Any] = {"classes": classes, "borders": kind}

    removed, changes = clean(labels, table, geometry, islands_mm3=SMALLEST)
    row["islands removed"] = sum(change.islands for change in changes)
    row["islands (s)"] = seconds(lambda: clean(labels, table, geometry, islands_mm3=SMALLEST), REPEATS)
    peak = resident_peak(lambda: clean(labels, table, geometry, islands_mm3=SMALLEST))
    row["islands (bytes/voxel)"] = peak / labels.size
    expected, loop = islands_by_class(image, some)
    row["islands, loop / ours"] = loop / LOOP * classes / row["islands (s)"]
    same = [bool((removed[np.isin(labels, some)] == expected[np.isin(labels, some)]).all())]

    for sigma in SIGMAS:
        row[f"{sigma} voxel{'s' * (sigma > 1)} (s)"] = seconds(
            lambda sigma=sigma: clean(labels, table, geometry, smooth_mm=sigma), REPEATS
        )
    row["1 voxel (bytes/voxel)"] = traced_peak(lambda: clean(labels, table, geometry, smooth_mm=1)) / labels.size
    row["1 voxel, loop / ours"] = smoothing_by_class(image, some, 1) / LOOP * (classes + 1) / row["1 voxel (s)"]
    if classes == LOOP:
        for sigma in SIGMAS:
            smoothed, _ = clean(labels, table, geometry, smooth_mm=sigma)
            same.append(differ(labels, smoothed, sigma) == 0)
    row["same"] = all(same)
    return row


def main() -> int:
    options = parse(__doc__, "cleanup")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    size, counts = (48, (10, 1000)) if options.quick else (256, (10, 100, 1000))
    sides = {"smooth": smooth_cells(size), "frayed": frayed_cells(size)}
    rows = [compare(kind, cells, classes) for kind, cells in sides.items() for classes in counts]
    most = [row for row in rows if row["classes"] == counts[-1]]
    what = f"of {counts[-1]} classes at {size}^3 on one core"
    few = {row["borders"]: row["1 voxel (bytes/voxel)"] for row in rows if row["classes"] == counts[0]}
    bars = [
        Bar(f"seconds to remove the islands {what}", max(row["islands (s)"] for row in most), 3.0),
        Bar(f"seconds to smooth the borders {what}, by 1 voxel", max(row["1 voxel (s)"] for row in most), 3.0),
        Bar(
            f"memory of the smoothing, {counts[-1]} to {counts[0]} classes",
            max(row["1 voxel (bytes/voxel)"] / few[row["borders"]] for row in most),
            1.1,
        ),
        Bar("the same as the loops over classes", int(all(row["same"] for row in rows)), 1, at_least=True),
    ]
    return report(options, "cleanup", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
